"""The page of `benchmarks.real_text`, from the reports of all its runs: plain values in, Markdown out."""

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

from ..sources import short_name
from ..sweep import rounded
from ..sweep.tables import table


TEMPLATE = Path(__file__).with_name("page.md.in")
CURVE_TEMPLATE = TEMPLATE.with_name("curve.md.in")
TESTS = ("fine_tuned_c2st_auc", "encoder_c2st_auc", "c2st_auc")  # from the strongest to the weakest
BASELINES = ("supervised", "longer")
ADVERSARIAL = ("frozen", "adversarial")
TITLES = {
    "fine_tuned_c2st_auc": "C2ST AUC, fine-tuned",
    "c2st_auc": "C2ST AUC",
    "encoder_c2st_auc": "C2ST AUC, with encoder",
    "mauve": "MAUVE",
    "frechet": "Frechet",
    "reverse_perplexity": "reverse perplexity",
    "self_bleu": "self-BLEU",
    "distinct_4": "distinct-4",
    "real_nll": "NLL of real",
    "entropy": "entropy",
    "length_ratio": "length",
}
CURVE = "curve"
CURVE_BESIDE = ("real_nll", "entropy", "self_bleu", "length_ratio")
CURVE_METRICS = ("encoder_c2st_auc", "c2st_auc", "mauve", "frechet")
STAGE_KEYS = ("steps", "steps_asked", "batch_size", "settings", "alarms", "device")


def gather(output: Path) -> list[dict[str, Any]]:
    """Return one entry per run that has a report, and per curve: its metrics and what it was made with."""
    runs = [_curve(path) for path in sorted(output.glob(f"*/*/seed_*/{CURVE}.json"))]
    for path in sorted(output.glob("*/*/seed_*/evaluation/report.json")):
        folder = path.parents[1]
        report = json.loads(path.read_text())
        stages = {stage.stem: json.loads(stage.read_text()) for stage in sorted(folder.glob("*.json"))}
        encoder = report["settings"]["encoder"]
        runs.append(
            {
                "corpus": folder.parents[1].name,
                "generator": folder.parent.name,
                "seed": int(folder.name.removeprefix("seed_")),
                "models": report["models"],
                "temperatures": report["temperatures"],
                "level": report["level"],
                "texts": report["settings"]["samples_each"],
                "encoder": None if encoder is None else short_name(encoder),
                "metrics": rounded({name: part["metrics"] for name, part in report["parts"].items()}),
                "stages": {
                    name: {key: stage[key] for key in STAGE_KEYS if key in stage}
                    for name, stage in stages.items()
                    if name != "evaluation"
                },
                "versions": report["versions"],
            }
        )
    return runs


def _curve(path: Path) -> dict[str, Any]:
    """Return the entry of a curve of the metrics over the texts that adversarial training has seen."""
    made = json.loads(path.read_text())
    seed, generator, corpus = (folder.name for folder in path.parents[:3])
    about = {"corpus": corpus, "generator": generator, "seed": int(seed.removeprefix("seed_")), "trained": CURVE}
    kept = ("batch_size", "settings", "texts_each", "rows", "real", "versions", "device", "seconds")
    return {**about, **rounded({name: made[name] for name in kept})}


def best_of_curve(run: dict[str, Any]) -> dict[int, dict[str, tuple[list[float], float]]]:
    """Return each metric of quality and the temperature that is best for it, by the number of texts seen."""
    found: dict[int, dict[str, tuple[list[float], float]]] = {}
    for texts in dict.fromkeys(row["texts"] for row in run["rows"]):
        same = [row for row in run["rows"] if row["texts"] == texts]
        found[texts] = {}
        for name in CURVE_METRICS:
            pairs = [(row["metrics"][name], row["temperature"]) for row in same if name in row["metrics"]]
            if pairs:
                best = max if METRICS[name].better == "higher" else min
                found[texts][name] = best(pairs, key=lambda pair: pair[0][0])
    return found


def curve_table(run: dict[str, Any]) -> str:
    """Return the metrics after so many generated texts, each at the temperature that is best for it."""
    best = best_of_curve(run)
    shown = [name for name in CURVE_METRICS if all(name in of_texts for of_texts in best.values())]
    rows = []
    for texts, of_texts in best.items():
        cells = [
            f"{value:.3g} ± {(high - low) / 2:.2g} (T = {temperature:g})"
            for (value, low, high), temperature in (of_texts[name] for name in shown)
        ]
        hottest = [row["metrics"] for row in run["rows"] if row["texts"] == texts][-1]
        rows.append([f"{texts:,}", *cells, *(f"{hottest[name][0]:.3g}" for name in CURVE_BESIDE)])
    hottest_at = max(row["temperature"] for row in run["rows"])
    beside = [f"{TITLES[name]}, T = {hottest_at:g}" for name in CURVE_BESIDE]
    return table(["texts", *(TITLES[name] for name in shown), *beside], rows)


def verdict(run: dict[str, Any], model: str, baseline: str, quality: str) -> Verdict | None:
    """Compare two models of a run at matched diversity; None where the run lacks one, or the metric."""
    if model not in run["models"] or baseline not in run["models"]:
        return None
    curves = []
    for name in (model, baseline):
        points = []
        for temperature in run["temperatures"]:
            metrics = run["metrics"][part_name(name, temperature)]
            if quality in metrics and DIVERSITY in metrics:
                points.append(Point(temperature, Interval(*metrics[quality]), Interval(*metrics[DIVERSITY])))
        curves.append(points)
    better = METRICS[quality].better
    if not curves[0] or len(curves[1]) < 2 or better == "real":
        return None
    return compare_at_matched_diversity(curves[0], curves[1], better, run["level"])


def verdict_table(runs: list[dict[str, Any]]) -> str:
    """Return what the seeds' verdicts say, each and together, a row per model, baseline and metric of quality."""
    rows = []
    for model in ADVERSARIAL:
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
                rows.append([model, baseline, TITLES[quality], words, of_all, gain])
    head = ["model", "against", "by", "verdict of each seed", "of all together", "gain at T = 1"]
    return table(head, rows)


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
    """Return each model at the temperature with the least AUC of a two-sample test, chosen for each seed."""
    quality = deciding(runs)
    shown = [*QUALITY, "reverse_perplexity", DIVERSITY, "distinct_4", "real_nll", "length_ratio"]
    shown = [name for name in shown if all(name in run["metrics"][REAL] or name == "real_nll" for run in runs)]
    rows = []
    for model in (*BASELINES, *ADVERSARIAL):
        chosen = []
        for run in runs:
            if model not in run["models"]:
                continue
            having = [t for t in run["temperatures"] if quality in run["metrics"][part_name(model, t)]]
            if having:
                best = min(having, key=lambda t, run=run: run["metrics"][part_name(model, t)][quality][0])
                chosen.append((best, run["metrics"][part_name(model, best)]))
        if not chosen:
            continue
        cells = []
        for name in shown:
            values = [metrics[name][0] for _, metrics in chosen if name in metrics]
            cells.append(_mean(values) if values else "")
        temperatures = ", ".join(f"{best:g}" for best, _ in chosen)
        rows.append([model, temperatures, *cells])
    return table(["model", "T of each seed", *(TITLES[name] for name in shown)], rows)


def deciding(runs: list[dict[str, Any]]) -> str:
    """Return the test by which temperatures are chosen: the strongest that all runs have."""
    return next(test for test in TESTS if all(test in run["metrics"][REAL] for run in runs))


def section(runs: list[dict[str, Any]]) -> str:
    """Return the section of the runs of one corpus and generator."""
    first = runs[0]
    facts = [
        ["seeds", ", ".join(str(run["seed"]) for run in runs)],
        ["texts per row", str(first["texts"])],
        ["encoder", ", ".join(sorted({run["encoder"] or "none" for run in runs}))],
        ["trained on", ", ".join(sorted({run["stages"]["supervised"]["device"] for run in runs}))],
    ]
    for model in ADVERSARIAL:
        own = [run["stages"][model] for run in runs if model in run["stages"]]
        if own:
            alarms = sorted({name for stage in own for name in stage["alarms"]})
            facts.append([f"steps of {model}", ", ".join(map(_steps, own))])
            facts.append([f"alarms of {model}", ", ".join(alarms) or "none"])
    name, _, settings = first["generator"].partition("_rate_")
    rate, _, anchor = settings.partition("_anchor_")
    return (
        f"## {first['corpus']}, {name}, learning rate {rate}, anchor {anchor}\n\n"
        f"{table(['', ''], facts)}\n\n{verdict_table(runs)}\n\n"
        f"Each model at its best temperature by {TITLES[deciding(runs)]}, chosen on the same texts, which flatters "
        f"every model alike:\n\n{best_table(runs)}\n"
    )


def page(runs: list[dict[str, Any]]) -> str:
    """Return the page: a section per corpus and generator."""
    curves = [run for run in runs if run.get("trained") == CURVE]
    runs = [run for run in runs if run not in curves]
    keys = sorted({(run["corpus"], run["generator"]) for run in runs})
    sections = [section([run for run in runs if (run["corpus"], run["generator"]) == key]) for key in keys]
    said = "\n\n".join(f"{run['corpus']}, seed {run['seed']}:\n\n{curve_table(run)}" for run in curves)
    curve = CURVE_TEMPLATE.read_text().replace("{curves}", said) + "\n" if curves else ""
    return TEMPLATE.read_text().replace("{curve}", curve) + "\n" + "\n".join(sections)


def _steps(stage: dict[str, Any]) -> str:
    """Return the number of steps, and of how many if the run was stopped."""
    asked = stage.get("steps_asked", stage["steps"])
    return str(stage["steps"]) if stage["steps"] == asked else f"{stage['steps']} of {asked}"


def _mean(values: list[float], form: str | None = None) -> str:
    mean = statistics.fmean(values)
    form = form or (".3f" if abs(mean) < 10 else ".1f")
    spread = f" ± {statistics.stdev(values):{form.lstrip('+')}}" if len(values) > 1 else ""
    return f"{mean:{form}}{spread}"
