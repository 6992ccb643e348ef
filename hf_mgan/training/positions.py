"""Positions of texts that are padded on the left, for generators that learn a vector for each position, as GPT-2 does.

TRL pads prompts on the left and hands its loss no positions (trl 1.16), and these models then count from the first
column, padding included. Sampling counts from the first token. Without this the loss of a text is that of another
position, and depends on the longest prompt beside it. Models with rotary positions see distances alone.
"""

from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel


# Embeddings of positions: in GPT-2, GPT-Neo and GPT-BigCode, and in GPT. OPT and BioGPT count by the mask themselves.
LEARNT_POSITIONS = ("wpe", "positions_embed")


def count_positions_by_mask(model: PreTrainedModel | PeftModel | nn.Module | None) -> None:
    """Let a model that learns its positions count them from the first token that is no padding.

    Args:
        model (`PreTrainedModel` or `PeftModel`, *optional*): The generator, or its reference; others are left alone.
    """
    whole = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(whole, PreTrainedModel):
        return
    decoder = whole.base_model  # PEFT calls the forward method of the whole one, past its hooks
    if any(name in LEARNT_POSITIONS for name, _ in decoder.named_children()):
        decoder.register_forward_pre_hook(_with_positions, with_kwargs=True)


def _with_positions(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    mask, given = kwargs.get("attention_mask"), (kwargs.get("position_ids"), kwargs.get("past_key_values"))
    if mask is None or mask.dim() != 2 or given != (None, None):  # sampling counts itself
        return args, kwargs
    return args, {**kwargs, "position_ids": (mask.long().cumsum(1) - 1).clamp(min=0)}
