# /// script
# dependencies = ["hf-mgan", "trl>=1.16,<1.17", "peft", "datasets"]
# ///
"""A reward that can be checked, twice: `verifiable_grpo_script.py` and `verifiable_adversarial_script.py`.

They differ in two lines. The reward asks for a summary of one sentence, at most twenty words. In the second script a
discriminator learns from the references beside it, so that what scores is also what somebody would write.
"""
# The lines of the two scripts stand side by side:
# isort: skip_file

import argparse

import torch
from datasets import load_dataset
from peft import LoraConfig
from hf_mgan import AdversarialConfig as GRPOConfig, AdversarialTrainer as GRPOTrainer


parser = argparse.ArgumentParser()
parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
parser.add_argument("--classifier", default="sentence-transformers/all-MiniLM-L6-v2")
parser.add_argument("--dataset", default="trl-lib/tldr", help="rows with prompt and completion")
parser.add_argument("--output_dir", default="out")
parser.add_argument("--max_steps", type=int, default=200)
arguments = parser.parse_args()


def one_short_sentence(completions: list[str], **_: object) -> list[float]:
    """Return 1 for a sentence of at most twenty words, 0 for anything else."""
    texts = [text.strip() for text in completions]
    return [float(text.endswith(".") and text.count(".") == 1 and len(text.split()) <= 20) for text in texts]


trainer = GRPOTrainer(
    model=arguments.model,
    reward_funcs=one_short_sentence,
    discriminator=arguments.classifier,
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
