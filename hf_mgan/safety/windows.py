"""From texts of any length to rows of tokens that a classifier can read."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import torch
from peft import PeftModel
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from ..models import check_vocabulary, checked_max_length, end_token_ids, needs_equal_lengths, probe_texts


class Windows:
    """Splits texts into as many rows of tokens as it takes to read each of them to its end.

    Windows of a completion overlap by half, so that a phrase that one window would cut stands whole in the next.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): The classifier's; a fast one.
        model (`PreTrainedModel` or `PeftModel`): The classifier, which is put into evaluation mode.
        max_length (`int`, *optional*): Tokens of a window, special tokens included.

    Attributes:
        pad_token_id (`int`): The padding token's, or the EOS token's where there is none.

    Raises:
        TypeError: If `tokenizer` is no fast tokenizer.
        ValueError: If it has nothing to pad with or more tokens than the classifier, or `max_length` is out of range.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel | PeftModel, max_length: int | None
    ) -> None:
        if not isinstance(tokenizer, PreTrainedTokenizerBase) or not tokenizer.is_fast:
            raise TypeError(
                "processing_class must be a fast tokenizer (those of the library `tokenizers`), which can split a "
                f"text that is too long into windows, got {type(tokenizer).__name__}."
            )
        single, pair = (tokenizer.num_special_tokens_to_add(pair=pair) for pair in (False, True))
        least = max(single, pair) + 4  # two tokens of a prompt, and two of its completion
        self.max_length = checked_max_length(model, tokenizer, max_length, "max_length", least)
        check_vocabulary(model, tokenizer, "safety classifier", "processing_class")
        fill = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        if fill is None:
            raise ValueError(
                "The safety classifier's tokenizer has no padding token and no EOS token to take its place. Set "
                "tokenizer.pad_token and give the tokenizer as processing_class."
            )
        self.pad_token_id: int = fill
        self._tokenizer = tokenizer
        self._has_pairs = pair > single
        self._room, self._room_of_pair = self.max_length - single, self.max_length - pair
        self._ends = end_token_ids(model)
        inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        inner.config.get_text_config().pad_token_id = fill  # by which a causal classifier finds the last token
        probe, _ = self.split([("", text) for text in probe_texts(tokenizer)])
        self._needs_equal_lengths = needs_equal_lengths(model.eval(), probe, self.pad)

    def split(self, pairs: list[tuple[str, str]]) -> tuple[list[dict[str, list[int]]], list[int]]:
        """Split texts into windows.

        Args:
            pairs (`list[tuple[str, str]]`): Prompts, "" where there is none, and texts.

        Returns:
            `tuple[list[dict], list[int]]`: The rows, and the number of the text that each is of.
        """
        rows: list[dict[str, list[int]]] = []
        owners: list[int] = []
        is_pair = [self._has_pairs and prompt != "" for prompt, _ in pairs]
        for kind in set(is_pair):
            places = [place for place, it in enumerate(is_pair) if it == kind]
            if kind:
                prompts = self._shortened([pairs[place][0] for place in places])
                encoded = self._encode(prompts, [pairs[place][1] for place in places])
            else:
                encoded = self._encode(["".join(pairs[place]) for place in places])
            owners += [places[number] for number in encoded.pop("overflow_to_sample_mapping")]
            rows += [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
        # A tokenizer that adds nothing makes no tokens of an empty text, and a model wants one.
        filler = {"input_ids": [self.pad_token_id], "attention_mask": [1]}
        return [row if row["input_ids"] else {**row, **filler} for row in rows], owners

    def _encode(self, *texts: list[str]) -> dict[str, Any]:
        is_pair = len(texts) == 2
        encoded = self._tokenizer(
            *texts,
            truncation="only_second" if is_pair else "only_first",
            max_length=self.max_length,
            # A prompt takes up to half of the room, so this is half of what is left for its completion, or less.
            stride=self._room_of_pair // 4 if is_pair else self._room // 2,
            return_overflowing_tokens=True,
            return_attention_mask=True,
            verbose=False,
        )
        return dict(encoded)

    def _shortened(self, prompts: list[str]) -> list[str]:
        """Cut prompts at their beginning to half of the room, so that the other half is the completion's."""
        most = self._room_of_pair // 2
        encoded = self._tokenizer(prompts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [
            prompt if len(offsets) <= most else prompt[offsets[-most][0] :]
            for prompt, offsets in zip(prompts, encoded["offset_mapping"], strict=True)
        ]

    def batches(self, rows: list[dict[str, list[int]]], size: int) -> Iterator[tuple[list[int], BatchEncoding]]:
        """Yield batches of at most `size` rows, each with the numbers of its rows; rows of one length stand together.

        Where padding would change the verdict, a batch holds rows of one length, and one number of end tokens, alone.
        """
        ends = set(self._ends)

        def kind(number: int) -> tuple[int, int]:
            ids = rows[number]["input_ids"]
            return len(ids), sum(token in ends for token in ids)

        ordered = sorted(range(len(rows)), key=kind)
        groups = [list(group) for _, group in groupby(ordered, kind)] if self._needs_equal_lengths else [ordered]
        for group in groups:
            for start in range(0, len(group), size):
                numbers = group[start : start + size]
                yield numbers, self.pad([rows[number] for number in numbers])

    def pad(self, rows: list[dict[str, list[int]]]) -> BatchEncoding:
        """Pad rows on the right to one length, as tensors of shape `(rows, T)`."""
        width = max(len(row["input_ids"]) for row in rows)
        padding = {"input_ids": self.pad_token_id}
        return BatchEncoding(
            {
                name: torch.tensor([row[name] + [padding.get(name, 0)] * (width - len(row[name])) for row in rows])
                for name in rows[0]
            }
        )
