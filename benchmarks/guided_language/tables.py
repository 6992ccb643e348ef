"""The page and the picture of `benchmarks.guided_language`: plain values in, Markdown and a plot out."""

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..sweep.tables import failures, table


TEMPLATE = Path(__file__).with_name("page.md.in")
DRAWS = (2, 4, 8)
KEYS = ("divergence", "real_nll", "entropy", "grammatical", "mean_length")


def at_draws(curve: Sequence[dict[str, Any]], draws: float, key: str) -> float:
    """Return a metric of a curve over thresholds at so many draws per sentence kept, between two of its points.

    Args:
        curve (`Sequence[dict]`): Points in the order of their thresholds, each with its `draws`.
        draws (`float`): Draws per sentence kept; the metric is taken as straight in their logarithm.
        key (`str`): Name of the metric.

    Returns:
        `float`: nan beyond the ends of the curve.
    """
    for low, high in pairwise(_there(curve)):
        if low["draws"] <= draws <= high["draws"] and low["draws"] < high["draws"]:
            share = math.log(draws / low["draws"]) / math.log(high["draws"] / low["draws"])
            return (1 - share) * low[key] + share * high[key]
    return math.nan


def page(results: Sequence[dict[str, Any]]) -> str:
    """Write the page from the template and the results."""
    done = [one for one in results if "error" not in one]
    text = TEMPLATE.read_text()
    for name, made in {
        "whole": whole_table(done),
        "tokens": tokens_table(done),
        "distilled": distilled_table(done),
        "calibration": calibration_table(done),
        "seeds": ", ".join(str(one["seed"]) for one in done),
        "failures": "\n".join(failures(results)),
    }.items():
        text = text.replace("{" + name + "}", made)
    return text


def whole_table(results: Sequence[dict[str, Any]]) -> str:
    """Return the table of rejection by whole sentences, by the discriminator and by a perfect one."""
    rows = []
    for title, place in (("maximum likelihood, T = 0.8", 0), ("maximum likelihood, T = 1", 1)):
        cells = [_mean([one["alone"][place][key] for one in results]) for key in KEYS]
        rows.append([title, "1", *cells])
    for draws in DRAWS:
        for title, name in (("with its discriminator", "whole"), ("with a perfect one", "perfect")):
            cells = [_mean([at_draws(one[name], draws, key) for one in results]) for key in KEYS]
            rows.append([title, str(draws), *cells])
    if results:
        entropy = f"{results[0]['language']['entropy']:.2f}"
        rows.append(["the language", "", "0", entropy, entropy, "1.000", ""])
    head = ["", "draws", "JS", "NLL of real", "entropy", "grammatical", "words"]
    return table(head, rows)


def tokens_table(results: Sequence[dict[str, Any]]) -> str:
    """Return the table of rejection token by token, beside the generator alone."""
    head = ["", "tokens", "JS", "NLL of real", "entropy", "grammatical", "duplicates"]
    rows = []
    for place, first in enumerate(results[0]["tokens"] if results else []):
        same = [one["tokens"][place] for one in results]
        ratios = [one["tokens"][place]["tokens"] / one["tokens_of_plain"] for one in results]
        keys = ("divergence", "real_nll", "entropy", "grammatical", "duplicates")
        title = f"k = {first['num_candidates']}, c = {first['threshold']:g}"
        rows.append([title, f"x {_mean(ratios)}", *(_mean([one[key] for one in same]) for key in keys)])
    rows.append(["the language", "", "0", "", "", "", _mean([one["duplicates_of_language"] for one in results])])
    return table(head, rows)


def distilled_table(results: Sequence[dict[str, Any]]) -> str:
    """Return the table of a generator that learns from accepted sentences, beside the one that wrote them."""
    rows = []
    for title, models in (
        ("maximum likelihood on the real sentences", [one["alone"][1] for one in results]),
        ("maximum likelihood on accepted sentences", [one["distilled"] for one in results]),
    ):
        rows.append([title, *(_mean([model[key] for model in models]) for key in KEYS)])
    return table(["", "JS", "NLL of real", "entropy", "grammatical", "words"], rows)


def calibration_table(results: Sequence[dict[str, Any]]) -> str:
    """Return the table of what the discriminators know of held-out sentences."""
    rows = []
    for one, name in [(run, name) for run in results for name in run["calibrations"]]:
        known = one["calibrations"][name]
        rows.append(
            [
                f"{one['seed']}, {name}",
                str(one["updates"][name]),
                f"{known['auc'][0]:.3f} ({known['auc'][1]:.3f} to {known['auc'][2]:.3f})",
                f"{known['loss']:.4f}",
                f"{known['uncalibrated_error']:.4f}",
                f"{known['error']:.4f}",
                f"{known['slope']:.3f}",
                f"{known['intercept']:+.3f}",
            ]
        )
    head = ["seed", "updates", "AUC", "loss", "error before", "error after", "slope", "intercept"]
    return table(head, rows)


@contextmanager
def axes_of_draws(path: Path, title: str, xlabel: str = "draws per sentence kept") -> Iterator[Any]:
    """Give axes of divergence against draws, in their logarithm, and save the picture that was drawn on them.

    Args:
        path (`Path`): The file; equal contents under an equal name make an equal file.
        title (`str`): Above the picture.
        xlabel (`str`, *optional*): Below it.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # Equal files for equal results: neither a date nor random ids.
    with rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.subplots()
        yield axes
        axes.set(
            xscale="log", ylim=(0, None), xlabel=xlabel, ylabel="JS divergence to the language, bits", title=title
        )
        axes.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
        axes.minorticks_off()
        axes.legend()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw divergence against draws per sentence kept, every seed beside its perfect discriminator's line."""
    title = "The same generator, alone and with a discriminator at generation"
    xlabel = "draws per sentence kept; token by token: tokens over those of a sentence"
    with axes_of_draws(path, title, xlabel) as axes:
        for one in (one for one in results if "error" not in one):
            first = one is results[0]
            for name, colour, style, label in (
                ("whole", "tab:blue", "-", "with its discriminator"),
                ("perfect", "grey", "--", "with a perfect discriminator"),
            ):
                points = [(point["draws"], point["divergence"]) for point in _there(one[name])]
                axes.plot(
                    [x for x, _ in points], [y for _, y in points], style, color=colour, label=label if first else None
                )
            tokens = [point["tokens"] / one["tokens_of_plain"] for point in one["tokens"]]
            divergences = [point["divergence"] for point in one["tokens"]]
            axes.plot(tokens, divergences, "*", color="tab:green", label="token by token" if first else None)
            alone = one["alone"][1]["divergence"]
            axes.plot([1], [alone], "o", color="tab:red", label="maximum likelihood, T = 1" if first else None)


def _there(curve: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the points at which a sentence was kept at all."""
    return [point for point in curve if point["draws"] is not None]


def _mean(values: Sequence[float | None]) -> str:
    """Return the mean over the seeds, with the deviation where there are several."""
    if not values or any(value is None or math.isnan(value) for value in values):
        return ""
    known = [value for value in values if value is not None]
    mean = statistics.fmean(known)
    return f"{mean:.3f}" if len(known) < 2 else f"{mean:.3f} ± {statistics.stdev(known):.3f}"
