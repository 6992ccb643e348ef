"""The examples as a user runs them, on tiny models and a folder of data."""

import difflib
import json
import random
import re
import runpy
import sys
from pathlib import Path

import datasets
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_mgan import evaluation

from .conftest import texts


pytestmark = pytest.mark.snippets
EXAMPLES = Path(__file__).parents[1] / "examples"


def changed_lines(one, other):
    """Return the lines that only one of two texts has, as (only in the first, only in the second)."""
    diff = list(difflib.ndiff(one.splitlines(), other.splitlines()))
    return tuple([line[2:] for line in diff if line.startswith(sign)] for sign in ("- ", "+ "))


@pytest.fixture
def folders(tmp_path, generator, tokenizer, classifier, pair_tokenizer):
    """Both models with room for the examples' 64 tokens, each saved with its tokenizer."""
    generator.config.n_positions = classifier.config.max_position_embeddings = 128
    for name, model, its_tokenizer in (
        ("generator", type(generator)(generator.config), tokenizer),
        ("discriminator", type(classifier)(classifier.config), pair_tokenizer),
    ):
        model.save_pretrained(tmp_path / name)
        its_tokenizer.save_pretrained(tmp_path / name)
    return tmp_path


def write_rows(folders, rows, split="train"):
    """Write a split into a folder that `load_dataset` reads."""
    (folders / "data").mkdir(exist_ok=True)
    (folders / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def run(folders, monkeypatch, capsys):
    """Return a function that runs an example for two steps on the CPU, and returns what it prints."""

    def run_example(name, **flags):
        flags = {"dataset": folders / "data", "output_dir": folders / "out", "max_steps": 2, **flags}
        given = {flag: value for flag, value in flags.items() if value is not None}
        several = {flag: value if isinstance(value, tuple) else (value,) for flag, value in given.items()}
        arguments = [str(part) for flag, values in several.items() for part in (f"--{flag}", *values)]
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folders / "cache")
    return run_example


def adapters_moved(folder):
    """Load a saved generator and return whether its adapters differ from fresh ones, whose B is 0."""
    model = AutoPeftModelForCausalLM.from_pretrained(folder)
    return any(parameter.abs().sum() > 0 for name, parameter in model.named_parameters() if "lora_B" in name)


def discriminator_moved(folders):
    """Load the discriminator as it was given and as it was saved, and return whether they differ."""
    first, last = (
        AutoModelForSequenceClassification.from_pretrained(folder).state_dict()
        for folder in (folders / "discriminator", folders / "out" / "discriminator")
    )
    return not all(torch.equal(first[name], last[name]) for name in first)


def test_twin_scripts_differ_in_two_lines():
    only_grpo, only_adversarial = changed_lines(
        (EXAMPLES / "grpo_script.py").read_text(), (EXAMPLES / "adversarial_script.py").read_text()
    )
    assert [line.split()[0] for line in only_grpo] == ["from", "reward_funcs=arguments.classifier,"]
    assert [line.split()[0] for line in only_adversarial] == ["from", "discriminator=arguments.classifier,"]


def test_twin_scripts_with_a_reward_differ_in_two_lines():
    only_grpo, only_adversarial = changed_lines(
        (EXAMPLES / "verifiable_grpo_script.py").read_text(),
        (EXAMPLES / "verifiable_adversarial_script.py").read_text(),
    )
    assert [line.split()[0] for line in only_grpo] == ["from"]
    assert [line.split()[0] for line in only_adversarial] == ["from", "discriminator=arguments.classifier,"]


@pytest.mark.parametrize("name", ["verifiable_grpo_script.py", "verifiable_adversarial_script.py"])
def test_twin_script_with_a_reward_trains_and_saves(name, folders, run):
    write_rows(folders, [{"prompt": f"{text} ", "completion": "a dog runs ."} for text in texts(16, length=4)])
    run(name, model=folders / "generator", classifier=folders / "discriminator")
    assert (folders / "out" / "adapter_config.json").exists()
    if name == "verifiable_adversarial_script.py":
        assert discriminator_moved(folders)


@pytest.mark.parametrize("name", ["grpo_script.py", "adversarial_script.py"])
def test_twin_script_trains_and_saves(name, folders, run):
    # TRL's path to a classifier glues prompt and completion together, so the space between them is the prompt's.
    write_rows(folders, [{"prompt": f"{text} ", "completion": "a dog runs ."} for text in texts(16, length=4)])
    run(name, model=folders / "generator", classifier=folders / "discriminator")
    assert adapters_moved(folders / "out")
    if name == "adversarial_script.py":
        assert discriminator_moved(folders)
    else:
        assert not (folders / "out" / "discriminator").exists()


def rows_of_report(printed):
    """Return the table of a report that an example has printed, by the names of its rows."""
    table = [line for line in printed.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    titles, rows = cells[0], [row for row in cells[2:] if len(row) == len(cells[0])]
    return {(row[0], row[1]): dict(zip(titles, row, strict=True)) for row in rows}


SIZES = {"warm_start_steps": 2, "discriminator_warmup_steps": 2, "batch_size": 8, "max_completion_length": 8}
WAYS = ("supervised", "0.8"), ("supervised", "1"), ("adversarial", "0.8"), ("adversarial", "1"), ("guided", "1")
WAYS_WITH_PAIRS = (
    *((name, temperature) for name in ("supervised", "adversarial") for temperature in ("0.3", "1")),
    ("best_of_4", "1"),
)


def test_stories_compares_three_ways_to_write(folders, run):
    # The empty text stands for the gaps that collections have; either training would stop at it.
    rows = [{"text": text} for text in ["", *texts(63, length=12)]]
    write_rows(folders, rows)
    write_rows(folders, [{"text": text} for text in ["", *texts(80, seed=1, length=12)]], "validation")
    models = {"generator": folders / "generator", "discriminator": folders / "discriminator"}
    printed = run("stories.py", **models, **SIZES, final_steps=2, num_samples=40)
    rows = rows_of_report(printed)
    assert list(rows) == [("real text", ""), *WAYS]
    assert float(rows["guided", "1"]["draws"]) > 1
    assert all("BLEU" in row for row in rows.values())  # there are prompts
    assert adapters_moved(folders / "out")
    assert discriminator_moved(folders)


def test_chat_holds_out_other_questions(folders, run, monkeypatch):
    questions = [text for text in texts(32, length=4) for _ in range(3)]
    answers = texts(96, seed=1)
    roles = "user", "assistant"
    talks = [
        [{"role": role, "content": said} for role, said in zip(roles, talk, strict=True)]
        for talk in zip(questions, answers, strict=True)
    ]
    write_rows(folders, [{"messages": talk} for talk in talks])
    tokenizer = AutoTokenizer.from_pretrained(folders / "generator")
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['content'] }} </s> {% endfor %}"
        "{% if add_generation_prompt %}one {% endif %}"
    )
    tokenizer.save_pretrained(folders / "generator")
    seen = []
    compare = evaluation.evaluate_generator

    def watched(models, held_out, config, *, training):
        seen.extend({row[0]["content"] for row in side["messages"]} for side in (held_out, training))
        return compare(models, held_out, config, training=training)

    monkeypatch.setattr(evaluation, "evaluate_generator", watched)
    models = {"generator": folders / "generator", "discriminator": folders / "discriminator"}
    printed = run("chat.py", **models, **SIZES, subset="default", num_held_out=48, final_steps=2)
    colder = [("supervised", "0.6"), *WAYS[:2], ("adversarial", "0.6"), *WAYS[2:]]
    assert list(rows_of_report(printed)) == [("real text", ""), *colder]
    held_out, training = seen
    assert held_out
    assert not held_out & training
    assert adapters_moved(folders / "out")
    assert discriminator_moved(folders)


def test_style_transfer_compares_both_with_references(folders, run):
    rows = [{"translation": {"old": f"king {text}", "new": f"{text} dog"}} for text in texts(96, length=5)]
    write_rows(folders, rows[:48])
    write_rows(folders, rows[48:], "validation")
    models = {"generator": folders / "generator", "discriminator": folders / "discriminator"}
    printed = run("style_transfer.py", **models, **SIZES, styles=("old", "new"))
    rows = rows_of_report(printed)
    assert list(rows) == [("real text", ""), *WAYS_WITH_PAIRS]
    assert float(printed.split("The sources as they are: chrF ")[1]) > 70
    assert adapters_moved(folders / "out")
    assert discriminator_moved(folders)


def test_style_transfer_rewards_what_is_kept():
    content = runpy.run_path(str(EXAMPLES / "style_transfer.py"))["content"]
    kept, half, lost = content(["a small dog", "a small", "xyz"], source=["a small dog"] * 3)
    assert kept == pytest.approx(1)
    assert kept > half > lost == 0


def test_translation_compares_both_with_references(folders, run):
    write_rows(
        folders,
        [{"translation": {"en": text, "fr": f"{text} ."}, "id": number} for number, text in enumerate(texts(64))],
    )
    printed = run(
        "translation.py",
        generator=folders / "generator",
        discriminator=folders / "discriminator",
        subset="default",
        num_held_out=40,
        **SIZES,
    )
    rows = rows_of_report(printed)
    assert list(rows) == [("real text", ""), *WAYS_WITH_PAIRS]
    assert rows["best_of_4", "1"]["draws"] == "4.000"
    for name in ("supervised", "adversarial"):
        assert float(rows[name, "1"]["chrF"].split()[0]) > 0
        assert "BLEU" in rows[name, "1"]
    assert adapters_moved(folders / "out")
    assert discriminator_moved(folders)


def test_poems_reports_every_way_to_write(folders, run):
    draw = random.Random(0)
    characters = [chr(code) for code in range(0x4E00, 0x4E28)]
    lines = [["".join(draw.choices(characters, k=5)) for _ in range(4)] for _ in range(128)]
    poems = ["\uff0c".join(half[:2]) + "\u3002" + "\uff0c".join(half[2:]) + "\u3002" for half in lines]
    for name, rows in (("train", poems[:64]), ("validation", poems[64:128])):
        (folders / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    printed = run(
        "poems.py",
        dataset=None,
        train=folders / "train.jsonl",
        validation=folders / "validation.jsonl",
        batch_size=8,
        final_steps=2,
    )
    said = re.findall(r"^(.+): form (\S+) .*, AUC (\S+) .*, draws (\S+)$", printed, re.MULTILINE)
    assert [name.split(",")[0] for name, *_ in said] == ["supervised"] * 3 + ["adversarial"] * 3
    # Half learnt: some texts have the form and others have not, and more have it where the generator is colder.
    forms = [float(form) for _, form, _, _ in said]
    assert all(0 < form < 1 for form in forms)
    assert forms[0] < forms[2]
    assert all(0.4 < float(auc) <= 1 for _, _, auc, _ in said)
    assert [float(draws) for *_, draws in said][:4] == [1] * 4
    assert (folders / "out" / "discriminator" / "calibration.json").exists()
    # A form that is never reached would be counted as none by a broken check as well.
    form = runpy.run_path(str(EXAMPLES / "poems.py"))["FORM"]
    assert all(form.fullmatch(poem) for poem in poems)
    assert not any(form.fullmatch(poem[:-1]) or form.fullmatch(poem + "\u3002") for poem in poems)
