# /// script
# dependencies = ["hf-mgan", "peft", "datasets"]
# ///
"""Stories from their first words: supervised fine-tuning, then adversarial training on the same texts.

It prints samples from before and after adversarial training, and leaves adapter and discriminator in `--output_dir`.
"""

import argparse

import torch
from datasets import load_dataset
from peft import LoraConfig, PeftModel
from transformers import AutoTokenizer, PreTrainedTokenizerBase, set_seed
from trl import SFTConfig, SFTTrainer

from hf_mgan import AdversarialConfig, AdversarialTrainer, prepare_dataset


def samples(model: PeftModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], length: int) -> list[str]:
    set_seed(0)  # the same draws before and after
    encoded = tokenizer(prompts, padding=True, return_tensors="pt").to(model.device)
    model.eval()
    ids = model.generate(**encoded, do_sample=True, top_k=0, max_new_tokens=length)
    return tokenizer.batch_decode(ids, skip_special_tokens=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", default="Qwen/Qwen2.5-0.5B")
    parser.add_argument("--discriminator", default="distilbert/distilbert-base-uncased")
    parser.add_argument("--dataset", default="roneneldan/TinyStories", help="rows with text")
    parser.add_argument("--split", default="train[:50000]")
    parser.add_argument("--output_dir", default="out")
    parser.add_argument("--warm_start_steps", type=int, default=200)
    parser.add_argument("--max_steps", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--max_completion_length", type=int, default=96)
    arguments = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(arguments.generator, padding_side="left")
    stories = load_dataset(arguments.dataset, split=arguments.split).filter(lambda row: row["text"].strip())
    # The first two to eight tokens of a story become its prompt, the rest is the reference.
    data = prepare_dataset(stories, tokenizer, prompt_tokens=(2, 8))
    prompts = data[:4]["prompt"]

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
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, target_modules="all-linear"),
    )
    warm_start.train()
    before = samples(warm_start.model, tokenizer, prompts, arguments.max_completion_length)

    trainer = AdversarialTrainer(
        model=warm_start.model,
        args=AdversarialConfig(
            arguments.output_dir,
            max_steps=arguments.max_steps,
            per_device_train_batch_size=arguments.batch_size,
            max_completion_length=arguments.max_completion_length,
            report_to="none",
            use_cpu=not torch.accelerator.is_available(),
        ),
        train_dataset=data,
        processing_class=tokenizer,
        discriminator=arguments.discriminator,
    )
    trainer.train()
    trainer.save_model()
    after = samples(trainer.model, tokenizer, prompts, arguments.max_completion_length)

    for first, second in zip(before, after, strict=True):
        print(f"before: {first}\nafter:  {second}\n")


if __name__ == "__main__":
    main()
