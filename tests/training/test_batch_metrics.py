import pytest

from hf_mgan.training.batch_metrics import batch_metrics


def test_batch_metrics_of_a_collapsed_batch():
    """Four equal completions of 3 characters: 3 of 4 are duplicates. Real texts of 6 and 4 characters: ratio 3/5."""
    metrics = batch_metrics(["a b"] * 4, ["the do", "runs"])
    assert metrics["completions/duplicates"] == 0.75
    assert metrics["references/duplicates"] == 0
    assert metrics["completions/length_ratio"] == pytest.approx(0.6)
    assert metrics["completions/self_bleu"] > metrics["references/self_bleu"]


def test_batch_metrics_of_empty_texts():
    metrics = batch_metrics(["", ""], ["", ""])
    assert metrics["completions/length_ratio"] == 0
    assert metrics["completions/duplicates"] == 0.5
