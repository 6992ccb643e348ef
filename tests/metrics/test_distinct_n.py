import pytest

from hf_mgan.metrics import distinct_n


def test_distinct_n_counts_over_all_texts_together():
    texts = [["a", "dog"], ["a", "cat"]]
    assert distinct_n(texts, 1) == 3 / 4
    assert distinct_n(texts, 2) == 1.0
    assert distinct_n([["a"] * 5], 2) == 1 / 4
    assert distinct_n(texts, 3) == 0.0
    with pytest.raises(ValueError, match="at least 1, got 0"):
        distinct_n(texts, 0)
