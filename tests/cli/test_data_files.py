"""Files as people have them are read right, or refused in one sentence that names the file and the mend."""

import bz2
import gzip
import json
import lzma

import datasets
import pytest
from datasets import Dataset, DatasetDict, IterableDataset

from hf_mgan.cli.data_files import are_local, split_of, splits_of


OBJECTS = b'{"text": "a"}\n{"text": "b"}\n'
# What a file of this name holds, and the texts in it.
READ = {
    "blank lines": ("d.txt", b"a\n\n  \nb\n", ["a", "", "  ", "b"]),
    "no last line break": ("d.txt", b"a\nb", ["a", "b"]),
    "line breaks of Windows": ("d.txt", b"a\r\nb\r\n", ["a", "b"]),
    "mark at the beginning": ("d.txt", b"\xef\xbb\xbfa\nb\n", ["a", "b"]),
    "other separators": ("d.txt", "a\u2028b\x0cc\nd\n".encode(), ["a\u2028b\x0cc", "d"]),
    "large letters": ("D.TXT", b"a\n", ["a"]),
    "signs of a glob": ("d[1]*.txt", b"a\n", ["a"]),
    "spaces and accents": ("mes données.txt", b"a\n", ["a"]),
    "empty cells": ("d.csv", b'text,n\na,1\n,2\n"",3\n', ["a", None, None]),
    "names of nothing": ("d.csv", b"text\nNA\nnull\nNone\nnan\n", ["NA", "null", "None", "nan"]),
    "numbers as texts": ("d.csv", b"text,n\n007,1\n1e3,2\n", ["007", "1e3"]),
    "quoted cells": ("d.csv", b'text,n\n"a, ""b""\nc",1\n', ['a, "b"\nc']),
    "csv of Windows": ("d.csv", b"\xef\xbb\xbftext,n\r\na,1\r\n", ["a"]),
    "tsv": ("d.tsv", b"text\tn\na, b\t1\n", ["a, b"]),
    "jsonl": ("d.jsonl", OBJECTS, ["a", "b"]),
    "ndjson": ("d.ndjson", OBJECTS, ["a", "b"]),
    "jsonl with blank lines": ("d.jsonl", OBJECTS.replace(b"\n", b"\n\n"), ["a", "b"]),
    "jsonl of Windows": ("d.jsonl", b"\xef\xbb\xbf" + OBJECTS.replace(b"\n", b"\r\n"), ["a", "b"]),
    "json": ("d.json", json.dumps([{"text": "a"}, {"text": "b"}], indent=1).encode(), ["a", "b"]),
    "jsonl.gz": ("d.jsonl.gz", gzip.compress(OBJECTS), ["a", "b"]),
    "txt.gz": ("d.txt.gz", gzip.compress(b"\xef\xbb\xbfa\nb\n"), ["a", "b"]),
    "csv.bz2": ("d.csv.bz2", bz2.compress(b"text\na\nb\n"), ["a", "b"]),
    "tsv.xz": ("d.tsv.xz", lzma.compress(b"text\tn\na\t1\n"), ["a"]),
}
REFUSED = {
    "empty text": ("d.txt", b"", r"^d\.txt is empty: leave it out"),
    "empty csv": ("d.csv", b"", r"^d\.csv is empty"),
    "empty jsonl": ("d.jsonl", b"", r"^d\.jsonl is empty"),
    "empty within": ("d.txt.gz", gzip.compress(b""), r"^d\.txt\.gz has no rows"),
    "header alone": ("d.csv", b"text\n", r"^d\.csv has no rows.* The first line names the columns"),
    "line breaks alone": ("d.jsonl", b"\n\n", r"^d\.jsonl has no rows"),
    "other encoding": ("d.txt", "café\n".encode("latin-1"), r"^d\.txt cannot be read as \.txt: .*utf-8.* in UTF-8\.$"),
    "two bytes a letter": ("d.txt", "a\n".encode("utf-16"), r"^d\.txt cannot be read as \.txt: .*in UTF-8\.$"),
    "broken jsonl": (
        "d.jsonl",
        b'{"text": "a"}\n{"text":\n',
        r"^d\.jsonl cannot be read as \.jsonl: .*one object per",
    ),
    "csv named jsonl": ("d.jsonl", b"text\na\n", r"^d\.jsonl cannot be read as \.jsonl: .*one object per line"),
    "jsonl named parquet": ("d.parquet", OBJECTS, r"^d\.parquet cannot be read as \.parquet: .*Dataset\.to_parquet"),
    "jsonl named gz": ("d.jsonl.gz", OBJECTS, r"^d\.jsonl\.gz cannot be read as \.jsonl: .*[Nn]ot a gzipped"),
    "cut gz": ("d.txt.gz", gzip.compress(b"a\n" * 99)[:-9], r"^d\.txt\.gz cannot be read as \.txt"),
    "commas in bare texts": (
        "d.csv",
        b"text\nHello, world\nA, b\n",
        r"^d\.csv has rows with more cells.*double quotes",
    ),
    "a comma in a bare text": ("d.csv", b"text,n\na,1\nb, c,2\n", r"^d\.csv cannot be read as \.csv: .*double quotes"),
    "open quote": ("d.tsv", b'text\tn\n"a\t1\n', r"^d\.tsv cannot be read as \.tsv: .*with a tab or a line break"),
    "unknown extension": ("d.md", b"a\n", r"^d\.md has an extension that is not known. Rename it after .*\.txt.*\.gz"),
    "no extension": ("d", b"a\n", r"^d has an extension that is not known"),
}


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
@pytest.mark.parametrize(("name", "content", "texts"), READ.values(), ids=READ)
def test_file_is_read(workplace, name, content, texts, streaming):
    (workplace / name).write_bytes(content)
    data = splits_of(name, None, "held_out", streaming)
    assert list(data) == ["held_out"]
    assert isinstance(data["held_out"], IterableDataset if streaming else Dataset)
    assert [row["text"] for row in data["held_out"]] == texts


@pytest.mark.parametrize(("name", "content", "message"), REFUSED.values(), ids=REFUSED)
def test_file_is_refused(workplace, name, content, message):
    (workplace / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        splits_of(name, None, "train")


@pytest.mark.parametrize("name", ["header alone", "broken jsonl", "other encoding", "empty within"])
def test_file_is_refused_before_it_streams(workplace, name):
    name, content, message = REFUSED[name]
    (workplace / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        splits_of(name, None, "train", streaming=True)


def test_parquet(workplace):
    Dataset.from_dict({"text": ["a", "b"]}).to_parquet("d.parquet")
    assert splits_of("d.parquet", None, "train")["train"]["text"] == ["a", "b"]
    Dataset.from_dict({"text": []}).to_parquet("none.parquet")
    with pytest.raises(ValueError, match=r"^none\.parquet has no rows"):
        splits_of("none.parquet", None, "train")


@pytest.fixture
def several(workplace):
    for name, text in (("b", "2"), ("a", "1"), ("c", "3")):
        (workplace / f"{name}.txt").write_text(f"{text}\n")
    return workplace


@pytest.mark.parametrize(
    ("names", "texts"),
    [
        (["b.txt", "a.txt"], ["2", "1"]),
        ("*.txt", ["1", "2", "3"]),
        ("[bc].txt", ["2", "3"]),
        (["c.txt", "[ab].txt"], ["3", "1", "2"]),
    ],
)
def test_several_files(several, names, texts):
    assert splits_of(names, None, "train")["train"]["text"] == texts


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("none.txt", r"There is no file 'none\.txt' in .*: correct the path"),
        (["a.txt", "none.txt"], r"There is no file 'none\.txt'"),
        ("*.csv", r"No file in .* matches '\*\.csv'"),
        (["a.txt", "folder"], "'folder' is a folder where files are expected: give folder/\\* for those in it"),
        (["a.txt", "d.jsonl"], r"a\.txt, d\.jsonl are of several formats, \.jsonl and \.txt"),
        ("folder", r"^folder/broken\.jsonl cannot be read as \.jsonl"),
        ("empty", "The folder empty cannot be loaded: .*such as train.jsonl and test.jsonl"),
        ("no/such/folder", "There is no file or folder 'no/such/folder' in .*, and as a dataset of the Hub"),
        ("nobody/nothing", "There is no file or folder 'nobody/nothing' in .*, and as a dataset of the Hub"),
    ],
)
def test_names_are_refused(several, names, message):
    (several / "d.jsonl").write_bytes(OBJECTS)
    (several / "empty").mkdir()
    (several / "folder").mkdir()
    (several / "folder/good.jsonl").write_bytes(OBJECTS)
    (several / "folder/broken.jsonl").write_text("{")
    with pytest.raises(ValueError, match=message):
        splits_of(names, None, "train")


def test_fault_of_one_file_among_several_is_named(several):
    (several / "b.txt").write_bytes(b"\xff\xff\n")
    with pytest.raises(ValueError, match=r"^b\.txt cannot be read"):
        splits_of("*.txt", None, "train")


def test_files_that_do_not_go_together(workplace):
    (workplace / "a.csv").write_text("text,n\na,1\n")
    (workplace / "b.csv").write_text("text,m\na,1\n")
    with pytest.raises(ValueError, match=r"a\.csv, b\.csv can be read one by one, and not together: .*same fields"):
        splits_of("*.csv", None, "train")


def test_config_of_a_file_is_refused(several):
    with pytest.raises(ValueError, match=r"dataset_config='en' has no effect on files such as a\.txt"):
        splits_of("a.txt", "en", "train")


@pytest.mark.parametrize("streaming", [False, True])
def test_folder_has_its_splits_and_reads_as_files_do(workplace, streaming):
    (workplace / "data").mkdir()
    (workplace / "data/train.csv").write_bytes(b"\xef\xbb\xbftext\n007\n")
    (workplace / "data/test.csv").write_bytes(b"text\nNA\n")
    data = splits_of("data", None, "train", streaming)
    assert {split: [row["text"] for row in rows] for split, rows in data.items()} == {"train": ["007"], "test": ["NA"]}


@pytest.mark.parametrize("streaming", [False, True])
def test_folder_of_save_to_disk(workplace, streaming):
    rows = Dataset.from_dict({"text": ["a"]})
    rows.save_to_disk("one")
    DatasetDict({"train": rows, "test": rows}).save_to_disk("both")
    assert [row["text"] for row in splits_of("one", None, "test", streaming)["test"]] == ["a"]
    assert list(splits_of("both", None, "test", streaming)) == ["train", "test"]


def test_split_without_rows_is_refused():
    data = DatasetDict({"test": Dataset.from_dict({"text": []})})
    with pytest.raises(ValueError, match="The split 'test' of data has no rows"):
        split_of(data, "data", "test", "say which.")


def test_what_is_local(several):
    assert all(map(are_local, ["a.txt", "none.csv", "*.md", str(several), ["a.txt", "b.txt"], "x.jsonl.gz"]))
    assert not are_local("roneneldan/TinyStories")
