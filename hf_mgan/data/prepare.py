"""Datasets in, prompts and references out.

In: a dataset with one of the columns `text`, `prompt` (with or without `completion`), `messages` or `translation`.
Out: its rows with the columns `prompt` (what the generator is given) and `completion` (the reference: the real text
that stands where the generator's completion stands), and every other column, for the reward functions. Rows are
checked and split in `rows`.
"""

import warnings
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

from ..checks import COUNT, INDEX, SEED, Check, Items, Template, Text, checked, optional, shown
from .rows import TRANSLATION_TEMPLATE, MessageRows, Pair, PromptRows, TextRows, TranslationRows, rows_of


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Of a dataset with several of them the prompt counts, and the others stay for the reward functions.
FORMS = ("prompt", "text", "messages", "conversations", "translation")
# What TRL hands to reward functions under names of its own.
TAKEN = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
ARGUMENTS: dict[str, Check] = {
    "prompt_tokens": Items(each=INDEX, several="a pair (least, greatest) of numbers of tokens", least=2),
    "source_lang": Text(optional=True),
    "target_lang": Text(optional=True),
    "translation_template": Template(fields=("source_lang", "target_lang", "source"), needed="source"),
    "seed": SEED,
    "num_proc": optional(COUNT),
    "max_text_tokens": optional(COUNT),
}
STREAMED = 256  # rows of a stream that are split at once
AT_ONCE = 1000  # rows of a map-style dataset that are, as `datasets` has it


def dataset_columns(dataset: Dataset | IterableDataset) -> list[str]:
    """Return the column names; a streaming dataset that does not know them is asked for its first row.

    Raises:
        ValueError: If it has no row that could be asked.
    """
    if dataset.column_names:
        return list(dataset.column_names)
    first: Any = next(iter(dataset), None)
    if first is None:
        raise ValueError("The dataset has no rows and no columns: look at what it was loaded from.")
    return list(first)


def check_is_dataset(name: str, given: Any) -> None:
    """Check that a dataset is one, map-style or streaming.

    Raises:
        TypeError: If it is several, or none.
    """
    if isinstance(given, (Dataset, IterableDataset)):
        return
    if isinstance(given, (DatasetDict, IterableDatasetDict)):
        mend = f"It has the splits {list(given)}: give one, such as {name}=dataset[{next(iter(given), 'train')!r}]."
    elif isinstance(given, list):
        mend = f"Make one of the rows: {name}=Dataset.from_list(rows)."
    elif isinstance(given, str):
        mend = f"Load it: {name}=load_dataset({given!r}, split='train')."
    elif isinstance(given, dict):
        mend = f"Make one of the columns: {name}=Dataset.from_dict(columns)."
    else:
        mend = "Make one of it, for example with Dataset.from_list or IterableDataset.from_generator."
    raise TypeError(f"{name} must be a datasets.Dataset or IterableDataset, got {shown(given)}. {mend}")


def form_of(columns: list[str]) -> str:
    """Return the column that says of which shape the rows are.

    Raises:
        ValueError: If there is none, there are several, or a column would be overwritten.
    """
    found = [form for form in FORMS if form in columns]
    if not found:
        raise ValueError(
            f"The dataset has the columns {columns}, and needs one of: `text`; `prompt` and `completion`; `messages`; "
            "`translation`. Rename a column, for example dataset.rename_column('story', 'text')."
        )
    if found[0] == "prompt":
        return "prompt"
    clashing = [*found[1:], *(["completion"] if "completion" in columns else [])]
    if clashing:
        raise ValueError(
            f"The dataset has the columns {', '.join([found[0], *clashing])}, each of which could be the real text. "
            f"Keep one: dataset.remove_columns({clashing}), or rename what is left for the reward functions."
        )
    return found[0]


def _check_columns(columns: list[str]) -> None:
    """Check that no column has the name of an argument that every reward function is given."""
    taken = [name for name in columns if name in TAKEN]
    if taken:
        raise ValueError(
            f"The dataset has the columns {', '.join(taken)}, and reward functions are given arguments of these "
            f"names. Rename or remove them: dataset.rename_column({taken[0]!r}, {'my_' + taken[0]!r})."
        )


def prepare_dataset(
    dataset: Dataset | IterableDataset,
    processing_class: "PreTrainedTokenizerBase",
    prompt_tokens: tuple[int, int] = (0, 0),
    source_lang: str | None = None,
    target_lang: str | None = None,
    translation_template: str = TRANSLATION_TEMPLATE,
    seed: int = 42,
    num_proc: int | None = None,
    max_text_tokens: int | None = None,
) -> Dataset | IterableDataset:
    """Give a dataset the columns `prompt` and `completion`, and check its rows.

    Args:
        dataset (`Dataset` or `IterableDataset`): Rows of one shape. `prompt`, with the reference in `completion` where
            there is one, or a list of several references, each of which becomes a row; returned as it is if there is
            nothing to change. `text`: its first k tokens become the prompt, the rest the completion. `messages` (or
            `conversations`): the last message, the assistant's, becomes the completion, those before it the prompt.
            `translation`: a dict of two or more languages.
        processing_class (`PreTrainedTokenizerBase`): The generator's tokenizer, which counts the tokens of a prompt.
        prompt_tokens (`tuple[int, int]`, *optional*, defaults to `(0, 0)`): For `text`: the least and the greatest k,
            drawn uniformly for each row. The prompt is the start of the sequence followed by k tokens; with k = 0
            nothing follows, and the generator writes the whole text. At least one token is left to the completion,
            and a prompt ends between two characters, where needed some tokens before k.
        source_lang (`str`, *optional*): For `translation`: the language of the prompt; the first key by default.
        target_lang (`str`, *optional*): For `translation`: the language of the completion; the second key by default.
        translation_template (`str`, *optional*): For `translation`: the prompt, with the fields `source_lang`,
            `target_lang` and `source`.
        seed (`int`, *optional*, defaults to 42): Seed of the draws of k. A row's draw depends on the seed and its
            index.
        num_proc (`int`, *optional*): Processes that split rows of a map-style dataset; one by default.
        max_text_tokens (`int`, *optional*): For `text`: a longer one is split into windows of as many tokens, each of
            which is a row; whole by default.

    Returns:
        `Dataset` or `IterableDataset`: The rows in the same order. The column that was split is gone, the others are
        kept. Rows whose `text` is empty are left out. An empty prompt becomes the start of the sequence.

    Raises:
        TypeError: If it is no dataset.
        ValueError: If the dataset has none of the columns above or no row, the range is no range, or a row is none of
            its shape, with its number: here of a map-style dataset, when it is reached of a stream.

    Warns:
        UserWarning: If rows are left out, with their number (of a stream, at the first one).
    """
    check_is_dataset("dataset", dataset)
    columns = dataset_columns(dataset)
    form = form_of(columns)
    _check_columns(columns)
    checked(ARGUMENTS, locals())
    low, high = prompt_tokens
    if low > high:
        raise ValueError(
            f"prompt_tokens must be a range (least, greatest) with 0 <= least <= greatest, got {prompt_tokens}."
        )
    rows = rows_of(
        form, processing_class, prompt_tokens, source_lang, target_lang, translation_template, seed, max_text_tokens
    )
    if isinstance(dataset, IterableDataset):
        split = partial(_split, reader=rows, is_streamed=True)
        removed = [form] if form != "prompt" else []
        return dataset.map(split, batched=True, batch_size=STREAMED, with_indices=True, remove_columns=removed)
    if not len(dataset):
        raise ValueError("The dataset has no rows: look at what it was loaded from, and at its filters.")
    if isinstance(rows, PromptRows) and not _changes(dataset, rows):
        return dataset
    prepared = dataset.map(
        _split,
        batched=True,
        with_indices=True,
        fn_kwargs={"reader": rows},
        remove_columns=[form, *(["completion"] if "completion" in columns else [])],
        num_proc=num_proc,
        desc="Splitting rows",
    )
    if not len(prepared):
        raise ValueError(
            f"All {len(dataset)} rows of the dataset have an empty text: look at what it was loaded from."
        )
    if (dropped := len(dataset) - len(prepared)) > 0:
        warnings.warn(f"{dropped} of {len(dataset)} rows have an empty text and are left out.", stacklevel=2)
    return prepared


def _changes(dataset: Dataset, rows: PromptRows) -> bool:
    """Check rows with prompts, and return whether any of them has to be changed."""
    names = [name for name in ("prompt", "completion") if name in dataset.column_names]
    chosen = dataset.select_columns(names)
    for start in range(0, len(dataset), AT_ONCE):
        batch = chosen[start : start + AT_ONCE]
        pairs = rows.pairs(range(start, start + len(batch["prompt"])), batch)
        references = batch.get("completion", [None] * len(pairs))
        for prompt, reference, found in zip(batch["prompt"], references, pairs, strict=True):
            if (
                len(found) != 1
                or not _is_alike(found[0].prompt, prompt)
                or not _is_alike(found[0].completion, reference)
            ):
                return True
    return False


def _is_alike(ours: Any, given: Any) -> bool:
    """Return whether two texts are equal, or two conversations but for the keys that Arrow adds."""
    if isinstance(ours, list) and isinstance(given, list) and len(ours) == len(given):
        return all(
            isinstance(theirs, dict) and mine == {name: theirs[name] for name in mine if name in theirs}
            for mine, theirs in zip(ours, given, strict=True)
        )
    return bool(ours == given)


def _split(
    batch: Mapping[str, list[Any]],
    numbers: list[int],
    reader: PromptRows | TextRows | MessageRows | TranslationRows,
    is_streamed: bool = False,
) -> dict[str, list[Any]]:
    """Return a batch with prompts and references, and the other columns beside each."""
    found: list[list[Pair]] = reader.pairs(numbers, batch)
    if is_streamed and not all(found):
        first = numbers[next(place for place, pairs in enumerate(found) if not pairs)]
        warnings.warn(
            f"Row {first} of the stream has an empty text and is left out, as others like it are.", stacklevel=2
        )
    places = [place for place, pairs in enumerate(found) for _ in pairs]
    pairs = [pair for pairs in found for pair in pairs]
    made: dict[str, list[Any]] = {
        name: [values[place] for place in places] for name, values in batch.items() if name not in _replaced(reader)
    }
    made["prompt"] = [pair.prompt for pair in pairs]
    if "completion" in batch or not isinstance(reader, PromptRows):
        made["completion"] = [pair.completion for pair in pairs]
    return made


def _replaced(reader: PromptRows | TextRows | MessageRows | TranslationRows) -> tuple[str, ...]:
    """Return the columns that the prompt and the reference take the place of."""
    if isinstance(reader, PromptRows):
        return ("prompt", "completion")
    if isinstance(reader, TextRows):
        return ("text",)
    return ("translation",) if isinstance(reader, TranslationRows) else (reader.name,)


def prepare_datasets(given: Any, processing_class: "PreTrainedTokenizerBase", **arguments: Any) -> Any:
    """Prepare what a trainer takes as `eval_dataset`: one dataset, a dict of several, or none.

    Args:
        given (`Dataset`, `IterableDataset`, `dict` or `None`): The datasets.
        processing_class (`PreTrainedTokenizerBase`): The generator's tokenizer.
        **arguments: Those of [`prepare_dataset`].

    Returns:
        The same form, with [`prepare_dataset`] applied to each dataset.
    """
    if given is None:
        return None
    if isinstance(given, dict):
        made = {key: prepare_dataset(one, processing_class, **arguments) for key, one in given.items()}
        return given if all(made[key] is given[key] for key in given) else type(given)(made)
    return prepare_dataset(given, processing_class, **arguments)
