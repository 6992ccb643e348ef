"""Draws the pictures of the concept pages into docs/_static, from formulas and from committed results.

    python -m benchmarks.pictures

Nothing is trained. `benchmarks.curves`, `benchmarks.guided_language` and both frontiers draw their own.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from hf_mgan.objectives import REWARDS

from ..curves.drawing import STYLE, save
from ..real_text.tables import CURVE, best_of_curve
from ..sweep import PAGES, RESULTS, read_lines


PICTURES = PAGES / "_static"
REAL, OURS, OTHER = "#7a7a7a", "tab:orange", "tab:blue"


def objectives(axes: tuple[Any, Any]) -> None:
    """The reward as a function of the logit, and its slope: where a better text is worth more."""
    rewards, slopes = axes
    logits = torch.linspace(-5, 5, 81, requires_grad=True)
    for name, shape in REWARDS.items():
        values = shape(logits)
        (slope,) = torch.autograd.grad(values.sum(), logits)
        style = {"linewidth": 2.5 if name == "minimax" else 1.2, "label": name}
        rewards.plot(logits.tolist(), values.tolist(), **style)
        slopes.plot(logits.tolist(), slope.tolist(), **style)
    rewards.set(title="reward", ylim=(-5.2, 5.2))
    slopes.set(title="its slope: what a better text earns", ylim=(-0.05, 1.1))
    for one in axes:
        one.set_xlabel("logit: clearly generated … clearly real")
        one.axvline(0, color=REAL, linewidth=0.6)
    rewards.legend(fontsize=8, frameon=False)


def safety(axes: tuple[Any, Any]) -> None:
    """The unsafe rate by the true rule, and the price in divergence, of each place for the classifier."""
    seeds = read_lines(RESULTS / "safety.jsonl")
    names = {
        "discriminator": "discriminator alone",
        "filtered": "real texts filtered",
        "gate_2": "gate",
        "gate_2_filtered": "gate, real texts filtered",
    }
    bars = list(names.values())[::-1]
    for one, (key, title) in zip(
        axes,
        (
            ("unsafe_rate", "unsafe, by the true rule"),
            ("divergence_to_the_safe_language", "JS to the safe language, bits"),
        ),
        strict=True,
    ):
        values = [fmean(seed["runs"][name][key] for seed in seeds) for name in names][::-1]
        one.barh(bars, values, color=[OURS if "gate" in bar else OTHER for bar in bars], height=0.6)
        for place, value in enumerate(values):
            one.text(value, place, f" {value:.3f}", va="center", fontsize=8)
        one.set(title=title, xlim=(0, 1.2 * max(values)))
    axes[1].set_yticks([])


def evaluation(axes: tuple[Any, Any]) -> None:
    """A model is a curve over temperatures: the two-sample test against diversity, before and after SFT."""
    rows = read_lines(RESULTS / "evaluation.jsonl")
    for one, (key, title) in zip(
        axes, (("c2st_auc", "C2ST AUC, 0.5 is best"), ("frechet", "Fréchet distance, 0 is best")), strict=True
    ):
        for model, colour in (("before", OTHER), ("after", OURS)):
            points = sorted(
                (row["temperature"], row["metrics"]["self_bleu"][0], row["metrics"][key][0])
                for row in rows
                if row["model"] == model
            )
            one.plot([x for _, x, _ in points], [y for _, _, y in points], "o-", color=colour, label=model)
            for temperature, x, y in points:
                one.annotate(f"{temperature:g}", (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
        (real,) = (row["metrics"] for row in rows if row["model"] == "real text")
        one.plot([real["self_bleu"][0]], [real[key][0]], "*", color=REAL, markersize=11, label="real text")
        one.axvline(real["self_bleu"][0], color=REAL, linewidth=0.8, linestyle=":")
        one.set(title=title, xlabel="self-BLEU: diverse … repetitive")
    axes[1].legend(fontsize=8, frameon=False)


def real_text(axes: tuple[Any, Any]) -> None:
    """The C2ST with an encoder of every model at its best temperature, on both corpora."""
    runs = [run for run in read_lines(RESULTS / "real_text.jsonl") if run.get("trained") != CURVE]
    models = {"supervised": OTHER, "longer": "#8db6dd", "frozen": REAL, "adversarial": OURS}
    for one, corpus in zip(axes, ("wordnet_examples", "austen_sentences"), strict=True):
        names = sorted({run["generator"] for run in runs if run["corpus"] == corpus})
        for place, name in enumerate(names):
            same = [run for run in runs if run["corpus"] == corpus and run["generator"] == name]
            for offset, (model, colour) in enumerate(models.items()):
                best = [
                    min(
                        metrics["encoder_c2st_auc"][0]
                        for key, metrics in run["metrics"].items()
                        if key.startswith(f"{model}_T")
                    )
                    for run in same
                    if model in run["models"]
                ]
                if best:  # small generators had no longer supervised training
                    one.bar(place + 0.2 * (offset - 1.5), fmean(best), width=0.18, color=colour)
        shown = [
            name.replace("-Instruct", "").replace("_rate_", ",\n").replace("_anchor_", ", anchor ") for name in names
        ]
        one.set_xticks(range(len(names)), shown, fontsize=7)
        one.set(title=corpus, ylim=(0.5, 1), ylabel="C2ST AUC with encoder" if corpus.startswith("w") else None)
    for model, colour in models.items():
        axes[0].bar(0, 0, color=colour, label=model)
    axes[0].legend(fontsize=8, frameon=False, loc="upper left")


def texts_seen(axes: tuple[Any, Any]) -> None:
    """The C2ST with an encoder and MAUVE over the texts that adversarial training has generated."""
    curves = [run for run in read_lines(RESULTS / "real_text.jsonl") if run.get("trained") == CURVE]
    titles = {"encoder_c2st_auc": "C2ST AUC with encoder", "mauve": "MAUVE"}
    for one, (name, title) in zip(axes, titles.items(), strict=True):
        for run in curves:
            best = {texts: metrics[name][0] for texts, metrics in best_of_curve(run).items()}
            halves = [(high - low) / 2 for _, low, high in best.values()]
            label = f"{run['corpus']}, seed {run['seed']}"
            one.errorbar(
                list(best), [value for value, _, _ in best.values()], halves, fmt="o-", capsize=3, label=label
            )
            one.axhline(run["real"][name][0], color=REAL, linestyle="--", linewidth=0.8)
        one.set(title=title, xlabel="texts generated in adversarial training")
    axes[0].legend(fontsize=8, frameon=False)


DRAWN: dict[str, Callable[[tuple[Any, Any]], None]] = {
    "objectives": objectives,
    "safety": safety,
    "evaluation": evaluation,
    "real_text": real_text,
    "texts_seen": texts_seen,
}


def draw(name: str, path: Path) -> None:
    """Draw a picture of two panels; equal files for equal results, with neither a date nor random ids."""
    with rc_context({**STYLE, "svg.hashsalt": name}):
        drawing = Figure(figsize=(8.4, 3), layout="constrained")
        DRAWN[name](tuple(drawing.subplots(1, 2)))
        save(path, drawing)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pictures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=PICTURES)
    arguments = parser.parse_args(words)
    for name in DRAWN:
        draw(name, arguments.output / f"{name}.svg")


if __name__ == "__main__":
    main()
