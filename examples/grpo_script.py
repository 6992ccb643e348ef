# /// script
# dependencies = ["hf-mgan", "trl>=1.16,<1.17", "peft", "datasets"]
# ///
"""The same training twice; `grpo_script.py` and `adversarial_script.py` differ in two lines.

The first trains a language model against a fixed reward model. In the second the reward model learns at the same time,
to tell completions from the references of the data.
"""
# The lines of the two scripts stand side by side:
# isort: skip_file

import argparse

import torch
from datasets import load_dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer


parser = argparse.ArgumentParser()
parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
parser.add_argument("--classifier", default="trl-lib/Qwen2-0.5B-Reward")
parser.add_argument("--dataset", default="trl-lib/tldr", help="rows with prompt and completion")
parser.add_argument("--output_dir", default="out")
parser.add_argument("--max_steps", type=int, default=200)
arguments = parser.parse_args()

trainer = GRPOTrainer(
    model=arguments.model,
    reward_funcs=arguments.classifier,
    args=GRPOConfig(
        arguments.output_dir,
        max_steps=arguments.max_steps,
        max_completion_length=64,
        report_to="none",
        use_cpu=not torch.accelerator.is_available(),
    ),
    train_dataset=load_dataset(arguments.dataset, split="train"),
    peft_config=LoraConfig(r=16, target_modules="all-linear"),
)
trainer.train()
trainer.save_model()
