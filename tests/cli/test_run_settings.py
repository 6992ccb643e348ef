"""What a run leaves of its settings, and what an evaluation of its models takes from them."""

import pytest
import yaml

from hf_mgan.cli import evaluate as evaluate_module
from hf_mgan.cli.main import run
from hf_mgan.cli.run_settings import FILE, save_settings, taken_from_runs

from .test_train import flags, given, workplace  # noqa: F401  # fixtures, and the settings of a tiny run


def write(folder, **settings):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(yaml.safe_dump(settings))


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder to stand in, with the run `out`."""
    monkeypatch.chdir(tmp_path)
    settings = {"dataset_name": ["train.jsonl"], "eval_dataset_name": ["held_out.jsonl"], "max_completion_length": 24}
    settings |= {
        "model_name_or_path": "my/base",
        "temperature": 1.0,
        "seed": 3,
        "max_prompt_tokens": 4,
        "unit": "auto",
    }
    write(tmp_path / "out", **settings)
    return tmp_path


def test_run_writes_what_it_was_given_and_what_evaluations_need(workplace, given):  # noqa: F811
    (workplace / "run.yaml").write_text(yaml.safe_dump({"max_prompt_tokens": 2, "env": {"A": "secret"}}))
    changes = {"dataset_name": ["train.jsonl"], "hub_token": "secret", "resume_from_checkpoint": "out/checkpoint-1"}
    run([*flags(**changes), "--config", "run.yaml"])
    text = (workplace / "out" / FILE).read_text()
    settings = yaml.safe_load(text)
    assert settings["dataset_name"] == ["train.jsonl"]
    assert (settings["lora_r"], settings["use_peft"], settings["max_prompt_tokens"]) == (2, True, 2)
    # Defaults of the training, of which the evaluation's are others.
    assert (settings["seed"], settings["dataset_test_split"]) == (42, "test")
    assert "secret" not in text
    assert "resume" not in text


def test_settings_of_a_run_are_a_file_to_train_with(workplace, given):  # noqa: F811
    run(flags(learning_rate=3e-4, discriminator_optim_kwargs={"weight_decay": 0.01}))
    run(["train", "--config", f"out/{FILE}"])
    first, second = given
    assert second["args"].learning_rate == 3e-4
    assert second["args"].to_dict() == first["args"].to_dict()
    assert second["peft_config"] == first["peft_config"]


def test_evaluation_takes_data_and_lengths_from_the_run(runs):
    taken = taken_from_runs({"models": ["out"]})
    expected = {"dataset_name": ["train.jsonl"], "eval_dataset_name": ["held_out.jsonl"], "max_completion_length": 24}
    assert taken.values == {**expected, "seed": 3, "max_prompt_tokens": 4, "unit": "auto"}
    assert taken.models == ["before=my/base", "out"]
    assert taken.line == (
        f"Taken from out/{FILE}: dataset_name=train.jsonl, eval_dataset_name=held_out.jsonl, max_prompt_tokens=4, "
        "max_completion_length=24, seed=3, before is my/base."
    )


def test_warm_start_is_the_model_before(runs):
    (runs / "out" / "warm_start").mkdir()
    assert taken_from_runs({"models": ["out"]}).models == ["before=my/base", "out"]  # it is empty
    (runs / "out" / "warm_start" / "adapter_config.json").write_text("{}")
    assert taken_from_runs({"models": ["tuned=out"]}).models == ["before=out/warm_start", "tuned=out"]
    assert taken_from_runs({"models": ["out/checkpoint-5"]}).models == ["before=out/warm_start", "out/checkpoint-5"]
    assert taken_from_runs({"models": ["out/warm_start"]}).models is None


def test_model_before_is_added_to_one_model_alone(runs):
    assert taken_from_runs({"models": ["my/base", "out"]}).models is None
    assert taken_from_runs({"models": ["before=out"]}).models is None
    write(runs / "other", model_name_or_path="my/base", model_revision="v2")
    assert taken_from_runs({"models": ["other"]}).models is None  # an evaluation knows no revisions


@pytest.mark.parametrize(
    ("words", "left_out"),
    [
        ({"max_completion_length": 8}, {"max_completion_length"}),
        ({"dataset_name": ["x"]}, {"dataset_name", "eval_dataset_name"}),
        ({"eval_dataset_name": ["x"]}, {"eval_dataset_name"}),
        ({"seed": 0, "unit": "word"}, {"seed", "unit"}),
    ],
)
def test_what_an_evaluation_is_given_wins(runs, words, left_out):
    taken = taken_from_runs({"models": ["out"], **words}).values
    assert taken.keys() == taken_from_runs({"models": ["out"]}).values.keys() - left_out


def test_temperature_of_the_run_joins_the_others(runs):
    write(runs / "warm", temperature=1.3)
    assert taken_from_runs({"models": ["warm"]}).values == {"temperatures": [0.7, 0.8, 0.9, 1.0, 1.1, 1.3]}
    assert taken_from_runs({"models": ["warm"], "temperatures": [1.0]}).values == {}


def test_runs_that_differ_are_refused_unless_it_is_said(runs):
    write(runs / "other", max_completion_length=48, seed=4, dataset_name=["train.jsonl"])
    said = {"models": ["out", "other"], "eval_dataset_name": ["x"], "max_prompt_tokens": 0, "unit": "word"}
    with pytest.raises(ValueError, match=r"different max_completion_length: 24 in out, 48 in other.*--max_comp"):
        taken_from_runs(said)
    assert taken_from_runs({**said, "max_completion_length": 24}).values["seed"] == 3  # seeds may differ


def test_models_that_are_of_no_run_bring_nothing(runs):
    (runs / FILE).write_text("seed: 5\n")  # of a run in this folder itself
    (runs / "plain").mkdir()
    for models in (["plain"], ["my/base"], "plain", None):
        assert taken_from_runs({"models": models}) == ({}, None, None)


def test_settings_that_are_none_are_left_out(tmp_path):
    save_settings(str(tmp_path / "out"), {"a": None, "b": 1})
    assert yaml.safe_load((tmp_path / "out" / FILE).read_text()) == {"b": 1}


def test_run_folder_is_enough_for_an_evaluation(workplace, monkeypatch, capsys):  # noqa: F811
    """A whole run with a warm start, and an evaluation that is told its folder."""
    run(flags(eval_dataset_name="with_test_split/test.jsonl", warm_start_steps=1, max_steps=1, max_prompt_tokens=2))
    calls = []
    monkeypatch.setattr(evaluate_module, "evaluate_generator", lambda *args, **kwargs: calls.append((args, kwargs)))
    monkeypatch.setattr("hf_mgan.cli.main.table", lambda report: "")
    monkeypatch.setattr("hf_mgan.cli.main.verdict_lines", lambda report: [])
    run(["evaluate", "--models", "out", "--seed", "7"])
    (((models, held_out, config), kwargs),) = calls
    assert models == {"before": "out/warm_start", "out": "out"}
    assert (len(held_out), len(kwargs["training"])) == (24, 32)
    assert (config.max_completion_length, config.seed) == (8, 7)
    assert kwargs["prepare"]["prompt_tokens"] == (0, 2)
    said = capsys.readouterr().err.splitlines()
    (line,) = (one for one in said if one.startswith("Taken from"))
    assert "seed" not in line
    assert line.endswith("before is out/warm_start.")
