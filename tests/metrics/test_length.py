import math

import pytest

from hf_mgan.metrics.length import length_ratio, mean_length


def test_length_ratio_is_one_of_means():
    """(3 + 1)/2 words by (1 + 1 + 4)/3 words: 2/2; the mean of ratios of pairs would be another."""
    assert length_ratio([["a", "b", "c"], ["a"]], [["a"], ["b"], ["a", "b", "c", "d"]]) == 1.0


def test_length_ratio_counts_what_is_given():
    """Two words of five characters in three tokens, against one word of three characters in two tokens."""
    assert length_ratio(["a dog"], ["cat"]) == 5 / 3
    assert length_ratio([["a", "dog"]], [["cat"]]) == 2.0
    assert length_ratio([[7, 8, 9]], [[5, 6]]) == 1.5


def test_length_ratio_shows_long_texts():
    real = [["a", "dog", "runs"]] * 4
    assert length_ratio([text * 5 for text in real], real) == 5.0
    assert length_ratio([[]] * 4, real) == 0.0


def test_length_ratio_of_nothing_is_nan():
    assert math.isnan(mean_length([]))
    assert math.isnan(length_ratio([], ["a"]))
    assert math.isnan(length_ratio(["a"], []))
    assert math.isnan(length_ratio(["a"], [""]))


def test_mean_length_by_hand():
    assert mean_length(["ab", "abcd", ""]) == pytest.approx(2.0)
