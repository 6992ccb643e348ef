"""From plain text to the discriminator's tokens: the one way in for real and generated text."""

import copy
from collections.abc import Sequence
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerBase


class TextEncoder:
    """Encodes prompts and their completions with the discriminator's tokenizer.

    Args:
        processing_class (`PreTrainedTokenizerBase`): The tokenizer. A copy is kept, with padding on the right, and
            with the EOS token for padding where it has no padding token.
        max_length (`int`): Texts are cut to this many tokens.

    Attributes:
        processing_class (`PreTrainedTokenizerBase`): The copy.

    Raises:
        ValueError: If the tokenizer has neither a padding token nor an EOS token.
    """

    def __init__(self, processing_class: PreTrainedTokenizerBase, max_length: int) -> None:
        self.processing_class = tokenizer = copy.deepcopy(processing_class)
        self.max_length = max_length
        tokenizer.padding_side = "right"
        special = tokenizer.num_special_tokens_to_add(pair=False)
        self._has_pairs = tokenizer.num_special_tokens_to_add(pair=True) > special
        if not self._has_pairs:
            tokenizer.truncation_side = "left"
        # A tokenizer that adds nothing turns an empty completion into an empty row, so a text is given an end.
        self._end = "" if special else tokenizer.eos_token or tokenizer.pad_token or ""
        if tokenizer.pad_token is None:
            if tokenizer.eos_token is None:
                raise ValueError(
                    "The discriminator's tokenizer has no padding token and no EOS token to take its place. Set "
                    "tokenizer.pad_token and give the tokenizer as discriminator_processing_class."
                )
            tokenizer.pad_token = tokenizer.eos_token

    def encode(self, prompts: Sequence[str], completions: Sequence[str]) -> BatchEncoding:
        """Tokenise texts as [`Discriminator.encode`] describes; the tensors, of shape `(B, T)`, lie on the CPU."""
        if self._has_pairs:
            firsts, seconds = list(prompts), list(completions)
        else:
            firsts = [""] * len(completions)
            seconds = [
                prompt + completion + self._end for prompt, completion in zip(prompts, completions, strict=True)
            ]
        settings: dict[str, Any] = {"truncation": True, "max_length": self.max_length}
        if not any(firsts):
            return self.processing_class(seconds, padding=True, return_tensors="pt", **settings)
        if all(firsts):
            return self.processing_class(firsts, seconds, padding=True, return_tensors="pt", **settings)
        # Row by row, so that a text is encoded alike whatever stands beside it.
        rows = [
            self.processing_class(*([first], [second]) if first else ([second],), **settings)
            for first, second in zip(firsts, seconds, strict=True)
        ]
        merged = {name: [row[name][0] for row in rows] for name in rows[0]}
        return self.processing_class.pad(merged, return_tensors="pt")
