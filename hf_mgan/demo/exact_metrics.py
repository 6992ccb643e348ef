"""Exact metrics of a generator of the demo's language: both densities are known, so nothing has to be estimated.

In: a causal language model. Out: [`Quality`], with the Jensen-Shannon divergence between the language and the model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data import TextPath
from ..decoding import sample
from ..discriminator import Discriminator
from ..metrics import best_value, distinct_n, jensen_shannon, kullback_leibler
from ..metrics.likelihood import sequence_logps
from .language import Language
from .models import MAX_TOKENS


BATCH_SIZE = 500


@dataclass(frozen=True)
class Quality:
    """What a generator's sentences are like.

    Attributes:
        temperature (`float`): Temperature at which they were drawn.
        divergence (`float`): Jensen-Shannon divergence to the language in bits, [0, 1].
        standard_error (`float`): Its standard error.
        grammatical (`float`): Share of grammatical sentences.
        distinct_4 (`float`): Share of different ones among the 4-grams.
        entropy (`float`): Entropy of a sentence in nats.
        real_nll (`float`): Negative log-likelihood of a real sentence in nats.
        mean_length (`float`): Words per sentence.
        forward_kl (`float`): KL divergence of the model from the language, KL(language, model), in nats.
        reverse_kl (`float`, *optional*): KL(model, language) in nats, of the model without its ungrammatical
            sentences, with which it is infinite; None where there are no others.
        best_value (`float`): V(D, G) of the best possible discriminator in nats, [-log 4, 0].
    """

    temperature: float
    divergence: float
    standard_error: float
    grammatical: float
    distinct_4: float
    entropy: float
    real_nll: float
    mean_length: float
    forward_kl: float
    reverse_kl: float | None
    best_value: float


@dataclass(frozen=True)
class GuidedQuality:
    """What the sentences of a generator are like whose discriminator accepts and rejects them.

    Attributes:
        temperature (`float`): Temperature at which candidates were drawn.
        threshold (`float`): c of rejection in nats.
        draws (`float`): Candidates drawn per sentence kept.
        divergence (`float`): As in [`Quality`], as all that follow.
        standard_error (`float`): See there.
        grammatical (`float`): See there.
        entropy (`float`): See there.
        real_nll (`float`): See there.
        mean_length (`float`): See there.
    """

    temperature: float
    threshold: float
    draws: float
    divergence: float
    standard_error: float
    grammatical: float
    entropy: float
    real_nll: float
    mean_length: float


def sample_sentences(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, count: int, temperature: float, seed: int
) -> tuple[list[list[int]], list[list[str]]]:
    """Draw sentences from a generator.

    Args:
        model (`PreTrainedModel` or `PeftModel`): A causal language model; its mode is restored.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        count (`int`): How many.
        temperature (`float`): Temperature of the softmax, over the whole vocabulary.
        seed (`int`): The same seed draws the same sentences.

    Returns:
        `tuple[list[list[int]], list[list[str]]]`: Token ids of each, with the end where there is one, and its words.
    """
    start = [[tokenizer.bos_token_id]] * count
    ids = sample(model, tokenizer, start, MAX_TOKENS, temperature, seed, BATCH_SIZE).completion_ids
    end = tokenizer.eos_token_id
    # Every token but the end counts as a word, special ones too: a sentence that holds one is not grammatical, and one
    # that was cut at the limit has MAX_TOKENS words, which no real sentence has.
    words = [text.split() for text in tokenizer.batch_decode([row[:-1] if row[-1] == end else row for row in ids])]
    return ids, words


class ExactMetrics:
    """Compares generators with the language on the same real sentences.

    Args:
        language ([`Language`]): The language.
        tokenizer (`PreTrainedTokenizerBase`): The generators' tokenizer.
        sentences (`list[list[str]]`): Real sentences that neither model has seen.
        seed (`int`): Seed of the generated sentences.
    """

    def __init__(
        self, language: Language, tokenizer: PreTrainedTokenizerBase, sentences: list[list[str]], seed: int
    ) -> None:
        self.language = language
        self.tokenizer = tokenizer
        self.real_logps = language.logps(sentences)
        self.texts = [" ".join(sentence) for sentence in sentences]
        self.real_ids = TextPath(tokenizer).encode([""] * len(self.texts), self.texts)
        self.seed = seed

    def __call__(
        self, model: PreTrainedModel | PeftModel, temperature: float = 1.0, count: int | None = None
    ) -> Quality:
        """Compute the metrics of a generator.

        Args:
            model (`PreTrainedModel` or `PeftModel`): A causal language model.
            temperature (`float`, *optional*, defaults to 1.0): Temperature of the softmax.
            count (`int`, *optional*): Generated sentences, compared with as many real ones. As many as there
                are real ones by default.

        Returns:
            [`Quality`]: Of the model at this temperature.
        """
        count = count or len(self.real_ids)
        ids, words = sample_sentences(model, self.tokenizer, count, temperature, self.seed)
        start = [[self.tokenizer.bos_token_id]] * count
        real, fake = (
            sequence_logps(model, start, rows, temperature, BATCH_SIZE) for rows in (self.real_ids[:count], ids)
        )
        truth = self.language.logps(words)
        divergence, standard_error = jensen_shannon(self.real_logps[:count], real, truth, fake)
        grammatical = truth.isfinite()
        share = grammatical.double().mean().item()
        return Quality(
            temperature=temperature,
            divergence=divergence,
            standard_error=standard_error,
            grammatical=share,
            distinct_4=distinct_n(words, 4),
            entropy=-fake.double().mean().item(),
            real_nll=-real.double().mean().item(),
            mean_length=sum(map(len, words)) / count,
            forward_kl=kullback_leibler(self.real_logps[:count], real)[0],
            # q without its ungrammatical sentences is q / share.
            reverse_kl=(fake - truth)[grammatical].double().mean().item() - math.log(share) if share else None,
            best_value=best_value(divergence),
        )

    def guided(
        self,
        model: PreTrainedModel | PeftModel,
        discriminator: Discriminator | None,
        thresholds: Sequence[float],
        temperature: float = 1.0,
    ) -> list[GuidedQuality]:
        """Compute the metrics of a generator and a discriminator together, sampled by rejection.

        A sentence x is accepted with probability a(x) = min(1, exp(r(x) - c)), so the density of what is kept is
        q(x) a(x) / Z, Z the mean of a over the generator's samples. They stand for those that would be kept, each with
        the weight a(x), which is exact and less noisy than to throw them away.

        Args:
            model (`PreTrainedModel` or `PeftModel`): A causal language model.
            discriminator ([`Discriminator`], *optional*): Gives r. None is the perfect one, r = log p - log q.
            thresholds (`Sequence[float]`): c, in nats.
            temperature (`float`, *optional*, defaults to 1.0): Temperature of the softmax.

        Returns:
            `list[GuidedQuality]`: One per threshold.
        """
        count = len(self.real_ids)
        ids, words = sample_sentences(model, self.tokenizer, count, temperature, self.seed)
        start = [[self.tokenizer.bos_token_id]] * count
        real, fake = (
            sequence_logps(model, start, rows, temperature, BATCH_SIZE).double() for rows in (self.real_ids, ids)
        )
        truth = self.language.logps(words)
        if discriminator is None:
            ratios = self.real_logps - real, truth - fake
        else:
            both = self.texts, [" ".join(sentence) for sentence in words]
            ratios = tuple(_log_ratios(discriminator, texts) for texts in both)  # type: ignore[assignment]
        lengths = torch.tensor([float(len(sentence)) for sentence in words], dtype=torch.float64)
        result = []
        for threshold in thresholds:
            of_real, of_fake = ((ratio - threshold).clamp(max=0) for ratio in ratios)
            accepted = of_fake.exp()
            share = accepted.mean()
            if not share:  # of all samples none would be kept: nothing in common with the language, as far as they say
                none = GuidedQuality(temperature, threshold, math.inf, 1.0, 0.0, 0.0, 0.0, math.inf, 0.0)
                result.append(none)
                continue
            weights = accepted / accepted.sum()
            logps, real_logps = fake + of_fake - share.log(), real + of_real - share.log()
            divergence, error = jensen_shannon(self.real_logps, real_logps, truth, logps, accepted)
            result.append(
                GuidedQuality(
                    temperature=temperature,
                    threshold=threshold,
                    draws=1 / share.item(),
                    divergence=divergence,
                    standard_error=error,
                    grammatical=(weights * truth.isfinite()).sum().item(),
                    entropy=-(weights * logps.where(accepted > 0, 0)).sum().item(),
                    real_nll=-real_logps.mean().item(),
                    mean_length=(weights * lengths).sum().item(),
                )
            )
        return result

    def best(self, model: PreTrainedModel | PeftModel, temperatures: tuple[float, ...]) -> list[Quality]:
        """Compute the metrics of a generator at several temperatures, those of the least divergence first."""
        return sorted((self(model, temperature) for temperature in temperatures), key=lambda it: it.divergence)


def _log_ratios(discriminator: Discriminator, texts: list[str]) -> Tensor:
    """Return the log-ratios of sentences, float64 of shape (len(texts),)."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place].split()))  # little is padded
    ratios = torch.empty(len(texts), dtype=torch.float64)
    for start in range(0, len(order), BATCH_SIZE):
        places = order[start : start + BATCH_SIZE]
        ratios[places] = discriminator.log_ratio([""] * len(places), [texts[place] for place in places]).double()
    return ratios
