"""`hf-mgan generate` from its arguments to texts and what they cost."""

import gzip
import io
import json
import re
import shutil
import sys

import datasets
import pytest
import torch
import yaml
from trl import SFTConfig, SFTTrainer

from hf_mgan import Discriminator
from hf_mgan.cli import generate as generate_module
from hf_mgan.cli import output as output_module
from hf_mgan.cli.generate import GenerateArguments, discriminator_source, prompts_of
from hf_mgan.cli.main import run as main
from hf_mgan.cli.output import cost_line, output_rows
from hf_mgan.decoding import DecodingConfig, GuidedSamples, guided_sample, sample
from hf_mgan.evaluation.models import load_generator

from ..conftest import bert_classifier, tokenizer_of_pairs
from ..decoding.conftest import calibration
from ..evaluation.conftest import new_tokenizer


SETTINGS = {"model": "out", "prompts": ["<s> the dog", "<s>"], "max_new_tokens": 8, "num_candidates": 12}
MESSAGES = [{"role": "user", "content": "a dog"}]


@pytest.fixture
def workplace(tmp_path, monkeypatch, folders):
    """A folder to stand in: `out` with adapters and a discriminator, `plain` without one."""
    shutil.copytree(folders["tuned"], tmp_path / "out")
    shutil.copytree(folders["start"], tmp_path / "plain")
    discriminator = Discriminator(bert_classifier(), tokenizer_of_pairs())
    discriminator.calibration = calibration(max_new_tokens=8)
    discriminator.save_pretrained(tmp_path / "out" / "discriminator")
    (tmp_path / "gate_rules.py").write_text(
        "def dogs(texts):\n    return [float('dog' in text) for text in texts]\n\n\n"
        "def all_of_them(texts):\n    return [1.0] * len(texts)\n\n\n"
        "def has_a_cat(prompts, texts):\n    return ['cat' in text for text in texts]\n\n\n"
        "LIMIT = 4\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # the command adds the folder it stands in
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def flags(**changes):
    """Return SETTINGS as a shell would hand them over; a setting of `None` is left out."""
    settings = {name: value for name, value in {**SETTINGS, **changes}.items() if value is not None}
    parts = [[f"--{name}", *(value if isinstance(value, list) else [value])] for name, value in settings.items()]
    return ["generate", *(str(part) for part_list in parts for part in part_list)]


def run(capsys, **changes):
    """Run the command and return the rows that it writes to the standard output."""
    main(flags(**changes))
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_generate_writes_what_guided_sample_returns(workplace, capsys):
    main(flags(num_texts=2, seed=4, threshold=0.5))
    written = capsys.readouterr()
    model, tokenizer = load_generator("out")
    discriminator = Discriminator.from_pretrained("out/discriminator")
    config = DecodingConfig(max_new_tokens=8, num_candidates=12, seed=4, threshold=0.5)
    prompts = ["<s> the dog"] * 2 + ["<s>"] * 2
    expected = guided_sample(model, tokenizer, discriminator, prompts, config)
    rows = [json.loads(line) for line in written.out.splitlines()]
    assert rows == [
        {
            "prompt": prompts[place],
            "completion": expected.texts[place],
            "log_ratio": pytest.approx(expected.log_ratios[place], abs=1e-3),
            "tries": expected.tries[place],
            "tokens": expected.tokens[place],
            "accepted": expected.accepted[place],
        }
        for place in range(4)
    ]
    assert "The discriminator is out/discriminator." in written.err
    cost = next(line for line in written.err.splitlines() if "tokens per second" in line)
    assert cost.startswith(f"4 texts, {expected.draws:.2f} draws per text kept, {expected.tokens_per_text:.1f} tokens")


def test_generate_asks_the_previous_discriminator_too(workplace, capsys):
    second = Discriminator(bert_classifier(seed=5), tokenizer_of_pairs())
    second.calibration = calibration(max_new_tokens=8, slope=0.5, previous_threshold=0.2, previous_draws=4.0)
    second.previous = Discriminator.from_pretrained("out/discriminator")
    second.save_pretrained("out/discriminator")
    rows = run(capsys)
    expected = second.log_ratio(["the dog", ""], [row["completion"] for row in rows]).tolist()
    assert [row["log_ratio"] for row in rows] == pytest.approx(expected, abs=1e-3)


def test_generate_without_a_discriminator_is_plain_sampling(workplace, capsys):
    rows = run(capsys, model="plain", num_candidates=None)
    model, tokenizer = load_generator("plain")
    drawn = sample(model, tokenizer, SETTINGS["prompts"], 8)
    assert [row["completion"] for row in rows] == drawn.texts
    assert [row["tries"] for row in rows] == [1, 1]
    assert [row["log_ratio"] for row in rows] == [None, None]
    unguided = run(capsys, discriminator="none", num_candidates=None)
    model, tokenizer = load_generator("out")
    assert [row["completion"] for row in unguided] == sample(model, tokenizer, SETTINGS["prompts"], 8).texts


def test_generate_with_another_discriminator(workplace, capsys):
    other = Discriminator(bert_classifier(num_labels=2, seed=7), tokenizer_of_pairs(), label=1)
    other.save_pretrained(workplace / "other")
    changes = {"discriminator": "other", "discriminator_label": "LABEL_1", "method": "best_of_k"}
    rows = run(capsys, model="plain", **changes)
    expected = other.log_ratio(["the dog", ""], [row["completion"] for row in rows]).tolist()
    assert [row["log_ratio"] for row in rows] == pytest.approx(expected, abs=1e-3)
    assert [row["tries"] for row in rows] == [12, 12]


def test_discriminator_of_a_checkpoint_is_found(workplace):
    """One level deeper, where PEFT does not take it for the generator's adapters."""
    (workplace / "out" / "discriminator").rename(workplace / "model")
    (workplace / "out" / "discriminator").mkdir()
    (workplace / "model").rename(workplace / "out" / "discriminator" / "model")
    assert discriminator_source(GenerateArguments(model="out")) == "out/discriminator/model"
    assert discriminator_source(GenerateArguments(model="plain")) is None
    assert discriminator_source(GenerateArguments(model="out", discriminator="none")) is None


@pytest.mark.parametrize("source", ["plain", "out"])
def test_generator_as_discriminator_is_refused(workplace, source):
    """It would get a random head, and a random log-ratio."""
    with pytest.raises(ValueError, match=f"^{source} is no trained discriminator, .* such as {source}/discriminator"):
        main(flags(discriminator=source))


def write_file(name, rows):
    if name.endswith(".csv"):
        datasets.Dataset.from_list(rows).to_csv(name)
    elif name.endswith(".parquet"):
        datasets.Dataset.from_list(rows).to_parquet(name)
    elif name.endswith(".json"):
        with open(name, "w") as file:
            json.dump(rows, file)
    else:
        with open(name, "w") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.csv", "p.parquet", "*.csv", ["p.jsonl"]])
@pytest.mark.parametrize("argument", ["prompts_file", "dataset_name"])
def test_prompts_of_a_file(workplace, name, argument):
    path = name[0] if isinstance(name, list) else name.replace("*", "p")
    write_file(path, [{"prompt": "<s> the dog", "id": 1}, {"prompt": "<s> a cat", "id": 2}])
    script = GenerateArguments(model="out", **{argument: name})
    assert prompts_of(script, new_tokenizer()) == ["<s> the dog", "<s> a cat"]


@pytest.mark.parametrize(
    ("rows", "changes", "expected"),
    [
        ([{"text": "the dog sees a cat"}], {}, ["<s>"]),
        ([{"text": "the dog sees a cat"}], {"min_prompt_tokens": 2, "max_prompt_tokens": 2}, ["<s>the dog"]),
        ([{"messages": [*MESSAGES, {"role": "assistant", "content": "a cat"}]}], {}, [MESSAGES]),
        ([{"prompt": MESSAGES}], {}, [MESSAGES]),
        (
            [{"translation": {"en": "a dog", "de": "ein Hund"}}],
            {"source_lang": "de", "target_lang": "en"},
            ["Translate from de to en.\nein Hund\n"],
        ),
    ],
)
def test_prompts_of_every_form_of_data(workplace, rows, changes, expected):
    write_file("p.jsonl", rows)
    script = GenerateArguments(model="out", prompts_file="p.jsonl", **changes)
    assert prompts_of(script, new_tokenizer()) == expected


def test_prompts_of_lines(workplace, monkeypatch):
    """Blank lines are no prompts; spaces that begin or end one stay."""
    lines = "<s> the dog \n\n  \n<s> a cat"
    (workplace / "p.txt").write_text(lines)
    expected = ["<s> the dog ", "<s> a cat"]
    assert prompts_of(GenerateArguments(model="out", prompts_file="p.txt"), new_tokenizer()) == expected
    (workplace / "q.txt.gz").write_bytes(gzip.compress("\ufeff<s> one\u2028dog\r\n".encode()))
    script = GenerateArguments(model="out", prompts_file=["p.txt", "q.txt.gz"])
    assert prompts_of(script, new_tokenizer()) == [*expected, "<s> one\u2028dog"]
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"\ufeff{lines}"))
    assert prompts_of(GenerateArguments(model="out", prompts_file="-"), new_tokenizer()) == expected


def test_prompts_of_a_split(workplace):
    (workplace / "data").mkdir()
    for split in ("train", "test"):
        write_file(f"data/{split}.jsonl", [{"prompt": f"<s> {split}"}])
    script = GenerateArguments(model="out", dataset_name="data")
    assert prompts_of(script, new_tokenizer()) == ["<s> test"]
    script.dataset_split = "train"
    assert prompts_of(script, new_tokenizer()) == ["<s> train"]
    script.dataset_split = "validation"
    with pytest.raises(ValueError, match=r"data has the splits .* no 'validation': .* --dataset_split"):
        prompts_of(script, new_tokenizer())


def test_no_prompts_start_from_the_start_token(workplace, capsys):
    rows = run(capsys, prompts=None, num_texts=5)
    assert [row["prompt"] for row in rows] == ["<s>"] * 5
    assert len({row["completion"] for row in rows}) > 2


def test_messages_go_through_the_chat_template(workplace, capsys):
    tokenizer = new_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}one {{ message['content'] }} {% endfor %}three"
    tokenizer.save_pretrained(workplace / "out")
    write_file("p.jsonl", [{"prompt": MESSAGES}])
    (row,) = run(capsys, prompts=None, prompts_file="p.jsonl", discriminator="none", num_candidates=None)
    (same,) = run(capsys, prompts=["one a dog three"], discriminator="none", num_candidates=None)
    answer = {"role": "assistant", "content": same["completion"]}
    assert row == {**same, "prompt": MESSAGES, "completion": [answer]}


def test_yaml_file_and_json_flags_say_the_same(workplace, capsys):
    kwargs = {"top_k": 3, "suppress_tokens": [8]}
    with pytest.warns(UserWarning, match="'top_k': 3"):
        flagged = run(capsys, generation_kwargs=json.dumps(kwargs))
    (workplace / "g.yaml").write_text(yaml.safe_dump({**SETTINGS, "generation_kwargs": kwargs, "seed": 9}))
    with pytest.warns(UserWarning, match="'top_k': 3"):
        main(["generate", "--config", "g.yaml", "--seed", "0"])
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == flagged


@pytest.mark.parametrize("model", ["out", "plain"])
def test_unsafe_texts_are_never_returned(workplace, capsys, model):
    rows = run(capsys, model=model, safety_gate_name_or_path="gate_rules.dogs", num_texts=20, prompts=["<s>"])
    assert all("dog" not in row["completion"] for row in rows)
    assert max(row["tries"] for row in rows) > 1


@pytest.mark.parametrize("model", ["out", "plain"])
@pytest.mark.parametrize("gate", [None, "gate_rules.dogs"])
def test_only_kept_texts_are_returned(workplace, capsys, model, gate):
    changes = {"num_texts": 20, "prompts": ["<s>"], "num_candidates": 200, "safety_gate_name_or_path": gate}
    rows = run(capsys, model=model, keep="gate_rules.has_a_cat", **changes)
    assert len(rows) == 20
    assert all("cat" in row["completion"] for row in rows)
    assert any("dog" in row["completion"] for row in rows) == (gate is None)


@pytest.mark.filterwarnings("ignore:2 of 2 prompts")
def test_text_that_is_refused_has_no_line(workplace, capsys):
    main(flags(safety_gate_name_or_path="gate_rules.all_of_them", num_candidates=3))
    written = capsys.readouterr()
    assert written.out == ""
    assert "0 texts, inf draws per text kept" in written.err
    assert "2 exhausted, 2 refused by the filter" in written.err


@pytest.mark.filterwarnings("ignore:.* prompts have no accepted text")
def test_lines_are_rows_that_sft_trains_on(workplace, capsys):
    """Among 40 prompts, one candidate each, some are refused and have no line; TRL would stop at a completion null."""
    command = {"prompts": ["<s> the dog ", "<s> "], "num_texts": 20, "num_candidates": 1}
    main(flags(safety_gate_name_or_path="gate_rules.dogs", output="accepted/train.jsonl", **command))
    rows = [json.loads(line) for line in (workplace / "accepted/train.jsonl").read_text().splitlines()]
    assert 0 < len(rows) < 40
    assert f"{40 - len(rows)} refused by the filter" in capsys.readouterr().out
    trainer = sft_trainer(workplace / "accepted", workplace / "plain")
    for row, read in zip(rows, trainer.train_dataset, strict=True):
        prompt, whole = (
            new_tokenizer()(text)["input_ids"] for text in (row["prompt"], row["prompt"] + row["completion"])
        )
        assert read["input_ids"][: len(whole)] == whole
        assert read["labels"][: len(prompt)] == [-100] * len(prompt)
        assert read["labels"][len(prompt) :] == read["input_ids"][len(prompt) :]
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


def sft_trainer(data, model):
    """Return TRL's trainer on what `trl sft --dataset_name FOLDER` reads."""
    config = SFTConfig("sft", max_steps=2, use_cpu=True, bf16=False, report_to="none", save_strategy="no")
    rows = datasets.load_dataset(str(data), split="train")
    return SFTTrainer(str(model), config, train_dataset=rows, processing_class=new_tokenizer())


def test_output_is_a_file_of_json_lines(workplace, capsys):
    expected = run(capsys)
    main(flags(output="texts/new.jsonl"))
    printed = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in (workplace / "texts/new.jsonl").read_text().splitlines()] == expected
    assert printed[0].startswith("2 texts, ")
    assert printed[1] == "The texts are in texts/new.jsonl."


@pytest.mark.parametrize("has_rich", [True, False])
def test_terminal_shows_a_table(workplace, capsys, monkeypatch, has_rich):
    if has_rich:
        pytest.importorskip("rich", reason="the extra `demo` is not installed")
    monkeypatch.setattr(output_module, "find_spec", lambda name: has_rich or None)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    main(flags(output=None, temperature=1.0))
    printed = re.sub("\x1b[^m]*m", "", capsys.readouterr().out)  # without colours
    lines = [line.split() for line in printed.splitlines() if line.strip()]
    assert lines[0] == ["log-ratio", "tries", "prompt", "completion"]
    rows = run_again(capsys, monkeypatch)
    for row in rows:
        star = "" if row["accepted"] else "*"
        start = [f"{row['log_ratio']:+.2f}", f"{row['tries']}{star}", *row["prompt"].split()]
        assert [*start, *row["completion"].split()] in lines
    assert lines[-1][:2] == ["2", "texts,"]


def run_again(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    return run(capsys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "give --model"),
        ({"prompts_file": "p.txt"}, "one place, got prompts and prompts_file"),
        ({"prompts": None, "prompts_file": "p.txt"}, "There is no file 'p.txt' in"),
        ({"prompts": None, "prompts_file": "gate_rules.py"}, "gate_rules.py has an extension that is not known"),
        ({"prompts": None, "prompts_file": "out"}, "'out' is a folder where files are expected"),
        ({"model": "no/such"}, "^model names 'no/such': there is no such folder"),
        ({"discriminator": "no/such"}, "^discriminator names 'no/such'"),
        ({"num_texts": 0}, "num_texts must be at least 1, got 0"),
        ({"num_candidates": 0}, "num_candidates"),
        ({"method": "best_of_k", "threshold": 1.0}, "threshold=1 has no effect on best_of_k"),
        ({"generation_kwargs": '{"num_beams": 2}'}, "generation_kwargs may name .* got num_beams"),
        ({"model": "plain"}, "num_candidates=12 has no effect without a discriminator, and plain has none beside it"),
        ({"discriminator": "none"}, "num_candidates=12 has no effect .* with --discriminator none"),
        ({"model": "plain", "num_candidates": None, "threshold": 1.0}, "threshold=1.0 has no effect"),
        ({"model": "plain", "num_candidates": None, "method": "resampling"}, "method='resampling' has no effect"),
        ({"discriminator": "plain"}, "plain is no trained discriminator, but GPT2LMHeadModel"),
        ({"safety_gate_threshold": 0.4}, "safety_gate_threshold=0.4"),
        ({"safety_gate_name_or_path": "gate_rules.cats"}, "safety_gate_name_or_path .*'cats'"),
        ({"keep": "gate_rules.cats"}, "keep names 'gate_rules.cats', and there is no function 'cats'"),
        ({"keep": "gate_rules.LIMIT"}, "keep names 'gate_rules.LIMIT', and must name a function"),
        ({"keep": "has_a_cat"}, "keep names 'has_a_cat', and must name a function"),
        ({"output": "out"}, "output is 'out', which cannot be written"),
        ({"tempreature": 1.0}, "tempreature"),
    ],
)
def test_generate_refuses_before_a_model_loads(workplace, monkeypatch, changes, message):
    def loaded(*_, **__):
        raise AssertionError("a model was loaded first")

    monkeypatch.setattr(generate_module, "load_generator", loaded)
    with pytest.raises(ValueError, match=message):
        main(flags(**changes))


def test_generation_kwargs_that_are_no_json_are_refused(workplace):
    with pytest.raises(TypeError, match=r"generation_kwargs must be a dict .*, got 'top_p=0\.9'"):
        main(flags(generation_kwargs="top_p=0.9"))


def test_generate_refuses_prompts_without_a_row(workplace):
    (workplace / "p.txt").write_text("\n\n")
    with pytest.raises(ValueError, match="There is no prompt in what was given"):
        main(flags(prompts=None, prompts_file="p.txt"))


def samples(**changes):
    fields = {
        "texts": ["a dog", None, ""],
        "prompt_ids": [[1]] * 3,
        "completion_ids": [[6, 8], [], [2]],
        "log_ratios": [0.25, float("nan"), -1.0],
        "tries": [1, 4, 4],
        "accepted": [True, False, False],
        "tokens": [2, 9, 7],
    }
    return GuidedSamples(**{**fields, **changes})


def test_cost_line_counts_what_was_drawn():
    """Of two texts kept: 9 draws are 4.5 per text, and 18 tokens 9 per text; in 3 seconds they are 6 per second."""
    assert cost_line(samples(), 3.0) == (
        "2 texts, 4.50 draws per text kept, 9.0 tokens per text kept, 2 exhausted, 1 refused by the filter, "
        "3.0 seconds, 6 tokens per second."
    )


def test_output_rows_have_no_value_that_json_lacks():
    rows = output_rows([MESSAGES, MESSAGES, "z"], samples(), has_ratios=True)
    assert [rows[0]["completion"], rows[2]["completion"]] == [[{"role": "assistant", "content": "a dog"}], ""]
    assert rows[1] == {
        "prompt": MESSAGES, "completion": None, "log_ratio": None, "tries": 4, "tokens": 9, "accepted": False,
    }  # fmt: skip
    assert [row["log_ratio"] for row in rows] == [0.25, None, -1.0]
    assert [row["log_ratio"] for row in output_rows(["x", "y", "z"], samples(), has_ratios=False)] == [None] * 3
    json.dumps(rows, allow_nan=False)


def test_models_stand_on_one_device(workplace, monkeypatch, capsys):
    moved = []
    to = Discriminator.to
    monkeypatch.setattr(Discriminator, "to", lambda self, device: moved.append(device) or to(self, device))
    run(capsys)
    assert moved == [torch.device("cpu")]
