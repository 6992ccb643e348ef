"""Real texts for the discriminator: which ones it meets, in which order, and how that order survives a checkpoint."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset, IterableDataset

from .prepare import dataset_columns
from .text_path import as_completions, as_prompts


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class RealSampler:
    """Draws rows of a map-style dataset without replacement, epoch after epoch, in an order set by a seed.

    Its whole state is the number of rows drawn so far, so a checkpoint holds one integer. Ranks share the order and
    take turns: no two of them draw the same row in an epoch.

    Args:
        size (`int`): Number of rows of the dataset.
        seed (`int`): Seed of the order.
        rank (`int`, *optional*, defaults to 0): This process.
        world_size (`int`, *optional*, defaults to 1): Number of processes.

    Attributes:
        drawn (`int`): Rows drawn so far by all processes together.

    Raises:
        ValueError: If the dataset is empty.
    """

    def __init__(self, size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if size < 1:
            raise ValueError("The dataset of real texts is empty: the discriminator needs at least one real text.")
        self.size, self.seed, self.rank, self.world_size = size, seed, rank, world_size
        self.drawn = 0
        self._epoch = -1
        self._order: list[int] = []

    def draw(self, count: int) -> list[int]:
        """Return the indices of the next `count` rows of this process."""
        start = self.drawn + self.rank * count
        self.drawn += count * self.world_size
        return list(self._rows(start, count))

    def _rows(self, start: int, count: int) -> Iterator[int]:
        for position in range(start, start + count):
            epoch, offset = divmod(position, self.size)
            if epoch != self._epoch:
                generator = torch.Generator().manual_seed(self.seed + epoch)
                self._epoch, self._order = epoch, torch.randperm(self.size, generator=generator).tolist()
            yield self._order[offset]


class RealTexts:
    """Gives the discriminator as many real texts as it has completions, each with its prompt as the dataset has it.

    Where the loss is paired they are the references of the batch, each of its own prompt. Otherwise they are drawn
    from the whole training set: the rows of a batch repeat each prompt `num_generations` times, so its references
    would be few, and a single one where all texts start from the start of the sequence. A dataset of real texts that
    belong to no prompt takes the place of the training set, and then no prompt is shown for either kind of text.

    Args:
        train_dataset (`Dataset` or `IterableDataset`, *optional*): Rows with `prompt` and `completion`.
        real_dataset (`Dataset`, *optional*): Rows with `text`.
        paired (`bool`): Whether the loss compares each completion with the reference of its own prompt.
        tokenizer (`PreTrainedTokenizerBase`): The generator's.
        max_completion_length (`int`, *optional*): Number of tokens at which completions are cut.
        seed (`int`): Seed of the order of the draws.
        rank (`int`, *optional*, defaults to 0): This process.
        world_size (`int`, *optional*, defaults to 1): Number of processes.

    Attributes:
        drawn (`int`): Rows drawn so far; the whole state.

    Raises:
        ValueError: If the discriminator would find no real texts, or the loss is paired and they belong to no prompt.
    """

    def __init__(
        self,
        train_dataset: Dataset | IterableDataset | None,
        real_dataset: Dataset | None,
        paired: bool,
        tokenizer: "PreTrainedTokenizerBase",
        max_completion_length: int | None,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._source = self._checked_source(train_dataset, real_dataset, paired)
        self._belong_to_no_prompt = real_dataset is not None
        self._tokenizer = tokenizer
        self._max_completion_length = max_completion_length
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._sampler = self._new_sampler(seed)

    @property
    def drawn(self) -> int:
        """Rows drawn so far by all processes together."""
        return self._sampler.drawn if self._sampler else 0

    @drawn.setter
    def drawn(self, value: int) -> None:
        if self._sampler:
            self._sampler.drawn = value

    def shown_prompts(self, prompts: list) -> list[str]:
        """Return prompts as the discriminator sees them: not at all where real texts belong to no prompt."""
        return [""] * len(prompts) if self._belong_to_no_prompt else as_prompts(prompts, self._tokenizer)

    def are_references(self, training: bool) -> bool:
        """Return whether a batch meets the references of its own rows, each as often as its group has completions."""
        return self._sampler is None if training else not self._belong_to_no_prompt

    def draw(self, prompts: list, references: list | None) -> tuple[list[str], list]:
        """Return real texts for a training batch, and their prompts ("" where they have none).

        Args:
            prompts (`list` of length B): The prompts of the batch.
            references (`list` of length B, *optional*): Their references, where the dataset has them.
        """
        if self._sampler is not None:
            return self._next(self._sampler, len(prompts))
        if references is None:
            raise ValueError(
                "A batch came without references, and the discriminator has no other real texts. Add "
                "`completion` to the rows, or give real texts as real_dataset=."
            )
        return self._cut(references), prompts

    def held_out(self, prompts: list, references: list | None) -> tuple[list[str], list]:
        """Return real texts for an evaluation batch: its references, or draws apart from training's."""
        if references is not None:
            return self._cut(references), prompts
        sampler = self._new_sampler(self._seed + 1)
        if sampler is None:
            raise ValueError(
                "eval_dataset has prompts but no `completion` column, so there are no real texts to evaluate "
                "against. Add the references as `completion`."
            )
        return self._next(sampler, len(prompts))

    def _cut(self, references: list) -> list[str]:
        return as_completions(references, self._tokenizer, self._max_completion_length)

    def _new_sampler(self, seed: int) -> RealSampler | None:
        return None if self._source is None else RealSampler(len(self._source), seed, self._rank, self._world_size)

    def _next(self, sampler: RealSampler, count: int) -> tuple[list[str], list]:
        assert self._source is not None  # a sampler exists only where there is a source
        rows = self._source[sampler.draw(count)]
        texts, prompts = (
            (rows["text"], [""] * count) if self._belong_to_no_prompt else (rows["completion"], rows["prompt"])
        )
        return self._cut(texts), prompts

    @staticmethod
    def _checked_source(train_dataset: Any, real_dataset: Any, paired: bool) -> Dataset | None:
        """Return the dataset to draw from, `None` where each batch brings its own references."""
        if real_dataset is not None:
            if not isinstance(real_dataset, Dataset) or "text" not in real_dataset.column_names:
                raise ValueError(
                    "real_dataset must be a map-style Dataset with a `text` column: texts that belong to no prompt."
                )
            if paired:
                raise ValueError(
                    "A paired loss such as 'bradley_terry' compares a completion with the reference of its own "
                    "prompt, and the texts of real_dataset belong to no prompt. Use 'bce' or 'relativistic_average', "
                    "or leave it out."
                )
            return real_dataset
        if train_dataset is None:
            return None
        if "completion" not in dataset_columns(train_dataset):
            raise ValueError(
                "train_dataset has prompts but no `completion` column, so the discriminator has no real texts. Add "
                "the references as `completion`, or give real texts as real_dataset=."
            )
        if paired:
            return None
        if not isinstance(train_dataset, Dataset):
            raise ValueError(
                "An unpaired loss such as 'bce' draws real texts from all of the training set, which a streaming "
                "dataset does not allow. Use discriminator_loss='bradley_terry', or give real texts as a map-style "
                "real_dataset=."
            )
        return train_dataset
