"""The generator's cross-entropy on real texts: an anchor in training, a held-out metric in evaluation.

In: the real texts that the discriminator saw in a batch, each with its prompt. Out: nats per token. A generator that
has left out part of the real texts finds them unlikely, which no reward on its own completions can tell it: the reward
sees only what the generator writes.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..metrics.likelihood import IGNORED, completion_losses, padded_batch


# Names of the tensors among the inputs of TRL's loss -> those of the log-likelihood.
NAMES = {"real_ids": "input_ids", "real_mask": "attention_mask", "real_labels": "labels"}


def real_text_batch(prompt_ids: Sequence[list[int]], completion_ids: Sequence[list[int]]) -> dict[str, Tensor]:
    """Make the tensors from which [`real_text_nll`] computes.

    Args:
        prompt_ids (`Sequence[list[int]]` of length B): Tokens of the prompts, at least one each.
        completion_ids (`Sequence[list[int]]` of length B): Tokens of the real texts.

    Returns:
        `dict[str, Tensor]`: `real_ids`, `real_mask` and `real_labels`, each of shape `(B, T)`, see
        [`~metrics.likelihood.padded_batch`].
    """
    batch = padded_batch(prompt_ids, completion_ids)
    return {ours: batch[theirs] for ours, theirs in NAMES.items()}


def real_text_nll(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    """Compute the mean negative log-likelihood of a token of the real texts, given their prompts.

    L = -1/N sum_i log q(x_i | x_<i), the language modelling term of PPO-ptx (Ouyang et al. 2022, equation 2,
    [2203.02155](https://huggingface.co/papers/2203.02155)), as a mean over the N tokens of the batch.

    Args:
        model (`nn.Module`): The generator.
        inputs (`dict`): What [`real_text_batch`] returns.

    Returns:
        `Tensor` of shape `()`: In nats per token, [0, inf).
    """
    losses = completion_losses(model, {theirs: inputs[ours] for ours, theirs in NAMES.items()})
    return losses.sum() / (inputs["real_labels"] != IGNORED).sum()
