# /// script
# dependencies = ["hf-mgan[evaluation]", "peft", "datasets"]
# ///
"""Style transfer without pairs: the discriminator knows the style, and a reward keeps what is said.

The generator first learns to restore texts of the target style from which words are missing. Then it rewrites those of
the source style, with chrF against the source as the second reward. Pairs serve for the report alone.
"""

import argparse
import random
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from hf_mgan import AdversarialConfig, AdversarialTrainer
from hf_mgan.decoding import DecodingConfig
from hf_mgan.evaluation import EvaluationConfig, GuidedModel, evaluate_generator
from hf_mgan.metrics import chrf


def prompt(text: str, dropped: float = 0.0) -> str:
    return f"Rewrite: {' '.join(word for word in text.split() if random.random() >= dropped)}\nRewritten:"


def content(completions: list[str], source: list[str], **_: object) -> list[float]:
    return [chrf([text], [kept]).score / 100 for text, kept in zip(completions, source, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", default="Qwen/Qwen2.5-0.5B")
    parser.add_argument("--discriminator", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--dataset", required=True, help="rows with translation, splits train and validation")
    parser.add_argument("--styles", nargs=2, required=True, help="keys of what is rewritten, and as what")
    parser.add_argument("--output_dir", default="out")
    parser.add_argument("--warm_start_steps", type=int, default=100)
    parser.add_argument("--discriminator_warmup_steps", type=int, default=200)
    parser.add_argument("--max_steps", type=int, default=60)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--max_completion_length", type=int, default=64)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    given = parser.parse_args()
    random.seed(0)
    data = load_dataset(given.dataset)
    (sources, targets), (new_sources, references) = (
        [[pair[style] for pair in rows["translation"]] for style in given.styles]
        for rows in (data["train"], data["validation"])
    )
    restored = [{"prompt": prompt(text, dropped=0.15), "completion": f" {text}"} for text in targets]
    names = "max_steps", "max_completion_length", "discriminator_warmup_steps"
    sizes = {name: getattr(given, name) for name in names}
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
        train_dataset=Dataset.from_list(restored),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
    )
    warm_start.train()
    warm_start.save_model()
    trainer = AdversarialTrainer(
        model=supervised,
        reward_funcs=[content],
        # Eight rewritings of each source, four updates on each batch; content weighs 3, the discriminator 1.
        args=AdversarialConfig(out, num_generations=8, discriminator_steps=4, reward_weights=[3.0], **sizes, **shared),
        train_dataset=Dataset.from_list([{"prompt": prompt(text), "source": text} for text in sources]),
        real_dataset=Dataset.from_dict({"text": targets}),
        discriminator=given.discriminator,
    )
    trainer.train()
    trainer.save_model()

    pairs = zip(new_sources, references, strict=True)
    held_out = Dataset.from_list([{"prompt": prompt(source), "completion": f" {text}"} for source, text in pairs])
    report = EvaluationConfig(
        f"{out}/evaluation", len(held_out) // 2, [0.3, 1.0], given.max_completion_length, reverse_perplexity=False
    )
    models = {"supervised": supervised, "adversarial": out}
    most_real = DecodingConfig("best_of_k", num_candidates=4, temperature=1.0)
    models["best_of_4"] = GuidedModel(out, f"{out}/discriminator", most_real)
    evaluate_generator(models, held_out, report)
    print(Path(f"{out}/evaluation/report.md").read_text())
    print(f"The sources as they are: chrF {chrf(new_sources, references).score:.1f}")


if __name__ == "__main__":
    main()
