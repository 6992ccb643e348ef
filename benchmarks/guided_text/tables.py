"""The page of `benchmarks.guided_text`."""

from pathlib import Path
from typing import Any


def gather(output: Path) -> list[dict[str, Any]]:
    """Return one entry per finished run."""
    return []


def page(runs: list[dict[str, Any]]) -> str:
    """Write the page."""
    return ""
