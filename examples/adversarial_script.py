# /// script
# dependencies = ["trl>=1.16,<1.17", "peft", "datasets"]
# ///
"""A TRL GRPO script: a generator rewarded by a fixed classifier. `adversarial_script.py` is its adversarial twin."""

import argparse

from datasets import load_dataset
from peft import LoraConfig

from hf_mgan import AdversarialConfig as GRPOConfig
from hf_mgan import AdversarialTrainer as GRPOTrainer


parser = argparse.ArgumentParser()
parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
parser.add_argument("--classifier", default="distilbert/distilbert-base-uncased")
parser.add_argument("--dataset", default="trl-lib/tldr")
parser.add_argument("--output_dir", default="out")
parser.add_argument("--max_steps", type=int, default=200)
arguments = parser.parse_args()

trainer = GRPOTrainer(
    model=arguments.model,
    discriminator=arguments.classifier,
    args=GRPOConfig(arguments.output_dir, max_steps=arguments.max_steps, max_completion_length=64, report_to="none"),
    train_dataset=load_dataset(arguments.dataset, split="train"),
    peft_config=LoraConfig(r=16, target_modules="all-linear"),
)
trainer.train()
trainer.save_model()
