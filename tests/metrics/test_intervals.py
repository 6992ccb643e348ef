import math
from functools import partial
from statistics import fmean, stdev

import pytest
import torch

from hf_mgan.demo.language import Language
from hf_mgan.metrics import distinct_n, duplicates, self_bleu
from hf_mgan.metrics.intervals import (
    auc,
    auc_interval,
    auc_standard_error,
    bootstrap_interval,
    jackknife_interval,
    paired_difference_interval,
    share_interval,
)


def scores(*values):
    return torch.tensor(values, dtype=torch.float64)


def normal(count, seed, mean=0.0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)) + mean


def test_bootstrap_interval_of_two_entries_by_hand():
    """Means of two draws from (0, 1) are 0, 1/2 and 1 with chances 1/4, 1/2 and 1/4.

    The middle 95 % end at 0 and 1, and so do the middle 60 %; the middle 40 %, from 0.3 to 0.7, are all 1/2.
    """
    assert bootstrap_interval([0.0, 1.0]) == (0.5, 0.0, 1.0)
    assert bootstrap_interval([0.0, 1.0], level=0.6) == (0.5, 0.0, 1.0)
    assert bootstrap_interval([0.0, 1.0], level=0.4) == (0.5, 0.5, 0.5)


def test_bootstrap_interval_of_a_mean_is_two_errors_wide():
    values = normal(400, 0, mean=3.0)
    interval = bootstrap_interval(values.tolist())
    reach = 1.96 * values.std(correction=0).item() / 20
    assert interval.value == pytest.approx(values.mean().item(), abs=1e-6)
    assert interval.low == pytest.approx(interval.value - reach, abs=0.15 * reach)
    assert interval.high == pytest.approx(interval.value + reach, abs=0.15 * reach)


def test_bootstrap_interval_takes_any_statistic():
    texts = ["a dog", "a dog runs", "one"] * 20

    def words_per_text(texts):
        return len(" ".join(texts).split()) / len(texts)

    assert bootstrap_interval(texts, words_per_text) == bootstrap_interval([2.0, 3.0, 1.0] * 20)


def test_bootstrap_interval_depends_on_the_seed():
    values = normal(50, 0).tolist()
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_bootstrap_interval_value_is_free_of_draws():
    values = normal(50, 0).tolist()
    few, many = bootstrap_interval(values, n=10), bootstrap_interval(values, n=500)
    assert few.value == many.value
    assert few.low != many.low
    assert bootstrap_interval(values, n=1).low == bootstrap_interval(values, n=1).high


def test_paired_difference_of_equal_differences_has_no_width():
    """5 - 4, 9 - 8, 2 - 1: each pair differs by 1, however they are drawn."""
    interval = paired_difference_interval([5.0, 9.0, 2.0], [4.0, 8.0, 1.0])
    assert interval == pytest.approx((1.0, 1.0, 1.0))


def test_paired_difference_draws_pairs_together():
    hard = normal(100, 0)
    first, second = (10 * hard + normal(100, 1) + 1).tolist(), (10 * hard).tolist()
    paired = paired_difference_interval(first, second)
    assert 0 < paired.low < paired.value < paired.high
    assert paired.high - paired.low < 0.6  # 4 standard errors of 1/10; unpaired ones are 14 times as wide


def test_paired_difference_is_one_of_statistics():
    """max - max over both entries is 4 - 2, over the first one alone 1 - 2, over the second 4 - 1."""
    interval = paired_difference_interval([1.0, 4.0], [2.0, 1.0], max)
    assert interval == (2.0, -1.0, 3.0)


def test_bootstrap_interval_refuses_values_out_of_range():
    with pytest.raises(ValueError, match="got none"):
        bootstrap_interval([])
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        bootstrap_interval([1.0], n=0)
    for level in (0, 1, 95):
        with pytest.raises(ValueError, match=f"level must be greater than 0 and less than 1, got {level}"):
            bootstrap_interval([1.0], level=level)
    with pytest.raises(ValueError, match="got 1 and 2"):
        paired_difference_interval([1.0], [1.0, 2.0])


def test_jackknife_interval_by_hand():
    """The square of the mean of 1, 3, 5 is 9; without each of them it is 16, 9 and 4, of mean 29/3.

    s^2 = 2/3 (19^2 + 2^2 + 17^2)/9 = 436/9, and t = 4.302653 with two degrees of freedom.
    """
    interval = jackknife_interval([1.0, 3.0, 5.0], lambda values: fmean(values) ** 2, groups=3)
    reach = 4.302653 * math.sqrt(436) / 3
    assert interval == pytest.approx((9.0, 9 - reach, 9 + reach), abs=1e-5)
    wide = jackknife_interval([1.0, 3.0, 5.0], lambda values: fmean(values) ** 2, groups=3, level=0.8)
    assert wide.high - 9 == pytest.approx(1.885618 * math.sqrt(436) / 3, abs=1e-5)


def test_jackknife_interval_deals_texts_to_groups_in_order():
    """0, 1, 10, 11 in two groups: without 0 and 10 the mean is 6, without 1 and 11 it is 5; s = 1/2, t = 12.706205."""
    interval = jackknife_interval([0.0, 1.0, 10.0, 11.0], fmean, groups=2)
    assert interval == pytest.approx((5.5, 5.5 - 6.353102, 5.5 + 6.353102), abs=1e-5)


def test_jackknife_interval_of_a_mean_is_the_classical_one():
    values = normal(40, 0, mean=3.0).double()
    interval = jackknife_interval(values.tolist(), fmean, groups=40)
    error = values.std().item() / math.sqrt(40)
    assert interval.value == pytest.approx(values.mean().item())
    assert interval.high - interval.value == pytest.approx(2.022691 * error, rel=1e-5)  # t with 39 degrees
    assert interval.value - interval.low == pytest.approx(2.022691 * error, rel=1e-5)


def test_jackknife_interval_covers_a_mean_at_its_level():
    """Ten groups of seven normal numbers: of 400 intervals at 90 %, 360 -+ 3 * 6 hold 0."""
    intervals = [jackknife_interval(normal(70, seed).tolist(), fmean, level=0.9) for seed in range(400)]
    assert 342 <= sum(interval.low <= 0 <= interval.high for interval in intervals) <= 378


def test_jackknife_interval_refuses_too_few_groups():
    with pytest.raises(ValueError, match="got 4 groups of 3 texts"):
        jackknife_interval([1.0, 2.0, 3.0], fmean, groups=4)
    with pytest.raises(ValueError, match="groups must be at least 2, got 1"):
        jackknife_interval([1.0, 2.0, 3.0], fmean, groups=1)
    with pytest.raises(ValueError, match="level must be greater than 0 and less than 1, got 95"):
        jackknife_interval([1.0, 2.0, 3.0], fmean, groups=3, level=95)


OF_SETS = {
    "self_bleu": partial(self_bleu, n=4),
    "distinct_4": partial(distinct_n, n=4),
    "duplicates": lambda rows: duplicates([" ".join(row) for row in rows]),
}


@pytest.fixture(scope="module")
def fresh_sets():
    """Sets of 120 sentences of the demo's language, all independent."""
    sentences = Language().sample(24 * 120, 0)
    return [sentences[start : start + 120] for start in range(0, len(sentences), 120)]


@pytest.mark.parametrize("name", OF_SETS)
def test_jackknife_interval_is_as_wide_as_new_sets_differ(fresh_sets, name):
    """Student's t is 2.262157 with nine degrees of freedom. The spread of 24 sets is itself known to 15 %."""
    intervals = [jackknife_interval(one, OF_SETS[name]) for one in fresh_sets]
    spread = stdev(interval.value for interval in intervals)
    error = math.sqrt(fmean(((interval.high - interval.value) / 2.262157) ** 2 for interval in intervals))
    assert spread / 1.5 < error < 1.5 * spread
    truth = fmean(interval.value for interval in intervals)
    assert sum(interval.low <= truth <= interval.high for interval in intervals) >= 20


@pytest.mark.parametrize("name", OF_SETS)
def test_bootstrap_interval_is_wrong_for_repetition_metrics(fresh_sets, name):
    """A draw with replacement repeats a third of the texts, so the value itself lies outside of its interval."""
    interval = bootstrap_interval(fresh_sets[0], OF_SETS[name], n=40)
    assert not interval.low <= interval.value <= interval.high


def test_share_interval_by_hand():
    """With z^2 = 3.841459. 5 of 10: 1/2 -+ z sqrt(1/40 + z^2/400)/(1 + z^2/10) = 1/2 -+ 0.263406.

    0 of 10: from 0 to (z^2/10)/(1 + z^2/10) = 0.277533. 10 of 10: the same from above.
    """
    assert share_interval([True, False] * 5) == pytest.approx((0.5, 0.236594, 0.763406), abs=1e-6)
    assert share_interval([False] * 10) == pytest.approx((0.0, 0.0, 0.277533), abs=1e-6)
    assert share_interval([True] * 10) == pytest.approx((1.0, 0.722467, 1.0), abs=1e-6)
    # z = 1 at this level: (1/4 + 1/8 -+ sqrt(3/64 + 1/64))/(1 + 1/4) with 1 of 4
    assert share_interval([True, False, False, False], level=0.682689) == pytest.approx((0.25, 0.1, 0.5), abs=1e-5)


def test_share_interval_covers_the_share_at_its_level():
    """The chance of every count of 40 with p = 0.05, at which a normal interval holds it in 86 % only."""
    chances = [math.comb(40, count) * 0.05**count * 0.95 ** (40 - count) for count in range(41)]
    intervals = [share_interval([True] * count + [False] * (40 - count)) for count in range(41)]
    held = [chance for chance, one in zip(chances, intervals, strict=True) if one.low <= 0.05 <= one.high]
    assert 0.93 < sum(held) < 0.97


def test_auc_by_hand():
    """Reals 2, 3 and 5 over fakes 1, 2 and 4: 1 1/2, 2 and 3 of three, 6.5 of 9 pairs."""
    assert auc(scores(3, 5, 2), scores(4, 1, 2)) == pytest.approx(6.5 / 9, abs=1e-12)


def test_auc_of_the_other_side_is_the_rest():
    real, fake = normal(30, 0, mean=0.5), normal(20, 1)
    assert auc(fake, real) == pytest.approx(1 - auc(real, fake))
    assert auc(-real, -fake) == pytest.approx(1 - auc(real, fake))
    assert auc(real, real) == pytest.approx(0.5)
    assert auc(torch.zeros(3), torch.zeros(4)) == 0.5
    assert auc(torch.ones(3), torch.zeros(4)) == 1.0


def test_auc_standard_error_by_hand():
    """Reals 2, 3, 5 have V = 1/2, 2/3, 1, of mean 13/18 and variance 1/2 (16 + 1 + 25)/18^2 = 7/108.

    Fakes 1, 2, 4 have W = 1, 5/6, 1/3, of the same mean and variance 1/2 (25 + 4 + 49)/18^2 = 13/108.
    s^2 = (7 + 13)/108 / 3 = 5/81.
    """
    assert auc_standard_error(scores(2, 3, 5), scores(1, 2, 4)) == pytest.approx(math.sqrt(5) / 9, abs=1e-12)


def test_auc_standard_error_of_sides_of_two_sizes():
    """Reals 0, 2 have V = 0, 1, of variance 1/2 over 2; all four fakes at 1 have W = 1/2: s^2 = 1/4."""
    assert auc_standard_error(scores(0, 2), scores(1, 1, 1, 1)) == pytest.approx(0.5)


def test_auc_interval_is_normal_and_cut_to_0_and_1():
    """0.875 -+ 1.959964 sqrt(1/32): from 0.528524 to more than 1."""
    interval = auc_interval(scores(2, 3), scores(1, 2))
    assert interval == pytest.approx((0.875, 0.528524, 1.0), abs=1e-6)
    assert auc_interval(scores(1, 2), scores(2, 3)) == pytest.approx((0.125, 0.0, 0.471476), abs=1e-6)
    narrow = auc_interval(scores(2, 3), scores(1, 2), level=0.5)
    assert narrow.low == pytest.approx(0.875 - 0.674490 * math.sqrt(1 / 32), abs=1e-6)


def test_auc_interval_of_separated_sides_by_hand():
    """0.025^(1/3) = 0.292402: with a smaller area three pairs would be in order in less than 2.5 % of trials."""
    above, below = scores(4, 5, 6, 7), scores(1, 2, 3)
    assert auc_interval(above, below) == pytest.approx((1.0, 0.292402, 1.0), abs=1e-6)
    assert auc_interval(below, above) == pytest.approx((0.0, 0.0, 0.707598), abs=1e-6)


def test_auc_interval_covers_the_area_at_its_level():
    """N(1, 1) over N(0, 1): the area is Phi(1/sqrt 2) = 0.760250. Of 400 intervals at 90 %, 360 -+ 3 * 6."""
    held = 0
    for seed in range(400):
        interval = auc_interval(normal(60, 2 * seed, mean=1.0), normal(40, 2 * seed + 1), level=0.9)
        held += interval.low <= 0.760250 <= interval.high
    assert 342 <= held <= 378


def test_auc_compares_half_precision_as_it_is():
    """1 and 1.001 are one number in bfloat16, and two in the other side's precision."""
    assert auc(scores(1.001), torch.tensor([1.0]).bfloat16()) == 1.0
    assert auc(torch.tensor([1.0]).bfloat16(), scores(1.001)) == 0.0


def test_auc_refuses_what_are_no_scores():
    with pytest.raises(ValueError, match=r"got \(0,\) and \(2,\)"):
        auc(scores(), scores(1, 2))
    with pytest.raises(ValueError, match=r"got \(1, 2\) and \(2,\)"):
        auc(scores(1, 2)[None], scores(1, 2))
    with pytest.raises(ValueError, match="at least 2 scores per side, got 1 and 2"):
        auc_standard_error(scores(1), scores(1, 2))
    with pytest.raises(ValueError, match="level"):
        auc_interval(scores(1, 2), scores(1, 2), level=1.0)
