"""What the shell's words and a YAML file become, what help shows, and what is said of words that are no flags."""

from dataclasses import dataclass, field

import pytest
import yaml
from trl import DatasetMixtureConfig, ModelConfig

from hf_mgan import AdversarialConfig
from hf_mgan.cli import sections
from hf_mgan.cli.evaluate import EvaluateArguments
from hf_mgan.cli.generate import GenerateArguments
from hf_mgan.cli.main import run
from hf_mgan.cli.parser import UPSTREAM, Parser
from hf_mgan.cli.train_arguments import DiscriminatorArguments, TrainArguments
from hf_mgan.config import GRPOConfig


PARSERS = {
    "train": (sections.TRAIN, (TrainArguments, AdversarialConfig, ModelConfig, DatasetMixtureConfig)),
    "generate": (sections.GENERATE, (GenerateArguments,)),
    "evaluate": (sections.EVALUATE, (EvaluateArguments,)),
}


@dataclass
class Words:
    names: list[str] | None = None
    on: bool = False
    unset: bool | None = None
    strategy: str = field(default="no", metadata={"choices": ["no", "steps"]})
    resume_from_checkpoint: str | None = None
    rate: float = 1.0


def parsed(tmp_path, words, file=None):
    if file is not None:
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(file))
        words = ["--config", str(tmp_path / "run.yaml"), *words]
    (values,) = Parser("test", Words).parse(words)
    return values


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("True", True), ("out/c-1", "out/c-1")])
def test_truth_of_a_flag_that_takes_text_too(tmp_path, text, value):
    assert parsed(tmp_path, ["--resume_from_checkpoint", text]).resume_from_checkpoint == value


@pytest.mark.parametrize("name", ["on", "unset", "resume_from_checkpoint"])
def test_flag_alone_is_true_and_so_is_true_in_a_file(tmp_path, name):
    assert getattr(parsed(tmp_path, [f"--{name}"]), name) is True
    assert getattr(parsed(tmp_path, [], {name: True}), name) is True
    assert getattr(parsed(tmp_path, [f"--{name}", "false"], {name: True}), name) is False


def test_file_may_give_one_value_where_several_are_expected(tmp_path):
    assert parsed(tmp_path, [], {"names": "a"}).names == ["a"]
    assert parsed(tmp_path, [], {"names": ["a", "b"]}).names == ["a", "b"]


def test_no_in_a_file_is_the_word(tmp_path):
    (tmp_path / "run.yaml").write_text("strategy: no\n")
    assert parsed(tmp_path, ["--config", str(tmp_path / "run.yaml")]).strategy == "no"


def test_file_behind_an_equals_sign(tmp_path):
    (tmp_path / "run.yaml").write_text("rate: 2.0\n")
    assert parsed(tmp_path, [f"--config={tmp_path}/run.yaml"]).rate == 2.0


def test_given_are_the_values_of_file_and_flags(tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"names": ["a"], "rate": 2.0, "env": {"A": "b"}}))
    parser = Parser("test", Words)
    words = ["--config", str(tmp_path / "run.yaml"), "--rate", "3", "--on"]
    assert parser.given(words) == {"names": ["a"], "rate": 3.0, "on": True}
    assert parser.given([]) == {}


def test_defaults_lose_against_the_file_and_the_file_against_flags(tmp_path):
    (tmp_path / "run.yaml").write_text("rate: 2.0\nnames: [a]\n")
    defaults = {"rate": 5.0, "names": ["b"], "strategy": "steps"}
    words = ["--config", str(tmp_path / "run.yaml"), "--rate", "3"]
    (values,) = Parser("test", Words).parse(words, defaults)
    assert (values.rate, values.names, values.strategy) == (3.0, ["a"], "steps")


@pytest.mark.parametrize(
    ("words", "file", "message"),
    [
        (["--rat", "3"], None, r"no flag '--rat'\. Did you mean rate\?"),
        (["--nams", "x"], None, r"no flag '--nams'\. Did you mean names\?"),
        (["--xyzzy"], None, r"no flag '--xyzzy'\. `hf-mgan test --help_all`"),
        ([], {"rates": 1}, r"no flag 'rates'\. Did you mean rate\?"),
        ([], ["rate"], r"holds list: it must be lines of NAME: VALUE"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(tmp_path, words, file, message):
    with pytest.raises(ValueError, match=message):
        parsed(tmp_path, words, file)


def test_file_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "broken.yaml").write_text("rate: [1\n")
    for name in ("broken.yaml", "none.yaml"):
        with pytest.raises(ValueError, match=rf"--config .*{name} cannot be read as YAML"):
            parsed(tmp_path, ["--config", str(tmp_path / name)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rate", "fast"], "argument --rate: invalid float value: 'fast'"),
        (["--on", "perhaps"], "argument --on: "),
        (["--strategy", "never"], "(choose from 'no', 'steps')"),
        (["--config"], "--config takes the name of a YAML file"),
    ],
)
def test_wrong_value_ends_in_one_line(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as stopped:
        parsed(tmp_path, words)
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert line.startswith("hf-mgan test: error: ")
    assert message in line.replace("choose from no, steps", "choose from 'no', 'steps'")


def shown(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        run(words)
    assert stopped.value.code == 0
    return capsys.readouterr().out


def names_in(text):
    return [line.split()[0].lstrip("-") for line in text.splitlines() if line.startswith("  --")]


@pytest.mark.parametrize("command", PARSERS)
def test_every_flag_of_ours_stands_in_a_section_once(capsys, command):
    chosen, types = PARSERS[command]
    listed = [name for names in chosen.values() for name in names]
    upstream = {"ignore_bias_buffers", *GRPOConfig.__dataclass_fields__}
    ours = {name for one in types[:2] for name in one.__dataclass_fields__} - (
        upstream if command == "train" else set()
    )
    assert len(set(listed)) == len(listed)
    assert ours - set(listed) <= set(DiscriminatorArguments.__dataclass_fields__)  # details of adapters and bits
    assert names_in(shown(capsys, command, "--help")) == listed


def test_help_of_train_is_short_and_ours_comes_first(capsys):
    short, full = shown(capsys, "train", "--help"), shown(capsys, "train", "--help_all")
    assert len(short.splitlines()) < 240
    titles = [line for line in full.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == [f"{title}:" for title in (*sections.TRAIN, *UPSTREAM)]
    flags = {name for one in PARSERS["train"][1] for name in one.__dataclass_fields__}
    assert sorted(names_in(full)) == sorted(flags)
    assert "further flags, most of TRL and transformers: hf-mgan train --help_all" in " ".join(short.split())
    assert "GRPO (trl.GRPOConfig):" in full


def test_version_and_commands(capsys):
    assert shown(capsys, "--version").startswith("hf-mgan ")
    text = shown(capsys, "--help")
    assert all(command in text for command in (*PARSERS, "demo"))
