"""Whether padding changes what a classifier says of a text, and batches in which nothing is padded.

Most classifiers leave padding out by the attention mask. Some do not: FNet has no mask, the convolutions of ConvBERT
and the pooling of CANINE reach into it, XLNet reads its last token, which padding on the right takes the place of, and
so does a causal classifier behind virtual tokens. BART, T5 and their kin pool at the end token and want equally many
of them in all texts of a batch. All of them are right on texts of one length.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase


PROBE_LENGTHS = (1, 3, 6, 12)  # tokens, more or less
# Share of the deviation of scores that rounding may change. Weights that are rounded themselves change more.
TOLERANCE, TOLERANCE_OF_ROUNDED = 1e-3, 5e-2


def end_token_ids(model: PreTrainedModel | PeftModel) -> list[int]:
    """Return the end tokens that a model's configuration names."""
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    given = getattr(inner.config.get_text_config(), "eos_token_id", None)
    return [] if given is None else given if isinstance(given, list) else [given]


def probe_texts(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return an empty text and texts of several lengths, of ordinary tokens from all over the vocabulary."""
    special = set(tokenizer.all_special_ids)
    ids = sorted(index for index in tokenizer.get_vocab().values() if index not in special)
    longest = max(PROBE_LENGTHS)
    chosen = [ids[place * len(ids) // longest] for place in range(longest)]
    return ["", *(cast(str, tokenizer.decode(chosen[-length:])) for length in PROBE_LENGTHS)]


@torch.no_grad()
def needs_equal_lengths(
    model: PreTrainedModel | PeftModel,
    rows: Sequence[dict[str, list[int]]],
    pad: Callable[[list[dict[str, list[int]]]], BatchEncoding],
) -> bool:
    """Try out whether a text that is padded gets another score.

    Args:
        model (`PreTrainedModel` or `PeftModel`): A sequence classifier in evaluation mode, trained or not.
        rows (`Sequence[dict[str, list[int]]]`): Encoded texts of several lengths, without padding.
        pad (`Callable`): Makes a batch of them, padded as they will be.

    Returns:
        `bool`: Whether the logits move by more than rounding does, as a share of their deviation between texts.

    Raises:
        ValueError: If it cannot read one of the texts.
    """
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if inner.config.is_encoder_decoder:  # whose texts must have equally many end tokens
        return True
    if "flash" in str(inner.config._attn_implementation):  # its kernels take the padding out, and want a GPU
        return False
    device = inner.device
    alone = torch.cat([_logits_alone(model, row, pad([row]).to(device)) for row in rows])
    together = model(**pad(list(rows)).to(device)).logits.float()
    is_rounded = any(parameter.dtype != torch.float32 for parameter in model.parameters())
    allowed = (TOLERANCE_OF_ROUNDED if is_rounded else TOLERANCE) * (alone - alone.mean(0)).abs().max()
    return bool((together - alone).abs().max() > allowed)


def _logits_alone(model: PreTrainedModel | PeftModel, row: dict[str, list[int]], batch: BatchEncoding) -> Tensor:
    try:
        return model(**batch).logits.float()
    except RuntimeError as error:  # of its layers: CANINE pools over four characters
        raise ValueError(
            f"{type(model).__name__} cannot read a text of {len(row['input_ids'])} tokens, and completions may be as "
            f"short: give another classifier. It says: {error}"
        ) from error


def unpadded_rows(encoded: BatchEncoding) -> list[dict[str, list[int]]]:
    """Take the padding, on the right, off the rows of a batch."""
    lengths = encoded["attention_mask"].sum(1).tolist()
    return [
        {name: values[row, :length].tolist() for name, values in encoded.items()} for row, length in enumerate(lengths)
    ]


def unpadded_batches(encoded: BatchEncoding, size: int, ends: list[int]) -> tuple[list[BatchEncoding], Tensor]:
    """Split a batch into batches of texts with one length and one number of end tokens.

    Args:
        encoded (`BatchEncoding`): Tensors of shape `(N, T)`, padded on the right.
        size (`int`): Texts per batch, at most.
        ends (`list[int]`): The end tokens that the model knows.

    Returns:
        `tuple[list[BatchEncoding], Tensor]`: The batches, and the place of each of the N texts among their rows, of
            shape `(N,)`.
    """
    mask = encoded["attention_mask"]
    is_end = torch.isin(encoded["input_ids"], torch.tensor(ends, device=mask.device)) & (mask > 0)
    kinds: dict[tuple[int, int], list[int]] = {}
    for row, kind in enumerate(zip(mask.sum(1).tolist(), is_end.sum(1).tolist(), strict=True)):
        kinds.setdefault(kind, []).append(row)
    batches, order = [], []
    for (length, _), rows in kinds.items():
        for start in range(0, len(rows), size):
            places = rows[start : start + size]
            batches.append(BatchEncoding({name: values[places, :length] for name, values in encoded.items()}))
            order += places
    return batches, torch.tensor(order).argsort()
