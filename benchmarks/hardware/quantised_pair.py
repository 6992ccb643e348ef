"""Both players in four bits on real text: SmolLM2-135M-Instruct against all-MiniLM-L6-v2, each with LoRA.

    python ../shared/tools/real_models.py MODELS
    python -m benchmarks.quantised_pair --models MODELS --data ../shared/data

Generator and discriminator are loaded as nf4 with double quantisation and computed in bfloat16, play on example
sentences of WordNet, and are saved. A new process quantises both base models again, loads the adapters with the Auto
classes of PEFT and scores the same sentences: the generator's log-likelihoods and the discriminator's logits. The run
fails if a score differs from the trainer's by more than `TOLERANCE`, if switching the generator's adapters off changes
nothing, or if a parameter moved that must not or stood still that must move. The JSON holds the curves, the seconds,
the peak of memory, the versions and the seed.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from datasets import load_dataset
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification, LoraConfig, PeftModel
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from benchmarks.gpu import PACKAGES, ROOT, nf4
from benchmarks.real_pair import CURVES, peak_memory
from hf_mgan import AdversarialConfig, AdversarialTrainer, Discriminator


TOLERANCE = 1e-3
NUM_SCORED = 16
# What hf_mgan leaves out of the quantisation of a BERT: reloaded with these layers quantised too, the discriminator
# would be another function. transformers matches them as regular expressions from the start of a module's name.
HEADS = ["classifier", r".*\.pooler"]


@torch.no_grad()
def log_likelihoods(model: PeftModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[float]:
    """Return the log-likelihood of each text in nats, its first token given."""
    model.eval()
    # In evaluation mode bitsandbytes has a kernel of its own on some CPUs, which rounds otherwise than training did.
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.train()
    encoded = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt").to(model.device)
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    logps: Tensor = model(**encoded).logits[:, :-1].float().log_softmax(-1)
    chosen = logps.gather(-1, ids[:, 1:, None])[..., 0]
    return (chosen * mask[:, 1:]).sum(1).tolist()


def scores(
    generator: PeftModel, tokenizer: PreTrainedTokenizerBase, discriminator: Discriminator, texts: list[str]
) -> dict[str, list[float]]:
    """Return what both players say of the texts, and what the generator says without its adapters."""
    with generator.disable_adapter():
        base = log_likelihoods(generator, tokenizer, texts)
    return {
        "generator": log_likelihoods(generator, tokenizer, texts),
        "generator_without_adapters": base,
        "discriminator": discriminator.score([""] * len(texts), texts).tolist(),
    }


def reload(folder: Path, texts: list[str]) -> dict[str, list[float]]:
    """Load both players with the Auto classes, quantised again, and score the texts."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    generator = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, quantization_config=nf4())
    # PEFT loads as float32 what TRL trained and saved as bfloat16; in that type the scores are equal bit by bit.
    for name, parameter in generator.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(torch.bfloat16)
    classifier = AutoPeftModelForSequenceClassification.from_pretrained(
        folder / "discriminator", num_labels=1, dtype=torch.float32, quantization_config=nf4(HEADS)
    )
    discriminator_tokenizer = AutoTokenizer.from_pretrained(folder / "discriminator")
    return scores(generator, tokenizer, Discriminator(classifier, discriminator_tokenizer, bf16=True), texts)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Copy what is not quantised: bitsandbytes packs quantised weights anew when they are first used on a CPU."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.is_floating_point()}


def count_moved(before: dict[str, Tensor], model: nn.Module) -> dict[str, int]:
    """Return how many parameters moved, and fail unless they are those that must.

    Raises:
        RuntimeError: If a frozen parameter moved or a trainable one did not.
    """
    now = dict(model.named_parameters())
    # bitsandbytes casts the bias of a quantised layer to the type of its input, so rounding is no movement.
    moved = {name for name, value in before.items() if not torch.equal(value.to(now[name].dtype), now[name])}
    trainable = {name for name, parameter in now.items() if parameter.requires_grad}
    if moved != trainable:
        raise RuntimeError(f"Moved against the rule, or stood still against it: {sorted(moved ^ trainable)[:8]}.")
    return {"moved": len(moved), "quantised": sum(not parameter.is_floating_point() for parameter in now.values())}


def largest_difference(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def check(trained: dict[str, list[float]], reloaded: dict[str, list[float]]) -> dict[str, float]:
    """Return the largest difference of each score before and after the reload.

    Raises:
        RuntimeError: If it is too large, or the generator's adapters change nothing.
    """
    differences = {name: largest_difference(trained[name], reloaded[name]) for name in trained}
    if max(differences.values()) > TOLERANCE:
        raise RuntimeError(f"Scores differ after the reload by {differences}; allowed are {TOLERANCE}.")
    if largest_difference(reloaded["generator"], reloaded["generator_without_adapters"]) <= TOLERANCE:
        raise RuntimeError("The generator's adapters change nothing.")
    return differences


def make_trainer(arguments: argparse.Namespace, data: Any, folder: str) -> AdversarialTrainer:
    """Return the trainer of the two quantised players."""
    generator_folder = arguments.models / "SmolLM2-135M-Instruct"
    return AdversarialTrainer(
        str(generator_folder),
        discriminator=str(arguments.models / "all-MiniLM-L6-v2"),
        args=AdversarialConfig(
            folder,
            max_steps=arguments.steps,
            per_device_train_batch_size=arguments.batch_size,
            num_generations=arguments.batch_size,
            max_completion_length=arguments.max_completion_length,
            learning_rate=arguments.learning_rate,
            discriminator_learning_rate=arguments.discriminator_learning_rate,
            scale_rewards="none",
            loss_type="dr_grpo",
            model_init_kwargs={"dtype": "bfloat16"},
            gradient_checkpointing=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
            disable_tqdm=True,
            seed=arguments.seed,
        ),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(generator_folder, padding_side="left"),
        quantization_config=nf4(),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
        discriminator_quantization_config=nf4(),
        discriminator_peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=["query", "key", "value", "dense"]),
    )


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="folder with the two models")
    parser.add_argument("--data", type=Path, help="folder with wordnet_examples.*.jsonl")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/quantised_pair.json"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=16, help="completions a step")
    parser.add_argument("--max_completion_length", type=int, default=24)
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--discriminator_learning_rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reload", type=Path, help=argparse.SUPPRESS)  # what the new process is asked for
    arguments = parser.parse_args()
    if arguments.reload is None and (arguments.models is None or arguments.data is None):
        parser.error("--models and --data are needed")
    return arguments


def in_a_new_process(folder: Path, texts: list[str]) -> dict[str, list[float]]:
    """Reload both players in another Python process and return the scores that it prints."""
    command = [sys.executable, "-m", "benchmarks.quantised_pair", "--reload", str(folder)]
    done = subprocess.run(command, cwd=ROOT, input=json.dumps(texts), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The reload failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    arguments = parsed_arguments()
    if arguments.reload is not None:
        print(json.dumps(reload(arguments.reload, json.load(sys.stdin))))
        return
    load_average = os.getloadavg()
    files = {split: str(next(arguments.data.glob(f"wordnet_examples*{split}*"))) for split in ("train", "validation")}
    data = load_dataset("json", data_files=files)
    texts = data["validation"][:NUM_SCORED]["text"]
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(arguments, data["train"], folder)
        players = {"generator": trainer.model, "discriminator": trainer.discriminator.model}
        before = {name: weights(player) for name, player in players.items()}
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
        parameters = {name: count_moved(before[name], player) for name, player in players.items()}
        trainer.save_model()
        # Without accelerate's autocast, which a model that is loaded again does not have.
        generator = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        trained = scores(generator, trainer.processing_class, trainer.discriminator, texts)
        reloaded = in_a_new_process(Path(folder), texts)
    differences = check(trained, reloaded)
    hidden = ("models", "data", "output", "reload")
    settings = {name: value for name, value in vars(arguments).items() if name not in hidden}
    steps = [entry for entry in trainer.state.log_history if "discriminator/value" in entry]
    result = {
        "command": "python -m benchmarks.quantised_pair --models MODELS --data DATA"
        + "".join(f" --{name} {value}" for name, value in settings.items()),
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "load_average_at_start": [round(value, 2) for value in load_average],
        "settings": settings,
        "seconds": round(seconds, 1),
        "peak_memory_gib": round(peak_memory(), 2),
        "parameters": parameters,
        "curves": {name: [round(entry[key], 4) for entry in steps] for name, key in CURVES.items()},
        "largest_difference_after_reload": differences,
        "largest_difference_of_the_adapters": round(
            largest_difference(reloaded["generator"], reloaded["generator_without_adapters"]), 4
        ),
        "scores_after_reload": {name: [round(value, 4) for value in values] for name, values in reloaded.items()},
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{arguments.steps} steps in {seconds:.0f} s; largest difference after the reload: {differences}")


if __name__ == "__main__":
    main()
