"""The tables of `benchmarks.recipe`, from the results of its jobs: plain values in, markdown out.

Every figure is a mean over seeds. A difference is one between games of the same seed, so of the same players and
measured on the same sentences, and its standard error is that of the mean of these differences.
"""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from .recipe_conditions import CONDITIONS, DEFAULT, LOSS_NAMES, REWARD_NAMES, matrix_cell


TEMPLATE = Path(__file__).parent / "recipe.md.in"
NOT_RUN = "not run"
PLAYERS = "players"
# Two-sided 5 % points of Student's t with 1, 2, ... degrees of freedom; the last serves for more.
T_POINTS = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
BETTER, WORSE = "✓", "✗"

Result = dict[str, Any]
# By condition and seed, without failures.
Results = dict[str, dict[int, Result]]


class Difference(NamedTuple):
    """A mean of differences between games of the same seed, and its standard error (nan for one seed)."""

    mean: float
    standard_error: float
    seeds: int

    @property
    def verdict(self) -> str:
        """Return a mark if the difference is beyond chance at 5 %; less divergence is better."""
        if self.seeds < 2:
            return ""
        point = T_POINTS[min(self.seeds - 1, len(T_POINTS)) - 1]
        if abs(self.mean) <= point * self.standard_error:
            return ""
        return BETTER if self.mean < 0 else WORSE


def by_condition(results: Iterable[Result]) -> Results:
    """Return the results that are no failures by condition and seed."""
    sorted_results: Results = {}
    for result in results:
        if "error" not in result:
            sorted_results.setdefault(result["condition"], {})[result["seed"]] = result
    return sorted_results


def divergence(result: Result) -> float:
    return result["generator"]["divergence"]


def best_likelihood(result: Result) -> Result:
    return result["likelihood"][0]


def likelihood_at_1(result: Result) -> Result:
    return next(one for one in result["likelihood"] if one["temperature"] == 1)


def paired(ours: dict[int, Result], theirs: dict[int, Result]) -> Difference | None:
    """Return how much greater the divergence of `ours` is than that of `theirs`, over the seeds of both."""
    differences = [divergence(ours[seed]) - divergence(theirs[seed]) for seed in sorted(ours) if seed in theirs]
    if not differences:
        return None
    error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
    return Difference(fmean(differences), error, len(differences))


def gap_closed(results: Results, name: str) -> float | None:
    """Return (ML - JS) / (ML - JS of the perfect discriminator), all means over the seeds of all three.

    ML is the divergence of maximum likelihood at its best temperature.
    """
    ours, perfect, likelihood = (results.get(one, {}) for one in (name, "perfect", PLAYERS))
    seeds = ours.keys() & perfect.keys() & likelihood.keys()
    if not seeds:
        return None
    start = fmean(best_likelihood(likelihood[seed])["divergence"] for seed in seeds)
    reached, best = (fmean(divergence(one[seed]) for seed in seeds) for one in (ours, perfect))
    return (start - reached) / (start - best)


def spread(values: Iterable[float | None], digits: int = 3) -> str:
    """Return mean and standard deviation of the values that there are, and their number."""
    present = [value for value in values if value is not None]
    if not present:
        return "-"
    deviation = f" ± {stdev(present):.{digits}f}" if len(present) > 1 else ""
    return f"{fmean(present):.{digits}f}{deviation} ({len(present)})"


def mean(values: Iterable[float | None], digits: int = 2) -> str:
    """Return the mean of the values that there are."""
    present = [value for value in values if value is not None]
    return f"{fmean(present):.{digits}f}" if present else "-"


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def marked(results: Results, name: str) -> str:
    """Return the divergence of a condition with its verdict against the default."""
    games = results.get(name)
    if not games:
        return NOT_RUN
    difference = None if name == DEFAULT else paired(games, results.get(DEFAULT, {}))
    verdict = difference.verdict if difference else ""
    return spread(map(divergence, games.values())) + (f" {verdict}" if verdict else "")


def objectives_table(results: Results) -> str:
    """Return the divergence of every loss with every reward."""
    head = ["loss \\ reward", *(f"`{reward}`" for reward in REWARD_NAMES)]
    rows = [
        [f"`{loss}`", *(marked(results, matrix_cell(loss, reward)) for reward in REWARD_NAMES)] for loss in LOSS_NAMES
    ]
    return table(head, rows) + "\n\n" + likelihood_lines(results)


def likelihood_lines(results: Results) -> str:
    players = results.get(PLAYERS, {}).values()
    at_1 = spread(likelihood_at_1(one)["divergence"] for one in players)
    best = spread(best_likelihood(one)["divergence"] for one in players)
    return f"Maximum likelihood: {at_1} at temperature 1, {best} at its best temperature."


GENERATOR_COLUMNS: dict[str, tuple[str, int]] = {
    "grammatical": ("grammatical", 3),
    "entropy": ("entropy", 2),
    "real NLL": ("real_nll", 2),
    "length ratio": ("length_ratio", 3),
    "distinct-4": ("distinct_4", 3),
}


def generator_cells(qualities: Iterable[Result]) -> list[str]:
    qualities = list(qualities)
    return [mean((one[key] for one in qualities), digits) for key, digits in GENERATOR_COLUMNS.values()]


def headroom_table(results: Results) -> str:
    """Return maximum likelihood, the default and the perfect discriminators, with the share of the gap closed."""
    head = ["generator", "divergence", "share of the gap closed", *GENERATOR_COLUMNS]
    rows = []
    players = list(results.get(PLAYERS, {}).values())
    likelihood: dict[str, Callable[[Result], Result]] = {
        "maximum likelihood, temperature 1": likelihood_at_1,
        "maximum likelihood, best temperature": best_likelihood,
    }
    for text, choose in likelihood.items():
        qualities = [choose(one) for one in players]
        share = "0" if choose is best_likelihood else ""
        rows.append([text, spread(one["divergence"] for one in qualities), share, *generator_cells(qualities)])
    for condition in CONDITIONS.values():
        if condition.group == "headroom":
            games = results.get(condition.name, {})
            closed = gap_closed(results, condition.name)
            rows.append(
                [
                    condition.text,
                    marked(results, condition.name),
                    "-" if closed is None else f"{closed:.2f}",
                    *generator_cells(game["generator"] for game in games.values()),
                ]
            )
    return table(head, rows)


def discriminator_table(results: Results) -> str:
    """Return how near the discriminators are to the perfect one after the game; for the headroom before it, too."""
    head = ["condition", "when", "accuracy", "AUC", "V", "correlation", "of generated", "calibration", "overfit"]
    rows = []
    for condition in CONDITIONS.values():
        games = results.get(condition.name, {}).values()
        moments = {"after_warmup": "warm-up"} if condition.group == "headroom" else {}
        for when, text in {**moments, "after_game": "game"}.items():
            if not games:
                continue
            ones = [game["discriminator"][when] for game in games]
            pairs = [
                f"{mean(one[key] for one in ones)} of {mean(one[f'best_{key}'] for one in ones)}"
                for key in ("accuracy", "auc", "value")
            ]
            keys = ("spearman", "spearman_generated", "calibration_error", "overfit")
            rows.append([condition.text, text, *pairs, *(mean(one.get(key) for one in ones) for key in keys)])
    return table(head, rows)


def ablations_table(results: Results) -> str:
    """Return one line a condition, against the default."""
    head = ["change", "divergence", "difference", "", "entropy", "real NLL", "length ratio", "D after the game"]
    rows = []
    for condition in CONDITIONS.values():
        games = results.get(condition.name, {})
        if condition.group != "ablations" and condition.name != DEFAULT:
            continue
        if not games:
            rows.append([condition.text, NOT_RUN, *[""] * (len(head) - 2)])
            continue
        difference = None if condition.name == DEFAULT else paired(games, results.get(DEFAULT, {}))
        of_generator = [game["generator"] for game in games.values()]
        rows.append(
            [
                condition.text,
                spread(map(divergence, games.values())),
                *difference_cells(difference),
                mean(one["entropy"] for one in of_generator),
                mean(one["real_nll"] for one in of_generator),
                mean((one["length_ratio"] for one in of_generator), 3),
                mean(game["discriminator"]["after_game"]["spearman"] for game in games.values()),
            ]
        )
    return table(head, rows)


def difference_cells(difference: Difference | None) -> list[str]:
    if difference is None:
        return ["", ""]
    error = "" if math.isnan(difference.standard_error) else f" ± {difference.standard_error:.4f}"
    return [f"{difference.mean:+.4f}{error}", difference.verdict]


def notes(results: list[Result]) -> str:
    """Return what a reader has to know of these results: failures, and games whose players are not the same."""
    lines = [
        f"- {one['condition']}, seed {one['seed']}, failed: `{one['error'].strip().splitlines()[-1]}`"
        for one in results
        if "error" in one
    ]
    for seed in sorted({one["seed"] for one in results}):
        made = {one["players"] for one in results if one["seed"] == seed and "players" in one}
        if len(made) > 1:
            lines.append(f"- The games of seed {seed} began with {len(made)} different sets of players.")
    return "\n".join(lines) or "Every job ended well, and all games of a seed began with the same players."


def processor_seconds(result: Result) -> float:
    """Return the processor's seconds that a job took: the parts of players, or of a game the sum that it states."""
    seconds = result.get("seconds", {})
    return seconds.get("all", sum(seconds.values()))


def fields_of(results: list[Result]) -> dict[str, str]:
    """Return what stands in the template's fields."""
    sorted_results = by_condition(results)
    versions = sorted({f"{name} {number}" for one in results for name, number in one.get("versions", {}).items()})
    seeds = sorted({one["seed"] for one in results})
    return {
        "objectives": objectives_table(sorted_results),
        "headroom": headroom_table(sorted_results),
        "discriminators": discriminator_table(sorted_results),
        "ablations": ablations_table(sorted_results),
        "notes": notes(results),
        "versions": ", ".join(versions),
        "seeds": ", ".join(map(str, seeds)),
        "games": str(sum(len(games) for name, games in sorted_results.items() if name != PLAYERS)),
        "hours": f"{sum(map(processor_seconds, results)) / 3600:.1f}",
    }


def tables(results: list[Result]) -> str:
    """Return all tables."""
    parts = fields_of(results)
    names = ("headroom", "objectives", "ablations", "discriminators", "notes")
    return "".join(f"## {name.capitalize()}\n\n{parts[name]}\n\n" for name in names)


def page(results: list[Result]) -> str:
    """Return the page of the documentation."""
    return TEMPLATE.read_text().format(**fields_of(results))
