# /// script
# dependencies = ["hf-mgan[evaluation]", "datasets", "tokenizers"]
# ///
"""Chinese quatrains, character by character: a small generator from scratch, and a form that is checked exactly.

The discriminator starts from the generator, the one model here that has read such poems. Printed are, for each way to
write, the share with the form, a two-sample test against unseen poems, copies, draws per poem, and poems, unpicked.
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


FORM = re.compile("([^，。]{5}，[^，。]{5}。){2}")  # noqa: RUF001
LENGTH = 32  # characters; a quatrain has 24
SIZES = {"n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 2 * LENGTH, "resid_pdrop": 0.2}
SPECIAL = {"pad_token": "[PAD]", "bos_token": "[BOS]", "eos_token": "[EOS]", "unk_token": "[UNK]"}
OF_GAN = {"learning_rate": 1e-4, "discriminator_learning_rate": 1e-4, "real_text_coef": 0.1}
SHARED = {"report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False}
OF_SFT = {"num_train_epochs": 12, "per_device_train_batch_size": 32, "learning_rate": 1e-3, "warmup_steps": 50}
BEST = {"save_strategy": "best", "metric_for_best_model": "eval_loss", "load_best_model_at_end": True}


def tokenizer_of(texts: list[str]) -> PreTrainedTokenizerFast:
    characters = [*SPECIAL.values(), *sorted(set("".join(texts)))]
    tokenizer = Tokenizer(models.WordLevel({one: place for place, one in enumerate(characters)}, "[UNK]"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Split(Regex("."), "isolated"), decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=2 * LENGTH, **SPECIAL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", required=True, help="file of JSON lines with `text`")
    parser.add_argument("--validation", required=True, help="the same, held out")
    parser.add_argument("--output_dir", default="out")
    parser.add_argument("--batch_size", type=int, default=64, help="of adversarial training")
    parser.add_argument("--max_steps", type=int, default=60)
    parser.add_argument("--final_steps", type=int, default=300)
    given = parser.parse_args()
    files, first = {"train": given.train, "validation": given.validation}, f"{given.output_dir}/supervised"
    poems = load_dataset("json", data_files=files).select_columns("text")
    unseen, learnt = poems["validation"]["text"], [list(text) for text in poems["train"]["text"]]
    tokenizer = tokenizer_of(poems["train"]["text"])
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = GPT2Config(vocab_size=len(tokenizer), **SIZES, **ids)
    supervised = SFTTrainer(
        GPT2LMHeadModel(config),
        args=SFTConfig(first, eval_strategy="epoch", **OF_SFT, **BEST, **SHARED),
        train_dataset=prepare_dataset(poems["train"], tokenizer),
        eval_dataset=prepare_dataset(poems["validation"], tokenizer),
        processing_class=tokenizer,
    )
    supervised.train()
    supervised.save_model()

    def report(name: str, texts: list[str | None], draws: float = 1) -> None:
        poems = [text or "" for text in texts]
        form = sum(FORM.fullmatch(text) is not None for text in poems) / len(poems)
        auc, error = c2st(unseen, poems).auc, 1.96 * (form * (1 - form) / len(poems)) ** 0.5
        share = memorisation([*map(list, poems)], [*map(list, unseen)], learnt).generated.near_duplicate_share
        said = f"form {form:.3f} ± {error:.3f}, AUC {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f}), nearly learnt"
        print(f"{name}: {said} {share:.3f}, draws {draws:.1f}", *poems[:6], sep="\n    ")

    starts = [[tokenizer.bos_token_id]] * len(unseen)
    for one in (1.0, 0.8, 0.6):
        report(f"supervised, T = {one}", sample(supervised.model, tokenizer, starts, LENGTH, one).texts)
    batch = {"per_device_train_batch_size": given.batch_size, "num_generations": given.batch_size}
    steps = {"max_steps": given.max_steps, "discriminator_final_steps": given.final_steps}
    trainer = AdversarialTrainer(
        model=supervised.model,
        discriminator=first,
        args=AdversarialConfig(given.output_dir, max_completion_length=LENGTH, **batch, **steps, **OF_GAN, **SHARED),
        train_dataset=poems["train"],
        eval_dataset=poems["validation"],
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model()
    report("adversarial, T = 1", sample(trainer.model, tokenizer, starts, LENGTH).texts)
    for c in (0.0, 1.0):
        kept = guided_sample(trainer.model, tokenizer, trainer.discriminator, starts, DecodingConfig(threshold=c))
        report(f"adversarial, discriminator at generation, c = {c:g}", kept.texts, kept.draws)


if __name__ == "__main__":
    main()
