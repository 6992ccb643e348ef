"""Texts by Hub id or by path."""

import json

import pytest

from benchmarks import sources


def write(folder, name, rows):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_load_texts_takes_a_folder_or_a_beginning(tmp_path):
    for corpus in ("one", "two"):
        write(tmp_path, f"{corpus}.train.jsonl", [{"text": f"{corpus} {number}"} for number in range(3)])
        write(tmp_path, f"{corpus}.validation.jsonl", [{"text": corpus}])
    data = sources.load_texts(str(tmp_path / "two"), max_texts=2)
    assert data["train"]["text"][:] == ["two 0", "two 1"]
    assert data["validation"]["text"][:] == ["two"]
    assert len(sources.load_texts(str(tmp_path))["train"]) == 6


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"a.train.jsonl": [{"text": "x"}]}, "validation"),
        ({"a.train.jsonl": [{"line": "x"}], "a.validation.jsonl": [{"line": "x"}]}, "'text'"),
        ({"a.train.xml": [{"text": "x"}], "a.validation.xml": [{"text": "x"}]}, "jsonl"),
    ],
)
def test_load_texts_refuses_incomplete_files(files, named, tmp_path):
    for name, rows in files.items():
        write(tmp_path, name, rows)
    with pytest.raises(ValueError, match=named):
        sources.load_texts(str(tmp_path))


def test_load_texts_takes_an_id_on_the_hub(monkeypatch):
    from datasets import Dataset, DatasetDict

    split = Dataset.from_dict({"text": ["a", "b"]})
    asked = []

    def load_dataset(name):
        asked.append(name)
        return DatasetDict({"train": split, "validation": split, "test": split})

    monkeypatch.setattr(sources, "load_dataset", load_dataset)
    data = sources.load_texts("someone/texts", max_texts=1)
    assert asked == ["someone/texts"]
    assert list(data) == ["train", "validation"]
    assert len(data["train"]) == 1


def test_short_name_is_the_last_part():
    assert sources.short_name("HuggingFaceTB/SmolLM2-135M-Instruct") == "SmolLM2-135M-Instruct"
    assert sources.short_name("models/mine/") == "mine"
