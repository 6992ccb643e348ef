"""The rows of an evaluation: which have a real text, and what each is called where something is wrong with it.

In: data as people have them. Out: the places of rows that can be compared with, and these rows with prompts and
references. Empty texts of a corpus are left out, with their number; every other row without a text is an error that
says which.
"""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase

from ..data import prepare_dataset


PLACE = "place_in_dataset"  # the column that says which row it was
NUMBER = re.compile(r"\bRow (\d+)\b")  # as the errors of `prepare_dataset` name a row


def places_with_text(data: Dataset, name: str) -> Sequence[int]:
    """Return the places of the rows whose `text` is not empty; of other shapes all rows.

    Args:
        data (`Dataset`): Rows in any form that [`prepare_dataset`] takes.
        name (`str`): What they are called in an error.

    Returns:
        `Sequence[int]`: The places, in order.

    Raises:
        ValueError: If a text is no string, or no row has one.

    Warns:
        UserWarning: If rows are left out, with their number.
    """
    if not len(data):
        raise ValueError(f"{name} has no rows: look at what it was loaded from, and at its filters.")
    if not _is_corpus(data.column_names):
        return range(len(data))
    places = [place for place, text in enumerate(data["text"]) if _has_text(text, place, name)]
    if not places:
        raise ValueError(f"All {len(data)} rows of {name} have an empty text: look at what it was loaded from.")
    say_dropped(len(data) - len(places), len(data), name)
    return places


def first_with_text(stream: IterableDataset, count: int, name: str) -> tuple[Dataset, list[int]]:
    """Return the first rows of a stream that have a text, at most `count`, and their places in it.

    Args:
        stream (`IterableDataset`): As in [`places_with_text`], whose errors and warnings these are too.
        count (`int`): Their number.
        name (`str`): What they are called in an error.
    """
    kept, places, place = [], [], -1
    for place, row in enumerate(stream):
        if not _is_corpus(row) or _has_text(row["text"], place, name):
            kept.append(row)
            places.append(place)
        if len(kept) == count:
            break
    say_dropped(place + 1 - len(kept), place + 1, name)
    return Dataset.from_list(kept), places


def say_dropped(dropped: int, count: int, name: str) -> None:
    """Say how many rows are left out, if any are."""
    if dropped:
        warnings.warn(f"{dropped} of {count} rows of {name} have an empty text and are left out.", stacklevel=3)


def prepared_rows(
    data: Dataset,
    places: Sequence[int],
    name: str,
    processing_class: PreTrainedTokenizerBase,
    prepare: Mapping[str, Any],
) -> Dataset:
    """Return rows with prompts and references.

    Args:
        data (`Dataset` of length N): Rows in any form that [`prepare_dataset`] takes.
        places (`Sequence[int]` of length N): Their places in the data that they were chosen from.
        name (`str`): What these are called in an error.
        processing_class (`PreTrainedTokenizerBase`): The generator's tokenizer.
        prepare (`Mapping`): Further arguments of [`prepare_dataset`].

    Returns:
        `Dataset`: The rows in their order, with `prompt`, `completion` and [`PLACE`].

    Raises:
        ValueError: If they have no references, or a row is none of its shape, with its place.
    """
    try:
        rows = cast(Dataset, prepare_dataset(data.add_column(PLACE, list(places)), processing_class, **prepare))
    except ValueError as error:
        said = NUMBER.sub(lambda found: f"Row {places[int(found[1])]} of {name}", str(error), count=1)
        raise ValueError(said) from error
    if "completion" not in rows.column_names:
        raise ValueError(
            f"{name} has the columns {data.column_names}: prompts, but no real texts to compare with. Add the "
            "references as `completion`."
        )
    return rows


def check_real(texts: Sequence[str], rows: Dataset, name: str, limit: int | None = None) -> None:
    """Refuse real texts of which nothing is left.

    Args:
        texts (`Sequence[str]` of length N): Real texts.
        rows (`Dataset` of length N): What they were made of, as [`prepared_rows`] returns it.
        name (`str`): What these are called.
        limit (`int`, *optional*): Tokens at which they were cut.

    Raises:
        ValueError: If one is white space.
    """
    left, mend = "", ""
    if limit is not None:
        left = f", or one of which {limit} tokens of the generator leave white space"
        mend = ", or raise max_completion_length"
    for place, text in zip(rows[PLACE], texts, strict=True):
        if not text.strip():
            raise ValueError(
                f"Row {place} of {name} has an empty real text{left}: there is nothing to compare with. Drop such "
                f"rows{mend}."
            )


def _is_corpus(columns: Iterable[str]) -> bool:
    return "text" in columns and "prompt" not in columns


def _has_text(text: Any, place: int, name: str) -> bool:
    if text is None:
        return False
    if not isinstance(text, str):
        raise ValueError(
            f"Row {place} of {name} has {text!r} as 'text', which must be a string. Write it out: "
            "dataset.map(lambda row: {'text': str(row['text'])})."
        )
    return bool(text.strip())
