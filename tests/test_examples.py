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
from transformers import AutoModelForSequenceClassification

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


def write_rows(folders, rows):
    """Write a folder that `load_dataset` reads as a dataset with the split train."""
    (folders / "data").mkdir()
    (folders / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def run(folders, monkeypatch, capsys):
    """Return a function that runs an example for two steps on the CPU, and returns what it prints."""

    def run_example(name, **flags):
        flags = {"dataset": folders / "data", "output_dir": folders / "out", "max_steps": 2, **flags}
        given = {flag: value for flag, value in flags.items() if value is not None}
        arguments = [str(part) for flag, value in given.items() for part in (f"--{flag}", value)]
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


def test_stories_prints_samples_of_the_same_prompts(folders, run):
    # The empty text stands for the gaps that collections have; either training would stop at it.
    write_rows(folders, [{"text": text} for text in ["", *texts(15, length=12)]])
    printed = run(
        "stories.py",
        generator=folders / "generator",
        discriminator=folders / "discriminator",
        split="train",
        warm_start_steps=2,
        batch_size=8,
        max_completion_length=8,
    )
    before = [line.split()[1:] for line in printed.splitlines() if line.startswith("before: ")]
    after = [line.split()[1:] for line in printed.splitlines() if line.startswith("after: ")]
    assert len(before) == len(after) == 4
    assert all(one[:2] == other[:2] for one, other in zip(before, after, strict=True))
    assert adapters_moved(folders / "out")
    assert discriminator_moved(folders)


def test_translation_prints_translations_and_references(folders, run):
    write_rows(
        folders,
        [{"translation": {"en": text, "fr": f"{text} ."}, "id": number} for number, text in enumerate(texts(16))],
    )
    printed = run(
        "translation.py",
        generator=folders / "generator",
        discriminator=folders / "discriminator",
        subset="default",
        warm_start_steps=2,
        batch_size=8,
        max_completion_length=8,
    )
    sources = [line for line in printed.splitlines() if line in texts(16)]
    references = [line for line in printed.splitlines() if line.startswith("reference: ")]
    assert references == [f"reference: {source} ." for source in sources]
    assert len(sources) == 4
    written = [line for line in printed.splitlines() if line.startswith("generator: ")]
    assert not any(source in line for source, line in zip(sources, written, strict=True))
    assert adapters_moved(folders / "out")
    assert discriminator_moved(folders)


def test_poems_reports_every_way_to_write(folders, run):
    draw = random.Random(0)
    characters = [chr(code) for code in range(0x4E00, 0x4E28)]
    lines = [["".join(draw.choices(characters, k=5)) for _ in range(4)] for _ in range(192)]
    poems = ["\uff0c".join(half[:2]) + "\u3002" + "\uff0c".join(half[2:]) + "\u3002" for half in lines]
    for name, rows in (("train", poems[:64]), ("validation", poems[64:])):
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
