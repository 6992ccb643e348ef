"""The runs of examples, and the parts of how-tos that are made of what they found."""

import json
import shutil
from types import SimpleNamespace

import pytest

from benchmarks.applications import __main__ as applications
from benchmarks.applications import tables
from benchmarks.sweep import read_lines


PAGE = """# Stories

<!-- measured: table -->
old
<!-- end -->

Between.

<!-- measured: samples -->
<!-- end -->

Last.
"""


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


@pytest.fixture
def examples(monkeypatch):
    """Replace the examples by one that notes how it is called and writes a report of one text for each row."""
    calls = []

    def run_example(words, check):
        assert check
        program, *given = map(str, words)
        calls.append([applications.Path(program).name, *given])
        folder = applications.Path(given[given.index("--output_dir") + 1])
        if calls[-1][:2] == ["hf-mgan", "train"]:
            return
        folder = folder if folder.name == "evaluation" else folder / "evaluation"
        parts = {}
        for name, auc in {"real": 0.5, "supervised_T0.8": 0.7, "supervised_T1": 0.6, "guided_T1": 0.55}.items():
            parts[name] = {
                "seconds": 1.0,
                "metrics": {"c2st_auc": [auc, auc - 0.1, auc + 0.1], "draws": [2.04, None, None]},
            }
            texts = {"prompts": ["Once\nupon", "A"], "texts": [f"a {name}", "`dog`"]}
            kind = "parts" if name == "real" else "samples"
            (folder / kind).mkdir(parents=True, exist_ok=True)
            (folder / kind / f"{name}.json").write_text(json.dumps(texts))
        report = {
            "parts": parts,
            "verdicts": {"guided": {"c2st_auc": {"sentence": "guided against supervised: undecided."}}},
            "settings": {"samples_each": 2, "seed": 0},
            "device": "CPU",
            "threads": 1,
            "versions": {"torch": "1"},
        }
        (folder / "report.json").write_text(json.dumps(report))
        (folder.parent / "checkpoint-10").mkdir(exist_ok=True)
        history = [
            {"step": 0, "discriminator/accuracy": 0.5},
            {"step": 10, "discriminator/accuracy": 0.75},
            {"step": 10},
        ]
        (folder.parent / "checkpoint-10" / "trainer_state.json").write_text(
            json.dumps({"log_history": [*history, {"step": 10}]})
        )
        (folder.parent / "discriminator").mkdir(exist_ok=True)
        (folder.parent / "discriminator" / "calibration.json").write_text('{"auc": [0.68, 0.647, 0.713]}')

    monkeypatch.setattr(applications, "subprocess", SimpleNamespace(run=run_example))
    return calls


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """Committed results and how-tos in a folder of their own."""
    (tmp_path / "docs" / "how_to").mkdir(parents=True)
    for name in tables.HOW_TOS:
        (tmp_path / "docs" / "how_to" / f"{name}.md").write_text(PAGE)
    for module in (applications, tables):
        monkeypatch.setattr(module, "PAGES", tmp_path / "docs")
    monkeypatch.setattr(applications, "COMMITTED", tmp_path / "applications.jsonl")
    return tmp_path


def test_what_an_example_found_becomes_lines_and_its_how_to(committed, examples):
    write_rows(committed / "novels.train.jsonl", [{"text": "learnt"}])
    write_rows(committed / "novels.validation.jsonl", [{"text": "unseen"}])
    output = ["--output", str(committed / "out")]
    applications.main(
        ["stories", *output, "--generator", "a/G", "--data", str(committed / "novels"), "--max_steps", "3"]
    )
    (call,) = examples
    assert call[:2] == ["python", "examples/stories.py"]
    given = dict(zip(call[2::2], call[3::2], strict=True))
    assert given["--generator"] == "a/G"
    assert given["--max_steps"] == "3"
    assert given["--num_samples"] == "250"
    data = applications.Path(given["--dataset"])
    assert [read_lines(data / f"{name}.jsonl")[0]["text"] for name in ("train", "validation")] == ["learnt", "unseen"]

    applications.main(["stories", *output, "--publish"])
    lines = read_lines(committed / "applications.jsonl")
    assert [(one["model"], one["temperature"]) for one in lines] == [
        ("real text", None),
        ("supervised", 0.8),
        ("supervised", 1.0),
        ("guided", 1.0),
    ]
    assert lines[0]["commands"] == [
        "python examples/stories.py --generator G --discriminator all-MiniLM-L6-v2 --dataset OUT/data "
        "--output_dir OUT --batch_size 16 --max_completion_length 48 --num_samples 250 --warm_start_steps 100 "
        "--final_steps 100 --max_steps 3"
    ]
    page = (committed / "docs" / "how_to" / "stories.md").read_text()
    assert "| supervised | 0.8 | 0.700 ± 0.100 | 2.0 |" in page
    assert "- The discriminator's AUC on held-out texts: 0.68 (0.65 to 0.71)." in page
    assert "- The discriminator's accuracy, entries of the log from step 1 on: 0.75." in page
    assert "- guided against supervised: undecided." in page
    assert "G and all-MiniLM-L6-v2, 2 unseen texts of\n`novels` and as many written ones, seed 0" in page
    assert "Once upon | a guided_T1\nA | `dog`" in page
    assert "a supervised_T0.8" not in page
    assert "old" not in page
    assert page.split("<!-- end -->")[1].startswith("\n\nBetween.\n")
    assert page.endswith("<!-- end -->\n\nLast.\n")
    assert (committed / "docs" / "how_to" / "chatbot.md").read_text() == PAGE  # it has no results

    applications.main(["--publish"])  # the same again
    assert (committed / "docs" / "how_to" / "stories.md").read_text() == page
    applications.main(["stories", *output, "--publish"])
    assert len(read_lines(committed / "applications.jsonl")) == 4


def test_qlora_is_a_recipe_and_an_evaluation_beside_32_bits(committed, examples):
    for split in ("train", "validation"):
        write_rows(committed / f"notes.{split}.jsonl", [{"text": split}])
    output = ["--output", str(committed / "out")]
    for name in ("qlora", "lora"):
        applications.main([name, *output, "--data", str(committed / "notes")])
        applications.main([name, *output, "--publish"])
    assert [call[:2] for call in examples] == [["hf-mgan", "train"], ["hf-mgan", "evaluate"]] * 2
    four_bits, _, thirty_two_bits, _ = examples
    assert "--load_in_4bit" not in four_bits
    assert thirty_two_bits[thirty_two_bits.index("--load_in_4bit") + 1] == "false"
    assert f"guided={committed}/out/qlora/discriminator" in examples[1]
    page = (committed / "docs" / "how_to" / "qlora.md").read_text()
    assert page.count("| supervised | 0.8 | 0.700 ± 0.100 | 2.0 |") == 2
    assert page.index("**qlora**") < page.index("**lora**") < page.index("--load_in_4bit false")


def test_the_control_of_the_recipe_has_no_adversarial_step(committed, examples):
    for split in ("train", "validation"):
        write_rows(committed / f"notes.{split}.jsonl", [{"text": split}])
    output = ["--output", str(committed / "out")]
    applications.main(["lora_supervised", *output, "--data", str(committed / "notes")])
    train, evaluate = examples
    assert train[train.index("--num_train_epochs") + 1] == "0"
    assert not [word for word in evaluate if word.startswith("adversarial=")]
    shutil.rmtree(committed / "out" / "lora_supervised" / "checkpoint-10")  # nothing was logged
    applications.main(["lora_supervised", *output, "--publish"])
    page = (committed / "docs" / "how_to" / "qlora.md").read_text()
    assert "--warm_start_steps 300" in page
    assert "discriminator's accuracy" not in page


def test_languages_share_the_example_and_the_page_of_translation(committed, examples):
    for split in ("train", "validation"):
        write_rows(committed / f"verses.{split}.jsonl", [{"translation": {"es": "y", "en": "and"}}])
    output = ["--output", str(committed / "out")]
    for name in ("translation", "translation_es_en"):
        applications.main([name, *output, "--data", str(committed / "verses")])
        applications.main([name, *output, "--publish"])
    assert [call[1] for call in examples] == ["examples/translation.py"] * 2
    assert examples[1][examples[1].index("--source_lang") + 1] == "es"
    assert {one["application"] for one in read_lines(committed / "applications.jsonl")} == {
        "translation",
        "translation_es_en",
    }
    page = (committed / "docs" / "how_to" / "translation.md").read_text()
    assert page.index("**translation**") < page.index("**translation_es_en**") < page.index("--target_lang en")


def test_chat_has_one_file_without_long_answers(tmp_path):
    def talk(answer):
        return {"messages": [{"role": "user", "content": "why?"}, {"role": "assistant", "content": answer}]}

    write_rows(tmp_path / "talks.train.jsonl", [talk("one"), talk("x" * 201), talk("y" * 200)])
    write_rows(tmp_path / "talks.validation.jsonl", [talk("last")])
    applications.write_data(str(tmp_path / "talks"), tmp_path / "data", one_split=True, held_out=None)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["train.jsonl"]
    answers = [row["messages"][-1]["content"] for row in read_lines(tmp_path / "data" / "train.jsonl")]
    assert answers == ["one", "y" * 200, "last"]


def test_held_out_rows_are_as_many_as_asked_for(tmp_path):
    for split in ("train", "validation"):
        write_rows(tmp_path / f"verses.{split}.jsonl", [{"text": f"é\u2028 {number}"} for number in range(4)])
    applications.write_data(str(tmp_path / "verses"), tmp_path / "data", one_split=False, held_out=3)
    assert len(read_lines(tmp_path / "data" / "train.jsonl")) == 4
    assert [row["text"] for row in read_lines(tmp_path / "data" / "validation.jsonl")] == [
        f"é\u2028 {number}" for number in range(3)
    ]


@pytest.mark.parametrize("words", [["stories"], ["stories", "--output", "out"], []])
def test_what_is_missing_is_named(words, capsys):
    with pytest.raises(SystemExit):
        applications.main(words)
    assert "give" in capsys.readouterr().err
