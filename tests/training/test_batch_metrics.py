import pytest

from hf_mgan.training.batch_metrics import batch_metrics


def test_a_collapsed_batch_shows_beside_its_real_texts():
    """Four equal completions of 3 characters: 3 of 4 are duplicates. Real texts of 6 and 4 characters: ratio 3/5."""
    figures = batch_metrics(["a b"] * 4, ["the do", "runs"])
    assert figures["completions/duplicates"] == 0.75
    assert figures["references/duplicates"] == 0
    assert figures["completions/length_ratio"] == pytest.approx(0.6)
    assert figures["completions/self_bleu"] > figures["references/self_bleu"]


def test_empty_texts_have_figures_too():
    figures = batch_metrics(["", ""], ["", ""])
    assert figures["completions/length_ratio"] == 0
    assert figures["completions/duplicates"] == 0.5
