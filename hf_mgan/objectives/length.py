"""How far the reward goes along with the length of a completion.

A discriminator that has seen its generator write too short rewards length, whatever the words are: generators trained
against a frozen one are known to run away in length (GAD, [2511.10643](https://huggingface.co/papers/2511.10643),
figure 6).
"""

import torch
from torch import Tensor


def length_correlation(rewards: Tensor, lengths: Tensor, group_size: int) -> Tensor:
    """Compute Pearson's correlation of reward and length within groups.

    Args:
        rewards (`Tensor` of shape `(B,)`): Rewards; the completions of a group stand together.
        lengths (`Tensor` of shape `(B,)`): Lengths of the completions, in any unit.
        group_size (`int`): Completions per group; it divides B.

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


def _centred(values: Tensor, group_size: int) -> Tensor:
    groups = values.float().view(-1, group_size)
    return (groups - groups.mean(1, keepdim=True)).flatten()
