"""Ways to choose among the candidates of a generator: rows of texts with what they cost.

In: a pool of candidates with their log-ratios. Out: [`Row`]s. Since all texts start from the start of the sequence,
candidates of one pool serve every row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_mgan.decoding.selection import best_of_k, is_accepted, resampling, threshold_for


ALONE = "T = 1"
GROUP = 4  # candidates of resampling and of the best of k


@dataclass(frozen=True)
class Row:
    """Texts of one way to sample.

    Args:
        texts (`list[str]`): The texts.
        log_ratios (`list[float]`): Of each, in nats.
        draws (`float`): Candidates drawn per text.
        tokens (`float`): Tokens drawn per text.
        threshold (`float`, *optional*): c of rejection, in nats.
    """

    texts: list[str]
    log_ratios: list[float]
    draws: float
    tokens: float
    threshold: float | None = None


def rejection_name(draws: float) -> str:
    """Return the name of the row of rejection at so many draws per text kept."""
    return f"rejection, {draws:g} draws"


def rows(pool: dict[str, Any], draws: Sequence[float], seed: int) -> dict[str, Row]:
    """Return the rows of a pool.

    Args:
        pool (`dict`): Its `texts`, their `tokens` and their `log_ratios`, N each.
        draws (`Sequence[float]`): Of the rows of rejection, more than 1 each.
        seed (`int`): Seed of the choice.
    """
    texts, tokens = pool["texts"], torch.tensor(pool["tokens"], dtype=torch.float64)
    ratios = torch.tensor(pool["log_ratios"], dtype=torch.float64)
    uniforms = torch.rand(len(ratios), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    made = {ALONE: Row(texts, pool["log_ratios"], 1.0, tokens.mean().item())}

    def row(places: Tensor, drawn: int, threshold: float | None = None) -> Row:
        kept = places.tolist()
        return Row(
            [texts[place] for place in kept],
            ratios[places].tolist(),
            drawn / len(kept),
            tokens[:drawn].sum().item() / len(kept),
            threshold,
        )

    for wanted in draws:
        threshold = threshold_for(ratios, wanted)
        places = is_accepted(ratios, uniforms, threshold).nonzero()[:, 0]
        made[rejection_name(wanted)] = row(places, len(texts), threshold)
    used = len(ratios) // GROUP * GROUP
    grouped, noise = (one[:used].view(-1, GROUP) for one in (ratios, uniforms))
    for name, rule in ((f"resampling of {GROUP}", resampling), (f"best of {GROUP}", best_of_k)):
        made[name] = row(rule(grouped, noise).kept + GROUP * torch.arange(len(grouped)), used)
    return made
