"""What a reward has to do with length, and how to take that part off.

A discriminator that has seen its generator write too short pays for length, whatever the words are: generators trained
against a frozen one are known to run away in length (GAD, [2511.10643](https://huggingface.co/papers/2511.10643),
figure 6). Here the share is measured, and the part of the reward that is linear in length is taken off on demand.
"""

import torch
from torch import Tensor


def length_correlation(rewards: Tensor, lengths: Tensor, group_size: int) -> Tensor:
    """Compute Pearson's correlation of reward and length within groups.

    Args:
        rewards (`Tensor` of shape `(B,)`): Rewards; the completions of a group stand together.
        lengths (`Tensor` of shape `(B,)`): Lengths of the completions, in any unit.
        group_size (`int`): Completions a group; it divides B.

    Returns:
        `Tensor` of shape `()`: [-1, 1]; 0 where all rewards or all lengths of each group are equal.

    Example:
        ```python
        >>> length_correlation(torch.tensor([1.0, 2.0]), torch.tensor([5.0, 9.0]), 2)
        tensor(1.)
        ```
    """
    reward, length = _centred(rewards, group_size), _centred(lengths, group_size)
    scale = (reward.square().sum() * length.square().sum()).sqrt()
    return torch.where(scale > 0, (reward * length).sum() / scale, torch.zeros_like(scale))


def length_neutral(rewards: Tensor, lengths: Tensor, group_size: int) -> Tensor:
    """Take off the part of each reward that is linear in the length of its completion.

    r' = r - b (l - mean of the group's l), with b the least-squares slope of reward on length within groups, pooled
    over all of them (the residual of a regression with an intercept a group). The sum of r' over a group is that of r,
    and r' and l are uncorrelated within groups, so no step of the generator's is taken for length as such.

    Args:
        rewards (`Tensor` of shape `(B,)`): Rewards; the completions of a group stand together.
        lengths (`Tensor` of shape `(B,)`): Lengths of the completions, in any unit.
        group_size (`int`): Completions a group; it divides B.

    Returns:
        `Tensor` of shape `(B,)`: float32.

    Example:
        ```python
        >>> length_neutral(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 2.0, 3.0, 4.0]), 4)
        tensor([2.5000, 2.5000, 2.5000, 2.5000])
        ```
    """
    reward, length = _centred(rewards, group_size), _centred(lengths, group_size)
    variance = length.square().sum()
    slope = torch.where(variance > 0, (reward * length).sum() / variance, torch.zeros_like(variance))
    return rewards.float() - slope * length


def _centred(values: Tensor, group_size: int) -> Tensor:
    groups = values.float().view(-1, group_size)
    return (groups - groups.mean(1, keepdim=True)).flatten()
