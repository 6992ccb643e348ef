"""Both models in 4-bit on real text: SmolLM2-135M-Instruct and all-MiniLM-L6-v2, each with LoRA.

    python -m benchmarks.hardware.quantised_pair                             # models and texts from the Hub
    python -m benchmarks.hardware.quantised_pair --generator FOLDER --discriminator FOLDER --data FOLDER

Generator and discriminator are loaded as nf4 with double quantisation and computed in bfloat16, trained on texts, and
saved. A new process quantises both base models again, loads the adapters with the Auto classes of PEFT and scores the
same texts: the generator's log-likelihoods and the discriminator's logits. The run fails if a score differs from the
trainer's by more than `TOLERANCE`, if switching the generator's adapters off changes nothing, or if a parameter moved
that must not or stood still that must move. The result holds seconds, the peak of memory, versions and seed.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification, LoraConfig, PeftModel
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hf_mgan import AdversarialConfig, AdversarialTrainer, Discriminator

from ..sources import ENCODER, GENERATOR, TEXTS, TEXTS_HELP, load_texts
from ..sweep import RESULTS, write_lines
from ..testbed import ROOT, machine, versions
from .step_parts import GIB
from .trainers import nf4


MODULE = "benchmarks.hardware.quantised_pair"
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
    """Return what both models say of the texts, and what the generator says without its adapters."""
    with generator.disable_adapter():
        base = log_likelihoods(generator, tokenizer, texts)
    return {
        "generator": log_likelihoods(generator, tokenizer, texts),
        "generator_without_adapters": base,
        "discriminator": discriminator.score([""] * len(texts), texts).tolist(),
    }


def reload(folder: Path, texts: list[str]) -> dict[str, list[float]]:
    """Load both models with the Auto classes, quantised again, and score the texts."""
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


def peak_memory() -> float:
    """Return the peak in GiB: on the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


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
    """Return the trainer of the two quantised models."""
    return AdversarialTrainer(
        arguments.generator,
        discriminator=arguments.discriminator,
        args=AdversarialConfig(
            folder,
            max_steps=arguments.steps,
            per_device_train_batch_size=arguments.batch_size,
            num_generations=arguments.batch_size,
            max_completion_length=arguments.max_completion_length,
            learning_rate=arguments.learning_rate,
            discriminator_warmup_steps=0,
            discriminator_learning_rate=arguments.discriminator_learning_rate,
            scale_rewards="none",
            loss_type="dr_grpo",
            model_init_kwargs={"dtype": "bfloat16"},
            gradient_checkpointing=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
            bf16=True,  # on a CPU too, as both are scored
            disable_tqdm=True,
            seed=arguments.seed,
        ),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(arguments.generator, padding_side="left"),
        quantization_config=nf4(),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
        discriminator_quantization_config=nf4(),
        discriminator_peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=["query", "key", "value", "dense"]),
    )


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--generator", default=GENERATOR, help="id on the Hub, or folder")
    parser.add_argument("--discriminator", default=ENCODER, help="id on the Hub, or folder")
    parser.add_argument("--data", default=TEXTS, help=TEXTS_HELP)
    parser.add_argument("--max_texts", type=int, default=20_000)
    parser.add_argument("--output", type=Path, default=RESULTS / "quantised_pair.jsonl")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=16, help="completions per step")
    parser.add_argument("--max_completion_length", type=int, default=24)
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--discriminator_learning_rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reload", type=Path, help=argparse.SUPPRESS)  # what the new process is asked for
    return parser.parse_args(words)


def in_a_new_process(folder: Path, texts: list[str]) -> dict[str, list[float]]:
    """Reload both models in another Python process and return the scores that it prints."""
    command = [sys.executable, "-m", MODULE, "--reload", str(folder)]
    done = subprocess.run(command, cwd=ROOT, input=json.dumps(texts), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The reload failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    if arguments.reload is not None:
        print(json.dumps(reload(arguments.reload, json.load(sys.stdin))))
        return
    about = {"versions": versions("bitsandbytes"), **machine()}
    data = load_texts(arguments.data, arguments.max_texts)
    texts = data["validation"][:NUM_SCORED]["text"]
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(arguments, data["train"], folder)
        models = {"generator": trainer.model, "discriminator": trainer.discriminator.model}
        before = {name: weights(model) for name, model in models.items()}
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
        parameters = {name: count_moved(before[name], model) for name, model in models.items()}
        trainer.save_model()
        # Without accelerate's autocast, which a model that is loaded again does not have.
        generator = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        trained = scores(generator, trainer.processing_class, trainer.discriminator, texts)
        reloaded = in_a_new_process(Path(folder), texts)
    differences = check(trained, reloaded)
    names = ("steps", "batch_size", "max_completion_length", "learning_rate", "discriminator_learning_rate", "seed")
    result = {
        "settings": {name: getattr(arguments, name) for name in names},
        "seconds": round(seconds, 1),
        "peak_memory_gib": round(peak_memory(), 2),
        "parameters": parameters,
        "real_prob": [
            round(entry["discriminator/real_prob"], 4)
            for entry in trainer.state.log_history
            if "discriminator/real_prob" in entry
        ],
        "largest_difference_after_reload": differences,
        "largest_difference_of_the_adapters": round(
            largest_difference(reloaded["generator"], reloaded["generator_without_adapters"]), 4
        ),
        **about,
    }
    write_lines(arguments.output, [result])
    print(f"{arguments.steps} steps in {seconds:.0f} s; largest difference after the reload: {differences}")


if __name__ == "__main__":
    main()
