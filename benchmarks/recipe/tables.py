"""The tables of `benchmarks.recipe`, from the results of its jobs: plain values in, Markdown out.

Runs of the same seed begin with the same models and are measured on the same sentences.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from ..sweep import RESULTS, read_lines
from ..sweep.tables import (
    NOT_RUN,
    Difference,
    by_condition,
    difference_cells,
    failures,
    mean,
    processor_hours,
    spread,
    table,
    version_list,
)
from .conditions import CONDITIONS, DEFAULT, LOSS_NAMES, REMOVED, REWARD_NAMES, WARMUPS, matrix_cell


TEMPLATE = Path(__file__).with_name("page.md.in")
COMMITTED_WARMUPS = RESULTS / "warmup.jsonl"  # runs of one machine, whose initial models are others
COMMITTED_UPDATES = RESULTS / "updates_per_batch.jsonl"  # the same, of another machine
WARMUP_CELLS = {"grammatical": 3, "entropy": 2, "real_nll": 2}
INITIAL_MODELS = "initial_models"  # name of the jobs that make the models which the runs of a seed begin with

Result = dict[str, Any]
# By condition and seed, without failures.
Results = dict[str, dict[int, Result]]


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
    return Difference.of(differences)


def gap_closed(results: Results, name: str) -> float | None:
    """Return (ML - JS) / (ML - JS of the perfect discriminator), all means over the seeds of all three.

    ML is the divergence of maximum likelihood at its best temperature.
    """
    ours, perfect, likelihood = (results.get(one, {}) for one in (name, "perfect", INITIAL_MODELS))
    seeds = ours.keys() & perfect.keys() & likelihood.keys()
    if not seeds:
        return None
    start = fmean(best_likelihood(likelihood[seed])["divergence"] for seed in seeds)
    reached, best = (fmean(divergence(one[seed]) for seed in seeds) for one in (ours, perfect))
    return (start - reached) / (start - best)


def marked(results: Results, name: str) -> str:
    """Return the divergence of a condition with its verdict against the default."""
    runs = results.get(name)
    if not runs:
        return NOT_RUN
    difference = None if name == DEFAULT else paired(runs, results.get(DEFAULT, {}))
    verdict = difference.verdict if difference else ""
    return spread(map(divergence, runs.values())) + (f" {verdict}" if verdict else "")


def objectives_table(results: Results) -> str:
    """Return the divergence of every loss with every reward."""
    head = ["loss \\ reward", *(f"`{reward}`" for reward in REWARD_NAMES)]
    rows = [
        [f"`{loss}`", *(marked(results, matrix_cell(loss, reward)) for reward in REWARD_NAMES)] for loss in LOSS_NAMES
    ]
    return table(head, rows) + "\n\n" + likelihood_lines(results)


def likelihood_lines(results: Results) -> str:
    models = results.get(INITIAL_MODELS, {}).values()
    at_1 = spread(likelihood_at_1(one)["divergence"] for one in models)
    best = spread(best_likelihood(one)["divergence"] for one in models)
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
    models = list(results.get(INITIAL_MODELS, {}).values())
    likelihood: dict[str, Callable[[Result], Result]] = {
        "maximum likelihood, temperature 1": likelihood_at_1,
        "maximum likelihood, best temperature": best_likelihood,
    }
    for text, choose in likelihood.items():
        qualities = [choose(one) for one in models]
        share = "0" if choose is best_likelihood else ""
        rows.append([text, spread(one["divergence"] for one in qualities), share, *generator_cells(qualities)])
    for condition in CONDITIONS.values():
        if condition.group == "headroom":
            runs = results.get(condition.name, {})
            closed = gap_closed(results, condition.name)
            rows.append(
                [
                    condition.text,
                    marked(results, condition.name),
                    "-" if closed is None else f"{closed:.2f}",
                    *generator_cells(run["generator"] for run in runs.values()),
                ]
            )
    return table(head, rows)


def discriminator_table(results: Results) -> str:
    """Return how near the discriminators of the headroom are to the perfect one, before and after training."""
    head = ["condition", "when", "accuracy", "AUC", "V", "correlation", "of generated", "calibration", "overfit"]
    rows = []
    for condition in CONDITIONS.values():
        runs = results.get(condition.name, {}).values()
        if condition.group != "headroom" or not runs:
            continue
        for when, text in {"after_warmup": "after the warm-up", "after_training": "after training"}.items():
            ones = [run["discriminator"][when] for run in runs]
            pairs = [
                f"{mean(one[key] for one in ones)} of {mean(one[f'best_{key}'] for one in ones)}"
                for key in ("accuracy", "auc", "value")
            ]
            keys = ("spearman", "spearman_generated", "calibration_error", "overfit")
            rows.append([condition.text, text, *pairs, *(mean(one.get(key) for one in ones) for key in keys)])
    return table(head, rows)


def ablations_table(results: Results) -> str:
    """Return one line per condition, against the default."""
    head = ["change", "divergence", "difference", "", "entropy", "real NLL", "length ratio", "D after training"]
    rows = []
    for condition in CONDITIONS.values():
        runs = results.get(condition.name, {})
        if condition.group != "ablations" and condition.name != DEFAULT:
            continue
        if not runs:
            rows.append([condition.text, NOT_RUN, *[""] * (len(head) - 2)])
            continue
        difference = None if condition.name == DEFAULT else paired(runs, results.get(DEFAULT, {}))
        of_generator = [run["generator"] for run in runs.values()]
        rows.append(
            [
                condition.text,
                spread(map(divergence, runs.values())),
                *difference_cells(difference),
                mean(one["entropy"] for one in of_generator),
                mean(one["real_nll"] for one in of_generator),
                mean((one["length_ratio"] for one in of_generator), 3),
                mean(run["discriminator"]["after_training"]["spearman"] for run in runs.values()),
            ]
        )
    return table(head, rows)


def warmup_table(results: list[Result]) -> str:
    """Return one line per length of the warm-up, of runs that all began with the same models."""
    runs = by_condition(results)
    if not any(f"warmup_{steps}" in runs for steps in WARMUPS):
        runs = by_condition(read_lines(COMMITTED_WARMUPS))
    rows = []
    for name in ("warmup_0", *(f"warmup_{steps}" for steps in WARMUPS), DEFAULT):
        qualities = [run["generator"] for run in runs.get(name, {}).values()]
        steps = name.removeprefix("warmup_").replace(DEFAULT, "200 (the demo's)")
        cells = [mean((one[key] for one in qualities), digits) for key, digits in WARMUP_CELLS.items()]
        rows.append([steps, spread(map(divergence, runs.get(name, {}).values())), *cells])
    return table(["updates", "divergence", "grammatical", "entropy", "real NLL"], rows)


def updates_per_batch_table() -> str:
    """Return one line per number of updates on each batch, of runs of one machine."""
    runs, rows = by_condition(read_lines(COMMITTED_UPDATES)), []
    for name, updates in ((DEFAULT, 1), ("steps_4", 4)):
        difference = None if name == DEFAULT else paired(runs[name], runs[DEFAULT])
        seconds = [mean((run["seconds"][part] for run in runs[name].values()), 0) for part in ("warm-up", "training")]
        reached = spread(map(divergence, runs[name].values()))
        rows.append([str(updates), reached, *difference_cells(difference), str(200 // updates), *seconds])
    head = ["updates on a batch", "divergence", "difference", "", "batches of warm-up", "its seconds", "of training"]
    return table(head, rows)


def removed_table(results: Results) -> str:
    """Return one line per condition that cannot be run any more, against the default."""
    rows = []
    for name, text in REMOVED.items():
        runs = results.get(name, {})
        if runs:
            cells = difference_cells(paired(runs, results.get(DEFAULT, {})))
            rows.append([text, spread(map(divergence, runs.values())), *cells])
    return table(["setting", "divergence", "difference", ""], rows)


def notes(results: list[Result]) -> str:
    """Return what a reader has to know of these results: failures, and runs whose initial models are not the same."""
    lines = failures(results)
    for seed in sorted({one["seed"] for one in results}):
        made = {one["initial_models"] for one in results if one["seed"] == seed and "initial_models" in one}
        if len(made) > 1:
            lines.append(f"- The runs of seed {seed} began with {len(made)} different sets of initial models.")
    return "\n".join(lines) or "Every job ended well, and all runs of a seed began with the same models."


def fields_of(results: list[Result]) -> dict[str, str]:
    """Return what stands in the template's fields."""
    sorted_results = by_condition(results)
    return {
        "objectives": objectives_table(sorted_results),
        "headroom": headroom_table(sorted_results),
        "discriminators": discriminator_table(sorted_results),
        "ablations": ablations_table(sorted_results),
        "warmup": warmup_table(results),
        "updates_per_batch": updates_per_batch_table(),
        "removed": removed_table(sorted_results),
        "notes": notes(results),
        "versions": version_list(results),
        "seeds": ", ".join(map(str, sorted({one["seed"] for one in results}))),
        "runs": str(sum(len(runs) for name, runs in sorted_results.items() if name != INITIAL_MODELS)),
        "hours": processor_hours(results),
    }


def tables(results: list[Result]) -> str:
    """Return all tables."""
    parts = fields_of(results)
    names = ("headroom", "objectives", "ablations", "discriminators", "notes")
    return "".join(f"## {name.capitalize()}\n\n{parts[name]}\n\n" for name in names)


def page(results: list[Result]) -> str:
    """Return the page of the documentation."""
    return TEMPLATE.read_text().format(**fields_of(results))
