"""A run's own settings: `hf-mgan train` leaves them in a file of its folder, where `hf-mgan evaluate` reads them.

The file is one for `hf-mgan train --config`, too: it holds what the run was given, and what of the rest an evaluation
has to know. In: names and values. Out: the file; or what an evaluation takes from the runs of its models, and a line
that says so.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..evaluation.models import named_models
from .evaluate import EvaluateArguments
from .warm_start import FOLDER as WARM_START


FILE = "train_settings.yaml"
MODEL_FILES = ("config.json", "adapter_config.json")
DATA = ("dataset_name", "dataset_config", "dataset_train_split", "dataset_test_split", "eval_dataset_name")
SAFETY = ("safety_gate_name_or_path", "safety_gate_label", "safety_gate_threshold", "safety_gate_with_prompt")
# What an evaluation takes from a run, under the names of both commands.
SHARED = (
    *DATA,
    "min_prompt_tokens",
    "max_prompt_tokens",
    "max_text_tokens",
    "source_lang",
    "target_lang",
    "translation_template",
    "max_completion_length",
    "seed",
    "unit",
    "encoder",
    *SAFETY,
)
TEMPERATURE = "temperature"
NOT_COMPARED = ("seed", TEMPERATURE)  # in which runs that are compared may differ: those of the first one are taken
LEFT_OUT = ("hub_token", "resume_from_checkpoint", "config", "env")  # a secret, and what holds for one call
BEFORE = "before"


class Taken(NamedTuple):
    """What an evaluation takes from runs.

    Args:
        values (`dict`): By the names of its arguments.
        models (`list[str]`, *optional*): The models, where the one before the training joins the one that is given.
        line (`str`, *optional*): What to say of it.
    """

    values: dict[str, Any]
    models: list[str] | None = None
    line: str | None = None


def save_settings(folder: str, given: Mapping[str, Any], *settings: Any) -> None:
    """Write what a run was given, and what an evaluation has to know.

    Args:
        folder (`str`): The run's `output_dir`.
        given (`Mapping`): What its file and flags gave, by name.
        *settings (`dataclass`): All of its settings.
    """
    known = {name: getattr(one, name) for one in settings for name in (*SHARED, TEMPERATURE) if hasattr(one, name)}
    values = {**known, **{name: value for name, value in given.items() if name not in LEFT_OUT}}
    path = Path(folder, FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({name: value for name, value in values.items() if value is not None}))


def run_of(model: str) -> Path | None:
    """Return the folder of the run that a model is of: its own, or that around a checkpoint or a warm start."""
    folder = Path(model)
    if folder.name == WARM_START or folder.name.startswith(PREFIX_CHECKPOINT_DIR):
        folder = folder.parent
    return folder if (folder / FILE).is_file() else None


def taken_from_runs(given: Mapping[str, Any]) -> Taken:
    """Return what an evaluation takes from the runs of its models; what it is given itself wins.

    Args:
        given (`Mapping`): What the file and the flags of the evaluation give, by name.

    Raises:
        ValueError: If runs differ in what they say.
    """
    if not given.get("models"):
        return Taken({})
    models = given["models"] if isinstance(given["models"], list) else [given["models"]]
    named = {name: model for name, model in named_models(models).items() if isinstance(model, str)}
    runs = {run: _read(run / FILE) for run in dict.fromkeys(filter(None, map(run_of, named.values())))}
    if not runs:
        return Taken({})
    names = [name for name in (*SHARED, TEMPERATURE) if name not in _overruled(given)]
    values = {name: _common(name, runs) for name in names if any(name in run for run in runs.values())}
    first = next(iter(runs))
    temperature = values.pop(TEMPERATURE, None)
    if temperature is not None and temperature not in _default("temperatures"):
        values["temperatures"] = sorted([*_default("temperatures"), temperature])
    before = _before(first, runs[first]) if len(models) == 1 and BEFORE not in named else None
    is_trained = before is not None and Path(before).resolve() != Path(next(iter(named.values()))).resolve()
    said = [f"{name}={_shown(value)}" for name, value in values.items() if value != _default(name)]
    said += [f"{BEFORE} is {before}"] if is_trained else []
    line = f"Taken from {' and '.join(str(run / FILE) for run in runs)}: {', '.join(said)}." if said else None
    return Taken(values, [f"{BEFORE}={before}", *models] if is_trained else None, line)


def _read(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, and not the settings of a run: remove it.")
    return content


def _overruled(given: Mapping[str, Any]) -> set[str]:
    """Return the names that a run has no say in: those that are given, and what belongs to them."""
    names = set(given)
    if "dataset_name" in given:
        names |= {*DATA}
    if "safety_gate_name_or_path" in given:
        names |= {*SAFETY}
    if "temperatures" in given:
        names.add(TEMPERATURE)
    return names


def _common(name: str, runs: Mapping[Path, Mapping[str, Any]]) -> Any:
    """Return the value that all runs have."""
    values = {str(run): settings.get(name) for run, settings in runs.items()}
    first = next(iter(values.values()))
    if name not in NOT_COMPARED and any(value != first for value in values.values()):
        each = ", ".join(f"{_shown(value)} in {run}" for run, value in values.items())
        raise ValueError(f"The runs have different {name}: {each}. Say which one it is: --{name}.")
    return first


def _before(run: Path, settings: Mapping[str, Any]) -> str | None:
    """Return the generator before adversarial training: that of the warm start, or what the run began with."""
    warm = run / WARM_START
    if any((warm / name).is_file() for name in MODEL_FILES):
        return str(warm)
    return settings.get("model_name_or_path") if settings.get("model_revision", "main") == "main" else None


def _default(name: str) -> Any:
    one = next(each for each in fields(EvaluateArguments) if each.name == name)
    return one.default if one.default_factory is MISSING else one.default_factory()


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
