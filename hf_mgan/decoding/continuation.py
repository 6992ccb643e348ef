"""Continuations: from a batch of prompts to completions, by transformers' `generate`, without work that is in vain.

In: token ids of prompts. Out: token ids of completions. Texts are written in segments. Between two of them the rows
that have ended leave the batch, so that a batch costs what its texts cost and not what its longest one does; the keys
and values of the others stay. A prompt that stands in the batch several times is read once. Models whose state is no
`DynamicCache` (RWKV, xLSTM, XLNet), and those with virtual tokens (prompt tuning), are asked for all tokens at once.
"""

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import DynamicCache, GenerationMixin, PreTrainedModel

from ..models import num_virtual_tokens


# Tokens of the first segment; later ones are half as long as what is written, so that at most a third is in vain.
FIRST_SEGMENT = 8


# Words from which on a draw costs something beside the model; for fewer it stays what transformers draws of a seed.
LARGE_VOCABULARY = 4096


class InverseCdf(TorchFunctionMode):
    """Lets `generate` draw the next token by one random number per row, wherever it calls `torch.multinomial`.

    On a CPU that draws an exponential variate for every word. `python -m benchmarks.hardware.draw_cost` says what the
    difference is with SmolLM2's 49,152 words.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Draw for `torch.multinomial` of one of many words per row; every other call is made as it stands."""
        kwargs = kwargs or {}
        if func is torch.multinomial and kwargs.get("num_samples") == 1 and args[0].size(-1) >= LARGE_VOCABULARY:
            return inverse_cdf(args[0])
        return func(*args, **kwargs)


def inverse_cdf(probs: Tensor) -> Tensor:
    """Draw an index per row.

    Args:
        probs (`Tensor` of shape `(B, V)`): Probabilities, up to a factor per row.

    Returns:
        `Tensor` of shape `(B, 1)`, int64: Never an index whose probability is 0.
    """
    cumulative = probs.cumsum(-1, dtype=torch.float64)
    uniforms = torch.rand(len(probs), 1, dtype=torch.float64, device=probs.device) * cumulative[:, -1:]
    # A product that is rounded up to the whole would fall behind the last index.
    last = torch.nextafter(cumulative[:, -1:], torch.zeros_like(uniforms))
    return torch.searchsorted(cumulative, torch.minimum(uniforms, last), right=True)


def complete(
    model: PreTrainedModel | PeftModel,
    prompt_ids: list[list[int]],
    max_new_tokens: int,
    ends: set[int],
    settings: Mapping[str, Any],
) -> list[list[int]]:
    """Draw a completion of each prompt, all in one batch.

    Args:
        model (`PreTrainedModel` or `PeftModel`): A causal language model in evaluation mode.
        prompt_ids (`list[list[int]]` of length B): Tokens of the prompts, at least one each.
        max_new_tokens (`int`): Number of tokens at which completions are cut.
        ends (`set[int]`): Tokens at which a completion ends; it keeps them.
        settings (`Mapping`): Further arguments of `generate`, `pad_token_id` among them.

    Returns:
        `list[list[int]]` of length B: Tokens of the completions.
    """
    device = next(model.parameters()).device
    width = max(map(len, prompt_ids))
    gaps = [width - len(row) for row in prompt_ids]
    padding = settings["pad_token_id"]
    rows = torch.tensor([[padding] * gap + row for gap, row in zip(gaps, prompt_ids, strict=True)], device=device)
    mask = torch.tensor([[0] * gap + [1] * (width - gap) for gap in gaps], device=device)
    cache = read_prompts(model, rows, mask) if keeps_cache(model) else None
    caching: dict[str, Any] = without_cache(model) if cache is None else {cache_name(model): cache}
    completions: list[list[int]] = [[] for _ in prompt_ids]
    places = list(range(len(prompt_ids)))
    written = 0
    while places and written < max_new_tokens:
        left = max_new_tokens - written
        segment = left if cache is None else min(max(FIRST_SEGMENT, written // 2), left)
        with InverseCdf() if device.type == "cpu" else nullcontext():
            drawn: Tensor = cast(Any, model).generate(  # PEFT passes it on to the model within, which no type says
                input_ids=rows,
                attention_mask=mask,
                max_new_tokens=segment,
                eos_token_id=sorted(ends) or None,
                **{**settings, **caching},
            )
        for place, row in zip(places, drawn[:, rows.size(1) :].tolist(), strict=True):
            completions[place] += until_end(row, ends)
        written += segment
        goes_on = [at for at, place in enumerate(places) if completions[place][-1] not in ends]
        places = [places[at] for at in goes_on]
        if places and cache is not None:
            kept = torch.tensor(goes_on, device=device)
            mask = torch.cat([mask, mask.new_ones(len(mask), drawn.size(1) - rows.size(1))], 1)[kept]
            rows = drawn[kept]
            cache.batch_select_indices(kept)
    return completions


def keeps_cache(model: PreTrainedModel | PeftModel) -> bool:
    """Return whether the model's keys and values can be handed over from one call to the next."""
    if num_virtual_tokens(model):
        return False  # they stand before the prompt, in the same cache
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    is_ours = isinstance(inner, GenerationMixin)  # anything else with a `generate` is asked for all tokens at once
    return is_ours and inner._supports_default_dynamic_cache() and not inner._is_stateful


def without_cache(model: PreTrainedModel | PeftModel) -> dict[str, bool]:
    """Return the settings of `generate` that a model with virtual tokens needs: each token is read anew.

    PEFT 0.21 looks for the cache under its old name, `past_key_values`, does not find it with transformers 5.22 or
    later, and then reads every further token without what stands before it. This can go once PEFT knows the new name.
    """
    return {"use_cache": False} if num_virtual_tokens(model) else {}


def cache_name(model: PreTrainedModel | PeftModel) -> str:
    """Return what the model calls its cache: `past_key_values` until transformers 5.22, `cache` since."""
    return "cache" if accepts(model, "cache") else "past_key_values"


def accepts(model: PreTrainedModel | PeftModel, name: str) -> bool:
    """Return whether the model's forward pass has an argument of this name."""
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return name in inspect.signature(inner.forward).parameters


def positions(model: PreTrainedModel | PeftModel, mask: Tensor, width: int) -> dict[str, Tensor]:
    """Return `position_ids` of the last tokens, counted without padding, where the model takes them.

    Args:
        model (`PreTrainedModel` or `PeftModel`): The model; one with ALiBi counts by itself.
        mask (`Tensor` of shape `(B, L)`): Attention mask of all tokens, those in the cache included.
        width (`int`): Number of the last tokens.
    """
    counted = (mask.cumsum(1) - 1).clamp(min=0)[:, mask.size(1) - width :]
    return {"position_ids": counted} if accepts(model, "position_ids") else {}


def read_prompts(model: PreTrainedModel | PeftModel, rows: Tensor, mask: Tensor) -> DynamicCache:
    """Read each different prompt once, but for its last token.

    Args:
        model (`PreTrainedModel` or `PeftModel`): The model.
        rows (`Tensor` of shape `(B, L)`): Prompts, padded on the left.
        mask (`Tensor` of shape `(B, L)`): Their attention mask.

    Returns:
        `DynamicCache`: The keys and values of all rows; empty where all prompts differ, or have one token.
    """
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    both, numbers = torch.unique(torch.cat([rows, mask], 1), dim=0, return_inverse=True)
    if rows.size(1) == 1 or len(both) == len(rows):
        return cache
    different, of_different = both.split(rows.size(1), 1)
    attended = of_different[:, :-1]
    model(
        input_ids=different[:, :-1],
        attention_mask=attended,
        **positions(model, attended, attended.size(1)),
        **{cache_name(model): cache},
    )
    cache.batch_select_indices(numbers)
    return cache


def until_end(row: list[int], ends: set[int]) -> list[int]:
    """Return the tokens up to the first end token, which is among them."""
    last = next((place for place, token in enumerate(row) if token in ends), len(row) - 1)
    return row[: last + 1]
