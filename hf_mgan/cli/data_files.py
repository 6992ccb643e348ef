"""Where a command's data come from: files, globs, folders and the Hub, each read by `datasets.load_dataset`.

In: what `--dataset_name` and the like give. Out: splits, or an error that names the file and says what to mend. Rows
come as the files have them; what becomes of an empty one, [`prepare_dataset`] says.
"""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from datasets import Dataset, DatasetDict, IterableDatasetDict, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError


# An id, a folder, a file or a glob; or several files.
Names: TypeAlias = str | Sequence[str]
Splits: TypeAlias = DatasetDict | IterableDatasetDict


class Format(NamedTuple):
    """How files of a format are read.

    Args:
        builder (`str`): Its name in `load_dataset`.
        options (`dict`): What that is given besides.
        mend (`str`): What a file of this format has to be like.
    """

    builder: str
    options: dict[str, Any]
    mend: str


# A cell is missing where it is empty: "NA", "null" and "None" are texts, and so is "007".
CELLS = {"keep_default_na": False, "na_values": [""]}
CELLS |= {"converters": dict.fromkeys(("text", "prompt", "completion"), str)}
CSV = (
    "The first line names the columns, every further row has as many cells, and a text with a {} or a line break "
    "stands in double quotes, those within it doubled."
)
JSON = "It holds one object per line with the same fields, or one list of them."
FORMATS = {
    ".json": Format("json", {}, JSON),
    ".jsonl": Format("json", {}, JSON),
    ".ndjson": Format("json", {}, JSON),
    ".csv": Format("csv", CELLS, CSV.format("comma")),
    ".tsv": Format("csv", {**CELLS, "sep": "\t"}, CSV.format("tab")),
    ".parquet": Format("parquet", {}, "Write it again with Dataset.to_parquet."),
    # A mark at the beginning, which editors on Windows write, is no text.
    ".txt": Format("text", {"encoding": "utf-8-sig"}, "It holds one text per line, in UTF-8."),
}
COMPRESSIONS = (".gz", ".bz2", ".xz")
KINDS = f"{', '.join(FORMATS)}, or one of them compressed ({', '.join(COMPRESSIONS)})"


def kind_of(name: str) -> str | None:
    """Return the extension of a format that a file's name ends in, before that of a compression; None for others."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in FORMATS else None


def are_local(names: Names) -> bool:
    """Return whether data lie in files or folders here, and not on the Hub."""
    given = [names] if isinstance(names, str) else list(names)
    return len(given) > 1 or kind_of(given[0]) is not None or glob.has_magic(given[0]) or Path(given[0]).exists()


def splits_of(names: Names, config: str | None, split: str, streaming: bool = False) -> Splits:
    """Load data; files are all of one split.

    Args:
        names (`str` or `list[str]`): Id of a dataset on the Hub, a folder, a file, a glob, or several files and globs.
        config (`str`, *optional*): The dataset's configuration, if it is none of files.
        split (`str`): The split that files become.
        streaming (`bool`, *optional*, defaults to `False`): Whether rows are read when they are needed.

    Returns:
        `DatasetDict` or `IterableDatasetDict`: The splits.

    Raises:
        ValueError: If there are no such files, folder or dataset, a file cannot be read or has no rows, or files are
            of several formats.
    """
    given = [names] if isinstance(names, str) else list(names)
    if len(given) == 1 and (Path(given[0]).is_dir() or not are_local(given)):
        return _of_dataset(given[0], config, split, streaming)
    files = files_of(names)
    if config is not None:
        raise ValueError(f"dataset_config={config!r} has no effect on files such as {files[0]}: leave it out.")
    return _read(files, split, streaming)


def split_of(data: Splits, names: Names, split: str, mend: str) -> Any:
    """Return one of the splits.

    Args:
        data (`DatasetDict` or `IterableDatasetDict`): As [`splits_of`] returns it.
        names (`str` or `list[str]`): Where they come from.
        split (`str`): The split.
        mend (`str`): How to name another one.

    Returns:
        `Dataset` or `IterableDataset`: Its rows, at least one.

    Raises:
        ValueError: If it is not there, or has no rows.
    """
    name = names if isinstance(names, str) else ", ".join(names)
    if split not in data:
        raise ValueError(f"{name} has the splits {list(data)} and no {split!r}: {mend}")
    rows = data[split]
    if isinstance(rows, Dataset) and not len(rows):
        raise ValueError(f"The split {split!r} of {name} has no rows. Give another one, or a dataset that has some.")
    return rows


def files_of(names: Names) -> list[str]:
    """Return the files that names and globs stand for, all of one format and none of them empty.

    Args:
        names (`str` or `list[str]`): A file or a glob, or several.

    Returns:
        `list[str]`: The files, those of a glob in alphabetical order.

    Raises:
        ValueError: If there is no such file, one is empty, its extension is not known, or there are several formats.
    """
    files = [file for name in ([names] if isinstance(names, str) else names) for file in _matches(name)]
    for file in files:
        if kind_of(file) is None:
            raise ValueError(f"{file} has an extension that is not known. Rename it after what it holds: {KINDS}.")
        if "://" not in file and not Path(file).stat().st_size:
            raise ValueError(f"{file} is empty: leave it out, or write it again.")
    kinds = sorted({str(kind_of(file)) for file in files})
    if any(FORMATS[kind] != FORMATS[kinds[0]] for kind in kinds):
        raise ValueError(f"{', '.join(files)} are of several formats, {' and '.join(kinds)}: give files of one.")
    return files


def _matches(name: str) -> list[str]:
    if "://" in name or Path(name).is_file():
        return [name]
    if Path(name).is_dir():
        raise ValueError(f"{name!r} is a folder where files are expected: give {name.rstrip('/')}/* for those in it.")
    if not glob.has_magic(name):
        raise ValueError(f"There is no file {name!r} in {Path.cwd()}: correct the path.")
    files = sorted(file for file in glob.glob(name, recursive=True) if Path(file).is_file())
    if not files:
        raise ValueError(f"No file in {Path.cwd()} matches {name!r}: correct the pattern.")
    return files


def _of_dataset(name: str, config: str | None, split: str, streaming: bool) -> Splits:
    """Load a folder or a dataset of the Hub."""
    folder = Path(name)
    if not folder.is_dir():
        try:
            return load_dataset(name, name=config, streaming=streaming)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"There is no file or folder {name!r} in {Path.cwd()}, and as a dataset of the Hub it cannot be "
                f"loaded: {error} A file ends in {KINDS}."
            ) from error
    if (folder / "state.json").exists():  # what Dataset.save_to_disk writes
        saved = load_from_disk(name)
        return IterableDatasetDict({split: saved.to_iterable_dataset()}) if streaming else DatasetDict({split: saved})
    files = [str(path) for path in sorted(folder.rglob("*")) if kind_of(path.name) and path.is_file()]
    formats = [FORMATS[str(kind_of(file))] for file in files]
    options = formats[0].options if formats and all(one == formats[0] for one in formats) else {}
    try:
        data = load_dataset(name, name=config, streaming=streaming, **options)
    except Exception as error:
        for file in files:
            _check_alone(file)
        raise ValueError(
            f"The folder {name} cannot be loaded: {_reason(error)}. It holds files of one format, {KINDS}, such as "
            "train.jsonl and test.jsonl."
        ) from error
    return _checked_cells(data, name)


def _read(files: list[str], split: str, streaming: bool) -> Splits:
    format_ = FORMATS[str(kind_of(files[0]))]
    try:
        data = load_dataset(
            format_.builder, data_files={split: list(map(_escaped, files))}, streaming=streaming, **format_.options
        )
        if streaming:  # all but the first row is read when it is needed
            next(iter(data[split]))
    except Exception as error:
        for file in files:
            _check_alone(file)
        raise ValueError(
            f"{', '.join(files)} can be read one by one, and not together: {_reason(error)}. Give files whose rows "
            "have the same fields."
        ) from error
    if format_.builder == "text" and any(file.lower().endswith(COMPRESSIONS) for file in files):
        data = data.map(_without_mark)  # datasets 5.2 hands the encoding to files that are not compressed alone
    return _checked_cells(data, ", ".join(files))


def _without_mark(row: dict[str, str]) -> dict[str, str]:
    return {"text": row["text"].removeprefix("\ufeff")}


def _check_alone(file: str) -> None:
    """Refuse a file that cannot be read or has no rows."""
    format_ = FORMATS[str(kind_of(file))]
    try:
        rows = load_dataset(format_.builder, data_files=_escaped(file), streaming=True, **format_.options)["train"]
        count = sum(1 for _ in rows)
    except StopIteration:  # an empty file of JSON
        count = 0
    except Exception as error:
        raise ValueError(f"{file} cannot be read as {kind_of(file)}: {_reason(error)}. {format_.mend}") from error
    if not count:
        raise ValueError(f"{file} has no rows: leave it out, or write it again. {format_.mend}")


def _escaped(file: str) -> str:
    """Return a name that `load_dataset`, which takes all names for globs, takes for this file alone."""
    return file if "://" in file else glob.escape(file)


def _reason(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
    return " ".join(str(cause).split()).rstrip(".") or type(cause).__name__


def _checked_cells(data: Splits, name: str) -> Splits:
    """Refuse rows with more cells than columns, the first of which pandas takes for an index, off the texts."""
    for rows in data.values():
        if any(str(column).startswith("__index_level_") for column in rows.column_names or ()):
            raise ValueError(f"{name} has rows with more cells than the first line has columns. {CSV.format('comma')}")
    return data
