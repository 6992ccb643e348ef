"""One seed of `benchmarks.guided_language`: models, discriminators, exact metrics of every sampler."""

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, TrainerCallback

from hf_mgan import AdversarialConfig, Discriminator
from hf_mgan.decoding import DecodingConfig, guided_sample, sample
from hf_mgan.demo.exact_metrics import ExactMetrics
from hf_mgan.demo.guidance import HELD_OUT_SEED, dataset_of, held_out_sentences
from hf_mgan.demo.language import Language
from hf_mgan.demo.models import MAX_TOKENS, make_tokenizer, train_generator
from hf_mgan.metrics import duplicates
from hf_mgan.training.final_updates import fit_discriminator

from .token_metrics import token_metrics


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Args:
        sentences (`int`): Real sentences to train on.
        batch_size (`int`): Sentences per step of all models.
        likelihood_steps (`int`): Steps of the generator.
        base_steps (`int`): Steps of the model that the discriminators start from.
        updates (`int`): Updates of each discriminator, at most.
        learning_rate (`float`): Of the discriminators, falling to 0.
        held_out (`int`): Real sentences that stop and calibrate them.
        samples (`int`): Real and generated sentences behind each divergence.
        token_samples (`int`): The same where the discriminator reads every token of the vocabulary at every place.
        width (`int`): Of the discriminators.
    """

    sentences: int = 100_000
    batch_size: int = 256
    likelihood_steps: int = 1200
    base_steps: int = 1500
    updates: int = 2000
    learning_rate: float = 1e-3
    held_out: int = 2000
    samples: int = 20_000
    token_samples: int = 3000
    width: int = 64


TINY = Sizes(
    sentences=400, batch_size=16, likelihood_steps=12, base_steps=4, updates=10, held_out=40, samples=60, width=16
)
TOKEN_SETTINGS = ((16, 0.0), (32, 0.0), (16, 0.5))  # k and c
DISTILLED = 0.5  # threshold of the sentences that a new generator learns from
THRESHOLDS = tuple(quarter / 4 for quarter in range(-4, 15))  # of rejection by whole sentences, in nats


def measure(sizes: Sizes, seed: int) -> dict[str, Any]:
    """Train all models of a seed and compute the metrics of every sampler."""
    language = Language()
    sentences = [" ".join(words) for words in language.sample(sizes.sentences, 2 * seed)]
    tokenizer = make_tokenizer(language.words, adds_ends=False)
    exact_metrics = ExactMetrics(language, tokenizer, language.sample(sizes.samples, 2 * seed + 1), seed)
    with tempfile.TemporaryDirectory() as folder:
        generator, base = Path(folder) / "generator", Path(folder) / "base"
        how: dict[str, Any] = {"batch_size": sizes.batch_size, "seed": seed, "callback": TrainerCallback()}
        model = train_generator(sentences, tokenizer, generator, sizes.likelihood_steps, **how)
        torch.manual_seed(seed)
        start = GPT2LMHeadModel(_causal(len(tokenizer), sizes.width))
        train_generator(sentences, tokenizer, base, sizes.base_steps, start=start, learning_rate=3e-3, **how)
        data, held_out = dataset_of(sentences), held_out_sentences(language, seed, sizes.held_out)
        tokenizer_of_discriminator = make_tokenizer(language.words, adds_ends=True)
        discriminators, calibrations = {}, {}
        for name in ("whole", "prefixes"):
            discriminator = Discriminator.from_pretrained(
                base, tokenizer_of_discriminator, prefixes=name == "prefixes"
            )
            given = model, tokenizer, discriminator, data, held_out, _config(sizes, seed, folder)
            calibrations[name] = asdict(fit_discriminator(*given, sizes.updates))
            discriminators[name] = discriminator
        accepted = _accepted(model, tokenizer, discriminators["whole"], sizes, seed)
        student = train_generator(accepted, tokenizer, Path(folder) / "student", sizes.likelihood_steps, **how)
    few = min(sizes.samples, sizes.token_samples)
    return {
        "language": {"entropy": language.entropy()},
        "alone": [asdict(exact_metrics(model, temperature)) for temperature in (0.8, 1.0)],
        "whole": [asdict(one) for one in exact_metrics.guided(model, discriminators["whole"], THRESHOLDS)],
        "perfect": [asdict(one) for one in exact_metrics.guided(model, None, THRESHOLDS)],
        "tokens": token_metrics(exact_metrics, model, discriminators["prefixes"], TOKEN_SETTINGS, few),
        "duplicates_of_language": duplicates([" ".join(words) for words in language.sample(few, HELD_OUT_SEED - 1)]),
        "tokens_of_plain": _tokens(model, tokenizer, few, seed),
        "distilled": asdict(exact_metrics(student)),
        "calibrations": calibrations,
        "updates": {name: one.num_updates for name, one in discriminators.items()},
    }


def _accepted(model: Any, tokenizer: Any, discriminator: Discriminator, sizes: Sizes, seed: int) -> list[str]:
    """Return as many sentences as the generator learnt from, of the generator with its discriminator."""
    config = DecodingConfig(
        threshold=DISTILLED, num_candidates=16, max_new_tokens=MAX_TOKENS, batch_size=500, seed=seed + 1
    )
    prompts = [[tokenizer.bos_token_id]] * sizes.sentences
    return [text for text in guided_sample(model, tokenizer, discriminator, prompts, config).texts if text]


def _tokens(model: Any, tokenizer: Any, count: int, seed: int) -> float:
    """Return the tokens of a sentence of the generator alone."""
    drawn = sample(model, tokenizer, [[tokenizer.bos_token_id]] * count, MAX_TOKENS, seed=seed, batch_size=500)
    return sum(map(len, drawn.completion_ids)) / count


def _causal(vocab_size: int, width: int) -> GPT2Config:
    """Return the architecture of the discriminators: a causal model of two layers."""
    return GPT2Config(
        vocab_size=vocab_size,
        n_positions=MAX_TOKENS + 8,
        n_embd=width,
        n_layer=2,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )


def _config(sizes: Sizes, seed: int, folder: str) -> AdversarialConfig:
    return AdversarialConfig(
        folder,
        per_device_train_batch_size=sizes.batch_size,
        num_generations=sizes.batch_size,
        max_completion_length=MAX_TOKENS,
        discriminator_learning_rate=sizes.learning_rate,
        discriminator_optim_kwargs={"weight_decay": 0.01, "adam_beta2": 0.99, "warmup_steps": 50},
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        report_to="none",
        seed=seed,
    )
