"""From plain text to the discriminator's tokens: the one way in for real and generated text."""

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from transformers import BatchEncoding, PreTrainedTokenizerBase

from ..models import probe_texts, unpadded_rows


class TextEncoder:
    """Encodes prompts and their completions with the discriminator's tokenizer.

    Args:
        processing_class (`PreTrainedTokenizerBase`): The tokenizer. A copy is kept, with padding on the right, and
            with the EOS token for padding where it has no padding token.
        max_length (`int`): Texts are cut to this many tokens.

    Attributes:
        processing_class (`PreTrainedTokenizerBase`): The copy.

    Raises:
        ValueError: If the tokenizer has neither a padding token nor an EOS token, or `max_length` leaves no room for
            text beside the special tokens.
    """

    def __init__(self, processing_class: PreTrainedTokenizerBase, max_length: int) -> None:
        self.processing_class = tokenizer = copy.deepcopy(processing_class)
        self.max_length = max_length
        self._given_padding_side = tokenizer.padding_side
        tokenizer.padding_side = "right"
        special, of_pair = (tokenizer.num_special_tokens_to_add(pair=pair) for pair in (False, True))
        self._has_pairs = of_pair > special
        if max_length <= max(special, of_pair):
            raise ValueError(
                f"discriminator_max_length is {max_length}, which leaves no room for text beside the "
                f"{max(special, of_pair)} special tokens of the discriminator's tokenizer: give a greater one."
            )
        self._has_warned = False
        # A tokenizer that adds nothing turns an empty completion into an empty row, so a text is given an end.
        self._end = "" if special else tokenizer.eos_token or tokenizer.pad_token or ""
        if tokenizer.pad_token is None:
            if tokenizer.eos_token is None:
                raise ValueError(
                    "The discriminator's tokenizer has no padding token and no EOS token to take its place. Set "
                    "tokenizer.pad_token and give the tokenizer as discriminator_processing_class."
                )
            tokenizer.pad_token = tokenizer.eos_token

    def probe_rows(self) -> list[dict[str, list[int]]]:
        """Return encoded texts of several lengths, without padding, on which to try a model out."""
        encoder = copy.copy(self)
        encoder._has_warned = True  # these texts are nobody's
        texts = probe_texts(self.processing_class)
        return unpadded_rows(encoder.encode([""] * len(texts), texts))

    def pad(self, rows: list[dict[str, list[int]]]) -> BatchEncoding:
        """Make a batch of encoded texts, with padding on the right."""
        merged: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
        return self.processing_class.pad(merged, return_tensors="pt")

    def saved_processing_class(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer as it is saved: it pads on its own side, which XLNet's classifier, for one, needs."""
        tokenizer = copy.copy(self.processing_class)
        tokenizer.padding_side = self._given_padding_side
        return tokenizer

    def encode(self, prompts: Sequence[str], completions: Sequence[str]) -> BatchEncoding:
        """Tokenise texts as [`Discriminator.encode`] describes; the tensors, of shape `(B, T)`, lie on the CPU."""
        if not self._has_pairs:
            joined = [prompt + completion + self._end for prompt, completion in zip(prompts, completions, strict=True)]
            encoded, num_cut = self._encode_alike(joined)
        elif not any(prompts):
            encoded, num_cut = self._encode_alike(list(completions))
        elif all(prompts):
            encoded, num_cut = self._encode_alike(list(completions), list(prompts))
        else:
            encoded, num_cut = self._encode_mixed(prompts, completions)
        if num_cut and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{num_cut} of {len(completions)} texts ({num_cut / len(completions):.0%}) did not fit into the "
                f"discriminator's {self.max_length} tokens and were cut: real and generated text alike, the prompt "
                "from its beginning, then the completion. Raise discriminator_max_length if the discriminator can "
                "take more, or lower max_completion_length, or take a discriminator that reads longer texts. This is "
                "said once; later batches may hold more of them or fewer.",
                stacklevel=2,
            )
        return encoded

    def _encode_alike(self, texts: list[str], prompts: list[str] | None = None) -> tuple[BatchEncoding, int]:
        """Tokenise texts that all have a prompt or all have none; return how many were cut, too.

        All at once and uncut: only rows that turn out to be too long are looked at one by one.
        """
        sequences = [texts] if prompts is None else [prompts, texts]
        # `verbose` would announce an error of the model, which the cut below averts.
        encoded = self.processing_class(*sequences, padding=True, return_tensors="pt", verbose=False)
        if encoded["input_ids"].size(1) <= self.max_length:
            return encoded, 0
        too_long = (encoded["attention_mask"].sum(1) > self.max_length).nonzero()[:, 0].tolist()
        sequences = [[sequence[row] for row in too_long] for sequence in sequences]
        marked = self.processing_class(
            *sequences, return_special_tokens_mask=True, return_attention_mask=False, verbose=False
        )
        if prompts is not None:
            firsts = self.processing_class(sequences[0], add_special_tokens=False, verbose=False)["input_ids"]
            in_prompt = [len(first) for first in firsts]
        else:
            # A completion alone loses its end; a text that joins both begins with its prompt.
            in_prompt = [0 if self._has_pairs else len(ids) for ids in marked["input_ids"]]
        # Padding is on the right, so nothing but padding is lost of the other rows.
        shortened = {name: values[:, : self.max_length].clone() for name, values in encoded.items()}
        kept = torch.tensor(
            [self._kept_positions(*row) for row in zip(marked["special_tokens_mask"], in_prompt, strict=True)]
        )  # Shape (rows that are too long, max_length)
        for name, values in shortened.items():
            values[too_long] = encoded[name][too_long].gather(1, kept)
        return BatchEncoding(shortened), len(too_long)

    def _kept_positions(self, is_special: list[int], prompt_length: int) -> list[int]:
        """Return `max_length` positions: special tokens, the end of the prompt, the beginning of the completion."""
        content = [position for position, special in enumerate(is_special) if not special]
        excess = len(is_special) - self.max_length
        from_prompt = min(excess, prompt_length)
        dropped = {*content[:from_prompt], *content[len(content) - (excess - from_prompt) :]}
        return [position for position in range(len(is_special)) if position not in dropped]

    def _encode_mixed(self, prompts: Sequence[str], completions: Sequence[str]) -> tuple[BatchEncoding, int]:
        """Tokenise texts of which some have a prompt.

        Each kind by itself, so that a text is encoded alike whatever stands beside it.
        """
        rows: list[dict[str, list[int]]] = [{} for _ in completions]
        total_cut = 0
        for with_prompt in (True, False):
            places = [place for place, prompt in enumerate(prompts) if bool(prompt) == with_prompt]
            firsts = [prompts[place] for place in places] if with_prompt else None
            encoded, num_cut = self._encode_alike([completions[place] for place in places], firsts)
            total_cut += num_cut
            lengths = encoded["attention_mask"].sum(1).tolist()
            for number, place in enumerate(places):
                rows[place] = {name: values[number, : lengths[number]].tolist() for name, values in encoded.items()}
        return self.pad(rows), total_cut
