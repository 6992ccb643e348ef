"""The picture of a run: four panels, in the order in which to read them.

In: a line of `benchmarks/results/curves.jsonl`. Out: an SVG of a few kilobytes, the same for the same line.
"""

import io
import math
import re
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from .conditions import CONDITIONS


REAL, FAKE, LIMIT = "tab:blue", "tab:orange", "#7a7a7a"
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "path.simplify_threshold": 0.5,
}


def draw(run: dict[str, Any], path: Path) -> None:
    """Draw a run: D(x) and D(G(s)), V(D, G), self-BLEU and entropy, length; dotted where the watchdog first warned.

    Args:
        run (`dict`): `name`, `steps`, `curves` and `alarms`.
        path (`Path`): The file.
    """
    steps, curves = run["steps"], run["curves"]
    with rc_context({**STYLE, "svg.hashsalt": run["name"]}):
        drawing = Figure(figsize=(10, 2.6), layout="constrained")
        probabilities, value, variety, length = drawing.subplots(1, 4)
        probabilities.plot(steps, curves["discriminator/real_prob"], color=REAL, label="D(x), real")
        probabilities.plot(steps, curves["discriminator/fake_prob"], color=FAKE, label="D(G(s)), generated")
        probabilities.axhline(0.5, color=LIMIT, linewidth=0.8)
        probabilities.set(title="1. Who is ahead?", ylim=(0, 1))
        value.plot(steps, curves["discriminator/value"], color="tab:green", label="V(D, G), nats")
        value.axhline(-math.log(4), color=LIMIT, linewidth=0.8)
        low = min([-1.6, *(one for one in curves["discriminator/value"] if one is not None)])
        value.set(title="2. V, and -log 4", ylim=(max(low, -6) - 0.1, 0.1))
        variety.plot(steps, curves["completions/self_bleu"], color=FAKE, label="self-BLEU, generated")
        variety.plot(steps, curves["references/self_bleu"], color=REAL, label="self-BLEU, real")
        start = curves["entropy"][0]
        variety.plot(steps, [one / start for one in curves["entropy"]], color="tab:red", label="entropy / its start")
        highest = max(one / start for one in curves["entropy"])
        variety.set(title="3. Does it repeat itself?", ylim=(0, max(1.15, 1.05 * highest)))
        length.plot(steps, curves["completions/length_ratio"], color=FAKE, label="length ratio")
        length.axhspan(0.8, 1.2, color=LIMIT, alpha=0.15, linewidth=0)
        length.set(title="4. Is it as long?", ylim=(0, max(1.6, 1.1 * max(curves["completions/length_ratio"]))))
        for axes in (probabilities, value, variety, length):
            axes.set_xlabel("step")
            axes.set_xlim(0, steps[-1])
            axes.legend(fontsize=7, frameon=False)
            for step in sorted({alarm["step"] for alarm in run["alarms"]})[:1]:
                axes.axvline(step, color="black", linewidth=0.8, linestyle=":")
        alarms = ", ".join(dict.fromkeys(alarm["name"] for alarm in run["alarms"])) or "none"
        drawing.suptitle(f"{CONDITIONS[run['name']].title} - alarms: {alarms}", fontsize=10, fontweight="bold")
        save(path, drawing)


def save(path: Path, drawing: Figure) -> None:
    """Write an SVG that is the same for the same picture: no date, and coordinates to a hundredth of a point."""
    buffer = io.StringIO()
    drawing.savefig(buffer, format="svg", metadata={"Date": None}, facecolor="white")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(re.sub(r"(\d\.\d\d)\d+", r"\1", buffer.getvalue()))
