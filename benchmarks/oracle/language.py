"""The demo's language with less to learn from, and with smaller and larger generators.

Everything is the demo's but three things. The number of real sentences and the generator's width vary, the rank of the
adapters with it. Maximum likelihood has schedules of two lengths, and stops where held-out sentences are likeliest, so
that few sentences are not learnt by heart. And the adversarial generator is measured at every temperature, as
maximum likelihood is.

In: a condition, sizes and a seed. Out: a dict of plain values.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from transformers import GPTNeoConfig, GPTNeoForCausalLM, PreTrainedTokenizerBase

from hf_mgan.demo.models import MAX_TOKENS, make_tokenizer
from hf_mgan.demo.parts import TEMPERATURES
from hf_mgan.demo.run import DemoArguments
from hf_mgan.metrics import best_value

from ..recipe.initial_models import RealSentences
from ..sweep.stopwatch import Stopwatch
from .training import described, fit, last_steps, train_adversarially


HELD_OUT_SEED = 2_000_000  # of the sentences that stop maximum likelihood
LEARNING_RATE, WEIGHT_DECAY = 1e-2, 0.0  # of maximum likelihood, as in the demo


class Condition(NamedTuple):
    """Sizes that vary.

    Args:
        sentences (`int`): Real sentences, for all models.
        width (`int`): Components of the generator's embeddings; a multiple of 3.
    """

    sentences: int
    width: int

    @property
    def name(self) -> str:
        """Name of the job and of its file."""
        return f"language-{self.sentences}-{self.width}"


CONDITIONS = [Condition(2000, 24), Condition(10_000, 24), Condition(100_000, 24)]
CONDITIONS += [Condition(100_000, 12), Condition(100_000, 48)]


@dataclass(frozen=True)
class Sizes:
    """Sizes that all conditions share.

    Args:
        held_out (`int`, *optional*, defaults to 2000): Sentences by which maximum likelihood is stopped.
        samples (`int`, *optional*, defaults to 10000): Sentences per side behind each metric.
        schedules (`tuple[int, ...]`, *optional*): Steps of maximum likelihood.
        batch_size (`int`, *optional*, defaults to 256): Sentences per step, for all models.
        encoder_steps (`int`, *optional*, defaults to 400): Steps of the discriminator's encoder on masked words.
        warmup_steps (`int`, *optional*, defaults to 200): Updates of the discriminator in its warm-up.
        steps (`int`, *optional*, defaults to 200): Steps of adversarial training.
        most_sentences (`int`, *optional*): No condition takes more; for a dry run.
    """

    held_out: int = 2000
    samples: int = 10_000
    schedules: tuple[int, ...] = (300, 1200)
    batch_size: int = 256
    encoder_steps: int = 400
    warmup_steps: int = 200
    steps: int = 200
    most_sentences: int | None = None


TINY = Sizes(
    held_out=20,
    samples=50,
    schedules=(4, 8),
    batch_size=16,
    encoder_steps=2,
    warmup_steps=2,
    steps=10,
    most_sentences=100,
)


def make_generator(tokenizer: PreTrainedTokenizerBase, width: int) -> GPTNeoForCausalLM:
    """Make the demo's generator in another width."""
    config = GPTNeoConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=32,
        hidden_size=width,
        num_layers=1,
        num_heads=3,
        attention_types=[[["local"], 1]],
        window_size=2,
        intermediate_size=4 * width,
        resid_dropout=0.0,
        embed_dropout=0.0,
        attention_dropout=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return GPTNeoForCausalLM(config)


def measure(condition: Condition, sizes: Sizes, seed: int) -> dict[str, Any]:
    """Train a generator by maximum likelihood, then adversarially, and measure both at every temperature.

    Args:
        condition ([`Condition`]): Sizes that vary.
        sizes ([`Sizes`]): The others.
        seed (`int`): Seed of sentences and models.

    Returns:
        `dict`: `likelihood` and `adversarial`, the metrics of [`~recipe.initial_models.RealSentences`] at every
        temperature with `best_value`, V(D, G) of the best discriminator in nats; `fits`, what became of maximum
        likelihood; `training`, the trainer's metrics over the last steps; `seconds` of the processor.
    """
    stopwatch = Stopwatch()
    demo = DemoArguments(
        sentences=min(condition.sentences, sizes.most_sentences or condition.sentences),
        batch_size=sizes.batch_size,
        encoder_steps=sizes.encoder_steps,
        warmup_steps=sizes.warmup_steps,
        steps=sizes.steps,
        samples=sizes.samples,
    )
    with tempfile.TemporaryDirectory() as name, stopwatch.part("all"):
        folder, reals = Path(name), RealSentences(demo, seed)
        unseen = [" ".join(words) for words in reals.language.sample(sizes.held_out, HELD_OUT_SEED + seed)]

        def at_every_temperature(model: Any) -> list[dict[str, float]]:
            qualities = [reals.metrics(reals.measure(model, temperature)) for temperature in TEMPERATURES]
            return [quality | {"best_value": best_value(quality["divergence"])} for quality in qualities]

        with stopwatch.part("likelihood"):
            model, fits = fit(
                lambda: make_generator(reals.tokenizer, condition.width),
                *(with_ends(sentences, reals.tokenizer) for sentences in (reals.sentences, unseen)),
                reals.tokenizer,
                folder / "likelihood",
                schedules=sizes.schedules,
                batch_size=sizes.batch_size,
                learning_rate=LEARNING_RATE,
                weight_decay=WEIGHT_DECAY,
                seed=seed,
            )
        with stopwatch.part("measurement"):
            likelihood = at_every_temperature(model)
        trainer = train_adversarially(
            folder / "likelihood",
            folder,
            reals.sentences,
            make_tokenizer(reals.language.words, adds_ends=True),
            demo,
            stopwatch,
            seed=seed,
            rank=condition.width,
            max_tokens=MAX_TOKENS,
        )
        with stopwatch.part("measurement"):
            adversarial = at_every_temperature(trainer.model)
    return {
        "likelihood": likelihood,
        "adversarial": adversarial,
        "fits": described(fits),
        "training": last_steps(trainer.state.log_history),
        "seconds": stopwatch.seconds,
    }


def with_ends(sentences: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return the tokens of sentences, each between start and end."""
    whole = [f"{tokenizer.bos_token} {sentence} {tokenizer.eos_token}" for sentence in sentences]
    return tokenizer(whole)["input_ids"]
