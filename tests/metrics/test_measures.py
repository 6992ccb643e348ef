import math

import pytest
import torch

from hf_mgan.metrics import distinct_n, jensen_shannon


def logps(*probs):
    return torch.tensor(probs, dtype=torch.float64).log()


def test_jensen_shannon_of_two_coins_by_hand():
    """P = (1/2, 1/2), Q = (1, 0). m = (3/4, 1/4).

    KL(P, m) = 1/2 log2(2/3) + 1/2 log2(2) = 0.207519; KL(Q, m) = log2(4/3) = 0.415037; JS = 0.311278 bits. The samples
    stand for the distributions exactly: one head and one tail of P, heads of Q.
    """
    value, _ = jensen_shannon(logps(0.5, 0.5), logps(1, 0), logps(0.5, 0.5), logps(1, 1))
    assert value == pytest.approx(0.311278, abs=1e-6)


def test_jensen_shannon_is_zero_for_equals_and_one_bit_for_strangers():
    same = logps(0.1, 0.4, 0.5)
    assert jensen_shannon(same, same, same, same) == pytest.approx((0.0, 0.0), abs=1e-12)
    assert jensen_shannon(same, logps(0, 0, 0), logps(0, 0, 0), same) == pytest.approx((1.0, 0.0), abs=1e-12)


def test_the_standard_error_is_that_of_a_mean():
    """Terms 1 and 1 - log2(1 + 1) = 0 on the first side, 1 and 1 on the other: variance 1/2 over 2 samples, halved."""
    _, error = jensen_shannon(logps(0.5, 0.5), logps(0, 0.5), logps(0, 0), logps(0.5, 0.5))
    assert error == pytest.approx(math.sqrt(0.5 / 2) / 2)


def test_distinct_n_counts_over_all_texts_together():
    texts = [["a", "dog"], ["a", "cat"]]
    assert distinct_n(texts, 1) == 3 / 4
    assert distinct_n(texts, 2) == 1.0
    assert distinct_n([["a"] * 5], 2) == 1 / 4
    assert distinct_n(texts, 3) == 0.0
    with pytest.raises(ValueError, match="at least 1, got 0"):
        distinct_n(texts, 0)
