# /// script
# dependencies = ["hf-mgan", "peft", "datasets"]
# ///
"""Translation: the discriminator compares each translation with the reference of its own sentence.

That comparison is the paired loss `bradley_terry`; the reward is the logit, relative to the other translations of the
same sentence. Supervised fine-tuning comes first and teaches the form of the answers.
"""

import argparse

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

from hf_mgan import AdversarialConfig, AdversarialTrainer, prepare_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", default="Qwen/Qwen2.5-0.5B")
    parser.add_argument("--discriminator", default="distilbert/distilbert-base-multilingual-cased")
    parser.add_argument("--dataset", default="Helsinki-NLP/opus_books", help="rows with translation")
    parser.add_argument("--subset", default="en-fr")
    parser.add_argument("--source_lang", default="en")
    parser.add_argument("--target_lang", default="fr")
    parser.add_argument("--output_dir", default="out")
    parser.add_argument("--warm_start_steps", type=int, default=200)
    parser.add_argument("--max_steps", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--max_completion_length", type=int, default=64)
    arguments = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(arguments.generator, padding_side="left")
    data = prepare_dataset(
        load_dataset(arguments.dataset, arguments.subset, split="train"),
        tokenizer,
        source_lang=arguments.source_lang,
        target_lang=arguments.target_lang,
    ).train_test_split(test_size=4, seed=0)

    warm_start = SFTTrainer(
        arguments.generator,
        args=SFTConfig(
            f"{arguments.output_dir}/warm_start",
            max_steps=arguments.warm_start_steps,
            per_device_train_batch_size=arguments.batch_size,
            learning_rate=2e-4,
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.accelerator.is_available(),
        ),
        train_dataset=data["train"].select_columns(["prompt", "completion"]),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, target_modules="all-linear"),
    )
    warm_start.train()

    trainer = AdversarialTrainer(
        model=warm_start.model,
        args=AdversarialConfig(
            arguments.output_dir,
            max_steps=arguments.max_steps,
            per_device_train_batch_size=arguments.batch_size,
            num_generations=8,
            max_completion_length=arguments.max_completion_length,
            discriminator_loss="bradley_terry",
            discriminator_reward="logit",
            report_to="none",
            use_cpu=not torch.accelerator.is_available(),
        ),
        train_dataset=data["train"],
        processing_class=tokenizer,
        discriminator=arguments.discriminator,
    )
    trainer.train()
    trainer.save_model()

    encoded = tokenizer(data["test"][:]["prompt"], padding=True, return_tensors="pt").to(trainer.model.device)
    trainer.model.eval()
    ids = trainer.model.generate(**encoded, do_sample=False, max_new_tokens=arguments.max_completion_length)
    written = tokenizer.batch_decode(ids[:, encoded["input_ids"].size(1) :], skip_special_tokens=True)
    for row, translation in zip(data["test"], written, strict=True):
        print(f"{row['prompt']}generator: {translation}\nreference: {row['completion']}\n")


if __name__ == "__main__":
    main()
