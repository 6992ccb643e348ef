import math

import pytest

from hf_mgan.metrics import duplicates


def test_duplicates_count_from_the_second_time_on():
    """dog, cat, dog, dog: the second and the third dog occur earlier, 2 of 4."""
    assert duplicates(["dog", "cat", "dog", "dog"]) == 0.5


def test_duplicates_of_all_different_and_all_same_texts():
    assert duplicates(["dog", "Dog", "dog "]) == 0.0
    assert duplicates(["dog"] * 8) == pytest.approx(7 / 8)


def test_duplicates_of_no_texts_is_nan():
    assert math.isnan(duplicates([]))
