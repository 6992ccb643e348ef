"""Where models and texts come from: the Hub by id, or this machine by path.

Every benchmark takes both in the same option. A path that exists is read from this machine; anything else is an id on
the Hub.
"""

from pathlib import Path
from typing import Any

from datasets import DatasetDict, load_dataset


GENERATOR = "HuggingFaceTB/SmolLM2-135M-Instruct"
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = "roneneldan/TinyStories"
SPLITS = ("train", "validation")
BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}
TEXTS_HELP = (
    "texts: a data set on the Hub with a column `text` and the splits train and validation, or a folder with a file "
    "for each, or the beginning that the names of two such files share"
)


def load_texts(source: str, max_texts: int | None = None) -> DatasetDict:
    """Load texts.

    Args:
        source (`str`): Id on the Hub; a folder that holds a file with `train` and one with `validation` in its name;
            or a path that the names of two such files begin with, such as `data/austen` for `data/austen.train.jsonl`.
        max_texts (`int`, *optional*): At most so many texts of each split, the first ones.

    Returns:
        `DatasetDict`: With the splits `train` and `validation`, and a column `text`.

    Raises:
        ValueError: If a split or the column is missing.
    """
    path = Path(source)
    folder, start = (path, "") if path.is_dir() else (path.parent, path.name)
    files = {split: sorted(folder.glob(f"{start}*{split}*")) for split in SPLITS} if folder.is_dir() else {}
    data: Any
    if any(files.values()):
        if missing := [split for split in SPLITS if not files[split]]:
            raise ValueError(f"{source} has no file for {missing}: a file per split is needed, named after it.")
        suffix = files["train"][0].suffix
        if suffix not in BUILDERS:
            raise ValueError(f"Files of texts must be among {list(BUILDERS)}, got {files['train'][0]}.")
        names = {split: [str(file) for file in files[split]] for split in SPLITS}
        data = load_dataset(BUILDERS[suffix], data_files=names)
    else:
        data = load_dataset(source)
    if missing := [split for split in SPLITS if split not in data]:
        raise ValueError(f"{source} has no split {missing}; it has {list(data)}. Give a data set with {SPLITS}.")
    if "text" not in data["train"].column_names:
        raise ValueError(f"{source} has no column 'text'; it has {data['train'].column_names}. Rename the one meant.")
    data = DatasetDict({split: data[split] for split in SPLITS})
    if max_texts is not None:
        data = DatasetDict({split: one.select(range(min(max_texts, len(one)))) for split, one in data.items()})
    return data


def short_name(source: str) -> str:
    """Return the last part of an id or a path, which names a run."""
    return source.rstrip("/").split("/")[-1]
