"""The page and the picture of `benchmarks.verifiable_text`, from the results of all its runs: plain values in."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from hf_mgan.markdown import fenced

from ..sweep import check_settings
from ..sweep.tables import areas, table
from .ways import SUPERVISED, WAYS, Way


TEMPLATE = Path(__file__).with_name("page.md.in")
NUM_SAMPLES = 10  # texts of each row on the page, unpicked
GUIDED = "guided"  # the kind of way that has a row for each threshold, not for each temperature
KINDS = {
    "measured": "the start",
    "reinforced": "GRPO, by KL",
    "taught": "supervised on rewarded",
    GUIDED: "filter and D at generation",
    "imitated": "imitation",
}
OF_D = "D on rewarded real texts, by weight"


def gather(output: Path) -> list[dict[str, Any]]:
    """Return one entry per way and seed.

    Args:
        output (`Path`): The folder of the runs.
    """
    found = []
    for path in sorted(output.glob("*/word_*/seed_*/*.json")):
        if path.stem not in WAYS:
            continue
        made = json.loads(path.read_text())
        generator, _, corpus = path.parents[2].name.partition("_")
        where = {"corpus": corpus, "generator": generator, "word": path.parents[1].name.removeprefix("word_")}
        if path.stem == SUPERVISED:
            made["training"] = json.loads((path.parents[2] / "generator.json").read_text())
        found.append({**where, "seed": int(path.parent.name.removeprefix("seed_")), "way": path.stem, **made})
    return sorted(found, key=lambda one: (one["corpus"], one["word"], list(WAYS).index(one["way"]), one["seed"]))


def page(results: Sequence[dict[str, Any]]) -> str:
    """Write the page from the template and the results."""
    text = TEMPLATE.read_text()
    parts = {
        "rows": _each(results, lambda of_pair: f"{said(of_pair)}\n\n{rows_table(of_pair)}"),
        "samples": _each(results, samples),
    }
    for name, made in parts.items():
        text = text.replace("{" + name + "}", made)
    return text


def _each(results: Sequence[dict[str, Any]], made: Any) -> str:
    """Write a section for each corpus and word."""
    pairs = sorted({(one["corpus"], one["word"]) for one in results})
    return "\n\n".join(
        f"### {corpus}, *{word}*\n\n"
        + made([one for one in results if (one["corpus"], one["word"]) == (corpus, word)])
        for corpus, word in pairs
    )


def said(results: Sequence[dict[str, Any]]) -> str:
    """Return how far the start was trained, and the command that makes all of it.

    Raises:
        ValueError: If not all were made with the same settings.
    """
    check_settings(list(results))
    first = results[0]
    seeds = sorted({one["seed"] for one in results})
    given = {name: first[name] for name in ("generator", "word")} | {"data": first["corpus"], "seeds": seeds}
    words = ["python -m benchmarks.verifiable_text --output OUT"]
    for name, value in {**given, **first["settings"]}.items():
        if value is not False:
            values = value if isinstance(value, list) else [value]
            words.append(f"--{name} {' '.join(map(str, values))}".removesuffix(" True"))
    command = fenced(" ".join(words), "text")
    start = next((one["training"] for one in results if one["way"] == SUPERVISED), None)  # that of all seeds
    if start is None:
        return command
    best = start["trainings"][0]
    loss = best["held_out_losses"][-1][1]
    size = f"{start['texts']:,} texts, epochs: {best['epochs']}"
    return f"Supervised training: {size}, held-out loss {loss:.2f} nats per token.\n\n{command}"


def _by_name(results: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of one way over its seeds, by their name."""
    return {
        first["way"]: [row for one in results for row in one["rows"] if row["way"] == first["way"]]
        for first in results[0]["rows"]
    }


def _of_ways(results: Sequence[dict[str, Any]]) -> list[tuple[Way, list[dict[str, Any]]]]:
    grouped = [(way, [one for one in results if one["way"] == name]) for name, way in WAYS.items()]
    return [(way, of_way) for way, of_way in grouped if of_way]


def rows_table(results: Sequence[dict[str, Any]]) -> str:
    """Return the table of all ways: means over the seeds, and every seed's areas."""
    lines = []
    for way, of_way in _of_ways(results):
        alarms = [one.get("training", {}).get("alarms", {}) for one in of_way]
        said = "; ".join(", ".join(f"{name} ({step})" for name, step in one.items()) for one in alarms if one)
        for name, rows in _by_name(of_way).items():
            flat = [
                {f"{key}_{test}": area for key in ("rewarded_auc", "auc") for test, area in row[key].items()}
                for row in rows
            ]
            lines.append(
                [
                    f"{way.text}, {name}",
                    f"{fmean(row['reward'] for row in rows):.2f}",
                    f"{fmean(row['reward'] * row['texts'] for row in rows):.0f}",
                    *(areas(flat, key) for key in ("rewarded_auc_encoder", "rewarded_auc_n-grams", "auc_encoder")),
                    *(
                        f"{fmean(row[key] for row in rows):.{digits}f}"
                        for key, digits in (("self_bleu", 3), ("words", 1))
                    ),
                    f"{fmean(row['draws'] for row in rows):.1f}",
                    said,
                ]
            )
    head = ["way", "reward", "rewarded", "AUC of the rewarded, encoder", "n-grams", "AUC of all, encoder"]
    return table([*head, "self-BLEU", "words", "draws", "alarms (step)"], lines)


def samples(results: Sequence[dict[str, Any]]) -> str:
    """Return the first texts of each way, of the least seed; of a generator alone, at its highest temperature."""
    blocks = []
    for way, of_way in _of_ways(results):
        rows = of_way[0]["rows"]
        for row in rows if way.kind == GUIDED else rows[-1:]:
            lines = [" ".join(text.split()) for text in row["samples"][:NUM_SAMPLES]]
            blocks.append(f"**{way.text}, {row['way']}**\n\n```text\n" + "\n".join(lines) + "\n```")
    return "\n\n".join(blocks)


def points(results: Sequence[dict[str, Any]]) -> dict[str, list[tuple[float, float, float]]]:
    """Return reward and area of the rewarded texts with half of its interval, means over the seeds, by kind of way."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for way, of_way in _of_ways(results):
        for rows in _by_name(of_way).values():
            tested = [(row["reward"], *row["rewarded_auc"]["encoder"]) for row in rows if row["rewarded_auc"]]
            if tested:
                reward, area, low, high = (fmean(values) for values in zip(*tested, strict=True))
                found.setdefault(_kind(way), []).append((reward, area, (high - low) / 2))
    return found


def _kind(way: Way) -> str:
    """Return what the picture calls a way: the anchor alone is supervised training, whatever trains it."""
    if way.kind != "reinforced" or not way.rewarded:
        return KINDS[way.kind]
    return KINDS["taught"] if way.name == "anchor" else OF_D


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the area of the rewarded texts against the reward, a picture per corpus and word."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    pairs = sorted({(one["corpus"], one["word"]) for one in results})
    # Equal files for equal results: neither a date nor random ids.
    with rc_context({"svg.hashsalt": "verifiable_text", "svg.fonttype": "none"}):
        figure = Figure(figsize=(6 * len(pairs), 4.2), layout="constrained")
        for axes, (corpus, word) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
            of_pair = [one for one in results if (one["corpus"], one["word"]) == (corpus, word)]
            for kind, places in points(of_pair).items():
                rewards, found, halves = zip(*places, strict=True)
                axes.errorbar(rewards, found, halves, fmt="o", label=kind)
            axes.axhline(0.5, color="grey", linestyle="--", label="real text")
            axes.set(title=f"{corpus}, {word}", xlabel="reward", ylabel="AUC of the rewarded texts, encoder")
            axes.legend()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
