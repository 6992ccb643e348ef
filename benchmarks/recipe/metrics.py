"""How near a discriminator is to the perfect one, whose logit is log p(x) - log q(x): pure functions of logits.

The perfect discriminator's own metrics come from the same functions and the same sentences, so a difference between
the two is no matter of the sample.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_mgan.metrics import auc


BINS = 15


def ranks(values: Tensor) -> Tensor:
    """Return the rank of each value from 1 up; equal values share the mean of their ranks.

    Args:
        values (`Tensor` of shape `(N,)`): May hold infinities.

    Returns:
        `Tensor` of shape `(N,)`, float64.
    """
    _, places, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[places]


def pearson(one: Tensor, other: Tensor) -> float:
    """Return the correlation, nan where a side does not vary."""
    one, other = one.double() - one.double().mean(), other.double() - other.double().mean()
    return (one @ other / (one.norm() * other.norm())).item()


def spearman(one: Tensor, other: Tensor) -> float:
    """Return the correlation of the ranks."""
    return pearson(ranks(one), ranks(other))


def calibration_error(real_logits: Tensor, fake_logits: Tensor) -> float:
    """Return the expected calibration error of D, over 15 bins of equal width."""
    probs = torch.cat([real_logits, fake_logits]).double().sigmoid()
    labels = torch.cat([torch.ones(len(real_logits)), torch.zeros(len(fake_logits))]).double()
    places = (probs * BINS).long().clamp(max=BINS - 1)
    excess = torch.zeros(BINS, dtype=torch.float64).index_add(0, places, probs - labels)
    return (excess.abs().sum() / len(probs)).item()


def classification_metrics(real_logits: Tensor, fake_logits: Tensor) -> dict[str, float]:
    """Return accuracy, AUC, V(D, G) in nats and the calibration error.

    Args:
        real_logits (`Tensor` of shape `(R,)`): Logits of real sentences.
        fake_logits (`Tensor` of shape `(B,)`): Logits of generated ones, as many for a balanced accuracy.

    Returns:
        `dict[str, float]`: With the keys `accuracy`, `auc`, `value` and `calibration_error`.
    """
    real, fake = real_logits.double(), fake_logits.double()
    return {
        "accuracy": torch.cat([real > 0, fake <= 0]).double().mean().item(),
        "auc": auc(real, fake),
        "value": (F.logsigmoid(real).mean() + F.logsigmoid(-fake).mean()).item(),
        "calibration_error": calibration_error(real, fake),
    }


def against_perfect(
    real_logits: Tensor, fake_logits: Tensor, real_ratios: Tensor, fake_ratios: Tensor
) -> dict[str, float]:
    """Compare a discriminator with the perfect one.

    Args:
        real_logits (`Tensor` of shape `(R,)`): Its logits of real sentences.
        fake_logits (`Tensor` of shape `(B,)`): Its logits of generated ones.
        real_ratios (`Tensor` of shape `(R,)`): True log p(x) - log q(x) of the real sentences.
        fake_ratios (`Tensor` of shape `(B,)`): The same of the generated ones; -inf where the language has no such
            sentence.

    Returns:
        `dict[str, float]`: [`classification_metrics`], those of the perfect one with the prefix `best_`, and the rank
        correlation with the true log-ratio: `spearman` over the sentences where it is finite, `spearman_generated`
        over the generated ones among them.
    """
    of_both = torch.cat([real_logits, fake_logits]), torch.cat([real_ratios, fake_ratios])
    compared = {"": of_both, "_generated": (fake_logits, fake_ratios)}
    result = classification_metrics(real_logits, fake_logits)
    result |= {f"best_{name}": value for name, value in classification_metrics(real_ratios, fake_ratios).items()}
    for suffix, (logits, ratios) in compared.items():
        finite = ratios.isfinite()
        result[f"spearman{suffix}"] = spearman(logits[finite], ratios[finite])
    return result
