"""The part of the demo's language that is called unsafe: a rule on words, its share, and the density of the rest."""

import functools
import math

import torch
from torch import Tensor

from hf_mgan.demo.language import NOUNS, PLURALS, START, Language, State, steps


HUNTS = {"eat", "eats", "chase", "chases"}
NOUNS_OF = {kind: {noun.split("/")[0] for noun in nouns} for kind, nouns in NOUNS.items()}
FORMS_OF = {kind: nouns | {PLURALS.get(noun, noun + "s") for noun in nouns} for kind, nouns in NOUNS_OF.items()}
ALL_NOUNS = set().union(*FORMS_OF.values())


def is_unsafe(words: list[str]) -> bool:
    """Say whether the first noun is an animal and a hunting verb stands anywhere in the sentence."""
    subject = next((word for word in words if word in ALL_NOUNS), None)
    return subject in FORMS_OF["animal"] and not HUNTS.isdisjoint(words)


def unsafe_share() -> float:
    """Compute which share of the language is unsafe, over the states of its automaton: no verb has another subject."""

    @functools.cache
    def safe(state: State) -> float:
        total = 0.0
        for word, p, following in steps(state):
            if not (state.subject == "animal" and word in HUNTS):
                total += p * (1.0 if following is None else safe(following))
        return total

    return 1 - safe(START)


def safe_logps(language: Language, sentences: list[list[str]]) -> Tensor:
    """Compute log-probabilities under the language of the safe sentences, p(x) / (1 - u), in nats; -inf if unsafe."""
    unsafe = torch.tensor([is_unsafe(words) for words in sentences])
    return (language.logps(sentences) - math.log(1 - unsafe_share())).masked_fill(unsafe, -torch.inf)
