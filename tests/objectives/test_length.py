import pytest
import torch
from torch.testing import assert_close

from hf_mgan.objectives.length import length_correlation, length_neutral


def test_correlation_is_pearsons_within_a_group():
    """Centred rewards (-1, 0, 1), centred lengths (-1, 1, 0): 1 / sqrt(2 * 2) * (1 + 0 + 0) = 0.5."""
    rewards, lengths = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([4, 6, 5])
    assert_close(length_correlation(rewards, lengths, 3), torch.tensor(0.5))


def test_what_differs_between_groups_alone_is_no_correlation():
    rewards, lengths = torch.tensor([0.0, 0.0, 9.0, 9.0]), torch.tensor([1.0, 2.0, 50.0, 51.0])
    assert length_correlation(rewards, lengths, 2) == 0
    assert length_correlation(rewards, lengths, 4) > 0.9


@pytest.mark.parametrize(
    ("rewards", "lengths"), [([1.0, 1.0], [3.0, 4.0]), ([1.0, 2.0], [3.0, 3.0])], ids=["rewards", "lengths"]
)
def test_where_one_of_the_two_does_not_vary_there_is_no_correlation_and_nothing_to_take_off(rewards, lengths):
    rewards, lengths = torch.tensor(rewards), torch.tensor(lengths)
    assert length_correlation(rewards, lengths, 2) == 0
    assert_close(length_neutral(rewards, lengths, 2), rewards)


def test_the_slope_is_pooled_over_groups_and_each_group_keeps_its_mean():
    """Group one: lengths (-1, 1), rewards (-2, 2) about 5; group two: lengths (-1, 1), rewards (0, 0) about 1.

    Slope (2 + 2 + 0 + 0) / 4 = 1: group one becomes 5 + (-2 + 1, 2 - 1), group two 1 + (1, -1).
    """
    rewards, lengths = torch.tensor([3.0, 7.0, 1.0, 1.0]), torch.tensor([1.0, 3.0, 10.0, 12.0])
    assert_close(length_neutral(rewards, lengths, 2), torch.tensor([4.0, 6.0, 2.0, 0.0]))


def test_afterwards_rewards_and_lengths_are_uncorrelated():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 30, (64,), generator=generator)
    rewards = 0.3 * lengths + torch.randn(64, generator=generator)
    assert length_correlation(rewards, lengths, 8) > 0.9
    neutral = length_neutral(rewards, lengths, 8)
    assert abs(length_correlation(neutral, lengths, 8)) < 1e-5
    assert_close(neutral.view(8, 8).mean(1), rewards.view(8, 8).mean(1))


def test_low_precision_comes_out_as_float32():
    assert (
        length_neutral(torch.tensor([1.0, 2.0], dtype=torch.bfloat16), torch.tensor([1, 2]), 2).dtype == torch.float32
    )
