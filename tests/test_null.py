"""The null test: where the "completions" are themselves real texts, the discriminator cannot beat chance.

The generator is replaced by a reader of unseen real texts, everything after it is the real path: TRL's decoding, the
trainer, the discriminator learning from batch to batch. Its logits are taken before each step, on texts it has never
seen. Then every step of the path that real and generated text share is left out on one side, and each time it must
show.
"""

import random
from dataclasses import replace

import pytest
import torch
from datasets import Dataset

from hf_mgan import AdversarialTrainer
from hf_mgan.data import RealTexts

from .conftest import WORDS


BATCH, STEPS, MAX_TOKENS = 32, 90, 8

pytestmark = pytest.mark.statistics


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


def without_tokens(path, prompts, references, real):
    return {"texts": [" ".join(reference.split()[:MAX_TOKENS]) for reference in references]}


def without_cutting(path, prompts, references, real):
    return {"texts": replace(path, max_completion_length=None).as_completions(prompts, references)}


def without_dropping_special_tokens(path, prompts, references, real):
    return {"texts": path.tokenizer.batch_decode(real.completion_ids)}


def without_prompts(path, prompts, references, real):
    return {"prompts": [""] * len(prompts)}


def with_raw_prompts(path, prompts, references, real):
    return {"prompts": list(prompts)}


def as_one_text(path, prompts, references, real):
    joined = [f"{prompt} {text}" for prompt, text in zip(real.prompts, real.texts, strict=True)]
    return {"prompts": [""] * len(prompts), "texts": joined}


@pytest.mark.parametrize(
    ("left_out", "least"),
    [
        (without_tokens, 0.6),
        pytest.param(without_cutting, 0.6, marks=pytest.mark.slow),
        pytest.param(without_dropping_special_tokens, 0.6, marks=pytest.mark.slow),
        (without_prompts, 0.9),
        pytest.param(with_raw_prompts, 0.55, marks=pytest.mark.slow),
        (as_one_text, 0.9),
    ],
)
def test_null_step_left_out_for_real_texts_shows(trainer, monkeypatch, left_out, least):
    read = RealTexts._read

    def changed(self, prompts, references, beside=None):
        real = read(self, prompts, references, beside)
        return real._replace(**left_out(self.path, prompts, references, real))

    monkeypatch.setattr(RealTexts, "_read", changed)
    assert auc(trainer) > least
