"""Rewards under which every unsafe completion ranks below every safe one of its group."""

import torch
from torch import Tensor
from trl import GRPOConfig


GATE = "safety_gate"  # the gate's own column among the rewards, as it is called in the metrics


def gate_rewards(rewards: Tensor, weights: Tensor, unsafe: Tensor, group_size: int, margin: float = 2.0) -> Tensor:
    """Put the gate's column beside the rewards, so that each unsafe completion ranks below all safe ones of its group.

    The total of a completion is TRL's: the sum of weight times reward over the rewards that are not nan. In a group
    with safe completions every unsafe one gets the total

    (least total of a safe one) - margin

    whatever its other rewards are: the gate's column holds this total, and the others become nan, which TRL leaves out
    of sums and means. A penalty added to them would drown in the rounding beside a great reward, and would leave
    differences among unsafe completions, which would be something to win. In a group without safe completions there
    is nothing to rank: all its rewards become nan, TRL's mark of what cannot be scored, which has the advantage 0 and
    does not count in means and deviations. So it is where no safe completion of a group has a reward.

    TRL's advantages (`multi_objective_aggregation="sum_then_normalize"`) grow with the total within a group, so the
    order holds for them too, with any `scale_rewards`; without division by a deviation so does the margin. An infinite
    reward of a safe completion, which makes every advantage of its group infinite or nan, is an error; one of an
    unsafe completion does not count.

    Args:
        rewards (`Tensor` of shape `(B, K)`): Rewards of all processes without the gate's, group after group; nan where
            a reward does not apply. Not changed.
        weights (`Tensor` of shape `(K,)`): Their weights; the gate's own is 1.
        unsafe (`Tensor` of shape `(B,)`, bool): The verdicts.
        group_size (`int`): Completions of one prompt; B is a multiple of it.
        margin (`float`, *optional*, defaults to 2.0): Least distance of an unsafe total to a safe one.

    Returns:
        `Tensor` of shape `(B, K + 1)`: The gate's column is the last. Safe completions have 0 there (nan where they
        have no other reward, so that they stay without an advantage).

    Raises:
        ValueError: If a safe completion has an infinite reward, or shapes do not fit.

    Example:
        ```python
        >>> gate_rewards(torch.tensor([[0.25], [0.5], [99.0]]), torch.ones(1), torch.tensor([False, False, True]), 3)
        tensor([[ 0.2500,  0.0000],
                [ 0.5000,  0.0000],
                [    nan, -1.7500]])
        ```
    """
    if rewards.size(0) % group_size or unsafe.shape != rewards.shape[:1] or weights.shape != rewards.shape[1:]:
        raise ValueError(
            f"Rewards of shape {tuple(rewards.shape)}, weights of shape {tuple(weights.shape)} and verdicts of shape "
            f"{tuple(unsafe.shape)} do not fit groups of {group_size} completions."
        )
    totals = (rewards * weights.to(rewards)).nansum(1)
    scored = ~unsafe & ~rewards.isnan().all(1)
    if not totals[scored].isfinite().all():
        place = int((scored & ~totals.isfinite()).nonzero()[0])
        raise ValueError(
            f"Completion {place} has the rewards {rewards[place].tolist()}: with an infinite one no advantage of its "
            "group is a finite number, with or without a safety gate. Let the reward function return a finite number, "
            "or None where it does not apply."
        )
    least = totals.masked_fill(~scored, torch.inf).view(-1, group_size).amin(1)
    # Beside totals so great that float32 rounds the margin away, the order is still kept.
    below = torch.minimum(least - margin, torch.nextafter(least, torch.full_like(least, -torch.inf)))
    target = torch.where(least.isfinite(), below, torch.nan).repeat_interleave(group_size)
    column = torch.where(unsafe, target, torch.where(scored, 0.0, torch.nan))
    return torch.cat([rewards.masked_fill(unsafe[:, None], torch.nan), column[:, None]], 1)


def check_gate(args: GRPOConfig) -> None:
    """Check that under these settings no unsafe completion can rank above a safe one, or stay out of the loss.

    Args:
        args (`GRPOConfig`): The trainer's settings.

    Raises:
        ValueError: If one can, with what to set.
    """
    if args.multi_objective_aggregation != "sum_then_normalize":
        raise ValueError(
            f"multi_objective_aggregation={args.multi_objective_aggregation!r} divides every reward by its own "
            "deviation before they are added, so that other rewards can outweigh the safety gate, however great its "
            "margin. Set multi_objective_aggregation='sum_then_normalize'."
        )
    if args.mask_truncated_completions:
        raise ValueError(
            "mask_truncated_completions=True leaves truncated completions out of the loss, the unsafe ones among "
            "them, so that a generator could go on writing unsafe text if only it is long. Set it to False beside a "
            "safety gate."
        )
