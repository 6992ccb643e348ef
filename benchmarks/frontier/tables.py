"""The page and the picture of `benchmarks.frontier`, from the results of all its runs: plain values in."""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..sweep.tables import areas, table
from .lengths import mean_words


TEMPLATE = Path(__file__).with_name("page.md.in")
FILES = ("discriminator", "tests")  # without which a run is not finished
FINE_TUNED, NGRAMS = "fine_tuned_tests", "ngram_tests"
COSTS = ("samples", "discriminator", "log_ratios", "tests", NGRAMS, FINE_TUNED)
ALONE, REAL = "T = 1", "real text"
NUM_SAMPLES = 20  # texts of each row on the page, unpicked
COLOURS = {"supervised": "tab:blue", "distilled": "tab:green", "adversarial": "tab:red", "for_4_draws": "tab:purple"}


def gather(output: Path) -> list[dict[str, Any]]:
    """Return one entry per run that has its tests, without the texts but for a few.

    Args:
        output (`Path`): The folder of the runs.

    Returns:
        `list[dict]`: Corpus, generator, the learning rate of its supervised training, how it was trained and seed,
        what the discriminator knows, and the rows.
    """
    runs = []
    for folder in sorted(output.glob("*/seed_*/*")):
        if not all((folder / f"{name}.json").exists() for name in FILES):
            continue
        generator, _, corpus = folder.parent.parent.name.partition("_")
        stages = {name: _read(folder / f"{name}.json") for name in COSTS if (folder / f"{name}.json").exists()}
        tests = stages["tests"]
        rows = tests["rows"]
        for name, row in stages.get(FINE_TUNED, {"rows": {}})["rows"].items():
            rows[name] |= {"fine_tuned_texts": row["texts"], "fine_tuned_c2st_auc": row["fine_tuned_c2st_auc"]}
        for name, area in stages.get(NGRAMS, {"rows": {}})["rows"].items():
            rows[name]["all_c2st_auc"] = area
        words = stages.get(NGRAMS, {})
        ratios = {side: torch.tensor(_read(folder / "log_ratios.json")[side]) for side in ("pool", "real")}
        for name, row in rows.items():
            if name == ALONE or row["threshold"] is not None:
                row["discriminator_auc"] = rejected_auc(ratios["real"], ratios["pool"], row["threshold"])
        root = folder.parent.parent
        home = folder if (folder / "generator.json").exists() else root
        runs.append(
            {
                "corpus": corpus,
                "generator": generator,
                "learning_rate": _read(root / "generator.json")["trainings"][0]["learning_rate"],
                "trained": folder.name,
                "seed": int(folder.parent.name.removeprefix("seed_")),
                "training": {
                    name: value for name, value in _read(home / "generator.json").items() if name != "machine"
                },
                "calibration": stages["discriminator"]["calibration"],
                "updates": stages["discriminator"]["updates"],
                "unseen_auc": tests["unseen_auc"],
                "rows": rows,
                "real_words": tests["real_words"],
                "lengths": _lengths(_read(folder / "samples.json")["1"]["texts"], ratios["pool"], stages),
                **({"words": {name: words[name] for name in ("names", "words")}} if "words" in words else {}),
                **({"second": _read(second)} if (second := folder / "second.json").exists() else {}),
                "cpu_seconds": {name: stage["cpu_seconds"] for name, stage in stages.items()},
                "versions": tests["versions"],
                "machine": tests["machine"],
            }
        )
    return runs


def _lengths(texts: Sequence[str], pool: Tensor, stages: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return mean words of what is kept, by the discriminator as it is and before its calibration."""
    rows, known = stages["tests"]["rows"], stages["discriminator"]["calibration"]
    draws = {name: row["draws"] for name, row in rows.items() if row["threshold"] is not None}
    words = torch.tensor([len(text.split()) for text in texts])
    found = {"calibrated": mean_words(pool, words, draws)}
    if known["slope"]:  # else all log-ratios are alike, and say nothing of the logits
        logits = (pool - known["intercept"]) / known["slope"]
        found["uncalibrated"] = mean_words(logits, words, draws)
    return found


def rejected_auc(real: Tensor, pool: Tensor, threshold: float | None) -> float:
    """Return the area of the discriminator itself, of real texts against what rejection accepts of a pool.

    Args:
        real (`Tensor` of shape `(R,)`): Log-ratios of real texts, in nats.
        pool (`Tensor` of shape `(N,)`): Those of the candidates.
        threshold (`float`, *optional*): c; each candidate counts min(1, exp(r - c)). None accepts all.
    """
    weights = torch.ones_like(pool) if threshold is None else (pool - threshold).clamp(max=0).exp()
    pool, order = pool.sort()
    below = torch.cat([torch.zeros(1), weights[order].double().cumsum(0)])
    least, most = (torch.searchsorted(pool, real, right=right) for right in (False, True))  # a tie counts half
    return ((below[least] + below[most]).mean() / 2 / below[-1]).item()


def _read(path: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(path.read_text())
    return made


def case(run: dict[str, Any]) -> str:
    """Return the corpus and the supervised generator of a run, whose runs are one table."""
    return f"{run['corpus']}, {run['generator']}, learning rate {run['learning_rate']:g}"


def page(runs: Sequence[dict[str, Any]]) -> str:
    """Write the page from the template and the runs."""
    text = TEMPLATE.read_text()
    cases = sorted(set(map(case, runs)))
    parts = {
        "verdict": "\n".join(verdicts(runs)),
        "runs": "; ".join(_made(runs, one) for one in cases),
        "rows": "\n\n".join(_of_case(runs, one, rows_table) for one in cases),
        "trainings": "\n\n".join(_of_case(runs, one, trainings_table) for one in cases),
        "discriminators": "\n\n".join(_of_case(runs, one, discriminators_table) for one in cases),
        "second": "\n\n".join(_of_case(runs, one, second_table) for one in cases if _has("second", runs, one)),
        "lengths": "\n\n".join(_of_case(runs, one, lengths_table) for one in cases if _has("lengths", runs, one)),
        "words": "\n\n".join(_of_case(runs, one, words_table) for one in cases if _has("words", runs, one)),
        "samples": "\n\n".join(_of_case(runs, one, samples) for one in cases),
        "texts": str(max((_fine_tuned_texts(run) for run in runs), default=0)),
    }
    for name, made in parts.items():
        text = text.replace("{" + name + "}", made)
    return text


def verdicts(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each case, way to sample and number of draws that the fine-tuned test has seen."""
    lines = []
    for one in sorted(set(map(case, runs))):
        for trained in COLOURS:
            same = [run for run in runs if (case(run), run["trained"]) == (one, trained)]
            for name in _with_second(same[0]) if same else ():
                found = [_with_second(run).get(name, {}) for run in same]
                rows = [row for row in found if "fine_tuned_c2st_auc" in row]
                if not rows:
                    continue
                tested = [row["fine_tuned_c2st_auc"] for row in rows]
                value, low, high = (statistics.fmean(column) for column in zip(*tested, strict=True))
                cost = "" if name == REAL else f", {_mean(rows, 'tokens'):.1f} tokens drawn per text"
                fewest = min(row["fine_tuned_texts"] for row in rows)
                title = name if name == REAL else f"{trained}, {name}"
                lines.append(f"- {one}, {title}: {value:.3f} ({low:.3f} to {high:.3f}){cost}; {fewest} texts per side")
    return lines


def _with_second(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the rows of a run and of its second discriminator, real text last."""
    rows = dict(run["rows"])
    real = {REAL: rows.pop(REAL)} if REAL in rows else {}
    second = run.get("second", {"rows": {}})["rows"]
    return {**rows, **{f"two discriminators, {name}": row for name, row in second.items()}, **real}


def _made(runs: Sequence[dict[str, Any]], title: str) -> str:
    """Say which runs of a case there are."""
    of_case = [run for run in runs if case(run) == title]
    said = []
    for trained in (one for one in COLOURS if any(run["trained"] == one for run in of_case)):
        seeds = sorted(run["seed"] for run in of_case if run["trained"] == trained)
        said.append(f"{trained}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}")
    return f"{title}: {'; '.join(said)}"


def _of_case(runs: Sequence[dict[str, Any]], title: str, made: Any) -> str:
    return f"### {title}\n\n{made([run for run in runs if case(run) == title])}"


def _fine_tuned_texts(run: dict[str, Any]) -> int:
    return max((row.get("fine_tuned_texts", 0) for row in run["rows"].values()), default=0)


def rows_table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the table of all ways to sample from all generators: means over the seeds, and every seed's areas."""
    rows = []
    for trained in sorted({run["trained"] for run in runs}, key=list(COLOURS).index):
        same = [run for run in runs if run["trained"] == trained]
        for name in [row for row in same[0]["rows"] if row != REAL]:
            of_name = [run["rows"][name] for run in same if name in run["rows"]]
            rows.append([f"{trained}, {name}", *_cells(of_name)])
    real = [run["rows"][REAL] for run in runs if run["trained"] == "supervised" and REAL in run["rows"]]
    if real:
        rows.append([REAL, *_cells(real)[:4], "", "", "", *_cells(real)[7:]])
    head = ["", "AUC, fine-tuned", "AUC, encoder", "AUC, n-grams", "AUC, n-grams of all texts", "AUC, D", "draws"]
    return table([*head, "tokens", "MAUVE", "self-BLEU", "words", "near duplicates", "NLL of real"], rows)


def _cells(rows: Sequence[dict[str, Any]]) -> list[str]:
    known = [row["discriminator_auc"] for row in rows if "discriminator_auc" in row]
    likelihoods = [row["real_nll"] for row in rows if row["real_nll"] is not None]
    return [
        areas(rows, "fine_tuned_c2st_auc"),
        areas(rows, "encoder_c2st_auc"),
        areas(rows, "c2st_auc"),
        areas(rows, "all_c2st_auc"),
        " / ".join(f"{value:.3f}" for value in known),
        f"{_mean(rows, 'draws'):.2f}",
        f"{_mean(rows, 'tokens'):.1f}",
        f"{_mean(rows, 'mauve'):.3f}",
        f"{_mean(rows, 'self_bleu'):.3f}",
        f"{_mean(rows, 'words'):.1f}",
        f"{_mean(rows, 'near_duplicates'):.3f} ({_mean(rows, 'near_duplicates_of_real'):.3f})",
        f"{statistics.fmean(likelihoods):.2f}" if likelihoods else "",
    ]


def _mean(rows: Sequence[dict[str, Any]], key: str) -> float:
    return statistics.fmean(row[key] for row in rows)


def trainings_table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the table of held-out losses of supervised training, a row for each training that was tried."""
    of_generators = {run["trained"]: run["training"] for run in runs if "trainings" in run["training"]}
    rows = [
        [
            trained,
            str(made["texts"]),
            f"{one['epochs']}{'' if place or len(made['trainings']) == 1 else ' (kept)'}",
            f"{one['learning_rate']:g}",
            ", ".join(f"{loss:.3f} ({step:.0f})" for step, loss in one["held_out_losses"]),
        ]
        for trained, made in of_generators.items()
        for place, one in enumerate(made["trainings"])
    ]
    return table(["generator", "texts", "epochs", "learning rate", "held-out loss (after so many steps)"], rows)


def discriminators_table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the table of what the discriminators know of held-out texts."""
    rows = []
    for run in sorted(runs, key=lambda one: (list(COLOURS).index(one["trained"]), one["seed"])):
        known = run["calibration"]
        value, low, high = known["auc"]
        rows.append(
            [
                f"{run['trained']}, {run['seed']}",
                str(run["updates"]),
                f"{value:.3f} ({low:.3f} to {high:.3f})",
                f"{run['unseen_auc'][0]:.3f}",
                f"{known['loss']:.3f}",
                f"{known['uncalibrated_error']:.3f}",
                f"{known['error']:.3f}",
                f"{known['slope']:.2f}",
                f"{known['intercept']:+.2f}",
            ]
        )
    head = ["generator, seed", "updates", "AUC", "AUC, unseen", "loss", "error before", "error after", "slope"]
    return table([*head, "intercept"], rows)


def _has(what: str, runs: Sequence[dict[str, Any]], title: str) -> bool:
    return any(run.get(what) for run in runs if case(run) == title)


def second_table(runs: Sequence[dict[str, Any]]) -> str:
    """Return what second discriminators know, and the table of what the first and what both keep, at equal draws."""
    rows, known = [], []
    for run in (one for one in runs if "second" in one):
        second = run["second"]
        value, low, high = second["auc"]
        known.append(
            f"{run['trained']}, {run['seed']}: {second['texts']} texts of each side, {second['updates']} updates; its "
            "area of unseen real texts against what the first one keeps at four draws is "
            f"{value:.3f} ({low:.3f} to {high:.3f})."
        )
        for name, row in second["rows"].items():
            alone = [run["rows"][name]] if name in run["rows"] else []
            cells = [
                areas(alone, "fine_tuned_c2st_auc"),
                areas([row], "fine_tuned_c2st_auc"),
                areas(alone, "all_c2st_auc"),
                areas([row], "c2st_auc"),
                f"{row['both_auc']:.3f}",
                f"{row['words']:.1f}",
                f"{row['self_bleu']:.3f}",
            ]
            rows.append([f"{run['trained']}, {run['seed']}, {name}", *cells, str(row["fine_tuned_texts"])])
    head = ["", "AUC, fine-tuned, the first", "AUC, fine-tuned, both", "AUC, n-grams, the first"]
    made = table([*head, "AUC, n-grams, both", "AUC of both themselves", "words", "self-BLEU", "texts"], rows)
    return "\n\n".join(["\n".join(known), made])


def lengths_table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the table of mean words: of real texts, of the generator alone and of what is kept."""
    measured = [run for run in runs if "lengths" in run]
    kinds = list(dict.fromkeys(kind for run in measured for kind in run["lengths"]["calibrated"]))
    rows = [
        [
            f"{run['trained']}, {run['seed']}",
            calibration,
            f"{run['real_words']:.2f}",
            *(f"{of_kind[kind]:.2f}" for kind in kinds),
        ]
        for run in measured
        for calibration, of_kind in run["lengths"].items()
    ]
    return table(["generator, seed", "discriminator", REAL, *kinds], rows)


def words_table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the tables of the words that generators write too seldom and too often, in per cent of texts."""
    tables = []
    for run in (one for one in runs if one.get("words")):
        names = {"real": REAL, "learnt": "texts that it learnt from", "generated": ALONE}
        head = [names.get(name, name) for name in run["words"]["names"]]
        rows = [[word, *(f"{share:.2%}" for share in shares)] for word, *shares in run["words"]["words"]]
        tables.append(table([f"{run['trained']}, {run['seed']}", *head], rows))
    return "\n\n".join(tables)


def samples(runs: Sequence[dict[str, Any]]) -> str:
    """Return the first texts of the least seed: of each generator alone, and of its rejection at the most draws."""
    seed, blocks = min(run["seed"] for run in runs), []
    for run in (one for one in runs if one["seed"] == seed):
        rejection = [name for name, row in run["rows"].items() if row["threshold"] is not None]
        for name in [ALONE, *rejection[-1:]]:
            pairs = run["rows"][name]["samples"][:NUM_SAMPLES]
            lines = [f"{ratio:+5.1f}  {' '.join(text.split())}" for text, ratio in pairs]
            blocks.append(f"**{run['trained']}, {name}**\n\n```text\n" + "\n".join(lines) + "\n```")
    return "\n\n".join(blocks)


def draw(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the area of the fine-tuned test against tokens per text kept, a picture per case."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    cases = sorted(set(map(case, runs)))
    # Equal files for equal results: neither a date nor random ids. And small ones: every label names all its fonts.
    with rc_context({"svg.hashsalt": "frontier", "svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]}):
        columns = min(len(cases), 2)
        rows = math.ceil(len(cases) / columns)
        figure = Figure(figsize=(5.5 * columns, 4.2 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for axes in panels[len(cases) :]:
            axes.set_axis_off()
        for axes, title in zip(panels, cases, strict=False):
            of_case = [run for run in runs if case(run) == title]
            labelled: set[str] = set()
            for run in of_case:
                points = [
                    (row["tokens"], *row["fine_tuned_c2st_auc"])
                    for name, row in run["rows"].items()
                    if "fine_tuned_c2st_auc" in row and (name == ALONE or row["threshold"] is not None)
                ]
                if not points:  # the fine-tuned tests are not done
                    continue
                label = None if run["trained"] in labelled else run["trained"]
                labelled.add(run["trained"])
                places, values, lows, highs = zip(*points, strict=True)
                halves = [(high - low) / 2 for low, high in zip(lows, highs, strict=True)]
                axes.errorbar(places, values, halves, fmt="o-", capsize=3, color=COLOURS[run["trained"]], label=label)
                second = list(run.get("second", {"rows": {}})["rows"].values())
                if second:
                    axes.plot(
                        [row["tokens"] for row in second],
                        [row["fine_tuned_c2st_auc"][0] for row in second],
                        "s--",
                        color=COLOURS[run["trained"]],
                        label=None if label is None else f"{run['trained']}, two discriminators",
                    )
            reals = [run["rows"][REAL] for run in of_case if REAL in run["rows"]]
            areas = [row["fine_tuned_c2st_auc"][0] for row in reals if "fine_tuned_c2st_auc" in row]
            axes.axhline(statistics.fmean(areas) if areas else 0.5, color="grey", linestyle="--", label=REAL)
            axes.set(title=title, xlabel="tokens drawn per text kept", ylabel="AUC of a fine-tuned encoder")
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set(ylim=(0.48, None))
            axes.legend()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
