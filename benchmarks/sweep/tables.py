"""Tables in Markdown and statistics over seeds: plain values in, text out.

A value is a mean over seeds. A difference is one between runs of the same seed, and its standard error is that of the
mean of these differences.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from scipy.stats import t

from .results import Result


NOT_RUN = "not run"
BETTER, WORSE = "✓", "✗"


class Difference(NamedTuple):
    """A mean of differences between runs of the same seed, and its standard error (nan for one seed)."""

    mean: float
    standard_error: float
    seeds: int

    @classmethod
    def of(cls, differences: list[float]) -> "Difference":
        """Return mean and standard error of differences, one per seed."""
        error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
        return cls(fmean(differences), error, len(differences))

    @property
    def verdict(self) -> str:
        """Return a mark if the difference is beyond chance at 5 % (Student, two-sided); less is better."""
        if self.seeds < 2:
            return ""
        if abs(self.mean) <= t.ppf(0.975, self.seeds - 1) * self.standard_error:
            return ""
        return BETTER if self.mean < 0 else WORSE


def by_condition(results: Iterable[Result]) -> dict[str, dict[int, Result]]:
    """Return the results that are no failures by condition and seed."""
    sorted_results: dict[str, dict[int, Result]] = {}
    for result in results:
        if "error" not in result:
            sorted_results.setdefault(result["condition"], {})[result["seed"]] = result
    return sorted_results


def spread(values: Iterable[float | None], digits: int = 3, counted: bool = True) -> str:
    """Return mean and standard deviation of the values that there are, and their number if it is asked for."""
    present = [value for value in values if value is not None]
    if not present:
        return "-"
    deviation = f" ± {stdev(present):.{digits}f}" if len(present) > 1 else ""
    return f"{fmean(present):.{digits}f}{deviation}{f' ({len(present)})' if counted else ''}"


def mean(values: Iterable[float | None], digits: int = 2) -> str:
    """Return the mean of the values that there are."""
    present = [value for value in values if value is not None]
    return f"{fmean(present):.{digits}f}" if present else "-"


def areas(rows: Iterable[dict[str, Any]], key: str) -> str:
    """Return the areas of all seeds, and half of their intervals."""
    found = [row[key] for row in rows if key in row]
    if not found:
        return ""
    half = fmean((high - low) / 2 for _, low, high in found)
    return f"{' / '.join(f'{value:.3f}' for value, _, _ in found)} ± {half:.3f}"


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Return a table in Markdown.

    Raises:
        ValueError: If a row has more or fewer cells than the head.
    """
    lines = [head, ["---"] * len(head), *rows]
    for row in lines:
        if len(row) != len(head):
            raise ValueError(f"A table of {len(head)} columns, {head}, has a row of {len(row)} cells: {row}.")
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def with_error(values: Sequence[float | None] | None, digits: int) -> str:
    """Return a value with half the width of its interval, as far as there are these: value, low, high."""
    if values is None or values[0] is None:
        return ""
    low, high = values[1:]
    error = "" if low is None or high is None else f" ± {(high - low) / 2:.{digits}f}"
    return f"{values[0]:.{digits}f}{error}"


def difference_cells(difference: Difference | None) -> list[str]:
    """Return two cells: the difference with its standard error, and its verdict."""
    if difference is None:
        return ["", ""]
    error = "" if math.isnan(difference.standard_error) else f" ± {difference.standard_error:.4f}"
    return [f"{difference.mean:+.4f}{error}", difference.verdict]


def failures(results: Iterable[Result]) -> list[str]:
    """Return a line for every job that failed."""
    return [
        f"- {one['condition']}, seed {one['seed']}, failed: `{one['error'].strip().splitlines()[-1]}`"
        for one in results
        if "error" in one
    ]


def processor_hours(results: Iterable[Result]) -> str:
    """Return the hours of one core that all jobs took together."""
    seconds = [one.get("seconds", {}) for one in results]
    return f"{sum(one.get('all', sum(one.values())) for one in seconds) / 3600:.1f}"


def version_list(results: Iterable[Result]) -> str:
    """Return the versions that the results were made with."""
    return ", ".join(
        sorted({f"{name} {number}" for one in results for name, number in one.get("versions", {}).items()})
    )
