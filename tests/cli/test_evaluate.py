"""`hf-mgan evaluate` from its arguments to the report."""

import json
import shlex
import shutil

import datasets
import pytest
import torch
import yaml

from hf_mgan import Discriminator
from hf_mgan.cli import evaluate as evaluate_module
from hf_mgan.cli.evaluate import EvaluateArguments, evaluate
from hf_mgan.cli.main import run

from ..conftest import bert_classifier, texts, tokenizer_of_pairs
from ..evaluation.conftest import new_generator, save


SETTINGS = {
    "models": ["start", "gan=tuned"],
    "eval_dataset_name": "held_out.jsonl",
    "dataset_name": "train.jsonl",
    "output_dir": "out",
    "num_samples": 6,
    "temperatures": [0.9, 1.3],
    "max_completion_length": 8,
    "reverse_perplexity": False,
}


@pytest.fixture
def workplace(tmp_path, monkeypatch, folders):
    """A folder to stand in: two models and two files of texts."""
    for name, folder in folders.items():
        shutil.copytree(folder, tmp_path / name)
    write(tmp_path / "held_out.jsonl", 1)
    write(tmp_path / "train.jsonl", 2)
    (tmp_path / "my_rules.py").write_text("def dogs(texts):\n    return [float('dog' in text) for text in texts]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # the command adds the folder it stands in
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def write(path, seed):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(16, seed)))


def flags(**changes):
    """Return SETTINGS as a shell would hand them over; a setting of `None` is left out."""
    settings = {name: value for name, value in {**SETTINGS, **changes}.items() if value is not None}
    parts = [[f"--{name}", *(value if isinstance(value, list) else [value])] for name, value in settings.items()]
    return ["evaluate", *(str(part) for part_list in parts for part in part_list)]


@pytest.fixture
def evaluated(monkeypatch):
    """Return what `evaluate_generator` was given and returned, call after call."""
    calls = []
    evaluate_generator = evaluate_module.evaluate_generator

    def watched(*args, **kwargs):
        report = evaluate_generator(*args, **kwargs)
        calls.append((args, kwargs, report))
        return report

    monkeypatch.setattr(evaluate_module, "evaluate_generator", watched)
    return calls


def test_evaluate_writes_a_report_and_prints_its_table(workplace, evaluated, capsys):
    run(flags(safety_gate_name_or_path="my_rules.dogs", safety_gate_threshold=0.7))
    ((_, kwargs, report),) = evaluated
    assert report.models == ["start", "gan"]
    assert report.temperatures == [0.9, 1.3]
    assert report.settings["samples_each"] == 6
    assert kwargs["training"]["text"] == texts(16, 2)
    assert kwargs["safety"].threshold == 0.7
    metrics = set(report.parts["gan_T1.3"]["metrics"])
    assert {"self_bleu", "real_nll", "copied_share", "unsafe_rate"} <= metrics
    assert "reverse_perplexity" not in metrics
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("| | T | ")
    assert [line.split("|")[1:3] for line in printed[2:7]] == [
        [" real text ", " "],
        [" start ", " 0.9 "],
        [" start ", " 1.3 "],
        [" gan ", " 0.9 "],
        [" gan ", " 1.3 "],
    ]
    assert printed[7].startswith("gan against start: no verdict.")
    assert printed[8] == "The report is in out/report.md."
    assert (workplace / "out" / "frontier.png").exists()
    written = (workplace / "out" / "report.md").read_text()
    command = flags(safety_gate_name_or_path="my_rules.dogs", safety_gate_threshold=0.7)
    assert f"`hf-mgan {shlex.join(command)}`" in written


@pytest.mark.parametrize(("has_gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_safety_gate_is_where_the_generators_are(workplace, monkeypatch, has_gpu, device):
    monkeypatch.setattr(evaluate_module, "evaluate_generator", lambda *args, safety, **kwargs: safety.device.type)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    arguments = EvaluateArguments(
        models=["start"],
        eval_dataset_name="held_out.jsonl",
        safety_gate_name_or_path="my_rules.dogs",
    )
    assert evaluate_module.evaluate(arguments) == device


def test_yaml_file_says_the_same_and_flags_win(workplace, evaluated):
    (workplace / "evaluation.yaml").write_text(yaml.safe_dump({**SETTINGS, "temperatures": [0.9], "seed": 5}))
    run(
        [
            "evaluate",
            "--config",
            "evaluation.yaml",
            "--seed",
            "6",
            "--min_prompt_tokens",
            "1",
            "--max_prompt_tokens",
            "2",
        ]
    )
    ((_, kwargs, report),) = evaluated
    assert report.settings["seed"] == 6
    assert report.models == ["start", "gan"]
    assert report.temperatures == [0.9]
    assert kwargs["prepare"]["prompt_tokens"] == (1, 2)
    assert "bleu" in report.parts["start_T0.9"]["metrics"]


def test_languages_of_the_training_are_those_of_the_prompts(workplace, evaluated):
    pairs = [{"translation": {"de": a, "en": b}} for a, b in zip(texts(16, 3), texts(16, 4), strict=True)]
    (workplace / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    changes = {"source_lang": "en", "target_lang": "de", "models": ["start"], "temperatures": [1.0]}
    run(flags(eval_dataset_name="pairs.jsonl", dataset_name=None, max_completion_length=6, **changes))
    report = evaluated[0][2]
    assert set(report.parts["real"]["texts"]) <= {pair["translation"]["de"] for pair in pairs}
    assert "copied_share" not in report.parts["real"]["metrics"]


def split_folder(workplace, *names):
    for number, name in enumerate(names):
        write(workplace / "data" / f"{name}.jsonl", number)


@pytest.mark.parametrize(
    ("splits", "changes", "expected"),
    [
        (["test", "train"], {}, texts(16, 1)),
        (["test"], {}, None),
        (["test", "train"], {"eval_dataset_name": "held_out.jsonl", "dataset_name": "train.jsonl"}, texts(16, 2)),
        (["test", "validation"], {"dataset_train_split": "validation"}, texts(16, 1)),
        (["train", "validation"], {"dataset_test_split": "train"}, None),  # what is held out was not trained on
        (["test", "train"], {"eval_dataset_name": "held_out.jsonl", "dataset_name": None}, None),
    ],
)
def test_training_texts_are_those_of_the_dataset_or_named(workplace, monkeypatch, splits, changes, expected):
    split_folder(workplace, *splits)
    given = []
    monkeypatch.setattr(evaluate_module, "evaluate_generator", lambda *_, training, **__: given.append(training))
    settings = {"dataset_name": "data", "eval_dataset_name": None, **changes}
    arguments = EvaluateArguments(**{**SETTINGS, **settings})
    evaluate(arguments)
    assert (None if given[0] is None else given[0]["text"]) == expected


def test_held_out_texts_are_those_of_the_test_split(workplace, evaluated):
    split_folder(workplace, "train", "test", "validation")
    run(flags(dataset_name="data", eval_dataset_name=None, models=["start"], dataset_test_split="validation"))
    assert evaluated[0][0][1]["text"] == texts(16, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": None}, "give --models"),
        ({"dataset_name": None, "eval_dataset_name": None}, "give --eval_dataset_name"),
        (
            {"dataset_name": "data", "eval_dataset_name": None, "dataset_test_split": "held_out"},
            "no 'held_out': .* --dataset_test_split",
        ),
        ({"dataset_name": "data", "eval_dataset_name": None}, "--dataset_test_split"),
        (
            {"eval_dataset_name": None},
            r"^train\.jsonl has the splits \['train'\] and no 'test': .* --eval_dataset_name",
        ),
        ({"dataset_name": "data", "dataset_train_split": "learnt"}, "^data .*'learnt'.* --dataset_train_split"),
        ({"num_samples": 2}, "num_samples .* got 2"),
        ({"temperatures": [0.0]}, "temperatures"),
        ({"safety_gate_threshold": 0.4}, "safety_gate_threshold=0.4"),
        ({"safety_gate_name_or_path": "my_rules.cats"}, "safety_gate_name_or_path .*'cats'"),
        ({"models": ["a=start", "a=tuned"]}, "models are called 'a'"),
        ({"baseline": "gat"}, "baseline names gat"),
        ({"models": ["start", "gan=no/such"]}, r"^models \(gan\) names 'no/such': there is no such folder"),
        ({"encoder": "no/such"}, "^encoder names 'no/such'"),
        ({"temparatures": [1.0]}, "temparatures"),
    ],
)
def test_evaluate_refuses_before_a_model_loads(workplace, monkeypatch, changes, message):
    def loaded(*_, **__):
        raise AssertionError("a model was loaded first")

    monkeypatch.setattr("hf_mgan.evaluation.evaluated_model.load_generator", loaded)
    split_folder(workplace, "train")
    with pytest.raises(ValueError, match=message):
        run(flags(**changes))
    assert not (workplace / "out").exists()


def test_settings_are_checked_before_data_loads(workplace, monkeypatch):
    def downloaded(*_, **__):
        raise AssertionError("the data was loaded first")

    monkeypatch.setattr("hf_mgan.cli.data_files.load_dataset", downloaded)
    with pytest.raises(ValueError, match="level"):
        run(flags(level=95))


def test_unknown_key_in_a_yaml_file_is_refused_by_name(workplace):
    (workplace / "evaluation.yaml").write_text(yaml.safe_dump({**SETTINGS, "temparatures": [1.0]}))
    with pytest.raises(ValueError, match="temparatures"):
        run(["evaluate", "--config", "evaluation.yaml"])
    assert not (workplace / "out").exists()


def test_unknown_unit_is_refused_with_the_choices(workplace, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(flags(unit="syllable"))
    assert stopped.value.code == 2
    assert "character" in capsys.readouterr().err.split("choose from")[1]


def test_second_call_goes_on_with_another_model(workplace, evaluated):
    run(flags(models=["start"], temperatures=[0.9]))
    save(new_generator(seed=2), workplace / "third")
    run(flags(models=["start", "third"], temperatures=[0.9]))
    first, second = evaluated[0][2], evaluated[1][2]
    assert second.parts["start_T0.9"] == first.parts["start_T0.9"]
    assert second.models == ["start", "third"]


def test_evaluate_takes_a_model_alone_and_guided(workplace, capsys):
    Discriminator(bert_classifier(), tokenizer_of_pairs()).save_pretrained("guide")
    with pytest.warns(UserWarning, match="not calibrated"):
        run(
            flags(
                models=["alone=start", "guided=start"],
                discriminators=["guided=guide"],
                threshold=0.5,
                num_candidates=8,
                temperatures=[1.0, 1.3],
            )
        )
    report = json.loads((workplace / "out" / "report.json").read_text())
    assert report["parts"]["alone_T1"]["metrics"]["draws"][0] == 1
    assert report["parts"]["guided_T1"]["metrics"]["draws"][0] > 1
    assert "guided_T1.3" not in report["parts"]
    assert "| guided | 1 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"discriminators": ["guide"]}, "NAME=ID, with NAME one of the models start, gan"),
        ({"discriminators": ["other=guide"]}, "one of the models start, gan"),
        ({"threshold": 0.5}, "threshold=0.5 has no effect without discriminators"),
        ({"discriminators": ["gan=guide"], "num_candidates": 0}, "num_candidates must be at least 1"),
    ],
)
def test_evaluate_refuses_guidance_without_a_model(workplace, changes, message):
    with pytest.raises(ValueError, match=message):
        evaluate(EvaluateArguments(**{**SETTINGS, **changes}))
