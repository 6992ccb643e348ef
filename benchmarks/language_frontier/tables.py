"""The page and the picture of `benchmarks.language_frontier`: files of a run in, Markdown and a plot out."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..guided_language.tables import at_draws, axes_of_draws
from ..sweep.tables import mean, spread, table
from .generators import GENERATORS


TEMPLATE = Path(__file__).with_name("page.md.in")
DRAWS = (2, 3, 4, 8)
MOST = 16  # draws in the picture
TITLES = {
    "likelihood": "maximum likelihood",
    "adversarial_short": "adversarial, 50 steps",
    "adversarial": "adversarial, 200 steps",
    "for_2_draws": "adversarial, for 2 draws",
    "for_4_draws": "adversarial, for 4 draws",
    "distilled": "maximum likelihood on accepted sentences",
    "distilled_twice": "the same, twice",
}
COLOURS = dict(zip(TITLES, ("red", "cyan", "blue", "green", "olive", "orange", "brown"), strict=True))


def gather(folder: Path) -> list[dict[str, Any]]:
    """Return the finished generators of a folder."""
    runs = []
    for home in sorted(folder.glob("seed_*")):
        for name in GENERATORS:
            if (done := home / f"{name}.json").exists():
                runs.append({"trained": name, "seed": int(home.name.split("_")[1]), **json.loads(done.read_text())})
    return runs


def page(runs: Sequence[dict[str, Any]]) -> str:
    """Write the page from the template and the runs."""
    text = TEMPLATE.read_text()
    for name, made in {
        "divergences": divergences_table(runs),
        "perfect": divergences_table(runs, "with_a_perfect_one"),
        "differences": differences_table(runs),
        "metrics": metrics_table(runs),
        "calibration": calibration_table(runs),
        **_means(runs),
    }.items():
        text = text.replace("{" + name + "}", made)
    return text


def divergences_table(runs: Sequence[dict[str, Any]], which: str = "with_its_own") -> str:
    """Return the table of divergences in bits: alone, and at several numbers of draws with a discriminator."""
    rows = []
    for title, same in _by_generator(runs):
        alone = spread([run["alone"]["divergence"] for run in same], counted=False)
        seeds = ", ".join(str(run["seed"]) for run in same)
        rows.append([title, seeds, alone, *(_at(same, which, draws, "divergence") for draws in DRAWS)])
    return table(["generator", "seeds", "1 draw", *(f"{draws} draws" for draws in DRAWS)], rows)


def differences_table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the table of how much farther a generator is than maximum likelihood of its seed, at equal draws."""
    starts = {run["seed"]: run for run in runs if run["trained"] == "likelihood"}
    columns = [(which, draws) for which in ("with_its_own", "with_a_perfect_one") for draws in (2, 4, 8)]
    rows = []
    for title, same in _by_generator([run for run in runs if run["trained"] != "likelihood"]):
        cells = []
        for which, draws in columns:
            pairs = [(at_draws(one[which], draws, "divergence") for one in (run, starts[run["seed"]])) for run in same]
            found = [one - start for one, start in pairs if not math.isnan(one - start)]
            nearer = sum(one < 0 for one in found)
            cells.append(f"{spread(found, counted=False)} ({nearer} of {len(found)})" if found else "-")
        rows.append([title, *cells])
    names = (f"{draws} draws{', perfect' * (which == 'with_a_perfect_one')}" for which, draws in columns)
    return table(["generator", *names], rows)


def metrics_table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the table of what else the sentences are like, alone and at four draws."""
    keys = ("grammatical", "entropy", "real_nll", "mean_length")
    rows = []
    for title, same in _by_generator(runs):
        rows.append([title, "1", *(spread([run["alone"][key] for run in same], 2, False) for key in keys)])
        rows.append(["", "4", *(_at(same, "with_its_own", 4, key, 2) for key in keys)])
    return table(["generator", "draws", "grammatical", "entropy", "NLL of real", "words"], rows)


def calibration_table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the table of what the discriminators know on held-out sentences."""
    rows = []
    for title, same in _by_generator(runs):
        known = [run["calibration"] for run in same]
        rows.append(
            [
                title,
                spread([one["auc"][0] for one in known], counted=False),
                *(spread([one[key] for one in known], counted=False) for key in ("loss", "error", "slope")),
            ]
        )
    return table(["generator", "AUC", "loss", "error", "slope"], rows)


def draw(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw divergence against draws per sentence kept: every seed a dot, alone, and a line, with its discriminator."""
    title = "Trained in several ways: alone (dots), with a discriminator (lines)"
    named: set[str] = set()
    with axes_of_draws(path, title) as axes:
        for run in runs:
            name = run["trained"]
            kept = [one for one in run["with_its_own"] if one["draws"] is not None and one["draws"] <= MOST]
            style: dict[str, Any] = {"color": f"tab:{COLOURS[name]}"}
            axes.plot([1], [run["alone"]["divergence"]], "o", **style)
            axes.plot(
                [one["draws"] for one in kept],
                [one["divergence"] for one in kept],
                linewidth=1,
                label=None if name in named else TITLES[name],
                **style,
            )
            named.add(name)


def _by_generator(runs: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the runs of each generator there is, behind its title."""
    by_name = {name: [run for run in runs if run["trained"] == name] for name in TITLES}
    return [(TITLES[name], same) for name, same in by_name.items() if same]


def _means(runs: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the mean divergences that the page speaks of, as GENERATOR.DRAWS and GENERATOR.DRAWS.perfect."""
    found = {}
    for name in TITLES:
        same = [run for run in runs if run["trained"] == name]
        found[f"{name}.1"] = mean([run["alone"]["divergence"] for run in same], 3)
        for ending, which in {"": "with_its_own", ".perfect": "with_a_perfect_one"}.items():
            for draws in DRAWS:
                found[f"{name}.{draws}{ending}"] = mean(_read(same, which, draws, "divergence"), 3)
    return found


def _read(runs: Sequence[dict[str, Any]], which: str, draws: float, key: str) -> list[float]:
    """Return a metric at so many draws, of the runs whose curves go there."""
    found = [at_draws(run[which], draws, key) for run in runs]
    return [one for one in found if not math.isnan(one)]


def _at(runs: Sequence[dict[str, Any]], which: str, draws: float, key: str, digits: int = 3) -> str:
    """Return its mean and deviation."""
    return spread(_read(runs, which, draws, key), digits, False)
