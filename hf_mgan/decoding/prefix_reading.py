"""Texts that grow, as a causal discriminator reads them: each token once, its keys and values kept.

In: prompts, then the generator's tokens. Out: the discriminator's logit of every text so far and, before a token is
settled, of the text with it. It reads what [`~discriminator.prefixes.PrefixScorer`] encodes, in training as here: the
prompt, the completion without special tokens, and an end where the text has ended, be it by itself or at the limit.
"""

import copy
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import BatchEncoding, DynamicCache
from transformers.cache_utils import DynamicLayer

from ..discriminator import Discriminator
from ..discriminator.prefixes import ENDS, POSITIONS, PrefixScorer
from ..models import num_virtual_tokens
from .continuation import accepts, cache_name, positions


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INSTEAD = "or use rejection, which reads whole texts."


class PrefixReader:
    """Says which tokens the discriminator reads, and begins to read texts.

    Args:
        discriminator ([`Discriminator`]): Scores prefixes, in tokens of the generator.
        tokenizer (`PreTrainedTokenizerBase`): The generator's.
        ends (`Collection[int]`, *optional*): The tokens at which it ends, which are no part of a text.

    Attributes:
        slope (`float`): From a difference of logits to one of log-ratios. The intercept of a calibration is fitted to
            whole texts and says nothing about prefixes; from the first token on it cancels, and before it as well.

    Raises:
        ValueError: If it scores no prefixes, has a previous one, has another vocabulary, or keeps no keys and values.
    """

    def __init__(
        self, discriminator: Discriminator | None, tokenizer: "PreTrainedTokenizerBase", ends: Collection[int] = ()
    ) -> None:
        self._scorer = _checked_scorer(discriminator, tokenizer)
        assert discriminator is not None
        self._discriminator = discriminator
        self.slope = 1.0 if discriminator.calibration is None else discriminator.calibration.slope
        alone = self._scorer.encode([""], ["a"])
        places = zip(alone[POSITIONS][0].tolist(), alone[ENDS][0].tolist(), strict=True)
        ids = alone["input_ids"][0].tolist()
        self._end: list[int] = [ids[place] for place, end in places if end > 1]
        special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
        self._readable = set(tokenizer.get_vocab().values()) - special - set(ends)

    def shown(self, prompts: list[str]) -> list[str]:
        """Return prompts as the discriminator reads them: "" each if it was calibrated without them."""
        calibration = self._discriminator.calibration
        is_read = calibration is None or calibration.with_prompt or calibration.are_whole
        return prompts if is_read else [""] * len(prompts)

    def beginnings(self, prompts: list[str]) -> list[list[int]]:
        """Return what is read before the first token of a completion, a row per prompt; empty rows are possible."""
        rows = self._encoded(prompts, [""] * len(prompts))
        return [row[: len(row) - len(self._end)] for row in rows]

    def tokens(self, token: int, is_last: bool) -> list[int]:
        """Return what is read of a token of the generator: nothing of a special one or an end.

        Behind the last one stands the discriminator's own end.
        """
        return [token] * (token in self._readable) + (self._end if is_last else [])

    def log_ratios(self, logits: Tensor) -> Tensor:
        """Compute the log-ratios of whole texts, as [`Discriminator.log_ratio`] does, from their logits."""
        calibration = self._discriminator.calibration
        return logits if calibration is None else calibration.log_ratio(logits)

    def check_room(self, prompts: list[str], max_new_tokens: int) -> None:
        """Check that the discriminator can read prompts and completions whole.

        Raises:
            ValueError: If it would have to be shown less, which a text that grows does not allow for.
        """
        room = self._scorer.max_length - len(self._end) - max(map(len, self.beginnings(prompts)))
        if room < max_new_tokens:
            raise ValueError(
                f"max_new_tokens is {max_new_tokens}, and beside the longest prompt the discriminator has room for "
                f"{max(room, 0)} tokens. Lower max_new_tokens, shorten the prompts, or raise discriminator_max_length."
            )

    def num_read_otherwise(self, texts: Sequence[tuple[str, str | None, list[int]]]) -> int:
        """Count the texts whose tokens in training would be others than those that are read here.

        Args:
            texts (`Sequence[tuple[str, str, list[int]]]`): Prompt, completion, and the generator's tokens of it.
        """
        prompts = [prompt for prompt, _, _ in texts]
        expected = self._encoded(prompts, [text or "" for _, text, _ in texts])
        rows = zip(expected, self.beginnings(prompts), texts, strict=True)
        return sum(
            row != [*beginning, *(part for token in ids for part in self.tokens(token, False)), *self._end]
            for row, beginning, (_, _, ids) in rows
        )

    def _encoded(self, prompts: list[str], completions: list[str]) -> list[list[int]]:
        """Return the tokens of texts as the discriminator is given them in training."""
        encoded = self._scorer.encode(prompts, completions)
        rows = zip(encoded["input_ids"].tolist(), encoded["attention_mask"].sum(1).tolist(), strict=True)
        return [row[:length] for row, length in rows]

    def read(self, prompts: list[str]) -> "GrowingTexts":
        """Read what stands before the completions."""
        return GrowingTexts(self._discriminator, self.beginnings(prompts))


class GrowingTexts:
    """The texts of a batch, as far as they are read.

    Args:
        discriminator ([`Discriminator`]): Reads them.
        beginnings (`list[list[int]]` of length B): Tokens before the completions.

    Attributes:
        logits (`Tensor` of shape `(B,)`): The discriminator's logit of each text so far, float32. That of an empty
            completion is 0: real and generated texts share their prompts, and the discriminator learns nothing at the
            end of a prompt.
    """

    def __init__(self, discriminator: Discriminator, beginnings: list[list[int]]) -> None:
        self._discriminator, self._model = discriminator, discriminator.model
        width = max(map(len, beginnings))
        # Padded on the left, so that the end of each prompt stands beside its completion.
        rows = [[0] * (width - len(row)) + row for row in beginnings]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in beginnings]
        device = self._model.device
        # The type is named, since rows without a token have none.
        ids, self._mask = (torch.tensor(values, dtype=torch.int64, device=device) for values in (rows, mask))
        self._cache = DynamicCache(config=self._model.config.get_text_config(decoder=True))
        self.logits = torch.zeros(len(rows), device=device)
        if width:
            different, numbers = torch.unique(torch.cat([ids, self._mask], 1), dim=0, return_inverse=True)
            of_different = different[:, width:]
            self._forward(self._cache, of_different[:, :0], different[:, :width], of_different)
            self._cache.batch_select_indices(numbers)

    def logits_with(self, rows: Tensor, tokens: list[list[int]]) -> Tensor:
        """Compute the logits of texts with further tokens, and forget those again.

        Args:
            rows (`Tensor` of shape `(n,)`): Which texts.
            tokens (`list[list[int]]` of length n): What the discriminator reads after each.

        Returns:
            `Tensor` of shape `(n,)`: float32; where there is nothing to read, the logit that was.
        """
        if not any(tokens):
            return self.logits[rows]
        ids, kept = self._padded(tokens)
        values = self._forward(_selected(self._cache, rows), self._mask[rows], ids, kept)
        return torch.where(kept.any(1), values, self.logits[rows])

    def go_on(self, rows: Tensor, tokens: list[list[int]], logits: Tensor) -> None:
        """Keep some of the texts, each with further tokens.

        Args:
            rows (`Tensor` of shape `(n,)`): Which texts go on.
            tokens (`list[list[int]]` of length n): What the discriminator reads after each.
            logits (`Tensor` of shape `(n,)`): The logits of the texts with them.
        """
        self._cache.batch_select_indices(rows)
        self._mask, self.logits = self._mask[rows], logits
        if any(tokens):
            ids, kept = self._padded(tokens)
            self._forward(self._cache, self._mask, ids, kept)
            self._mask = torch.cat([self._mask, kept], 1)

    def _padded(self, tokens: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Return tokens, padded on the right, and their mask, both of shape `(n, width)`."""
        width = max(map(len, tokens))
        ids = [row + [0] * (width - len(row)) for row in tokens]
        kept = [[1] * len(row) + [0] * (width - len(row)) for row in tokens]
        return torch.tensor(ids, device=self._mask.device), torch.tensor(kept, device=self._mask.device)

    def _forward(self, cache: DynamicCache, mask: Tensor, ids: Tensor, kept: Tensor) -> Tensor:
        """Read tokens into a cache, and return the logit at the last of each row that is none of the padding."""
        mask = torch.cat([mask, kept], 1)
        places = torch.arange(ids.size(1), device=ids.device)
        batch = {
            "input_ids": ids,
            "attention_mask": mask,
            POSITIONS: (places * kept).max(1, keepdim=True).values,
            cache_name(self._model): cache,
            **positions(self._model, mask, ids.size(1)),
        }
        return self._discriminator.logits(BatchEncoding(batch))[:, 0]


def _selected(cache: DynamicCache, rows: Tensor) -> DynamicCache:
    """Return a cache of some rows; the given one stays as it is."""
    # Layers put new tensors in the place of their keys and values, so that no tensor is copied but for the selection.
    selected = copy.copy(cache)
    selected.layers = [copy.copy(layer) for layer in cache.layers]
    selected.batch_select_indices(rows)
    return selected


def _checked_scorer(discriminator: Discriminator | None, tokenizer: "PreTrainedTokenizerBase") -> PrefixScorer:
    if discriminator is None or discriminator.prefixes is None:
        given = "there is none" if discriminator is None else "this one scores whole texts alone"
        raise ValueError(
            f"token_rejection needs a causal discriminator that has learnt from all prefixes, and {given}. Give the "
            "generator's own id as discriminator, with discriminator_model_init_kwargs={'prefixes': True}, "
            f"{INSTEAD}"
        )
    if discriminator.previous is not None:
        raise ValueError(
            "token_rejection asks one discriminator, and this one corrects what a previous one keeps, whose part is "
            f"known of whole texts alone. Give one that learnt from the generator's own texts, {INSTEAD}"
        )
    if discriminator.processing_class.get_vocab() != tokenizer.get_vocab():
        theirs, ours = len(discriminator.processing_class.get_vocab()), len(tokenizer.get_vocab())
        raise ValueError(
            f"token_rejection needs a discriminator with the generator's own tokens, and its tokenizer has another "
            f"vocabulary ({theirs} tokens, the generator's has {ours}). Give the generator's own id as discriminator, "
            f"{INSTEAD}"
        )
    cache = DynamicCache(config=discriminator.model.config.get_text_config(decoder=True))
    model = discriminator.model
    is_kept = accepts(model, cache_name(model)) and not num_virtual_tokens(model)  # they would stand in it too
    if not is_kept or not all(isinstance(layer, DynamicLayer) for layer in cache.layers):
        raise ValueError(
            "token_rejection keeps the discriminator's keys and values, which "
            f"{type(discriminator.model).__name__} does not hand out as a transformer does. Give another causal "
            f"discriminator, {INSTEAD}"
        )
    return discriminator.prefixes
