"""Errors of the command: what was refused is one line, a bug keeps its traceback."""

from pathlib import Path

import pytest

from hf_mgan.cli import main as main_module
from hf_mgan.cli.main import main
from hf_mgan.cli.refusals import in_one_line, is_refusal
from hf_mgan.config import AdversarialConfig


def caught(function):
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def raised_by_the_user():
    raise ValueError("in a reward function")


REFUSED = {
    "setting": lambda: AdversarialConfig("out", discriminator_steps=0),
    "type": lambda: AdversarialConfig("out", discriminator_steps="1"),
    "upstream's setting": lambda: AdversarialConfig("out", eval_strategy="sometimes"),
    "file": lambda: Path("/no/such/file").read_text(),
    "command": lambda: main_module.run(["evaluate", "--output_dir", "out"]),
    "unknown flag": lambda: main_module.run(["train", "--discriminator_lose", "bce"]),
}
BUGS = {
    "key": lambda: {}["a"],
    "value of Python's own": lambda: int("a"),
    "type of Python's own": lambda: "a" + 1,
    "of ours, not raised": lambda: AdversarialConfig.model_init(None, "revision"),
    "of the user's function": raised_by_the_user,
    "assertion": lambda: [][0],
}


@pytest.mark.parametrize("cause", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_known(cause):
    assert is_refusal(caught(cause))


@pytest.mark.parametrize("cause", BUGS.values(), ids=BUGS)
def test_bug_is_no_refusal(cause):
    assert not is_refusal(caught(cause))


def test_message_has_no_line_breaks():
    assert in_one_line(ValueError("a\n  b")) == "a b"
    assert in_one_line(ValueError()) == "ValueError"


def test_main_says_one_line_and_ends_with_status_1(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "--output_dir", "out"])
    assert stopped.value.code == (
        "hf-mgan: error: There is no model: give --models with Hub ids or folders, such as before=ID after=FOLDER."
    )


def test_main_lets_a_bug_through(monkeypatch):
    monkeypatch.setattr(main_module, "run", lambda argv: {}["a"])
    with pytest.raises(KeyError):
        main([])
