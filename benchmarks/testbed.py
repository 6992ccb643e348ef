"""Where a result comes from: the versions of the packages, the machine and its device."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


ROOT = Path(__file__).parents[1]  # of the repository
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")


def versions(*more: str) -> dict[str, str]:
    """Return the versions of the packages that matter everywhere and of `more`, as far as they are installed."""
    found = {}
    for name in (*PACKAGES, *more):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Return what a measurement of time depends on."""
    return {
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "load_average_at_start": [round(value, 2) for value in os.getloadavg()],
    }
