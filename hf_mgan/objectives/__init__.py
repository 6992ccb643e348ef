"""The objectives of both models and the penalties on the discriminator, as pure functions of logits."""

from .losses import (
    FREE_TO_SHIFT,
    LOSSES,
    NEEDS_PENALTY,
    PAIRED,
    SMOOTHABLE,
    bce,
    bradley_terry,
    hinge,
    least_squares,
    relativistic_average,
    wasserstein,
)
from .regularizers import logit_penalty
from .rewards import REWARDS, log_d, logit, minimax, probability


__all__ = [
    "FREE_TO_SHIFT",
    "LOSSES",
    "NEEDS_PENALTY",
    "PAIRED",
    "REWARDS",
    "SMOOTHABLE",
    "bce",
    "bradley_terry",
    "hinge",
    "least_squares",
    "log_d",
    "logit",
    "logit_penalty",
    "minimax",
    "probability",
    "relativistic_average",
    "wasserstein",
]
