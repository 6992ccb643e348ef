"""The objectives of the two players, as pure functions of logits, and the penalties on the discriminator."""

from .length import length_correlation, length_neutral
from .losses import (
    FREE_TO_SHIFT,
    LOG_ODDS,
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
from .regularizers import gradient_penalty, logit_penalty, noise_penalty
from .rewards import REWARDS, log_d, logit, minimax, probability


__all__ = [
    "FREE_TO_SHIFT",
    "LOG_ODDS",
    "LOSSES",
    "NEEDS_PENALTY",
    "PAIRED",
    "REWARDS",
    "SMOOTHABLE",
    "bce",
    "bradley_terry",
    "gradient_penalty",
    "hinge",
    "least_squares",
    "length_correlation",
    "length_neutral",
    "log_d",
    "logit",
    "logit_penalty",
    "minimax",
    "noise_penalty",
    "probability",
    "relativistic_average",
    "wasserstein",
]
