"""The plots of an evaluation: quality against diversity, the calibration of the two-sample test, the lengths."""

from pathlib import Path
from typing import Any

from ..metrics import Interval, share_interval
from ..metrics.extras import require_packages
from .report import DIVERSITY, PLOTS, REAL, Report
from .text_metrics import METRICS


def draw(report: Report, folder: Path) -> None:
    """Draw the three plots as PNG files, named in [`~report.PLOTS`].

    Args:
        report ([`Report`]): The report.
        folder (`Path`): Where to.

    Raises:
        ImportError: If matplotlib is missing.
    """
    require_packages("Drawing plots", "matplotlib")
    from matplotlib import color_sequences
    from matplotlib.figure import Figure

    colours = color_sequences["tab10"]
    for name, plot in zip(PLOTS, (_frontier, _calibration, _lengths), strict=True):
        figure = Figure(figsize=(7, 5), layout="constrained")
        plot(report, figure.subplots(), colours)
        figure.savefig(folder / name, dpi=120)


def _frontier(report: Report, axes: Any, colours: Any) -> None:
    quality = report.deciding_test
    for number, model in enumerate(report.models):
        points = report.points(model, quality)
        axes.errorbar(
            [point.diversity.value for point in points],
            [point.quality.value for point in points],
            xerr=_reaches([point.diversity for point in points]),
            yerr=_reaches([point.quality for point in points]),
            color=colours[number % len(colours)],
            marker="o",
            capsize=2,
            label=model,
        )
        for point in points:
            axes.annotate(
                f"T = {point.temperature:g}",
                (point.diversity.value, point.quality.value),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize="small",
            )
    real = report.metric(REAL, DIVERSITY), report.metric(REAL, quality)
    if real[0] is not None and real[1] is not None:
        axes.errorbar(
            [real[0].value],
            [real[1].value],
            xerr=_reaches([real[0]]),
            yerr=_reaches([real[1]]),
            color="black",
            marker="*",
            markersize=12,
            label="real text",
        )
    axes.axhline(0.5, color="grey", linewidth=1)
    axes.set(
        xlabel=f"{METRICS[DIVERSITY].title} (less is more diverse)",
        ylabel=f"{METRICS[quality].title} (0.5 = cannot be told from real text)",
        title="Quality and diversity over temperatures",
    )
    _legend(axes)


def _calibration(report: Report, axes: Any, colours: Any) -> None:
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    for number, model in enumerate(report.models):
        bins = report.parts[report.part_nearest_to_1(model)]["calibration"]
        axes.errorbar(
            [prob for prob, _, _ in bins],
            [share for _, share, _ in bins],
            yerr=_reaches([_share_of(share, texts, report.level) for _, share, texts in bins]),
            color=colours[number % len(colours)],
            marker="o",
            capsize=2,
            label=model,
        )
    axes.set(
        xlabel="probability of being real, by the classifier",
        ylabel="share that is real",
        title="Calibration of the two-sample test, temperatures nearest to 1",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    _legend(axes)


def _lengths(report: Report, axes: Any, colours: Any) -> None:
    parts = [("real text", REAL), *((model, report.part_nearest_to_1(model)) for model in report.models)]
    longest = max(max(report.parts[part]["lengths"], default=0) for _, part in parts)
    width = max(1, longest // 40)
    bins = range(0, longest + 2 * width, width)
    for number, (name, part) in enumerate(parts):
        colour = "black" if part == REAL else colours[(number - 1) % len(colours)]
        axes.hist(report.parts[part]["lengths"], bins=list(bins), histtype="step", color=colour, label=name)
    axes.set(xlabel="length in words", ylabel="texts", title="Lengths, temperatures nearest to 1")
    _legend(axes)


def _legend(axes: Any) -> None:
    """Show the names as they are: to matplotlib what stands between two `$` is mathematics."""
    for text in axes.legend().get_texts():
        text.set_parse_math(False)


def _share_of(share: float, texts: int, level: float) -> Interval:
    """Return a bin's share with its interval, wide where few texts are in the bin."""
    real = round(share * texts)
    return share_interval([True] * real + [False] * (texts - real), level)._replace(value=share)


def _reaches(intervals: list[Any]) -> list[list[float]]:
    """Return the two arms of error bars."""
    return [
        [max(0.0, one.value - one.low) for one in intervals],
        [max(0.0, one.high - one.value) for one in intervals],
    ]
