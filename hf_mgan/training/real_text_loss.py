"""The generator's cross-entropy on real texts: an anchor in training, a held-out measure in evaluation.

In: the real texts that the discriminator saw in a batch, each with its prompt. Out: nats per token. A generator that
has left out part of the real texts finds them unlikely, which no reward on its own completions can tell it: the reward
sees only what the generator writes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100


def reference_ids(
    references: Sequence[str], tokenizer: "PreTrainedTokenizerBase", max_completion_length: int | None
) -> list[list[int]]:
    """Write references in the generator's tokens, with the end token unless they are cut before it.

    Args:
        references (`Sequence[str]`): Plain texts, as [`~data.as_completions`] writes them.
        tokenizer (`PreTrainedTokenizerBase`): The generator's.
        max_completion_length (`int`, *optional*): The number of tokens at which completions are cut.

    Returns:
        `list[list[int]]`: At least one token each.
    """
    rows = tokenizer(list(references), add_special_tokens=False)["input_ids"]
    return [[*row, tokenizer.eos_token_id][:max_completion_length] for row in rows]


def real_text_batch(prompt_ids: Sequence[list[int]], completion_ids: Sequence[list[int]]) -> dict[str, Tensor]:
    """Make the tensors from which [`real_text_nll`] computes.

    Args:
        prompt_ids (`Sequence[list[int]]` of length B): Tokens of the prompts, at least one each.
        completion_ids (`Sequence[list[int]]` of length B): Tokens of the real texts.

    Returns:
        `dict[str, Tensor]`: `real_ids`, `real_mask` and `real_labels`, each of shape `(B, T)`, padded on the right;
        the labels are -100 outside of the real texts.
    """
    pairs = list(zip(prompt_ids, completion_ids, strict=True))

    def padded(rows: list[list[int]], value: int) -> Tensor:
        return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)

    return {
        # What stands in the padding is of no consequence: it is on the right and has no label.
        "real_ids": padded([[*prompt, *text] for prompt, text in pairs], 0),
        "real_mask": padded([[1] * (len(prompt) + len(text)) for prompt, text in pairs], 0),
        "real_labels": padded([[IGNORED] * len(prompt) + text for prompt, text in pairs], IGNORED),
    }


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
    logits = model(input_ids=inputs["real_ids"], attention_mask=inputs["real_mask"]).logits
    return F.cross_entropy(logits[:, :-1].float().flatten(0, 1), inputs["real_labels"][:, 1:].flatten())
