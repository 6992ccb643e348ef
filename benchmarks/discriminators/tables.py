"""The page of `benchmarks.discriminators`, from the results of all its runs: plain values in."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from hf_mgan.metrics import auc_interval

from ..sweep.tables import areas, table
from .training import CAUSAL, ENCODER


TEMPLATE = Path(__file__).with_name("page.md.in")
FOLDER = "discriminators"
BOTH = "both"


def gather(output: Path) -> list[dict[str, Any]]:
    """Return one entry per corpus, generator and seed: all its discriminators, and pairs that decide together.

    Args:
        output (`Path`): The folder of the runs.
    """
    runs = []
    for folder in sorted(output.glob(f"*/seed_*/supervised/{FOLDER}")):
        made = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        generator, _, corpus = folder.parents[2].name.partition("_")
        seed = int(folder.parents[1].name.removeprefix("seed_"))
        rows = [{key: value for key, value in one.items() if key != "scores"} for one in made]
        runs.append({"corpus": corpus, "generator": generator, "seed": seed, "rows": [*rows, *pairs(made)]})
    return [run for run in runs if run["rows"]]


def pairs(made: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the mean logit of an encoder and a causal model that have learnt from as many texts comes to."""
    usual = [one for one in made if not one["label_smoothing"]]
    encoders = {one["samples"]: one for one in usual if one["kind"] == ENCODER and _is_usual(one, usual)}
    found = []
    for causal in (one for one in usual if one["kind"] == CAUSAL and one["samples"] in encoders):
        encoder = encoders[causal["samples"]]
        scores = [
            (torch.tensor(one) + torch.tensor(other)) / 2
            for one, other in zip(encoder["scores"], causal["scores"], strict=True)
        ]
        shared = {name: causal[name] for name in ("samples", "label_smoothing", "learning_rate")}
        seconds = encoder["cpu_seconds"] + causal["cpu_seconds"]
        found.append({"kind": BOTH, **shared, "auc": list(auc_interval(*scores)), "cpu_seconds": seconds})
    return found


def _is_usual(one: dict[str, Any], made: Sequence[dict[str, Any]]) -> bool:
    """Return whether its learning rate is the one that most have."""
    rates = [other["learning_rate"] for other in made]
    return bool(one["learning_rate"] == max(set(rates), key=rates.count))


def page(runs: Sequence[dict[str, Any]]) -> str:
    """Write the page from the template and the runs."""
    corpora = sorted({run["corpus"] for run in runs})
    tables = "\n\n".join(
        f"### {corpus}\n\n{rows_table([run for run in runs if run['corpus'] == corpus])}" for corpus in corpora
    )
    return TEMPLATE.read_text().replace("{rows}", tables)


def rows_table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the table of all discriminators of a corpus, every seed's areas in one cell."""
    settings = ("kind", "samples", "label_smoothing", "learning_rate")
    grouped: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in (row for run in runs for row in run["rows"]):
        grouped.setdefault(tuple(row[name] for name in settings), []).append(row)
    kinds = (ENCODER, CAUSAL, BOTH)
    lines = [
        [
            kind,
            str(samples),
            f"{smoothing:g}",
            f"{rate:g}",
            areas(rows, "auc"),
            f"{fmean(row['epochs'] for row in rows):.1f}" if kind != BOTH else "",
            f"{fmean(row['cpu_seconds'] for row in rows) / 60:.0f}",
        ]
        for (kind, samples, smoothing, rate), rows in sorted(
            grouped.items(), key=lambda one: (kinds.index(one[0][0]), *one[0][1:])
        )
    ]
    return table(
        ["discriminator", "texts of each side", "label smoothing", "learning rate", "AUC", "epochs", "minutes"], lines
    )
