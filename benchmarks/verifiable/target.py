"""Verifiable rewards on the demo's language, and the language that each of them is meant to lead to.

A reward v(x) pays, and the text is to stay real: the target is the language p tilted by the reward, p*(x) proportional
to p(x) exp(v(x) / tau), with tau = 0 the language given that the reward is at its greatest. In: words. Out: rewards,
exact log-probabilities under the target, and samples of it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_mgan.demo.language import ADJECTIVES, Language


DRAWN = 100_000  # sentences of the language at a time, of which the target keeps some
NORMALISER_SEED = 2_000_000  # of the sentences that Z is estimated on
ADJECTIVE_WORDS = {word for words in ADJECTIVES.values() for word in words}


@dataclass(frozen=True)
class Reward:
    """A reward that can be checked.

    Args:
        name (`str`): Its name.
        value (`Callable`): From the words of a sentence to its reward.
        highest (`float`): The greatest reward of a sentence of the language.
        temperature (`float`): tau of the target; 0 where the reward is one or nothing.
    """

    name: str
    value: Callable[[Sequence[str]], float]
    highest: float
    temperature: float

    def kept(self, sentences: Sequence[Sequence[str]], seed: int) -> list[int]:
        """Return the places of sentences of the language that make up a sample of the target, by rejection."""
        uniforms = torch.rand(len(sentences), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        places: list[int] = (uniforms.log() < self.log_weights(sentences)).nonzero()[:, 0].tolist()
        return places

    def of(self, sentences: Sequence[Sequence[str]]) -> Tensor:
        """Return the rewards of sentences, float64 of shape `(N,)`."""
        return torch.tensor([self.value(words) for words in sentences], dtype=torch.float64)

    def log_weights(self, sentences: Sequence[Sequence[str]]) -> Tensor:
        """Return what the target adds to log p, up to a constant: at most 0, float64 of shape `(N,)`."""
        values = self.of(sentences)
        if not self.temperature:
            return torch.zeros_like(values).masked_fill(values < self.highest, -math.inf)
        return (values - self.highest) / self.temperature


def _has_dog(words: Sequence[str]) -> float:
    return float("dog" in words or "dogs" in words)


def _adjectives(words: Sequence[str]) -> float:
    return float(sum(word in ADJECTIVE_WORDS for word in words))


REWARDS = {
    one.name: one
    for one in (
        Reward("dog", _has_dog, 1.0, 0.0),
        # Without an end: a sentence of the language has four adjectives at most, and what is none can have more.
        Reward("adjectives", _adjectives, 4.0, 1.0),
        Reward("capped", lambda words: min(_adjectives(words), 2.0), 2.0, 1.0),
    )
}


class Target:
    """The language tilted by a reward; stands where a [`~demo.language.Language`] does in exact metrics.

    Args:
        language ([`Language`]): p.
        reward ([`Reward`]): v.
        count (`int`, *optional*, defaults to 200000): Sentences that Z is estimated on.

    Attributes:
        log_normaliser (`float`): log Z = log E_p[exp(log_weights)]; its error is that of a mean, 0.005 nats where a
            fifth of 200,000 sentences is kept.
    """

    def __init__(self, language: Language, reward: Reward, count: int = 2 * DRAWN) -> None:
        self.language, self.reward, self.words = language, reward, language.words
        weights = reward.log_weights(language.sample(count, NORMALISER_SEED))
        self.log_normaliser = (weights.logsumexp(0) - math.log(len(weights))).item()

    def logps(self, sentences: list[list[str]]) -> Tensor:
        """Compute log p*(x) of sentences with their ends, in nats, -inf outside; float64 of shape `(N,)`."""
        return self.language.logps(sentences) + self.reward.log_weights(sentences) - self.log_normaliser

    def sample(self, count: int, seed: int) -> list[list[str]]:
        """Draw sentences by rejection from the language; the same seed draws the same sentences."""
        kept: list[list[str]] = []
        part = 0
        while len(kept) < count:
            drawn = self.language.sample(min(DRAWN, 50 * count), seed + 10_007 * part)
            kept += [drawn[place] for place in self.reward.kept(drawn, seed + part)]
            part += 1
        return kept[:count]
