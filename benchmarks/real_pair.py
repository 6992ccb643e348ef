"""A real pair on real text: SmolLM2-135M-Instruct (LoRA) against all-MiniLM-L6-v2, on example sentences of WordNet.

    python ../shared/tools/real_models.py MODELS
    python benchmarks/real_pair.py --models MODELS --data ../shared/data --output OUT

It warm-starts the generator by maximum likelihood (TRL's SFTTrainer), plays the game, saves both players, loads them
again in a new process, and writes OUT/real_pair.json with every curve, what the watchdog said, held-out figures and
samples before and after (the first ten of a fixed seed, unpicked; all of them in OUT/samples.json) and the versions.
The copy that the documentation quotes is benchmarks/results/real_pair.json. `--set` changes a setting of the game:

    python benchmarks/real_pair.py ... --set real_text_coef=0.1 scale_rewards=none
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
import yaml
from datasets import load_dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig, SFTTrainer

from hf_mgan import AdversarialConfig, AdversarialTrainer, prepare_dataset
from hf_mgan.watchdog.callback import Watchdog


PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
CURVES = {
    "real_prob": "discriminator/real_prob",
    "fake_prob": "discriminator/fake_prob",
    "value": "discriminator/value",
    "accuracy": "discriminator/accuracy",
    "reward": "rewards/discriminator/mean",
    "completion_tokens": "completions/mean_length",
    "discriminator_tokens_real": "discriminator/real_length",
    "discriminator_tokens_fake": "discriminator/fake_length",
    "discriminator_grad_norm": "discriminator/grad_norm",
    "entropy": "entropy",
    "duplicates": "completions/duplicates",
    "self_bleu": "completions/self_bleu",
    "self_bleu_real": "references/self_bleu",
    "length_ratio": "completions/length_ratio",
    "seconds": "step_time",
}
RELOAD = """
import json, sys
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

folder = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(folder)
generator = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
set_seed(0)
start = tokenizer(tokenizer.bos_token, return_tensors="pt")
ids = generator.generate(**start, do_sample=True, max_new_tokens=32, top_k=0)
text = tokenizer.decode(ids[0], skip_special_tokens=True)
discriminator = AutoModelForSequenceClassification.from_pretrained(folder + "/discriminator")
encoded = AutoTokenizer.from_pretrained(folder + "/discriminator")(text, return_tensors="pt")
with torch.no_grad():
    prob = discriminator(**encoded).logits.sigmoid().item()
print(json.dumps({"text": text, "real_prob": prob, "generator": type(generator).__name__,
                  "discriminator": type(discriminator).__name__}))
"""


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder with the two models")
    parser.add_argument("--data", type=Path, required=True, help="folder with wordnet_examples.*.jsonl")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--warm_start_steps", type=int, default=200)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch_size", type=int, default=32, help="completions a step")
    parser.add_argument("--discriminator_warmup_steps", type=int, default=30)
    parser.add_argument("--learning_rate", type=float, default=5e-5)
    parser.add_argument("--max_completion_length", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_samples", type=int, default=10, help="completions before and after")
    parser.add_argument("--num_held_out", type=int, default=256, help="held-out texts of the figures before and after")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of AdversarialConfig")
    return parser.parse_args()


def samples(model: PeftModel, tokenizer: AutoTokenizer, max_new_tokens: int, count: int) -> list[str]:
    """Return the first `count` samples of seed 0 at temperature 1."""
    set_seed(0)
    model.eval()
    texts = []
    while len(texts) < count:
        start = tokenizer([tokenizer.bos_token] * min(500, count - len(texts)), return_tensors="pt").to(model.device)
        ids = model.generate(**start, do_sample=True, max_new_tokens=max_new_tokens, top_k=0)
        texts += tokenizer.batch_decode(ids, skip_special_tokens=True)
    return texts


def held_out(trainer: AdversarialTrainer) -> dict[str, float]:
    """Return the figures of an evaluation, without the times."""
    metrics = trainer.evaluate()
    return {
        name: round(value, 4) for name, value in metrics.items() if "per_second" not in name and "time" not in name
    }


def peak_memory() -> float:
    """Return the peak memory in GiB: on the GPU if there is one, or else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    arguments = parsed_arguments()
    generator_folder = arguments.models / "SmolLM2-135M-Instruct"
    files = {split: str(next(arguments.data.glob(f"wordnet_examples*{split}*"))) for split in ("train", "validation")}
    data = load_dataset("json", data_files=files)
    tokenizer = AutoTokenizer.from_pretrained(generator_folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(generator_folder, dtype=torch.bfloat16)

    began = time.perf_counter()
    warm_start = SFTTrainer(
        model,
        args=SFTConfig(
            str(arguments.output / "warm_start"),
            max_steps=arguments.warm_start_steps,
            per_device_train_batch_size=32,
            learning_rate=2e-4,
            lr_scheduler_type="cosine",
            warmup_steps=10,
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=False,
            seed=arguments.seed,
        ),
        train_dataset=prepare_dataset(data["train"], tokenizer),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
    )
    warm_start.train()
    warm_start_seconds = time.perf_counter() - began
    before = samples(warm_start.model, tokenizer, arguments.max_completion_length, arguments.num_samples)

    settings = {
        "scale_rewards": "none",
        "loss_type": "dr_grpo",
        "learning_rate": arguments.learning_rate,
        "discriminator_warmup_steps": arguments.discriminator_warmup_steps,
        **{name: yaml.safe_load(value) for name, value in (pair.split("=", 1) for pair in arguments.set)},
    }
    watchdog = Watchdog()
    trainer = AdversarialTrainer(
        model=warm_start.model,
        args=AdversarialConfig(
            str(arguments.output / "adversarial"),
            max_steps=arguments.steps,
            per_device_train_batch_size=arguments.batch_size,
            num_generations=arguments.batch_size,
            per_device_eval_batch_size=64,
            num_generations_eval=1,
            max_completion_length=arguments.max_completion_length,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=False,
            seed=arguments.seed,
            **settings,
        ),
        train_dataset=data["train"],
        eval_dataset=data["validation"].select(range(arguments.num_held_out)),
        processing_class=tokenizer,
        discriminator=str(arguments.models / "all-MiniLM-L6-v2"),
        callbacks=[watchdog],
    )
    held_out_before = held_out(trainer)
    began = time.perf_counter()
    trainer.train()
    adversarial_seconds = time.perf_counter() - began
    held_out_after = held_out(trainer)
    after = samples(trainer.model, tokenizer, arguments.max_completion_length, arguments.num_samples)
    (arguments.output / "samples.json").write_text(json.dumps({"before": before, "after": after}, indent=1) + "\n")
    final = arguments.output / "adversarial"
    trainer.save_model(str(final))
    reloaded = subprocess.run([sys.executable, "-c", RELOAD, str(final)], check=True, capture_output=True, text=True)

    steps = [entry for entry in trainer.state.log_history if "discriminator/value" in entry and "loss" in entry]
    warmup = [entry for entry in trainer.state.log_history if "discriminator/warmup_step" in entry]
    result = {
        "command": f"python benchmarks/real_pair.py --warm_start_steps {arguments.warm_start_steps} --steps "
        f"{arguments.steps} --batch_size {arguments.batch_size} --seed {arguments.seed}"
        + (f" --set {' '.join(arguments.set)}" if arguments.set else ""),
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "settings": {
            key: str(value) for key, value in vars(arguments).items() if key not in ("models", "data", "output")
        },
        "warm_start_seconds": round(warm_start_seconds, 1),
        "adversarial_seconds": round(adversarial_seconds, 1),
        "peak_memory_gib": round(peak_memory(), 2),
        "warmup": {
            name: [round(entry[key], 4) for entry in warmup] for name, key in CURVES.items() if key in warmup[0]
        }
        if warmup
        else {},
        "alarms": [alarm._asdict() for alarm in watchdog.alarms],
        "held_out_before": held_out_before,
        "held_out_after": held_out_after,
        "curves": {name: [round(entry[key], 4) for entry in steps] for name, key in CURVES.items()},
        "samples_before": before[:10],
        "samples_after": after[:10],
        "reloaded_in_a_new_process": json.loads(reloaded.stdout.strip().splitlines()[-1]),
    }
    path = arguments.output / "real_pair.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
