"""A real pair on real text: SmolLM2-135M-Instruct (LoRA) against all-MiniLM-L6-v2, on example sentences of WordNet.

    python ../shared/tools/real_models.py MODELS
    python benchmarks/real_pair.py --models MODELS --data ../shared/data --output OUT

It warm-starts the generator by maximum likelihood (TRL's SFTTrainer), plays the game, saves both players, loads them
again in a new process, and writes OUT/real_pair.json with every curve, the samples before and after (the first ten of
a fixed seed, unpicked) and the versions. The copy that the documentation quotes is benchmarks/results/real_pair.json.
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
from datasets import load_dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig, SFTTrainer

from hf_mgan import AdversarialConfig, AdversarialTrainer, prepare_dataset


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
    return parser.parse_args()


def samples(model: PeftModel, tokenizer: AutoTokenizer, max_new_tokens: int, count: int = 10) -> list[str]:
    """Return the first `count` samples of seed 0 at temperature 1."""
    set_seed(0)
    start = tokenizer([tokenizer.bos_token] * count, return_tensors="pt")
    model.eval()
    ids = model.generate(**start, do_sample=True, max_new_tokens=max_new_tokens, top_k=0)
    return tokenizer.batch_decode(ids, skip_special_tokens=True)


def peak_memory() -> float:
    """Return the peak resident memory of this process in GiB."""
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
    before = samples(warm_start.model, tokenizer, arguments.max_completion_length)

    trainer = AdversarialTrainer(
        model=warm_start.model,
        args=AdversarialConfig(
            str(arguments.output / "adversarial"),
            max_steps=arguments.steps,
            per_device_train_batch_size=arguments.batch_size,
            num_generations=arguments.batch_size,
            max_completion_length=arguments.max_completion_length,
            learning_rate=arguments.learning_rate,
            scale_rewards="none",
            loss_type="dr_grpo",
            discriminator_warmup_steps=arguments.discriminator_warmup_steps,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=False,
            seed=arguments.seed,
        ),
        train_dataset=data["train"],
        processing_class=tokenizer,
        discriminator=str(arguments.models / "all-MiniLM-L6-v2"),
    )
    began = time.perf_counter()
    trainer.train()
    adversarial_seconds = time.perf_counter() - began
    after = samples(trainer.model, tokenizer, arguments.max_completion_length)
    final = arguments.output / "adversarial"
    trainer.save_model(str(final))
    reloaded = subprocess.run([sys.executable, "-c", RELOAD, str(final)], check=True, capture_output=True, text=True)

    steps = [entry for entry in trainer.state.log_history if "discriminator/value" in entry and "loss" in entry]
    warmup = [entry for entry in trainer.state.log_history if "discriminator/warmup_step" in entry]
    result = {
        "command": f"python benchmarks/real_pair.py --warm_start_steps {arguments.warm_start_steps} --steps "
        f"{arguments.steps} --batch_size {arguments.batch_size} --seed {arguments.seed}",
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
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
        "curves": {name: [round(entry[key], 4) for entry in steps] for name, key in CURVES.items()},
        "samples_before": before,
        "samples_after": after,
        "reloaded_in_a_new_process": json.loads(reloaded.stdout.strip().splitlines()[-1]),
    }
    path = arguments.output / "real_pair.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
