"""Arguments that several subcommands take: functions by name, the safety gate.

In: arguments as the shell or a YAML file gives them. Out: what they name, or an error that says what to give.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE
from transformers.utils import CONFIG_NAME, cached_file
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME

from ..safety import SafetyGate


GATE = "safety_gate_"


def imported(name: str, argument: str) -> str | Callable:
    """Return the function that `module.function` names; an id with a slash or a folder is returned as it is."""
    if "/" in name or Path(name).exists() or "." not in name:
        return name
    module, _, function = name.rpartition(".")
    sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{argument} names {name!r}, and there is no function {function!r} in a module {module!r}. Give "
            "module.function, seen from this folder or installed, or the id of a classifier."
        ) from error


def check_is_there(name: str | None, argument: str, revision: str | None = None) -> None:
    """Check that a model or tokenizer can be had; upstream's errors of the network name neither it nor the argument.

    Args:
        name (`str`, *optional*): Hub id or folder.
        argument (`str`): What names it.
        revision (`str`, *optional*): Branch, tag or commit.

    Raises:
        ValueError: If there is no such folder, and no such id that the Hub or the cache has.
    """
    if name is None or Path(name).is_dir():
        return
    problem: Exception | None = None
    for file in (CONFIG_NAME, ADAPTER_CONFIG_NAME, TOKENIZER_CONFIG_FILE):
        try:
            cached_file(name, file, revision=revision)
            return
        except Exception as error:  # the HTTP client of the Hub has errors of its own
            problem = problem or error
    raise ValueError(
        f"{argument} names {name!r}: there is no such folder in {Path.cwd()}, and from the Hub it cannot be loaded. "
        f"{' '.join(str(problem).split())}"
    ) from problem


def check_alone(script: Any, name: str, details: list[str]) -> None:
    """Check that the details of an argument are left at their defaults where it is not given itself."""
    defaults = {each.name: each.default for each in fields(script)}
    for detail in details:
        if getattr(script, name) is None and getattr(script, detail) != defaults[detail]:
            raise ValueError(
                f"{detail}={getattr(script, detail)!r} has no effect without {name}: give both or neither."
            )


def named_safety_gate(script: Any) -> SafetyGate | None:
    """Make the gate that the arguments of a command name, if they name one.

    Args:
        script (`dataclass`): With `safety_gate_name_or_path`, and other arguments of [`SafetyGate`] behind the same
            `safety_gate_`.

    Returns:
        [`SafetyGate`], *optional*: The gate.

    Raises:
        ValueError: If a label or a threshold has no gate, or there is no such function.
    """
    given = {name: f"{GATE}{name}" for name in ("label", "threshold", "margin", "with_prompt")}
    given = {name: flag for name, flag in given.items() if hasattr(script, flag)}
    check_alone(script, "safety_gate_name_or_path", list(given.values()))
    if script.safety_gate_name_or_path is None:
        return None
    classifier = imported(script.safety_gate_name_or_path, "safety_gate_name_or_path")
    if isinstance(classifier, str):
        check_is_there(classifier, "safety_gate_name_or_path")
    return SafetyGate(classifier, **{name: getattr(script, flag) for name, flag in given.items()})
