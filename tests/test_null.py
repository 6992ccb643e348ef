"""The null test: where the "completions" are themselves real texts, the discriminator cannot beat chance.

The generator is replaced by a reader of unseen real texts, everything after it is the real path: TRL's decoding, the
trainer, the discriminator learning from batch to batch. Its logits are taken before each step, on texts it has never
seen. Then every step of the path that real and generated text share is left out on one side, and each time it must
show.
"""

import itertools
import random

import pytest
import torch
from datasets import Dataset

from hf_mgan import AdversarialTrainer
from hf_mgan.data import as_completions, plain_text, real_texts

from .conftest import WORDS


BATCH, STEPS, MAX_TOKENS = 32, 90, 8


def real_rows(count, seed):
    """Prompts and completions of 3 to 14 words, a tenth of them unknown to the generator's tokenizer, unevenly
    spaced."""
    rng = random.Random(seed)

    def text(low, high):
        words = [rng.choice(WORDS) if rng.random() < 0.9 else "zebra" for _ in range(rng.randint(low, high))]
        return rng.choice([" ", "  "]).join(words)

    return [{"prompt": text(2, 4), "completion": text(3, 14)} for _ in range(count)]


def auc(trainer):
    """Train and return the area under the ROC curve over the second half, on texts not yet trained on."""
    real, fake = [], []
    update = trainer.discriminator.update

    def watched(*args, **kwargs):
        output = update(*args, **kwargs)
        real.append(output.real_logits)
        fake.append(output.fake_logits)
        return output

    trainer.discriminator.update = watched
    trainer.train()
    real, fake = torch.cat(real[STEPS // 2 :]), torch.cat(fake[STEPS // 2 :])
    wins = (real[:, None] > fake).float() + 0.5 * (real[:, None] == fake).float()
    return wins.mean().item()


@pytest.fixture
def trainer(generator, tokenizer, classifier, pair_tokenizer, make_config, monkeypatch):
    unseen = iter(real_rows(BATCH * STEPS, seed=1))

    def read_instead_of_generating(self, prompt_ids, *_, **__):
        completions = []
        for _ in prompt_ids:
            ids = tokenizer(next(unseen)["completion"], add_special_tokens=False)["input_ids"]
            completions.append([*ids, tokenizer.eos_token_id][:MAX_TOKENS])
        return completions, None

    monkeypatch.setattr(AdversarialTrainer, "_generate_single_turn", read_instead_of_generating)
    # A discriminator's word for "zebra", so that it sees what the generator's tokenizer cannot write.
    pair_tokenizer.add_tokens(["zebra"])
    classifier.resize_token_embeddings(len(pair_tokenizer))
    config = make_config(
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        num_generations=2,
        max_completion_length=MAX_TOKENS,
        learning_rate=0.0,
        discriminator_learning_rate=2e-3,
        logging_steps=STEPS,
    )
    return AdversarialTrainer(
        generator,
        args=config,
        train_dataset=Dataset.from_list(real_rows(BATCH * STEPS, seed=2)),
        processing_class=tokenizer,
        discriminator=classifier,
        discriminator_processing_class=pair_tokenizer,
    )


def test_null_real_texts_against_real_texts_are_even(trainer):
    # 45 batches of 32 on each side: the standard error at chance is sqrt(2 * 1440 + 1) / (sqrt(12) * 1440) = 0.0108.
    assert auc(trainer) == pytest.approx(0.5, abs=4 * 0.0108)


def without_tokens(references, tokenizer, length):
    return [" ".join(plain_text(reference).split()[:length]) for reference in references]


def without_cutting(references, tokenizer, length):
    return as_completions(references, tokenizer, None)


def without_dropping_special_tokens(references, tokenizer, length):
    ids = tokenizer([plain_text(reference) for reference in references], add_special_tokens=False)["input_ids"]
    return tokenizer.batch_decode([row[:length] for row in ids])


@pytest.mark.parametrize("left_out", [without_tokens, without_cutting, without_dropping_special_tokens])
def test_null_step_left_out_for_references_shows(trainer, monkeypatch, left_out):
    monkeypatch.setattr(real_texts, "as_completions", left_out)
    assert auc(trainer) > 0.6


def test_null_prompt_left_out_beside_references_shows(trainer, monkeypatch):
    drawn = trainer._reward.real_texts.draw

    def without_prompts(prompts, references):
        return drawn(prompts, references)[0], [""] * len(prompts)

    monkeypatch.setattr(trainer._reward.real_texts, "draw", without_prompts)
    assert auc(trainer) > 0.9


def test_null_prompts_of_references_left_raw_show(trainer, monkeypatch):
    written = trainer._reward.real_texts.shown_prompts
    calls = itertools.count()

    def every_second_raw(prompts):  # those of the completions come first, then those of the references
        return list(prompts) if next(calls) % 2 else written(prompts)

    monkeypatch.setattr(trainer._reward.real_texts, "shown_prompts", every_second_raw)
    assert auc(trainer) > 0.55


def test_null_reference_as_one_text_beside_pairs_shows(trainer, monkeypatch):
    drawn = trainer._reward.real_texts.draw

    def joined(rows, references):
        texts, prompts = drawn(rows, references)
        return [f"{prompt} {text}" for prompt, text in zip(prompts, texts, strict=True)], [""] * len(rows)

    monkeypatch.setattr(trainer._reward.real_texts, "draw", joined)
    assert auc(trainer) > 0.9
