"""The generator's cross-entropy on real texts: an anchor in training, a held-out metric in evaluation.

In: the real texts that the discriminator saw in a batch, each with its prompt. Out: nats, summed over tokens, from
which the trainer makes a mean over all tokens of an optimizer step. A generator that has left out part of the real
texts finds them unlikely, which no reward on its own completions can tell it: the reward sees only what the generator
writes.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..metrics.likelihood import IGNORED, padded_batch, token_losses


# Names of the tensors among the inputs of TRL's loss -> those of the log-likelihood.
NAMES = {"real_ids": "input_ids", "real_mask": "attention_mask", "real_labels": "labels"}
NLL, TOKENS = "generator/real_nll", "generator/real_tokens"  # metrics; of the second, the weights of the first


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


def num_real_tokens(inputs: dict[str, Any]) -> Tensor:
    """Count the tokens of the real texts, without their prompts: a `Tensor` of shape `()`."""
    return (inputs["real_labels"] != IGNORED).sum()


def real_text_nll(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    """Compute the negative log-likelihood of the real texts, given their prompts, summed over their tokens.

    L = -sum_i log q(x_i | x_<i), from which comes the language modelling term of PPO-ptx (Ouyang et al. 2022, equation
    2, [2203.02155](https://huggingface.co/papers/2203.02155)). The sum, since a mean over the tokens of a step is not
    the mean of those of its parts.

    Args:
        model (`nn.Module`): The generator.
        inputs (`dict`): What [`real_text_batch`] returns, where the model computes: weights that are sharded or
            offloaded lie elsewhere.

    Returns:
        `Tensor` of shape `()`: In nats, [0, inf).
    """
    logits = model(input_ids=inputs["real_ids"], attention_mask=inputs["real_mask"]).logits
    return token_losses(logits, inputs["real_labels"]).sum()


def weighted_by_tokens(metrics: dict[str, list[float]]) -> None:
    """Turn the sums of several batches, under [`NLL`] and [`TOKENS`], into one mean over tokens, in place."""
    if tokens := metrics.pop(TOKENS, None):
        metrics[NLL] = [sum(metrics[NLL]) / max(sum(tokens), 1.0)]
