# /// script
# dependencies = ["hf-mgan[evaluation]", "peft", "datasets"]
# ///
"""A chatbot: answers to the last message, which the discriminator reads with the conversation before it.

Supervised fine-tuning comes first. The report compares it, adversarial training and the discriminator at generation
with unseen answers, and has samples. Adapters and discriminator are left in `--output_dir`.
"""

import argparse
from pathlib import Path

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

from hf_mgan import AdversarialConfig, AdversarialTrainer, prepare_dataset
from hf_mgan.evaluation import EvaluationConfig, GuidedModel, evaluate_generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", default="Qwen/Qwen2.5-0.5B-Instruct")
    parser.add_argument("--discriminator", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--dataset", default="HuggingFaceTB/smoltalk", help="rows with messages")
    parser.add_argument("--subset", default="everyday-conversations")
    parser.add_argument("--num_held_out", type=int, default=200, help="rows at the end of the split train")
    parser.add_argument("--output_dir", default="out")
    parser.add_argument("--warm_start_steps", type=int, default=100)
    parser.add_argument("--discriminator_warmup_steps", type=int, default=200)
    parser.add_argument("--max_steps", type=int, default=60)
    parser.add_argument("--final_steps", type=int, default=200, help="updates of the discriminator after that")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--max_completion_length", type=int, default=64)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    given = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(given.generator, padding_side="left")
    rows = load_dataset(given.dataset, given.subset, split="train").select_columns("messages")
    # Answers to one question stand together: what is held out has other questions.
    train, held_out = rows.train_test_split(given.num_held_out, shuffle=False).values()
    data = prepare_dataset(train, tokenizer)
    shared = {
        "per_device_train_batch_size": given.batch_size,
        "learning_rate": 2e-4,
        "gradient_checkpointing": False,
        "bf16": given.bf16,
        "model_init_kwargs": {"dtype": "bfloat16" if given.bf16 else "float32"},  # of the frozen weights
        "use_cpu": not torch.accelerator.is_available(),
    }
    out, supervised = given.output_dir, f"{given.output_dir}/supervised"
    warm_start = SFTTrainer(
        given.generator,
        args=SFTConfig(supervised, max_steps=given.warm_start_steps, save_strategy="no", **shared),
        train_dataset=data.select_columns(["prompt", "completion"]),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
    )
    warm_start.train()
    warm_start.save_model()

    trainer = AdversarialTrainer(
        model=supervised,
        args=AdversarialConfig(
            out,
            max_steps=given.max_steps,
            num_generations=8,  # answers to each question
            max_completion_length=given.max_completion_length,
            discriminator_warmup_steps=given.discriminator_warmup_steps,
            discriminator_steps=4,  # on each batch
            discriminator_final_steps=given.final_steps,
            real_text_coef=0.1,
            **shared,
        ),
        train_dataset=data,
        eval_dataset=prepare_dataset(held_out, tokenizer),
        processing_class=tokenizer,
        discriminator=given.discriminator,
    )
    trainer.train()
    trainer.save_model()

    report = EvaluationConfig(
        f"{out}/evaluation",
        num_samples=given.num_held_out // 2,
        temperatures=[0.6, 0.8, 1.0],
        max_completion_length=given.max_completion_length,
        reverse_perplexity=False,
    )
    models = {"supervised": supervised, "adversarial": out, "guided": GuidedModel(out, f"{out}/discriminator")}
    evaluate_generator(models, held_out, report, training=train)
    print(Path(f"{out}/evaluation/report.md").read_text())


if __name__ == "__main__":
    main()
