"""The plots of an evaluation: quality against diversity, the calibration of the two-sample test, the lengths."""

import itertools
import math
from pathlib import Path
from typing import Any

from ..metrics import Interval, share_interval
from ..metrics.extras import require_packages
from .comparison import Point
from .report import DIVERSITY, PLOTS, REAL, Report
from .text_metrics import METRICS


MARKER = 4  # half of a point's box, in pixels
REACHES = (10, 18, 28, 40, 54, 70, 88, 108, 130, 155, 180)  # of labels from their points, in points
ANGLES = [math.radians(angle) for angle in (45, 135, 315, 225, 90, 270, 0, 180)]


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
    quality, labels = report.deciding_test, []
    for number, model in enumerate(report.models):
        points, colour = report.points(model, quality), colours[number % len(colours)]
        axes.errorbar(
            [point.diversity.value for point in points],
            [point.quality.value for point in points],
            xerr=_reaches([point.diversity for point in points]),
            yerr=_reaches([point.quality for point in points]),
            color=colour,
            marker="o",
            capsize=2,
            label=model,
        )
        labels += [(point, colour) for point in points]
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
    _label(labels, axes)


def _label(points: list[tuple[Point, Any]], axes: Any) -> None:
    """Write the temperature of each point beside it, where no other label and no point stands.

    A line leads to a label that is far away.

    Args:
        points (`list[tuple[Point, colour]]`): The points.
        axes (`matplotlib.axes.Axes`): All else is drawn.
    """
    axes.figure.draw_without_rendering()  # so that positions are those of the picture
    taken = [axes.get_legend().get_window_extent().extents]
    for point, _ in points:
        taken += _boxes(point, axes)
    for point, colour in points:
        place = (point.diversity.value, point.quality.value)
        style = {"ha": "center", "va": "center", "fontsize": "small", "color": colour}
        label = axes.annotate(f"T = {point.temperature:g}", place, xytext=(0, 0), textcoords="offset points", **style)
        label.set_in_layout(False)
        for reach, angle in itertools.product(REACHES, ANGLES):
            label.set_position((1.6 * reach * math.cos(angle), reach * math.sin(angle)))  # words are wide
            box = label.get_window_extent().extents
            if _is_within(box, axes.bbox.extents) and not any(_overlap(box, other) for other in taken):
                break
        taken.append(box)
        if reach > REACHES[0]:
            line = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 8, "shrinkB": 3}
            axes.annotate("", place, label.get_position(), textcoords="offset points", arrowprops=line).set_in_layout(
                False
            )


def _boxes(point: Point, axes: Any) -> list[Any]:
    """Return the boxes in pixels (left, bottom, right, top) that the bars of a point fill, with its marker."""
    (x, y), diversity, quality = (point.diversity.value, point.quality.value), point.diversity, point.quality
    bars = [
        [(diversity.low, y), (diversity.high, y)],
        [(x, quality.low), (x, quality.high)],
    ]
    ends = [axes.transData.transform([end if math.isfinite(sum(end)) else (x, y) for end in bar]) for bar in bars]
    return [(low[0] - MARKER, low[1] - MARKER, high[0] + MARKER, high[1] + MARKER) for low, high in ends]


def _overlap(one: Any, other: Any) -> bool:
    """Return whether two boxes (left, bottom, right, top) have a place in common."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _is_within(box: Any, frame: Any) -> bool:
    return frame[0] <= box[0] and frame[1] <= box[1] and box[2] <= frame[2] and box[3] <= frame[3]


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
