"""The result and the page of `benchmarks.real_text`, from the reports of all its runs."""

import json
import math
import statistics
from pathlib import Path
from statistics import NormalDist
from typing import Any

from hf_mgan.evaluation import Point, Verdict, compare_at_matched_diversity
from hf_mgan.evaluation.report import DIVERSITY, QUALITY, REAL, part_name
from hf_mgan.evaluation.text_metrics import METRICS
from hf_mgan.metrics import Interval


ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "real_text.json"
PAGE = ROOT / "docs" / "real_text.md"
INTRODUCTION = PAGE.parent.parent / "benchmarks" / "real_text.md.in"
ENCODERS_JUDGE = "encoder_c2st_auc"  # the first runs were measured without it
BASELINES = ("supervised", "longer")
GAMES = ("frozen", "adversarial")


def gather(output: Path) -> list[dict[str, Any]]:
    """Return one entry a run that has a report: its figures, its stages, and nothing of its texts but ten a model."""
    runs = []
    for path in sorted(output.glob("*/*/seed_*/evaluation/report.json")):
        folder = path.parents[1]
        report = json.loads(path.read_text())
        settings = {key: value for key, value in report["settings"].items() if key != "models"}
        if settings["encoder"] is not None:  # by name: the folder is that of one machine
            settings["encoder"] = Path(settings["encoder"]).name
        stages = {stage.stem: json.loads(stage.read_text()) for stage in sorted(folder.glob("*.json"))}
        samples = {}
        for model in report["models"]:
            drawn = folder / "evaluation" / "samples" / f"{part_name(model, 1.0)}.json"
            if drawn.exists():
                samples[model] = json.loads(drawn.read_text())["texts"][:10]
        runs.append(
            {
                "corpus": folder.parents[1].name,
                "generator": folder.parent.name,
                "seed": int(folder.name.removeprefix("seed_")),
                "models": report["models"],
                "temperatures": report["temperatures"],
                "level": report["level"],
                "settings": settings,
                "figures": {name: part["figures"] for name, part in report["parts"].items()},
                "seconds": {name: part["seconds"] for name, part in report["parts"].items()},
                "device": report["device"],
                "stages": stages,
                "samples": samples,
            }
        )
    return runs


def verdict(run: dict[str, Any], model: str, baseline: str, quality: str) -> Verdict | None:
    """Compare two models of a run at matched diversity; None where the run lacks one, or the figure."""
    if model not in run["models"] or baseline not in run["models"]:
        return None
    curves = []
    for name in (model, baseline):
        points = []
        for temperature in run["temperatures"]:
            figures = run["figures"][part_name(name, temperature)]
            if quality in figures and DIVERSITY in figures:
                points.append(Point(temperature, Interval(*figures[quality]), Interval(*figures[DIVERSITY])))
        curves.append(points)
    better = METRICS[quality].better
    if not curves[0] or len(curves[1]) < 2 or better == "real":
        return None
    return compare_at_matched_diversity(curves[0], curves[1], better, run["level"])


def table(runs: list[dict[str, Any]]) -> str:
    """Return the figures of the runs of one corpus and generator as Markdown, as means over the seeds ± deviation."""
    parts = [("real text", None, REAL)]
    models = [model for model in (*BASELINES, *GAMES) if all(model in run["models"] for run in runs)]
    temperatures = sorted(set.intersection(*(set(run["temperatures"]) for run in runs)))
    parts += [(model, t, part_name(model, t)) for model in models for t in temperatures]
    names = [
        name for name in METRICS if all(name in run["figures"][part_name(models[0], temperatures[0])] for run in runs)
    ]
    lines = [
        "| | T | " + " | ".join(METRICS[name].title for name in names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for title, temperature, part in parts:
        cells = []
        for name in names:
            values = [run["figures"][part][name][0] for run in runs if name in run["figures"][part]]
            cells.append(_mean(values) if len(values) == len(runs) else "")
        lines.append(f"| {title} | {'' if temperature is None else f'{temperature:g}'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict_table(runs: list[dict[str, Any]]) -> str:
    """Return what the seeds' verdicts say, each and together, a row a model, baseline and figure of quality."""
    lines = [
        "| model | against | by | verdict of each seed | of all together | gain at T = 1, mean over the seeds |",
        "|---|---|---|---|---|---|",
    ]
    for model in GAMES:
        for baseline in BASELINES:
            for quality in QUALITY:
                found = [one for run in runs if (one := verdict(run, model, baseline, quality)) is not None]
                if not found:
                    continue
                gains = [
                    comparison.gain.value
                    for one in found
                    for comparison in one.comparisons
                    if comparison.temperature == 1.0
                ]
                words = ", ".join(one.word for one in found)
                gain = _mean(gains, "+.3f") if gains else "not comparable"
                of_all = together(found, runs[0]["level"])
                lines.append(f"| {model} | {baseline} | {METRICS[quality].title} | {words} | {of_all} | {gain} |")
    return "\n".join(lines)


def together(verdicts: list[Verdict], level: float) -> str:
    """Return the verdict on the mean gain over the seeds, at each temperature that all of them compare.

    The variance of a gain is that within the seeds, from their intervals, or that between them, whichever is greater:
    with few seeds the second alone may be small by chance. As within a seed, all temperatures hold together at the
    level (Bonferroni).
    """
    gains: dict[float, list[tuple[float, float]]] = {}
    for one in verdicts:
        z = NormalDist().inv_cdf(1 - (1 - level) / 2 / max(len(one.comparisons), 1))
        for comparison in one.comparisons:
            error = (comparison.gain.high - comparison.gain.value) / z
            gains.setdefault(comparison.temperature, []).append((comparison.gain.value, error))
    shared = {temperature: pairs for temperature, pairs in gains.items() if len(pairs) == len(verdicts)}
    signs: dict[str, list[str]] = {"better": [], "worse": []}
    for temperature, pairs in sorted(shared.items()):
        values = [value for value, _ in pairs]
        mean = statistics.fmean(values)
        within = statistics.fmean(error**2 for _, error in pairs)
        between = statistics.variance(values) if len(values) > 1 else 0.0
        z = NormalDist().inv_cdf(1 - (1 - level) / 2 / len(shared))
        if abs(mean) > z * math.sqrt(max(within, between) / len(values)):
            signs["better" if mean > 0 else "worse"].append(f"{temperature:g}")
    decided = [word for word, temperatures in signs.items() if temperatures]
    return f"{decided[0]} at T = {', '.join(signs[decided[0]])}" if len(decided) == 1 else "undecided"


def best_table(runs: list[dict[str, Any]]) -> str:
    """Return each model at the temperature at which a fresh judge finds it least, chosen for each seed."""
    quality = deciding(runs)
    shown = [*QUALITY, "reverse_perplexity", DIVERSITY, "distinct_4", "real_nll", "length_ratio"]
    shown = [name for name in shown if all(name in run["figures"][REAL] or name == "real_nll" for run in runs)]
    lines = ["| model | T of each seed | " + " | ".join(METRICS[name].title for name in shown) + " |"]
    lines.append("|---|---|" + "---|" * len(shown))
    for model in (*BASELINES, *GAMES):
        chosen = []
        for run in runs:
            if model not in run["models"]:
                continue
            having = [t for t in run["temperatures"] if quality in run["figures"][part_name(model, t)]]
            if having:
                best = min(having, key=lambda t, run=run: run["figures"][part_name(model, t)][quality][0])
                chosen.append((best, run["figures"][part_name(model, best)]))
        if not chosen:
            continue
        cells = []
        for name in shown:
            values = [figures[name][0] for _, figures in chosen if name in figures]
            cells.append(_mean(values) if values else "")
        temperatures = ", ".join(f"{best:g}" for best, _ in chosen)
        lines.append(f"| {model} | {temperatures} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def deciding(runs: list[dict[str, Any]]) -> str:
    """Return the judge by which temperatures are chosen: the one that sees the encoder too, if all runs have it."""
    return ENCODERS_JUDGE if all(ENCODERS_JUDGE in run["figures"][REAL] for run in runs) else QUALITY[0]


def page(runs: list[dict[str, Any]]) -> str:
    """Return the page: a section a corpus and generator."""
    sections = []
    for corpus, generator in sorted({(run["corpus"], run["generator"]) for run in runs}):
        own = [run for run in runs if (run["corpus"], run["generator"]) == (corpus, generator)]
        alarms = {
            model: sorted({alarm["name"] for run in own for alarm in run["stages"].get(model, {}).get("alarms", [])})
            for model in GAMES
        }
        said = "; ".join(f"{model}: {', '.join(names) or 'none'}" for model, names in alarms.items())
        played = "; ".join(
            f"{model} {', '.join(_steps(run['stages'][model]) for run in own if model in run['stages'])}"
            for model in GAMES
            if any(model in run["stages"] for run in own)
        )
        seeds = ", ".join(str(run["seed"]) for run in own)
        sections.append(
            f"## {corpus}, generator {generator.split('_')[0]}{_games(own)}, seeds {seeds}\n\n"
            f"{own[0]['settings']['samples_each']} texts a row; ± is the deviation over the seeds. Alarms: {said}; "
            f"steps played: {played}. Encoder: {', '.join(sorted({_encoder(run) for run in own}))}. "
            f"Trained on {', '.join(sorted({run['stages']['supervised']['device'] for run in own}))}.\n\n"
            f"{verdict_table(own)}\n\n### At the best temperature of each model\n\n"
            f"By {METRICS[deciding(own)].title}, chosen on the same texts, which flatters every model alike.\n\n"
            f"{best_table(own)}\n\n### All temperatures\n\n{table(own)}\n"
        )
    return INTRODUCTION.read_text() + "\n" + "\n".join(sections)


def _games(runs: list[dict[str, Any]]) -> str:
    """Return what the games of the runs were played with, which is one for all; nothing if none has a game."""
    settings = {
        (own["learning_rate"], own["real_text_coef"])
        for run in runs
        for game in GAMES
        if game in run["stages"]
        for own in [run["stages"][game]["settings"]]
    }
    return "".join(f", games at learning rate {rate:g} and anchor {anchor:g}" for rate, anchor in settings)


def _steps(game: dict[str, Any]) -> str:
    """Return how many steps a game played, and of how many if it was stopped."""
    asked = game.get("steps_asked", game["steps"])  # the first runs did not note it
    return str(game["steps"]) if game["steps"] == asked else f"{game['steps']} of {asked}"


def _encoder(run: dict[str, Any]) -> str:
    return run["settings"].get("encoder") or "none"


def publish(output: Path) -> None:
    """Write the result and the page.

    Args:
        output (`Path`): Folder of the runs.

    Raises:
        ValueError: If it holds no finished run.
    """
    runs = gather(output)
    if not runs:
        raise ValueError(f"There is no finished run in {output}: run without --publish first.")
    result = {"command": "python -m benchmarks.real_text --output OUT --publish", "runs": runs}
    RESULTS.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(runs))
    print(page(runs))


def _mean(values: list[float], form: str | None = None) -> str:
    mean = statistics.fmean(values)
    form = form or (".3f" if abs(mean) < 10 else ".1f")
    spread = f" ± {statistics.stdev(values):{form.lstrip('+')}}" if len(values) > 1 else ""
    return f"{mean:{form}}{spread}"
