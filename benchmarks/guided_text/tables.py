"""The page of `benchmarks.guided_text`, from the results of all its runs: plain values in, Markdown out."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..sweep.tables import areas, table


TEMPLATE = Path(__file__).with_name("page.md.in")
FILES = ("discriminator", "tests")  # without which a run is not finished
FINE_TUNED = "fine_tuned_tests"
REAL = "real text"


def gather(output: Path) -> list[dict[str, Any]]:
    """Return one entry per run that has its tests, without the texts.

    Args:
        output (`Path`): The folder of the runs.

    Returns:
        `list[dict]`: Corpus, generator and seed, what the discriminator knows, and the rows with their costs.
    """
    runs = []
    for folder in sorted(output.glob("*/seed_*")):
        if not all((folder / f"{name}.json").exists() for name in FILES):
            continue
        generator, _, corpus = folder.parent.name.partition("_")
        stages = {name: json.loads((folder / f"{name}.json").read_text()) for name in FILES}
        rows = stages["tests"]["rows"]
        if (path := folder / f"{FINE_TUNED}.json").exists():
            for name, row in json.loads(path.read_text())["rows"].items():
                rows[name] |= {"fine_tuned_texts": row["texts"], "fine_tuned_c2st_auc": row["fine_tuned_c2st_auc"]}
        runs.append(
            {
                "corpus": corpus,
                "generator": generator,
                "seed": int(folder.name.removeprefix("seed_")),
                "calibration": stages["discriminator"]["calibration"],
                "updates": stages["discriminator"]["updates"],
                "rows": rows,
                "real_words": stages["tests"]["real_words"],
                "sampling": _sampling(json.loads((folder / "samples.json").read_text())),
                "cpu_seconds": {name: stage["cpu_seconds"] for name, stage in stages.items()},
                "versions": stages["tests"]["versions"],
                "machine": stages["tests"]["machine"],
            }
        )
    return runs


def _sampling(samples: dict[str, Any]) -> dict[str, float]:
    """Return what the pool of candidates took: the longest list of samples."""
    pool = max(
        (one for one in samples.values() if isinstance(one, dict) and "texts" in one), key=lambda it: len(it["texts"])
    )
    return {
        "candidates": len(pool["texts"]),
        "tokens": sum(pool["tokens"]),
        "sampling_seconds": pool["sampling_seconds"],
        "discriminator_seconds": pool["discriminator_seconds"],
    }


def page(runs: Sequence[dict[str, Any]]) -> str:
    """Write the page from the template and the runs."""
    text = TEMPLATE.read_text()
    for name, made in {
        "rows": rows_table(runs),
        "discriminators": discriminators_table(runs),
        "seeds": ", ".join(str(run["seed"]) for run in runs),
        "texts": str(runs[0]["rows"][REAL].get("fine_tuned_texts", "")) if runs else "",
        "words": f"{statistics.fmean(run['real_words'] for run in runs):.1f}" if runs else "",
    }.items():
        text = text.replace("{" + name + "}", made)
    return text


def rows_table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the table of all ways to sample, each value the mean over the seeds, with every seed's areas."""
    names = list(runs[0]["rows"]) if runs else []
    rows = []
    for name in names:
        same = [run["rows"][name] for run in runs]
        is_real = name == REAL
        rows.append(
            [
                name,
                areas(same, "fine_tuned_c2st_auc"),
                areas(same, "encoder_c2st_auc"),
                areas(same, "c2st_auc"),
                "" if is_real else f"{statistics.fmean(row['draws'] for row in same):.2f}",
                "" if is_real else f"{statistics.fmean(row['tokens'] for row in same):.1f}",
                f"{statistics.fmean(row['self_bleu'] for row in same):.3f}",
                f"{statistics.fmean(row['words'] for row in same):.1f}",
            ]
        )
    head = ["", "AUC, fine-tuned", "AUC, encoder", "AUC, n-grams", "draws", "tokens", "self-BLEU", "words"]
    return table(head, rows)


def discriminators_table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the table of what the discriminators know of held-out texts."""
    rows = []
    for run in runs:
        known = run["calibration"]
        value, low, high = known["auc"]
        rows.append(
            [
                str(run["seed"]),
                str(run["updates"]),
                f"{value:.3f} ({low:.3f} to {high:.3f})",
                f"{known['loss']:.3f}",
                f"{known['uncalibrated_error']:.3f}",
                f"{known['error']:.3f}",
                f"{known['slope']:.2f}",
                f"{known['intercept']:+.2f}",
            ]
        )
    head = ["seed", "updates", "AUC", "loss", "error before", "error after", "slope", "intercept"]
    return table(head, rows)
