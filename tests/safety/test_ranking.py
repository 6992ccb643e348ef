"""The ranking: every unsafe completion below every safe one of its group, in rewards and in TRL's advantages."""

import pytest
import torch
from trl import GRPOTrainer

from hf_mgan.safety import check_gate, gate_rewards


NAN, INF = float("nan"), float("inf")


def test_gate_rewards_put_unsafe_totals_below_the_least_safe():
    # Weighted totals: 1 * 2 + 2 * 1 = 4; 1 * 1 + 2 * 0.5 = 2; unsafe 1 * 9 + 2 * 9 = 27; unsafe -50. Least safe 2.
    rewards = torch.tensor([[2.0, 1.0], [1.0, 0.5], [9.0, 9.0], [-50.0, 0.0]])
    # A second group without unsafe ones, one with a reward that does not apply, one without any.
    rewards = torch.cat([rewards, torch.tensor([[1.0, 1.0], [NAN, 3.0], [NAN, NAN], [0.0, 0.0]])])
    before = rewards.clone()
    unsafe = torch.tensor([False, False, True, True] + [False] * 4)
    gated = gate_rewards(rewards, torch.tensor([1.0, 2.0]), unsafe, 4, margin=0.5)
    expected = torch.tensor(
        [
            [2.0, 1.0, 0.0],
            [1.0, 0.5, 0.0],
            [NAN, NAN, 1.5],
            [NAN, NAN, 1.5],
            [1.0, 1.0, 0.0],
            [NAN, 3.0, 0.0],
            [NAN, NAN, NAN],
            [0.0, 0.0, 0.0],
        ]
    )
    torch.testing.assert_close(gated, expected, equal_nan=True)
    torch.testing.assert_close(rewards, before, equal_nan=True)


def test_gate_rewards_of_a_group_without_a_safe_one_are_nan():
    rewards = torch.tensor([[1.0], [2.0], [3.0], [NAN]])
    gated = gate_rewards(rewards, torch.ones(1), torch.tensor([True, True, True, False]), 2)
    assert gated.isnan().all()


def random_case(seed, scale):
    """Return two rewards of 8 groups of 6, some of them nan and two infinite, their weights, and verdicts."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(48, 2, generator=generator)
    unsafe = torch.rand(48, generator=generator) < torch.rand(8, generator=generator).repeat_interleave(6)
    rewards[unsafe] *= scale
    rewards[torch.rand(48, 2, generator=generator) < 0.1] = NAN
    places = unsafe.nonzero()[:, 0]
    rewards[places[0], 0], rewards[places[-1], 0] = INF, -INF
    weights = torch.rand(2, generator=generator) * 3
    return rewards, weights, unsafe


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e8, 1e30])
def test_gate_rewards_keep_the_margin_at_any_scale(scale):
    compared = 0
    for seed in range(50):
        rewards, weights, unsafe = random_case(seed, scale)
        gated = gate_rewards(rewards, weights, unsafe, 6, margin=0.7)
        totals = (gated * torch.cat([weights, torch.ones(1)])).nansum(1)  # as TRL adds them
        totals[gated.isnan().all(1)] = NAN
        for group, is_unsafe in zip(totals.view(8, 6), unsafe.view(8, 6), strict=True):
            low, high = group[is_unsafe & ~group.isnan()], group[~is_unsafe & ~group.isnan()]
            if len(low) and len(high):
                compared += 1
                assert low.unique().numel() == 1
                assert (high.min() - low.max() - 0.7).abs() < 1e-6
    assert compared > 200


def test_gate_rewards_keep_the_order_where_the_margin_rounds_off():
    gated = gate_rewards(torch.tensor([[1e9], [2e9], [5e9]]), torch.ones(1), torch.tensor([False, False, True]), 3)
    assert gated[2, 1] < 1e9


def test_gate_rewards_refuse_an_infinite_safe_reward_alone():
    unsafe = torch.tensor([False, True, False])
    for value in (INF, -INF):
        with pytest.raises(ValueError, match=r"Completion 2 has the rewards \[-?inf\]"):
            gate_rewards(torch.tensor([[1.0], [0.0], [value]]), torch.ones(1), unsafe, 3)
        gated = gate_rewards(torch.tensor([[1.0], [value], [2.0]]), torch.ones(1), unsafe, 3)
        assert gated[:, 1].tolist() == [0.0, -1.0, 0.0]  # the least safe total is 1, the margin is 2


@pytest.mark.parametrize(("rows", "verdicts", "weights"), [(5, 5, 1), (6, 5, 1), (6, 6, 2)])
def test_gate_rewards_refuse_shapes_that_do_not_fit(rows, verdicts, weights):
    with pytest.raises(ValueError, match="do not fit groups of 3 completions"):
        gate_rewards(torch.zeros(rows, 1), torch.ones(weights), torch.zeros(verdicts, dtype=torch.bool), 3)


class Rewarded(GRPOTrainer):
    """TRL's trainer, told the rewards of the next completions."""

    def _calculate_rewards(self, *_):
        return self.told


@pytest.fixture
def advantages_of(generator, tokenizer, dataset, make_config):
    def compute(rewards, weights, **settings):
        args = make_config(per_device_train_batch_size=48, num_generations=6, reward_weights=weights, **settings)
        columns = [lambda **_: [], lambda **_: [], lambda **_: []]
        for column, name in zip(columns, ("one", "two", "safety_gate"), strict=True):
            column.__name__ = name
        data = dataset.rename_column("text", "prompt")
        trainer = Rewarded(generator, columns, args, data, processing_class=tokenizer)
        trainer.told = rewards
        return trainer._generate_and_score_completions([{"prompt": "a"}] * 48)["advantages"]

    return compute


@pytest.mark.parametrize("scale_rewards", ["none", "group", "batch"])
def test_gate_rewards_order_the_advantages_of_trl(advantages_of, scale_rewards):
    rewards, weights, unsafe = random_case(3, 1e8)
    unsafe[:6] = True
    rewards[:6, 0] = torch.arange(6.0) * 1e6  # a group that is unsafe throughout, with much to win
    gated = gate_rewards(rewards, weights, unsafe, 6, margin=0.7)
    advantages = advantages_of(gated, [*weights.tolist(), 1.0], scale_rewards=scale_rewards)
    assert advantages.isfinite().all()
    assert torch.equal(advantages[:6], torch.zeros(6))
    compared = 0
    unscored = gated.isnan().all(1).view(8, 6)
    for values, is_unsafe, without in zip(advantages.view(8, 6), unsafe.view(8, 6), unscored, strict=True):
        if is_unsafe.any() and (~is_unsafe & ~without).any():
            compared += 1
            assert values[is_unsafe].unique().numel() == 1
            assert values[is_unsafe].max() < 0  # and so below a safe completion without a reward, which has 0
            gap = values[~is_unsafe & ~without].min() - values[is_unsafe].max()
            assert gap > (0.7 - 1e-6 if scale_rewards == "none" else 0)
    assert compared >= 3


def test_check_gate_refuses_normalising_each_reward_by_itself(advantages_of, make_config):
    # The unsafe completion is one of six, so its normalised penalty is -5/6 / sqrt(5/36) = -2.24; a safe one that is
    # the worst of five by a reward of weight 2 gets 2 * -4/5 / sqrt(4/25) + 0.45 = -3.55.
    rewards = torch.zeros(48, 2)
    rewards[:, 0] = torch.arange(48) % 6 == 0
    rewards[1::6, 1] = -30.0
    unsafe = torch.arange(48) % 6 == 0
    gated = gate_rewards(rewards, torch.tensor([1.0, 2.0]), unsafe, 6)
    settings = {"multi_objective_aggregation": "normalize_then_sum"}
    values = advantages_of(gated, [1.0, 2.0, 1.0], **settings).view(8, 6)
    assert (values[:, 0] > values[:, 1]).all()
    with pytest.raises(ValueError, match="multi_objective_aggregation='normalize_then_sum'"):
        check_gate(make_config(**settings))


def test_check_gate_refuses_to_mask_truncated_completions(make_config):
    check_gate(make_config())
    with pytest.raises(ValueError, match="mask_truncated_completions=True"):
        check_gate(make_config(mask_truncated_completions=True))
