import math

import pytest

from hf_mgan.metrics import duplicates


def test_a_repeated_text_counts_from_its_second_time_on():
    """dog, cat, dog, dog: the second and the third dog occur earlier, 2 of 4."""
    assert duplicates(["dog", "cat", "dog", "dog"]) == 0.5


def test_no_two_are_the_same_and_all_are_the_same():
    assert duplicates(["dog", "Dog", "dog "]) == 0.0
    assert duplicates(["dog"] * 8) == pytest.approx(7 / 8)


def test_of_no_texts_there_is_no_share():
    assert math.isnan(duplicates([]))
