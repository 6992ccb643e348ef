import math

import pytest

from hf_mgan.metrics.repetition import repeated_share, repetition


def words(*texts):
    return [text.split() for text in texts]


def test_repeated_share_by_hand():
    """Pairs of "a dog a dog a": (a dog) twice, (dog a) twice: 2 different of 4. Threes: 2 different of 3."""
    (text,) = words("a dog a dog a")
    assert repeated_share(text, 2) == 0.5
    assert repeated_share(text, 3) == pytest.approx(1 / 3)
    assert repeated_share(text, 4) == 0.0


def test_repeated_share_is_of_four_words_by_default():
    """Fours of nine equal words: 1 different of 6."""
    assert repeated_share(["a"] * 9) == pytest.approx(5 / 6)


def test_repeated_share_of_a_text_shorter_than_n_is_zero():
    assert repeated_share(["a", "a"], 3) == 0.0
    assert repeated_share([], 1) == 0.0


def test_repetition_is_a_mean_over_texts():
    """2/3 of three words and 0 of one word: 1/3, where 2 of 4 words would be 1/2."""
    assert repetition(words("a a a", "b"), 1) == pytest.approx(1 / 3)


def test_repetition_ignores_what_texts_share():
    assert repetition(words("the old king sees", "the old king sees"), 1) == 0.0


def test_repetition_shows_a_loop_but_no_shuffled_words():
    (text,) = words("the old king sees a small dog near this cat")
    assert repeated_share(text * 6, 4) > 0.8  # at most 10 different of 57
    assert repeated_share(text[::-1], 4) == repeated_share(text, 4) == 0.0


def test_repetition_takes_token_ids():
    assert repeated_share([5, 5, 5], 1) == pytest.approx(2 / 3)


def test_repetition_of_no_texts_and_refusal_of_n():
    assert math.isnan(repetition([]))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        repeated_share(["a"], 0)
