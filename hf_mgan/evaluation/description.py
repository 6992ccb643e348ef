"""What the parts of an evaluation depend on, by which a folder is known to hold parts of the same one."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..safety import SafetyGate
from .models import Model, fingerprint
from .settings import EvaluationConfig


# What a part depends on: neither where it lies, nor the other temperatures, nor the baseline.
SETTINGS_OF_PARTS = (
    "num_samples",
    "max_completion_length",
    "batch_size",
    "encoder",
    "fine_tuned_test",
    "reverse_perplexity",
    "unit",
    "num_training_texts",
    "level",
    "dtype",
    "seed",
)


def describe(
    config: EvaluationConfig,
    named: dict[str, Model],
    held_out: Dataset,
    training: Dataset | None,
    safety: SafetyGate | None,
    prepare: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return all that the parts depend on, as JSON has it."""
    settings = {name: value for name, value in asdict(config).items() if name in SETTINGS_OF_PARTS}
    described = {
        **settings,
        "models": {
            name: {"from": model if isinstance(model, str) else type(model).__name__, "known_by": fingerprint(model)}
            for name, model in named.items()
        },
        "held_out": _describe_rows(held_out),
        "training": None if training is None else _describe_rows(training),
        "safety": None if safety is None else _describe_safety(safety),
        "prepare": {
            name: list(value) if isinstance(value, tuple) else value for name, value in (prepare or {}).items()
        },
    }
    return json.loads(json.dumps(described))


def _describe_safety(safety: SafetyGate) -> dict[str, Any]:
    """Return by what a safety classifier is known again; of a function nothing is known but that it is one."""
    known = {} if safety.model is None else {"known_by": fingerprint(safety.model), "label": safety.label}
    return {**known, "threshold": safety.threshold, "with_prompt": safety.with_prompt}


def _describe_rows(rows: Dataset) -> dict[str, Any]:
    """Return by what a dataset is known again: its content, wherever it lies."""
    content = hashlib.sha256()
    for row in rows:
        content.update(json.dumps(row, sort_keys=True, default=str).encode())
    return {"rows": len(rows), "content": content.hexdigest()[:16]}


def check_same(path: Path, described: dict[str, Any]) -> None:
    """Write what the parts depend on, or see that it is what those in the folder were made with."""
    if not path.exists():
        path.write_text(json.dumps(described, indent=1) + "\n")
        return
    kept = json.loads(path.read_text())
    # More models may join an evaluation; those that are there already must be the same.
    both = set(kept["models"]) & set(described["models"])
    differ = [name for name in described if name != "models" and kept.get(name) != described[name]]
    differ += [f"model {name}" for name in sorted(both) if kept["models"][name] != described["models"][name]]
    if differ:
        raise ValueError(
            f"{path.parent} holds parts of an evaluation with other settings ({', '.join(differ)}), and one report "
            "cannot compare them. Choose another output_dir, or remove that folder."
        )
    path.write_text(json.dumps({**described, "models": {**kept["models"], **described["models"]}}, indent=1) + "\n")
