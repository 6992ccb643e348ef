"""Why rejection changes the length of texts: the discriminator, its calibration, or that a text is kept once at most.

In: the pool with its log-ratios. Out: mean words of what each way of weighing keeps.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hf_mgan.decoding.selection import threshold_for

from .candidates import ALONE


IMPORTANCE = "importance weights"


def mean_words(log_ratios: Tensor, words: Tensor, draws: Mapping[str, float]) -> dict[str, float]:
    """Return the mean words of the candidates, of what rejection keeps, and of texts that weigh exp(r).

    Rejection keeps a text with probability min(1, exp(r - c)), c by the number of draws. Importance weights are the
    same without the bound: what differs between the two is the bound's, and what differs between importance weights
    and real texts is the discriminator's.

    Args:
        log_ratios (`Tensor` of shape `(N,)`): r of candidates, in nats.
        words (`Tensor` of shape `(N,)`): Words of each.
        draws (`Mapping[str, float]`): Of rejection by the name of its row, more than 1 each.

    Returns:
        `dict`: By the names "T = 1", those of the rows and "importance weights".
    """
    ratios = log_ratios.double()
    weights = {
        ALONE: torch.ones_like(ratios),
        **{name: (ratios - threshold_for(ratios, one)).clamp(max=0).exp() for name, one in draws.items()},
        IMPORTANCE: ratios.exp(),
    }
    return {name: ((one * words).sum() / one.sum()).item() for name, one in weights.items()}
