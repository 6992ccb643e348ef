"""Metrics of a batch of completions beside its real texts: what a collapse or a runaway in length shows in first."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..metrics import duplicates, self_bleu, split_into_units
from ..metrics.units import Unit


# Self-BLEU compares every text with every other one; so many show a collapse, at a cost that a step does not feel.
SAMPLE = 64


def batch_metrics(
    completions: Sequence[str], references: Sequence[str], references_repeat: int = 1, unit: Unit = "auto"
) -> dict[str, float]:
    """Compare the completions of a batch with its real texts.

    Args:
        completions (`Sequence[str]` of length B): Generated texts.
        references (`Sequence[str]` of length R): Real texts.
        references_repeat (`int`, *optional*, defaults to 1): How often each stands there in a row: once for each
            completion of its group, where they are the references of the batch. It counts once.
        unit (`str`, *optional*, defaults to `"auto"`): What texts are counted in; see
            [`~metrics.split_into_units`].

    Returns:
        `dict[str, float]`: `completions/duplicates` and `references/duplicates`, shares in [0, 1); the same of
        `self_bleu` (of the first 64 texts), [0, 1]; `completions/length_ratio`, the mean number of characters of a
        completion by that of a real text, [0, inf).
    """
    metrics: dict[str, float] = {}
    for name, texts in (("completions", completions), ("references", references[::references_repeat])):
        metrics[f"{name}/duplicates"] = duplicates(texts)
        metrics[f"{name}/self_bleu"] = self_bleu(split_into_units(texts[:SAMPLE], unit))
    characters = [sum(map(len, texts)) / len(texts) for texts in (completions, references)]
    metrics["completions/length_ratio"] = characters[0] / max(characters[1], 1.0)
    return metrics


def length_correlation(rewards: Tensor, lengths: Tensor, group_size: int) -> Tensor:
    """Compute Pearson's correlation of reward and length within groups.

    A discriminator that has seen its generator write too short rewards length, whatever the words are: generators
    trained against a frozen one are known to run away in length (GAD,
    [2511.10643](https://huggingface.co/papers/2511.10643), figure 6).

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
