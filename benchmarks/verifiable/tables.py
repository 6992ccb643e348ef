"""The page and the picture of `benchmarks.verifiable`, from the results of its jobs: plain values in."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ..sweep.tables import failures, spread, table
from .conditions import CONDITIONS, Condition
from .target import REWARDS


TEMPLATE = Path(__file__).with_name("page.md.in")
LABELS = {
    "grpo": "GRPO, by KL",
    "sum": "D, by weight",
    "real": "D on rewarded real texts, by weight",
    "combined": "other combinations",
    "imitation": "imitation of filter + D, by round",
    "supervised on rewarded real texts": "supervised on rewarded real texts",
    "supervised, then D on rewarded real texts": "… then D on rewarded real texts",
    "supervised, then D on rewarded real texts, 3 times the steps": "… 3 times the steps",
    "supervised, then a perfect D of the target": "… then a perfect D",
    "supervised, filter + D": "… filter + D at generation, by c",
    "supervised, D of the target": "… D of the target at generation, by c",
    "filter + D": "filter + D at generation, by c",
    "maximum likelihood": "the start",
}
SECTIONS = {
    "dog": (
        "The sentence has a dog",
        "v is 1 for a sentence with *dog* or *dogs*, a fifth of the language; the target is the language given that.",
    ),
    "adjectives": (
        "Adjectives, without an end",
        "v is the number of adjectives; a sentence of the language has four at most. tau = 1. Its mean is 0.40 in\n"
        "the language and 0.89 in the target.",
    ),
    "capped": (
        "Adjectives, at most two",
        "v is the number of adjectives, 2 at most. tau = 1. Its mean is 0.40 in the language and 0.83 in the target.",
    ),
}
METRICS = {"reward": 2, "grammatical": 2, "both": 2, "both_coldest": 2, "divergence": 3, "entropy": 1, "draws": 1}


def page(results: Sequence[dict[str, Any]]) -> str:
    """Write the page from the template and the results."""
    text = TEMPLATE.read_text()
    measured = [reward for reward in REWARDS if points(results, reward)]
    tables = ("## {}\n\n{}\n\n{}".format(*SECTIONS[reward], reward_table(results, reward)) for reward in measured)
    seeds = sorted({one["seed"] for one in results})
    for name, made in {
        "rewards": "\n\n".join(tables),
        "verdict": "\n\n".join(
            f"{SECTIONS[reward][0]}:\n\n" + "\n".join(f"- {line}" for line in verdicts(results, reward))
            for reward in measured
        ),
        "alarms": alarms_table(results),
        "seeds": ", ".join(map(str, seeds)),
        "failures": "\n".join(failures(results)),
    }.items():
        text = text.replace("{" + name + "}", made)
    return text


def _measured(results: Sequence[dict[str, Any]], reward: str) -> Iterator[tuple[Condition, str, list[dict[str, Any]]]]:
    """Yield each point that was measured: its condition, its title, and its row of each seed."""
    for name, condition in CONDITIONS.items():
        same = _of(results, reward, name)
        for title, rows in same[0]["rows"].items() if same else ():
            for place in range(len(rows)):
                yield condition, title, [one["rows"][title][place] for one in same]


def verdicts(results: Sequence[dict[str, Any]], reward: str) -> list[str]:
    """Return a line for each way that was measured: where it comes nearest to the tilted language."""
    found: dict[str, tuple[float, str]] = {}
    for condition, title, of_seeds in _measured(results, reward):
        mean = {key: fmean(one[key] for one in of_seeds) for key in ("divergence", "both", "draws")}
        said = (
            f"{title or condition.text}: JS {mean['divergence']:.3f} bits, both {mean['both']:.2f}, "
            f"draws {mean['draws']:.1f}"
        )
        kind = title or condition.group
        found[kind] = min(found.get(kind, (2.0, "")), (mean["divergence"], said))
    return [said for _, said in sorted(found.values())]


def reward_table(results: Sequence[dict[str, Any]], reward: str) -> str:
    """Return the table of all ways to raise a reward: means over the seeds ± their deviation."""
    rows = []
    for condition, title, of_seeds in _measured(results, reward):
        text = title or condition.text
        if "threshold" in of_seeds[0] and title != "filter":
            text += f", c = {of_seeds[0]['threshold']:g}"
        cells = [spread((one.get(key) for one in of_seeds), digits, counted=False) for key, digits in METRICS.items()]
        rows.append([text, *cells, str(len(of_seeds))])
    return table(["", "reward", "grammatical", "both", "both, T = 0.7", "JS", "entropy", "draws", "seeds"], rows)


def alarms_table(results: Sequence[dict[str, Any]]) -> str:
    """Return the table of the watchdog's alarms: in how many runs, and from which step on."""
    rows = []
    for reward in REWARDS:
        for name, condition in CONDITIONS.items():
            same = [one for one in _of(results, reward, name) if condition.discriminator and "alarms" in one]
            if not same:
                continue
            said: dict[str, list[int]] = {}
            for one in same:
                for kind in {kind for _, kind in one["alarms"]}:
                    said.setdefault(kind, []).append(min(step for step, other in one["alarms"] if other == kind))
            cells = [f"{kind}: {len(steps)}, step {min(steps)}" for kind, steps in sorted(said.items())]
            rows.append([reward, condition.text, str(len(same)), "; ".join(cells) or "none"])
    return table(["reward", "", "runs", "alarms: in how many runs, from which step on"], rows)


def _of(results: Sequence[dict[str, Any]], reward: str, condition: str) -> list[dict[str, Any]]:
    """Return the results of a condition, a seed each."""
    return [one for one in results if one["condition"] == f"{reward}.{condition}" and "error" not in one]


def points(results: Sequence[dict[str, Any]], reward: str) -> dict[str, list[tuple[float, float]]]:
    """Return mean reward and divergence, means over the seeds, by what they are a way of; see [`LABELS`]."""
    found: dict[str, list[tuple[float, float]]] = {}
    for condition, title, of_seeds in _measured(results, reward):
        kind = title if title in LABELS else title.partition(",")[0] or condition.group
        if kind in LABELS:
            point = fmean(one["reward"] for one in of_seeds), fmean(one["divergence"] for one in of_seeds)
            found.setdefault(kind, []).append(point)
    return found


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw divergence against reward, a picture per reward that was measured."""
    from matplotlib import colormaps, rc_context
    from matplotlib.figure import Figure

    measured = {reward: found for reward in REWARDS if (found := points(results, reward))}
    # Equal files for equal results: neither a date nor random ids.
    with rc_context({"svg.hashsalt": "verifiable", "svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]}):
        figure = Figure(figsize=(4.4 * len(measured), 5.8), layout="constrained")
        row = figure.subplots(1, len(measured), squeeze=False, sharey=True)[0]
        shown = {}
        for axes, (reward, found) in zip(row, measured.items(), strict=True):
            for place, (kind, label) in enumerate(LABELS.items()):
                if kind in found:
                    # Of these two there are several learning rates and numbers of steps.
                    line = "o-" if " by " in label and kind not in ("grpo", "real") else "o"
                    style = {"color": colormaps["tab20"](place), "label": label, "markersize": 4}
                    (shown[label],) = axes.plot(*zip(*found[kind], strict=True), line, **style)
            axes.set(title=SECTIONS[reward][0], xlabel="mean reward", ylim=(0, 1))
            if max(point for of_kind in found.values() for point, _ in of_kind) > REWARDS[reward].highest:
                axes.set_xscale("log")  # the reward has no end
                axes.minorticks_off()
        row[0].set_ylabel("JS to the tilted language, bits")
        figure.legend(handles=list(shown.values()), loc="outside lower center", ncols=2, fontsize="small")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
