# /// script
# dependencies = ["hf-mgan[evaluation]", "datasets", "tokenizers"]
# ///
"""Chinese quatrains, character by character: a small generator from scratch, and a form that is checked exactly.

The discriminator starts from the generator itself, which after supervised training is the one model here that has read
such poems. Printed are, for each way to write, how many poems have the form, a two-sample test against unseen poems, how
many are nearly a poem that was learnt, and the draws per poem; then poems, unpicked.
"""

import argparse
import re

from datasets import load_dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from hf_mgan import AdversarialConfig, AdversarialTrainer, prepare_dataset
from hf_mgan.decoding import DecodingConfig, guided_sample, sample
from hf_mgan.metrics import c2st, memorisation


FORM = re.compile("([^，。]{5}，[^，。]{5}。){2}")
LENGTH = 32  # characters; a quatrain has 24


def tokenizer_of(texts: list[str]) -> PreTrainedTokenizerFast:
    special = {"pad_token": "[PAD]", "bos_token": "[BOS]", "eos_token": "[EOS]", "unk_token": "[UNK]"}
    characters = [*special.values(), *sorted(set("".join(texts)))]
    tokenizer = Tokenizer(models.WordLevel({one: place for place, one in enumerate(characters)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=2 * LENGTH, **special)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", required=True, help="file of JSON lines with `text`")
    parser.add_argument("--validation", required=True, help="the same, held out")
    parser.add_argument("--output_dir", default="out")
    parser.add_argument("--epochs", type=int, default=12, help="of supervised training; the best one is kept")
    parser.add_argument("--max_steps", type=int, default=60)
    parser.add_argument("--final_steps", type=int, default=300)
    parser.add_argument("--width", type=int, default=256)
    arguments = parser.parse_args()
    shared = {"report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False}

    files = {"train": arguments.train, "validation": arguments.validation}
    poems = load_dataset("json", data_files=files).select_columns("text")
    tokenizer = tokenizer_of(poems["train"]["text"])
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    sizes = {"n_embd": arguments.width, "n_layer": 4, "n_head": 4, "n_positions": 2 * LENGTH, "resid_pdrop": 0.2}
    supervised = SFTTrainer(
        GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes, **ids)),
        args=SFTConfig(
            f"{arguments.output_dir}/supervised",
            num_train_epochs=arguments.epochs,
            per_device_train_batch_size=32,
            learning_rate=1e-3,
            warmup_steps=50,
            eval_strategy="epoch",
            save_strategy="best",
            metric_for_best_model="eval_loss",
            load_best_model_at_end=True,
            save_total_limit=1,
            **shared,
        ),
        train_dataset=prepare_dataset(poems["train"], tokenizer),
        eval_dataset=prepare_dataset(poems["validation"], tokenizer),
        processing_class=tokenizer,
    )
    supervised.train()
    supervised.save_model()

    unseen = poems["validation"]["text"]
    learnt = [list(text) for text in poems["train"]["text"]]

    def report(name: str, texts: list[str], draws: float) -> None:
        texts = [text or "" for text in texts]
        form = sum(FORM.fullmatch(text) is not None for text in texts) / len(texts)
        auc, copies = c2st(unseen, texts).auc, memorisation([*map(list, texts)], [*map(list, unseen)], learnt)
        print(
            f"{name}: form {form:.3f} ± {1.96 * (form * (1 - form) / len(texts)) ** 0.5:.3f}, AUC {auc.value:.3f} "
            f"({auc.low:.3f} to {auc.high:.3f}), nearly learnt {copies.generated.near_duplicate_share:.3f} (unseen: "
            f"{copies.held_out.near_duplicate_share:.3f}), draws {draws:.1f}",
            *texts[:6],
            sep="\n    ",
        )

    starts = [[tokenizer.bos_token_id]] * len(unseen)
    for temperature in (1.0, 0.8, 0.6):
        drawn = sample(supervised.model, tokenizer, starts, LENGTH, temperature)
        report(f"supervised, T = {temperature}", drawn.texts, 1)
    trainer = AdversarialTrainer(
        model=supervised.model,
        discriminator=f"{arguments.output_dir}/supervised",
        args=AdversarialConfig(
            arguments.output_dir,
            max_steps=arguments.max_steps,
            per_device_train_batch_size=64,
            num_generations=64,
            max_completion_length=LENGTH,
            learning_rate=1e-4,
            real_text_coef=0.1,
            discriminator_final_steps=arguments.final_steps,
            discriminator_learning_rate=1e-4,
            logging_steps=5,
            **shared,
        ),
        train_dataset=poems["train"],
        eval_dataset=poems["validation"],
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model()
    report("adversarial, T = 1", sample(trainer.model, tokenizer, starts, LENGTH).texts, 1)
    for threshold in (0.0, 1.0):
        config = DecodingConfig(threshold=threshold, num_candidates=50)
        kept = guided_sample(trainer.model, tokenizer, trainer.discriminator, starts, config)
        report(f"adversarial, its discriminator at generation, c = {threshold:g}", kept.texts, kept.draws)


if __name__ == "__main__":
    main()
