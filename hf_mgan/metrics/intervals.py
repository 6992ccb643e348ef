"""Intervals of metrics: bootstrap, jackknife and Wilson's, and the area under a curve with its standard error.

Student's and Wilson's are scipy's, of the extra `evaluation`; all else needs nothing beside torch.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist, fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..checks import LEVEL, SEED, integer
from .extras import require_packages


DRAWS = integer(1, advice="1000 draws are common.")


class Interval(NamedTuple):
    """A value with the interval around it.

    Args:
        value (`float`): The value over all texts.
        low (`float`): Lower end of the interval.
        high (`float`): Upper end.
    """

    value: float
    low: float
    high: float


def bootstrap_interval(
    values: Sequence[Any],
    statistic: Callable[[list[Any]], float] = fmean,
    n: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Compute a statistic of texts and the percentile interval of its bootstrap.

    Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13: the texts are drawn n times with
    replacement, as many as there are, and the interval holds the middle share `level` of the n statistics. A statistic
    that depends on which texts are the same, such as self-BLEU, distinct-n or the share of duplicates, has no such
    interval: a draw with replacement repeats texts.

    Args:
        values (`Sequence`): One entry per text: a number of it, the text itself, or what `statistic` takes.
        statistic (`Callable`, *optional*, defaults to the mean): From a list of entries to a `float`.
        n (`int`, *optional*, defaults to 1000): Number of draws.
        level (`float`, *optional*, defaults to 0.95): Share of the draws within the interval, in (0, 1).
        seed (`int`, *optional*, defaults to 0): Seed of the draws.

    Returns:
        [`Interval`]: The statistic over all entries and the ends of its interval.

    Raises:
        ValueError: If there are no entries, or `n` or `level` is out of range.

    Example:
        ```python
        >>> bootstrap_interval([0.0, 1.0] * 50)
        Interval(value=0.5, low=0.4, high=0.6)

        ```
    """
    level, n, seed = LEVEL("level", level), DRAWS("n", n), SEED("seed", seed)
    entries = list(values)
    if not entries:
        raise ValueError("A bootstrap draws from the entries it is given, and got none.")
    generator = torch.Generator().manual_seed(seed)
    statistics = []
    for _ in range(n):
        draw = torch.randint(len(entries), (len(entries),), generator=generator).tolist()
        statistics.append(statistic([entries[index] for index in draw]))
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.tensor(statistics, dtype=torch.float64).quantile(ends).tolist()
    return Interval(statistic(entries), low, high)


def paired_difference_interval(
    first: Sequence[Any],
    second: Sequence[Any],
    statistic: Callable[[list[Any]], float] = fmean,
    n: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Compute statistic(first) - statistic(second) and the interval of its paired bootstrap.

    Both sides are drawn at the same places, so what makes an entry hard for both cancels (Koehn 2004, "Statistical
    significance tests for machine translation evaluation", [W04-3250](https://aclanthology.org/W04-3250)). An interval
    without 0 is a difference at that level.

    Args:
        first (`Sequence` of length N): One entry per text, as in [`bootstrap_interval`].
        second (`Sequence` of length N): The entries of the same prompts from another model, in the same order.
        statistic (`Callable`, *optional*, defaults to the mean): From a list of entries to a `float`.
        n (`int`, *optional*, defaults to 1000): Number of draws.
        level (`float`, *optional*, defaults to 0.95): Share of the draws within the interval, in (0, 1).
        seed (`int`, *optional*, defaults to 0): Seed of the draws.

    Returns:
        [`Interval`]: The difference and the ends of its interval.

    Raises:
        ValueError: If the sides do not pair up, if they are empty, or `n` or `level` is out of range.

    Example:
        ```python
        >>> paired_difference_interval([5.0, 8.0, 2.0], [4.0, 7.0, 1.0])
        Interval(value=1.0, low=1.0, high=1.0)

        ```
    """
    if len(first) != len(second):
        raise ValueError(
            f"A paired difference needs one entry of each side per text, got {len(first)} and {len(second)}. Compare "
            "the intervals of both sides where they do not pair up."
        )

    def difference(pairs: list[tuple[Any, Any]]) -> float:
        return statistic([pair[0] for pair in pairs]) - statistic([pair[1] for pair in pairs])

    return bootstrap_interval(list(zip(first, second, strict=True)), difference, n, level, seed)


def jackknife_interval(
    values: Sequence[Any],
    statistic: Callable[[list[Any]], float],
    groups: int = 10,
    level: float = 0.95,
) -> Interval:
    """Compute a statistic of texts and the interval of its grouped jackknife, also where a bootstrap is none.

    The texts are dealt to the groups one after the other, and the statistic is computed as often as there are groups,
    each time without one: s^2 = (g - 1)/g sum_k (t_k - mean t)^2 (Shao and Wu 1989, "A general theory for jackknife
    variance estimation"; Efron and Tibshirani 1993, chapter 11). Nothing is drawn twice, so it holds for self-BLEU,
    distinct-n and the share of duplicates, for which a bootstrap repeats texts. The interval is the value -+ Student's
    quantile of g - 1 degrees of freedom times s, not cut to the range of the statistic. The texts must be independent
    of one another, and the statistic must change smoothly with the share of each text; a maximum or a median does not.

    Args:
        values (`Sequence` of length N): One entry per text, in an order that means nothing.
        statistic (`Callable`): From a list of entries to a `float`.
        groups (`int`, *optional*, defaults to 10): g, from 2 to N.
        level (`float`, *optional*, defaults to 0.95): How often such intervals hold the value for endlessly many sets
            of N texts, in (0, 1).

    Returns:
        [`Interval`]: The statistic over all entries and the ends of its interval.

    Raises:
        ImportError: If scipy is missing.
        ValueError: If there are fewer entries than groups, or `groups` or `level` is out of range.

    Example:
        ```python
        >>> jackknife_interval([1.0, 2.0, 3.0], fmean, groups=3)  # s = 1/sqrt(3), t = 4.30
        Interval(value=2.0, low=-0.48..., high=4.48...)

        ```
    """
    require_packages("A jackknife's interval", "scipy")
    from scipy.stats import t as student

    level, groups = LEVEL("level", level), integer(2)("groups", groups)
    entries = list(values)
    if groups > len(entries):
        raise ValueError(
            f"A jackknife leaves out one of at least 2 groups of texts at a time, and each group needs a text; got "
            f"{groups} groups of {len(entries)} texts."
        )
    without = [
        statistic([entry for place, entry in enumerate(entries) if place % groups != group]) for group in range(groups)
    ]
    mean = fmean(without)
    error = math.sqrt((groups - 1) / groups * sum((one - mean) ** 2 for one in without))
    reach = float(student.ppf((1 + level) / 2, groups - 1)) * error
    value = statistic(entries)
    return Interval(value, value - reach, value + reach)


def share_interval(verdicts: Sequence[bool], level: float = 0.95) -> Interval:
    """Compute a share with the interval of Wilson, which is of use where the share is 0 or 1 too.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", by scipy.

    Args:
        verdicts (`Sequence[bool]` of length N): One per text, N at least 1.
        level (`float`, *optional*, defaults to 0.95): How often such intervals hold the true share, in (0, 1).

    Returns:
        [`Interval`]: The share of True and its interval, both in [0, 1].

    Raises:
        ImportError: If scipy is missing.
        ValueError: If there are no verdicts, or `level` is out of range.

    Example:
        ```python
        >>> share_interval([False] * 100)
        Interval(value=0.0, low=0.0, high=0.036...)

        ```
    """
    require_packages("Wilson's interval", "scipy")
    from scipy.stats import binomtest

    level = LEVEL("level", level)
    if not verdicts:
        raise ValueError("A share is one of verdicts, and verdicts is empty. Give at least one.")
    result = binomtest(sum(verdicts), len(verdicts))
    ends = result.proportion_ci(level, method="wilson")
    return Interval(sum(verdicts) / len(verdicts), float(ends.low), float(ends.high))


def auc(real_scores: Tensor, fake_scores: Tensor) -> float:
    """Compute how often a real text scores higher than a generated one, a tie counting half.

    It is the area under the receiver operating characteristic, and the statistic of Mann and Whitney over the number
    of pairs (Hanley and McNeil 1982, "The meaning and use of the area under a receiver operating characteristic (ROC)
    curve").

    Args:
        real_scores (`Tensor` of shape `(R,)`): Scores of real texts, higher = more real.
        fake_scores (`Tensor` of shape `(B,)`): Scores of generated texts.

    Returns:
        `float`: [0, 1], 0.5 where the scores tell nothing.

    Raises:
        ValueError: If a side is empty or not of one dimension.

    Example:
        ```python
        >>> auc(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0]))  # three pairs in order, one tie
        0.875

        ```
    """
    return placements(real_scores, fake_scores)[0].mean().item()


def auc_standard_error(real_scores: Tensor, fake_scores: Tensor) -> float:
    """Compute the standard error of [`auc`].

    s^2 = var(V)/R + var(W)/B, with V the share of generated texts below a real one and W the share of real texts above
    a generated one, DeLong et al. 1988, "Comparing the areas under two or more correlated receiver operating
    characteristic curves". It supposes no distribution of the scores.

    Args:
        real_scores (`Tensor` of shape `(R,)`): Scores of real texts, R at least 2.
        fake_scores (`Tensor` of shape `(B,)`): Scores of generated texts, B at least 2.

    Returns:
        `float`: [0, inf); 0 where the scores separate the two sides, whatever their number: see [`auc_interval`].

    Raises:
        ValueError: If a side has fewer than 2 scores or is not of one dimension.

    Example:
        ```python
        >>> auc_standard_error(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0]))  # V = 3/4, 1 and W = 1, 3/4
        0.1767766952966369

        ```
    """
    if min(real_scores.numel(), fake_scores.numel()) < 2:
        raise ValueError(
            f"A standard error needs at least 2 scores per side, got {real_scores.numel()} and {fake_scores.numel()}."
        )
    of_real, of_fake = placements(real_scores, fake_scores)
    return math.sqrt((of_real.var() / len(of_real) + of_fake.var() / len(of_fake)).item())


def auc_interval(real_scores: Tensor, fake_scores: Tensor, level: float = 0.95) -> Interval:
    """Compute [`auc`] with a normal interval of its standard error, cut to [0, 1].

    Where the scores separate the two sides, the standard error is 0 and says nothing: see [`separated_interval`].

    Args:
        real_scores (`Tensor` of shape `(R,)`): Scores of real texts, R at least 2.
        fake_scores (`Tensor` of shape `(B,)`): Scores of generated texts, B at least 2.
        level (`float`, *optional*, defaults to 0.95): How often such intervals hold the true area, in (0, 1).

    Returns:
        [`Interval`]: The area and the ends of its interval.

    Raises:
        ValueError: If a side has fewer than 2 scores or is not of one dimension, or `level` is out of range.

    Example:
        ```python
        >>> auc_interval(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0]))  # 0.875 -+ 1.96 * 0.177
        Interval(value=0.875, low=0.5285..., high=1.0)

        ```
    """
    level = LEVEL("level", level)
    error = auc_standard_error(real_scores, fake_scores)
    value = auc(real_scores, fake_scores)
    if value in (0.0, 1.0):
        return separated_interval(value, min(len(real_scores), len(fake_scores)), level)
    reach = NormalDist().inv_cdf((1 + level) / 2) * error
    return Interval(value, max(0.0, value - reach), min(1.0, value + reach))


def separated_interval(value: float, smaller: int, level: float) -> Interval:
    """Return the interval of an area of 0 or 1, whose standard error is 0.

    It ends at a = ((1 - level) / 2)^(1/k), with k the smaller number of scores: were the area less than a, then
    already k pairs without a common score would all be in order with a probability of less than (1 - level) / 2.

    Args:
        value (`float`): The area, 0 or 1.
        smaller (`int`): k.
        level (`float`): As in [`auc_interval`].

    Returns:
        [`Interval`]: The area and the ends of its interval.
    """
    end = ((1 - level) / 2) ** (1 / smaller)
    return Interval(value, end, 1.0) if value else Interval(value, 0.0, 1 - end)


def placements(real_scores: Tensor, fake_scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each real text the share of fakes below it, and for each fake the share of reals above it."""
    if real_scores.ndim != 1 or fake_scores.ndim != 1 or not len(real_scores) or not len(fake_scores):
        raise ValueError(
            f"Scores must be of shapes (R,) and (B,), one per text and at least one per side, got "
            f"{tuple(real_scores.shape)} and {tuple(fake_scores.shape)}."
        )

    def share_below(scores: Tensor, others: Tensor) -> Tensor:
        ordered = others.sort().values
        below, up_to = (torch.searchsorted(ordered, scores, right=right) for right in (False, True))
        return (below + up_to).double() / (2 * len(others))

    real, fake = real_scores.detach().double(), fake_scores.detach().double()
    return share_below(real, fake), 1 - share_below(fake, real)
