"""The page of `benchmarks.verifiable`, from the results of its jobs: plain values in, Markdown out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..sweep.tables import failures, spread, table
from .conditions import CONDITIONS
from .target import REWARDS


TEMPLATE = Path(__file__).with_name("page.md.in")
METRICS = {"reward": 2, "grammatical": 2, "both": 2, "divergence": 3, "entropy": 1, "draws": 1}


def page(results: Sequence[dict[str, Any]]) -> str:
    """Write the page from the template and the results."""
    text = TEMPLATE.read_text()
    tables = {f"table_{reward}": reward_table(results, reward) for reward in REWARDS}
    seeds = sorted({one["seed"] for one in results})
    for name, made in {
        **tables,
        "seeds": ", ".join(map(str, seeds)),
        "failures": "\n".join(failures(results)),
    }.items():
        text = text.replace("{" + name + "}", made)
    return text


def reward_table(results: Sequence[dict[str, Any]], reward: str) -> str:
    """Return the table of all ways to raise a reward: means over the seeds ± their deviation."""
    rows = []
    for name, condition in CONDITIONS.items():
        same = [one for one in results if one["condition"] == f"{reward}.{name}" and "error" not in one]
        for title, points in same[0]["rows"].items() if same else ():
            for place, point in enumerate(points):
                of_seeds = [one["rows"][title][place] for one in same]
                text = title or condition.text
                if "threshold" in point and title != "filter":
                    text += f", c = {point['threshold']:g}"
                rows.append([text, *(spread((one[key] for one in of_seeds), n) for key, n in METRICS.items())])
    return table(["", "reward", "grammatical", "both", "JS", "entropy", "draws"], rows)
