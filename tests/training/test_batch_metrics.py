import pytest
import torch
from torch.testing import assert_close

from hf_mgan.training.batch_metrics import batch_metrics, length_correlation


def test_batch_metrics_of_a_collapsed_batch():
    """Four equal completions of 3 characters: 3 of 4 are duplicates. Real texts of 6 and 4 characters: ratio 3/5."""
    metrics = batch_metrics(["a b"] * 4, ["the do", "runs"])
    assert metrics["completions/duplicates"] == 0.75
    assert metrics["references/duplicates"] == 0
    assert metrics["completions/length_ratio"] == pytest.approx(0.6)
    assert metrics["completions/self_bleu"] > metrics["references/self_bleu"]


def test_self_bleu_sees_one_answer_to_each_prompt():
    """Eight prompts, eight completions of each: no two share a word, or those of a prompt differ in one alone."""
    differ = [" ".join(f"{word}{place}" for word in "abcdef") for place in range(64)]
    alike = [" ".join(f"{word}{place // 8}" for word in "abcde") + f" f{place}" for place in range(64)]
    of_differ, of_alike = (batch_metrics(texts, differ)["completions/self_bleu"] for texts in (differ, alike))
    assert of_differ == 0
    assert of_alike == pytest.approx((5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25)
    assert batch_metrics(alike, differ)["completions/duplicates"] == 0


def test_batch_metrics_of_empty_texts():
    metrics = batch_metrics(["", ""], ["", ""])
    assert metrics["completions/length_ratio"] == 0
    assert metrics["completions/duplicates"] == 0.5


def test_length_correlation_within_a_group():
    """Centred rewards (-1, 0, 1), centred lengths (-1, 1, 0): 1 / sqrt(2 * 2) * (1 + 0 + 0) = 0.5."""
    rewards, lengths = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([4, 6, 5])
    assert_close(length_correlation(rewards, lengths, 3), torch.tensor(0.5))


def test_length_correlation_sign():
    """Centred rewards (-1, 1), centred lengths (2, -2): the shorter text has the greater reward."""
    assert_close(length_correlation(torch.tensor([1.0, 3.0]), torch.tensor([9.0, 5.0]), 2), torch.tensor(-1.0))


def test_length_correlation_between_groups_alone():
    rewards, lengths = torch.tensor([0.0, 0.0, 9.0, 9.0]), torch.tensor([1.0, 2.0, 50.0, 51.0])
    assert length_correlation(rewards, lengths, 2) == 0
    assert length_correlation(rewards, lengths, 4) > 0.9


@pytest.mark.parametrize(
    ("rewards", "lengths"), [([1.0, 1.0], [3.0, 4.0]), ([1.0, 2.0], [3.0, 3.0])], ids=["rewards", "lengths"]
)
def test_length_correlation_of_a_constant(rewards, lengths):
    assert length_correlation(torch.tensor(rewards), torch.tensor(lengths), 2) == 0


def test_length_correlation_order_of_texts():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 30, (64,), generator=generator)
    rewards = 0.3 * lengths + torch.randn(64, generator=generator)
    expected = length_correlation(rewards, lengths, 8)
    assert expected > 0.9
    order = torch.arange(64).view(8, 8).flip(0, 1).flatten()  # groups stay together
    assert_close(length_correlation(rewards[order], lengths[order], 8), expected)


def test_length_correlation_in_bfloat16():
    correlation = length_correlation(torch.tensor([1.0, 2.0], dtype=torch.bfloat16), torch.tensor([1, 2]), 2)
    assert correlation.dtype == torch.float32
    assert_close(correlation, torch.tensor(1.0))
