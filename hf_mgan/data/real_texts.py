"""Real texts for the discriminator: which ones it meets, in which order, and how that order survives a checkpoint."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from datasets import Dataset, IterableDataset

from .prepare import check_is_dataset, dataset_columns, prepare_dataset
from .prompts import Text, answer_text, as_prompts
from .text_path import TextPath, shown_texts


BUFFER = 1000  # rows of a stream among which the next one is drawn


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


class StreamSampler:
    """Draws rows of a streaming dataset, pass after pass, each time shuffled in a buffer of 1000 rows.

    Its whole state is the number of rows drawn so far. A resumed run reads the stream from its beginning up to there,
    since what lay in the buffer is not kept. Ranks read the same stream and take turns.

    Args:
        dataset (`IterableDataset`): The stream.
        seed (`int`): Seed of the order.
        rank (`int`, *optional*, defaults to 0): This process.
        world_size (`int`, *optional*, defaults to 1): Number of processes.
    """

    def __init__(self, dataset: IterableDataset, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self._dataset = dataset.shuffle(seed=seed, buffer_size=BUFFER)
        self.rank, self.world_size = rank, world_size
        self._drawn, self._rows = 0, self._passes()

    @property
    def drawn(self) -> int:
        """Rows drawn so far by all processes together."""
        return self._drawn

    @drawn.setter
    def drawn(self, value: int) -> None:
        self._drawn, self._rows = value, self._passes()
        for _ in range(value):
            next(self._rows)

    def draw(self, count: int) -> list[dict[str, Any]]:
        """Return the next `count` rows of this process."""
        rows = [next(self._rows) for _ in range(count * self.world_size)]
        self._drawn += len(rows)
        return rows[self.rank * count : (self.rank + 1) * count]

    def _passes(self) -> Iterator[dict[str, Any]]:
        number, found = 0, True
        while found:
            self._dataset.set_epoch(number)
            found = False
            for row in self._dataset:
                found = True
                yield cast("dict[str, Any]", row)
            number += 1
        raise ValueError("The stream of real texts is empty: the discriminator needs at least one real text.")


class RealBatch(NamedTuple):
    """Real texts of a batch, in the order of its completions.

    Args:
        prompts (`list[str]` of length B): Their prompts as the discriminator sees them, "" for none.
        texts (`list[str]` of length B): The texts as it sees them.
        prompt_ids (`list[list[int]]` of length B): Tokens of the prompts, those of the start of the sequence for none.
        completion_ids (`list[list[int]]` of length B): Tokens of the texts, as the generator would write them.
    """

    prompts: list[str]
    texts: list[str]
    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]


class RealTexts:
    """Gives the discriminator as many real texts as it has completions, each with its prompt as the dataset has it.

    Where the loss is paired they are the references of the batch, each of its own prompt. Otherwise they are drawn
    from the whole training set: the rows of a batch repeat each prompt `num_generations` times, so its references
    would be few, and a single one where all texts start from the start of the sequence. A dataset of real texts that
    belong to no prompt takes the place of the training set, and then no prompt is shown for either kind of text.

    Args:
        train_dataset (`Dataset` or `IterableDataset`, *optional*): Rows with `prompt` and `completion`.
        real_dataset (`Dataset` or `IterableDataset`, *optional*): Rows with `text`.
        paired (`bool`): Whether the loss compares each completion with the reference of its own prompt.
        path ([`TextPath`]): The path of both kinds of text.
        seed (`int`): Seed of the order of the draws.
        rank (`int`, *optional*, defaults to 0): This process.
        world_size (`int`, *optional*, defaults to 1): Number of processes.
        begins_with_prompt (`bool`, *optional*, defaults to `False`): Whether a prompt is the beginning of a text, and
            neither a conversation nor a text to be translated. Beside a `real_dataset` the discriminator then sees
            prompt and completion as one text, and real texts as long as that can be.

    Attributes:
        path ([`TextPath`]): As above; the trainer puts in the end tokens once the generator is loaded.
        are_whole (`bool`): Whether prompt and completion are shown as one text.
        drawn (`int`): Rows drawn so far; the whole state.

    Raises:
        ValueError: If the discriminator would find no real texts, or the loss is paired and they belong to no prompt.
    """

    def __init__(
        self,
        train_dataset: Dataset | IterableDataset | None,
        real_dataset: Dataset | IterableDataset | None,
        paired: bool,
        path: TextPath,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        begins_with_prompt: bool = False,
    ) -> None:
        self.path = path
        self._source = self._checked_source(train_dataset, real_dataset, paired)
        self._belong_to_no_prompt = real_dataset is not None
        self.are_whole = self._belong_to_no_prompt and begins_with_prompt
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._sampler = self._new_sampler(seed)

    @property
    def shows_prompts(self) -> bool:
        """Whether the discriminator sees prompts."""
        return not self._belong_to_no_prompt

    @property
    def drawn(self) -> int:
        """Rows drawn so far by all processes together."""
        return self._sampler.drawn if self._sampler else 0

    @drawn.setter
    def drawn(self, value: int) -> None:
        if self._sampler:
            self._sampler.drawn = value

    def generated(
        self, prompts: Sequence[Text], completions: Sequence[Text], completion_ids: Sequence[list[int]]
    ) -> tuple[list[str], list[str]]:
        """Return prompts and completions as the discriminator sees them.

        Args:
            prompts (`Sequence[str or list[dict]]` of length B): The prompts of the batch.
            completions (`Sequence[str or list[dict]]` of length B): Texts or messages, as TRL hands them over.
            completion_ids (`Sequence[list[int]]` of length B): Their tokens.
        """
        return self.shown(prompts, self.path.read(prompts, completions, completion_ids))

    def shown(self, prompts: Sequence[Text], texts: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return prompts and decoded completions as the discriminator sees them; arguments as in `generated`."""
        return shown_texts(as_prompts(prompts, self.path.tokenizer), texts, self.shows_prompts, self.are_whole)

    def are_references(self, training: bool) -> bool:
        """Return whether a batch meets the references of its own rows, each as often as its group has completions."""
        return self._sampler is None if training else not self._belong_to_no_prompt

    def draw(self, prompts: Sequence[Text], references: Sequence[Text] | None) -> RealBatch:
        """Return real texts for a training batch.

        Args:
            prompts (`Sequence[str or list[dict]]` of length B): The prompts of the batch.
            references (`Sequence[str or list[dict]]` of length B, *optional*): Their references, where the dataset has
                them.
        """
        if self._sampler is not None:
            return self._next(self._sampler, prompts)
        if references is None:
            raise ValueError(
                "A batch came without references, and the discriminator has no other real texts. Add "
                "`completion` to the rows, or give real texts as real_dataset=."
            )
        return self._read(prompts, references)

    def held_out(self, prompts: Sequence[Text], references: Sequence[Text] | None) -> RealBatch:
        """Return real texts for an evaluation batch: its references, or draws apart from training's."""
        if references is not None and self.are_whole:
            beginnings = as_prompts(prompts, self.path.tokenizer)
            wholes = [first + answer_text(rest) for first, rest in zip(beginnings, references, strict=True)]
            return self._read([""] * len(wholes), wholes, beside=prompts)
        if references is not None:
            return self._read(prompts, references)
        sampler = self._new_sampler(self._seed + 1) if self._belong_to_no_prompt else None
        if sampler is None:
            raise ValueError(
                "eval_dataset has prompts but no `completion` column, so there are no real texts to evaluate "
                "against. Add the references as `completion`."
            )
        return self._next(sampler, prompts)

    def clipped_ratio(self, real: RealBatch) -> float:
        """Return the share of real texts that are cut at the limit, in [0, 1]."""
        ends = self.path.ends
        return sum(not row or row[-1] not in ends for row in real.completion_ids) / max(len(real.completion_ids), 1)

    def _new_sampler(self, seed: int) -> "RealSampler | StreamSampler | None":
        share = seed, self._rank, self._world_size
        if self._source is None:
            return None
        if isinstance(self._source, IterableDataset):
            return StreamSampler(self._source, *share)
        return RealSampler(len(self._source), *share)

    def _next(self, sampler: "RealSampler | StreamSampler", prompts: Sequence[Text]) -> RealBatch:
        """Return the next rows, as many as there are prompts."""
        if isinstance(sampler, StreamSampler):
            rows = sampler.draw(len(prompts))
            columns: Any = {name: [row[name] for row in rows] for name in ("prompt", "completion")}
        else:
            columns = cast(Dataset, self._source)[sampler.draw(len(prompts))]
        if self.shows_prompts:
            return self._read(columns["prompt"], columns["completion"])
        return self._read([""] * len(prompts), columns["completion"], prompts if self.are_whole else None)

    def _read(
        self, prompts: Sequence[Text], references: Sequence[Text], beside: Sequence[Text] | None = None
    ) -> RealBatch:
        """Return references as the generator would have written them.

        Args:
            prompts (`Sequence[str or list[dict]]` of length B): Their prompts, "" for none.
            references (`Sequence[str or list[dict]]` of length B): Real texts.
            beside (`Sequence[str]` of length B, *optional*): Prompts of completions that are shown as one text with
                them: real texts are then cut where prompt and completion would be.
        """
        path = self.path
        prompt_ids = path.encode_prompts([path.started(prompt) for prompt in prompts])
        if beside is None:
            ids = path.encode(prompts, references)
        else:
            start = len(prompt_ids[0])
            lengths = [len(row) - start for row in path.encode_prompts([path.started(prompt) for prompt in beside])]
            ids = path.encode(prompts, references, lengths)
        texts = path.decode(prompt_ids, ids)
        if self.shows_prompts:
            return RealBatch(as_prompts(prompts, path.tokenizer), texts, prompt_ids, ids)
        return RealBatch([""] * len(texts), [text.lstrip() for text in texts], prompt_ids, ids)

    def _checked_source(self, train_dataset: Any, real_dataset: Any, paired: bool) -> Dataset | IterableDataset | None:
        """Return the dataset to draw from, `None` where each batch brings its own references."""
        if real_dataset is not None:
            check_is_dataset("real_dataset", real_dataset)
            if "text" not in dataset_columns(real_dataset):
                raise ValueError(
                    f"real_dataset has the columns {dataset_columns(real_dataset)}, and needs `text`: texts that "
                    "belong to no prompt. Rename the one meant: real_dataset.rename_column('story', 'text')."
                )
            if paired:
                raise ValueError(
                    "A paired loss such as 'bradley_terry' compares a completion with the reference of its own "
                    "prompt, and the texts of real_dataset belong to no prompt. Use 'bce' or 'relativistic_average', "
                    "or leave it out."
                )
            return prepare_dataset(real_dataset.select_columns(["text"]), self.path.tokenizer)
        if train_dataset is None:
            return None
        if "completion" not in dataset_columns(train_dataset):
            raise ValueError(
                "train_dataset has prompts but no `completion` column, so the discriminator has no real texts. Add "
                "the references as `completion`, or give real texts as real_dataset=."
            )
        return None if paired else train_dataset
