"""Every prefix of a text, scored in one forward pass of a causal discriminator.

In a causal model the state of a token holds the tokens before it and nothing else, and its classifier applies the head
to every state before it keeps the last one. What the head says at a token is therefore the logit of the text up to
there. Read off the head with a hook, that is a logit for each prefix at the price of one for the whole text.

In: plain texts as (prompt, completion), encoded by [`PrefixScorer.encode`]. Out: logits (N, T), T the number of the
discriminator's tokens in the longest completion. A text that has ended stays ended: behind its last token its last
logit is repeated. At every time t real and generated texts are thus distributions over the same things,
prefixes of t tokens and texts that ended before, and the best logit at time t is log p_t - log q_t of the two, however
long the texts are.
"""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from ..models import evaluation_mode
from .loading import head_modules


POSITIONS, ENDS = "prefix_positions", "prefix_ends"
PROBE_LENGTH = 8
TOLERANCE = 1e-4
WHAT_TO_DO = "Give a causal discriminator, for example the generator's own id, or do not ask for scores of prefixes."


def check_causal(model: PreTrainedModel | PeftModel, processing_class: PreTrainedTokenizerBase) -> None:
    """Check that a classifier can score every prefix of a text in one forward pass.

    The model is tried out: its head has to be applied to every token, and what the head is given at the tokens that
    two texts have in common has to be equal, to 1e-4 of its size, if they differ in their last token alone. A 4-bit
    model has to be prepared for training before (`prepare_quantised_training`).

    Args:
        model (`PreTrainedModel` or `PeftModel`): A sequence classifier.
        processing_class (`PreTrainedTokenizerBase`): Its tokenizer.

    Raises:
        ValueError: If the head is applied once per text, a token sees those behind it, or the tokenizer cannot say
            which characters each token stands for.
    """
    name = type(_inner(model)).__name__
    if not processing_class.is_fast:
        raise ValueError(
            "Scores of prefixes need to know which characters each token stands for, and the discriminator's "
            f"tokenizer, {type(processing_class).__name__}, is written in Python and cannot say. Give a fast one as "
            "discriminator_processing_class."
        )
    ids = torch.arange(1, 1 + PROBE_LENGTH, device=model.device)[None]
    another_end = torch.cat([ids[:, :-1], ids[:, -1:] + 1], 1)
    with torch.no_grad(), evaluation_mode(model), _head_calls(model) as calls:
        for probe in (ids, another_end):  # by themselves: without a padding token batches are refused
            probe %= model.config.get_text_config().vocab_size
            model(input_ids=probe, attention_mask=torch.ones_like(probe))
    (one, logits), (other, _) = calls
    if logits.ndim != 3 or logits.size(1) < ids.size(1):  # virtual tokens, as prompt tuning has them, come first
        raise ValueError(
            "Scores of prefixes need a causal discriminator, whose head is applied to every token, as in "
            f"LlamaForSequenceClassification. That of {name} is applied once per text. {WHAT_TO_DO}"
        )
    # What the head is given, since a fresh head can say nearly the same to everything.
    common, again = one[:, :-1].float(), other[:, :-1].float()
    if (common - again).abs().max() > TOLERANCE * common.abs().max():
        raise ValueError(
            "Scores of prefixes need a causal discriminator, in which no token sees those behind it, as in "
            f"LlamaForSequenceClassification. In {name} the last token changes what the head is given at the tokens "
            f"before it. {WHAT_TO_DO}"
        )


class PrefixScorer:
    """Computes the logits of all prefixes of completions.

    Args:
        model (`PreTrainedModel` or `PeftModel`): A causal sequence classifier, quantised or not, already prepared for
            training.
        processing_class (`PreTrainedTokenizerBase`): Its tokenizer, with a padding token. A copy is kept, with padding
            on the right.
        max_length (`int`): Texts are cut to this many tokens.

    Raises:
        ValueError: If the model is not causal or the tokenizer not fast, see [`check_causal`].
    """

    def __init__(
        self, model: PreTrainedModel | PeftModel, processing_class: PreTrainedTokenizerBase, max_length: int
    ) -> None:
        check_causal(model, processing_class)
        self._model = model
        self.max_length = max_length
        self.processing_class = tokenizer = copy.deepcopy(processing_class)
        tokenizer.padding_side = "right"
        self._has_pairs = tokenizer.num_special_tokens_to_add(pair=True) > tokenizer.num_special_tokens_to_add()
        # That a text goes on is a prefix's logit, that it ends is the text's: the end has to be seen. Many causal
        # tokenizers put nothing behind a text.
        is_special = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
        needs_token = tokenizer.num_special_tokens_to_add() == 0
        self._end = "" if is_special[-1] else tokenizer.eos_token or (needs_token and tokenizer.pad_token) or ""
        self._has_warned = False

    def encode(self, prompts: Sequence[str], completions: Sequence[str]) -> BatchEncoding:
        """Tokenise texts as [`TextEncoder.encode`] does, each with an end token, and note where its prefixes end.

        Args:
            prompts (`Sequence[str]` of length N): Plain text, "" for none.
            completions (`Sequence[str]` of length N): Plain text.

        Returns:
            `BatchEncoding`: On the CPU. Beside the model's inputs, of shape `(N, L)`, there are `prefix_positions` and
                `prefix_ends` of shape `(N, T)`: where the token at time t stands, and after how many characters of the
                completion it ends. A token behind the text, such as the end token, ends one character after the last.
                Rows repeat their last entries.
        """
        rows = self._rows(prompts, completions)
        merged: dict[str, Any] = {name: [row.inputs[name] for row in rows] for name in rows[0].inputs}
        encoded = self.processing_class.pad(merged, return_tensors="pt")
        encoded[POSITIONS] = repeat_last([torch.tensor(row.positions) for row in rows])
        encoded[ENDS] = repeat_last([torch.tensor(row.ends) for row in rows])
        return encoded

    def encode_in_batches(self, prompts: Sequence[str], completions: Sequence[str], size: int) -> list[BatchEncoding]:
        """Encode texts `size` at a time, all batches with the same T: their logits can be put together."""
        starts = range(0, len(completions), size)
        batches = [self.encode(prompts[at : at + size], completions[at : at + size]) for at in starts]
        width = max(batch[POSITIONS].size(1) for batch in batches)
        for batch in batches:
            for name in (POSITIONS, ENDS):
                batch[name] = repeat_last(list(batch[name]), width)
        return batches

    def logits(self, model: nn.Module, batch: BatchEncoding) -> Tensor:
        """Compute what the head says at every prefix.

        Args:
            model (`nn.Module`): What is called: the scorer's model, or a wrapper of it such as
                `DistributedDataParallel`.
            batch (`BatchEncoding`): As [`encode`] made it, on the model's device.

        Returns:
            `Tensor` of shape `(N, T, labels)`: With gradient where the model has one. The last entry of a row is the
                sequence's. It is the model's own output for the sequence, unless the end token serves as padding too:
                the model then keeps the logit before the end, which is that of a text that may go on.
        """
        inputs = {name: values for name, values in batch.items() if name not in (POSITIONS, ENDS)}
        with _head_calls(self._model) as calls:
            model(**inputs)
        everywhere = calls[-1][1][:, -batch["input_ids"].size(1) :]  # Shape (N, L, labels), without virtual tokens
        places = batch[POSITIONS].to(everywhere.device)[..., None].expand(-1, -1, everywhere.size(2))
        return everywhere.gather(1, places)

    def _rows(self, prompts: Sequence[str], completions: Sequence[str]) -> "list[_Row]":
        rows: dict[int, _Row] = {}
        for paired in (True, False):
            places = [at for at, prompt in enumerate(prompts) if (self._has_pairs and bool(prompt)) == paired]
            if places:
                batch = [(prompts[at], completions[at]) for at in places]
                rows.update(zip(places, self._rows_alike(batch, paired), strict=True))
        num_cut = sum(row.num_cut > 0 for row in rows.values())
        if num_cut and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{num_cut} of {len(rows)} texts ({num_cut / len(rows):.0%}) did not fit into the discriminator's "
                f"{self.max_length} tokens and were cut: the prompt from its beginning, then the completion, whose "
                "tokens get no credit of their own where they are cut. Raise discriminator_max_length if the "
                "discriminator can take more, or lower max_completion_length. This is said once.",
                stacklevel=3,
            )
        return [rows[at] for at in range(len(rows))]

    def _rows_alike(self, texts: list[tuple[str, str]], paired: bool) -> "list[_Row]":
        firsts = [prompt if paired else prompt + completion + self._end for prompt, completion in texts]
        seconds = [[completion + self._end for _, completion in texts]] if paired else []
        encoded = self.processing_class(
            firsts,
            *seconds,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_attention_mask=False,
            verbose=False,
        )
        offsets, is_special = encoded.pop("offset_mapping"), encoded.pop("special_tokens_mask")
        rows = []
        for row, (prompt, completion) in enumerate(texts):
            sequence, start = (1, 0) if paired else (0, len(prompt))
            # Characters of the completion up to the end of each token; None before it.
            ends = [
                end - start if of == sequence and end > start else None
                for of, (_, end) in zip(encoded.sequence_ids(row), offsets[row], strict=True)
            ]
            inputs = {name: values[row] for name, values in encoded.items()}
            kept = self._kept(is_special[row], ends, paired)
            rows.append(_row(inputs, ends, kept, len(completion)))
        return rows

    def _kept(self, is_special: list[int], ends: list[int | None], paired: bool) -> list[int]:
        """Return the positions that stay: of a pair the completion loses its end, of one text its beginning."""
        excess = max(len(is_special) - self.max_length, 0)
        content = [at for at, special in enumerate(is_special) if not special]
        in_prompt = [at for at in content if ends[at] is None]
        from_prompt = min(excess, len(in_prompt))
        rest = content[len(in_prompt) :]
        if paired and self._end:
            rest = rest[:-1]  # the end token is special, although it stands in the text
        beyond = excess - from_prompt
        dropped = {*in_prompt[:from_prompt], *(rest[len(rest) - beyond :] if paired else rest[:beyond])}
        return [at for at in range(len(is_special)) if at not in dropped]


@dataclass(frozen=True)
class _Row:
    """One encoded text: the model's inputs, the positions of its completion's tokens and where they end."""

    inputs: dict[str, list[int]]
    positions: list[int]
    ends: list[int]
    num_cut: int


def _row(inputs: dict[str, list[int]], ends: list[int | None], kept: list[int], length: int) -> _Row:
    in_completion = [at for at in kept if ends[at] is not None]
    # Special tokens behind the completion belong to it; of an empty one there may be nothing but the last of them.
    first = in_completion[0] if in_completion else kept[-1]
    positions, completion_ends, latest = [], [], 0
    for place, at in enumerate(kept):
        if at >= first:
            end = ends[at]
            latest = max(latest, length + 1 if end is None else min(end, length + 1))
            positions.append(place)
            completion_ends.append(latest)
    shortened = {name: [values[at] for at in kept] for name, values in inputs.items()}
    shortened["attention_mask"] = [1] * len(kept)
    return _Row(shortened, positions, completion_ends, len(ends) - len(kept))


def repeat_last(rows: Sequence[Tensor], width: int | None = None) -> Tensor:
    """Make rows equally long by repeating the last entry of each.

    Args:
        rows (`Sequence[Tensor]`): Shape `(T_i,)` each, at least one entry.
        width (`int`, *optional*): T; the longest row by default.

    Returns:
        `Tensor` of shape `(N, T)`.
    """
    width = max(len(row) for row in rows) if width is None else width
    return torch.stack([torch.cat([row, row[-1:].expand(width - len(row))]) for row in rows])


def _inner(model: PreTrainedModel | PeftModel) -> Any:
    return model.get_base_model() if isinstance(model, PeftModel) else model


@contextmanager
def _head_calls(model: PreTrainedModel | PeftModel) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Record what the head is given and says in forward passes within the context."""
    inner = _inner(model)
    calls: list[tuple[Tensor, Tensor]] = []
    # The last of them ends in the labels; below adapters it is PEFT's wrapper, which calls the copy that is active.
    head = inner.get_submodule(head_modules(inner)[-1])
    hook = head.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0], output)))
    try:
        yield calls
    finally:
        hook.remove()
