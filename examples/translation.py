# /// script
# dependencies = ["hf-mgan[evaluation]", "peft", "datasets"]
# ///
"""Translation: the discriminator compares each translation with the reference of its own sentence.

That is the paired loss `bradley_terry`; the reward is the logit, relative to the other translations of the sentence.
The report compares it with supervised fine-tuning by BLEU, chrF and a two-sample test against unseen references.
"""

import argparse
from pathlib import Path

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

from hf_mgan import AdversarialConfig, AdversarialTrainer, prepare_dataset
from hf_mgan.decoding import DecodingConfig
from hf_mgan.evaluation import EvaluationConfig, GuidedModel, evaluate_generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", default="Qwen/Qwen2.5-0.5B")
    parser.add_argument("--discriminator", default="distilbert/distilbert-base-multilingual-cased")
    parser.add_argument("--dataset", default="Helsinki-NLP/opus_books", help="rows with translation")
    parser.add_argument("--subset", default="en-fr")
    parser.add_argument("--source_lang", default="en")
    parser.add_argument("--target_lang", default="fr")
    parser.add_argument("--num_held_out", type=int, default=500, help="rows, where there is no split validation")
    parser.add_argument("--output_dir", default="out")
    parser.add_argument("--warm_start_steps", type=int, default=200)
    parser.add_argument("--discriminator_warmup_steps", type=int, default=200)
    parser.add_argument("--max_steps", type=int, default=60)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--max_completion_length", type=int, default=64)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    given = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(given.generator, padding_side="left")
    data = load_dataset(given.dataset, given.subset)
    train, held_out = data["train"], data.get("validation")
    if held_out is None:
        train, held_out = train.train_test_split(given.num_held_out, seed=0).values()
    languages = {"source_lang": given.source_lang, "target_lang": given.target_lang}
    pairs = prepare_dataset(train, tokenizer, **languages)
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
        train_dataset=pairs.select_columns(["prompt", "completion"]),
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
            num_generations=8,
            max_completion_length=given.max_completion_length,
            discriminator_warmup_steps=given.discriminator_warmup_steps,
            discriminator_steps=4,  # on each batch
            discriminator_loss="bradley_terry",
            discriminator_reward="logit",
            real_text_coef=0.1,
            **shared,
        ),
        train_dataset=pairs,
        processing_class=tokenizer,
        discriminator=given.discriminator,
    )
    trainer.train()
    trainer.save_model()

    report = EvaluationConfig(
        f"{out}/evaluation", given.num_held_out // 2, [0.3, 1.0], given.max_completion_length, reverse_perplexity=False
    )
    models = {"supervised": supervised, "adversarial": out}
    most_real = DecodingConfig("best_of_k", num_candidates=4, temperature=1.0)
    models["best_of_4"] = GuidedModel(out, f"{out}/discriminator", most_real)
    evaluate_generator(models, held_out, report, training=train, prepare=languages)
    print(Path(f"{out}/evaluation/report.md").read_text())


if __name__ == "__main__":
    main()
