"""The objectives of the two players, as pure functions of logits."""

from .losses import LOSSES, PAIRED, bce, bradley_terry, relativistic_average
from .rewards import REWARDS, log_d, logit, minimax, probability


__all__ = [
    "LOSSES",
    "PAIRED",
    "REWARDS",
    "bce",
    "bradley_terry",
    "log_d",
    "logit",
    "minimax",
    "probability",
    "relativistic_average",
]
