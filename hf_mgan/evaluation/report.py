"""The report of an evaluation: tables and verdicts, as JSON to compute with and as Markdown to read."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..markdown import code, escaped, fenced
from ..metrics import Interval
from .comparison import Point, Verdict, compare_at_matched_diversity
from .text_metrics import METRICS, TESTS


REAL = "real"
QUALITY = (*TESTS, "mauve", "frechet")  # the first one that was computed decides the verdict
DIVERSITY = "self_bleu"
NUM_SHOWN = 5  # samples of each model in the report
PLOTS = ("frontier.png", "calibration.png", "lengths.png")
DIRECTIONS = {"lower": "lower is better", "higher": "higher is better", "real": "best where that of real text is"}


@dataclass(frozen=True)
class Report:
    """All that an evaluation found.

    Args:
        command (`str`, *optional*): What was called.
        settings (`dict`): Settings, models by what they are known by, and the sizes of the data.
        baseline (`str`): Name of the model that the others are compared with.
        models (`list[str]`): Names of the models in their order.
        temperatures (`list[float]`): Their temperatures.
        level (`float`): Level of the intervals.
        parts (`dict`): By `real` and `NAME_T<temperature>`: metrics with both ends of their intervals, the calibration
            of the two-sample test, lengths in words, the texts, and the prompts of the first ones if they have some.
        seconds (`float`): Of this call.
        device (`str`): Where the models ran.
        threads (`int`): Threads of torch.
        versions (`dict[str, str]`): Of the libraries.
    """

    command: str | None
    settings: dict[str, Any]
    baseline: str
    models: list[str]
    temperatures: list[float]
    level: float
    parts: dict[str, dict[str, Any]]
    seconds: float
    device: str
    threads: int
    versions: dict[str, str]

    def metric(self, part: str, name: str) -> Interval | None:
        """Return a metric of a part, None where it was not computed."""
        values = self.parts[part]["metrics"].get(name)
        if values is None or values[0] is None:
            return None
        return Interval(*(float("nan") if value is None else value for value in values))

    @property
    def deciding_test(self) -> str:
        """The strongest two-sample test that was computed, which decides the verdicts."""
        return next((test for test in TESTS if any(test in part["metrics"] for part in self.parts.values())), TESTS[0])

    def temperatures_of(self, model: str) -> list[float]:
        """Return the temperatures at which a model was sampled; one that is guided has one."""
        return [one for one in self.temperatures if part_name(model, one) in self.parts]

    def part_nearest_to_1(self, model: str) -> str:
        """Return the part of a model at the temperature nearest to 1."""
        return part_name(model, min(self.temperatures_of(model), key=lambda temperature: abs(temperature - 1)))

    def points(self, model: str, quality: str) -> list[Point]:
        """Return a model's curve of quality against diversity, without temperatures that lack one of them."""
        points = []
        for temperature in self.temperatures_of(model):
            part = part_name(model, temperature)
            values = self.metric(part, quality), self.metric(part, DIVERSITY)
            if values[0] is not None and values[1] is not None:
                points.append(Point(temperature, values[0], values[1]))
        return points

    def verdicts(self) -> dict[str, dict[str, Verdict]]:
        """Return the verdict on each model but the baseline, by name and then by metric of quality."""
        found: dict[str, dict[str, Verdict]] = {}
        for model in self.models:
            if model == self.baseline:
                continue
            found[model] = {}
            for quality in QUALITY:
                candidate, baseline = self.points(model, quality), self.points(self.baseline, quality)
                direction = METRICS[quality].better
                if candidate and len(baseline) > 1 and direction != "real":
                    found[model][quality] = compare_at_matched_diversity(candidate, baseline, direction, self.level)
        return found


def part_name(model: str, temperature: float) -> str:
    """Return the name of the part of a model and a temperature."""
    return f"{model}_T{temperature:g}"


def write_report(report: Report, folder: Path) -> None:
    """Write `report.json`, without the texts, which lie in the parts, and `report.md`.

    Args:
        report ([`Report`]): The report.
        folder (`Path`): Where to.
    """
    values = asdict(report)
    for part in values["parts"].values():
        for name in ("texts", "prompts"):
            part.pop(name, None)
    values["verdicts"] = {}
    for model, of_model in report.verdicts().items():
        values["verdicts"][model] = {
            quality: {**_as_dict(verdict), "sentence": verdict.sentence(model, report.baseline)}
            for quality, verdict in of_model.items()
        }
    (folder / "report.json").write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    (folder / "report.md").write_text(markdown(report) + "\n")


def _as_dict(verdict: Verdict) -> dict[str, Any]:
    return {
        "word": verdict.word,
        "comparisons": [{**comparison._asdict(), "gain": list(comparison.gain)} for comparison in verdict.comparisons],
        "unmatched": verdict.unmatched,
    }


def table(report: Report) -> str:
    """Return the table of all metrics as Markdown, a row per model and temperature, real texts first.

    Args:
        report ([`Report`]): The report.

    Returns:
        `str`: Values with half of their intervals.
    """
    names = [name for name in METRICS if any(name in part["metrics"] for part in report.parts.values())]
    lines = [
        "| | T | " + " | ".join(METRICS[name].title for name in names) + " |",
        "|---|---|" + "---|" * len(names),
        "| real text | | " + " | ".join(_cell(report.metric(REAL, name)) for name in names) + " |",
    ]
    for model in report.models:
        for temperature in report.temperatures_of(model):
            part = part_name(model, temperature)
            cells = " | ".join(_cell(report.metric(part, name)) for name in names)
            lines.append(f"| {escaped(model)} | {temperature:g} | {cells} |")
    return "\n".join(lines)


def verdict_lines(report: Report) -> list[str]:
    """Return the verdicts on each model but the baseline, that of the deciding metric first.

    Args:
        report ([`Report`]): The report.

    Returns:
        `list[str]`: A sentence per model and metric of quality, in Markdown; one that says why where there is no
            verdict.
    """
    lines, baseline = [], escaped(report.baseline)
    for model, of_model in report.verdicts().items():
        if report.deciding_test not in of_model:
            lines.append(
                f"{escaped(model)} against {baseline}: no verdict. It takes the baseline's curve, of two temperatures "
                "or more with enough different texts for a two-sample test."
            )
        for quality, verdict in of_model.items():
            lines.append(f"By {METRICS[quality].title}: {verdict.sentence(escaped(model), baseline)}")
    return lines


def markdown(report: Report) -> str:
    """Write the report as Markdown.

    Args:
        report ([`Report`]): The report.

    Returns:
        `str`: Verdicts, tables, plots, samples and settings.
    """
    count = report.settings["samples_each"]
    lines = ["# Evaluation", ""]
    verdicts = verdict_lines(report)
    lines += [*(f"- {line}" for line in verdicts), ""] if verdicts else []
    lines += [
        f"{count} texts per row; values ± half of their {report.level:.0%} intervals. The first row is real text that "
        "nothing was trained on, compared with other real text: no generator can be asked for more. Read quality "
        "and diversity together: a colder softmax trades one for the other, so models compare at equal self-BLEU.",
        "",
        table(report),
        "",
    ]
    comparisons = [
        (model, METRICS[quality].title, one)
        for model, of_model in report.verdicts().items()
        for quality, verdict in of_model.items()
        for one in verdict.comparisons
    ]
    if comparisons:
        lines += [
            f"## At matched self-BLEU, against {escaped(report.baseline)}",
            "",
            "A gain above 0 is an improvement; all comparisons of a model and metric hold together at the level.",
            "",
            "| model | metric | T | baseline's T | value | baseline's | gain |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {escaped(model)} | {title} | {one.temperature:g} | {one.between[0]:g} to {one.between[1]:g} | "
            f"{one.quality:.3f} | {one.baseline_quality:.3f} | {_range(one.gain)} |"
            for model, title, one in comparisons
        ]
        lines.append("")
    lines += [f"![{name.removesuffix('.png')}]({name})" for name in PLOTS]
    lines += ["", "## What the columns are", ""]
    for name, description in METRICS.items():
        if any(name in part["metrics"] for part in report.parts.values()):
            lines.append(f"- **{description.title}** ({DIRECTIONS[description.better]}): {description.explanation}.")
    lines += ["", "## Samples", "", "The first ones at the temperature nearest to 1, not picked.", ""]
    for title, part in [("real text", REAL), *((model, report.part_nearest_to_1(model)) for model in report.models)]:
        lines.append(f"**{escaped(title)}**")
        lines.append("")
        lines += _samples(report.parts[part])
        lines.append("")
    lines += ["## How it was made", ""]
    if report.command:
        lines += [code(report.command), ""]
    seconds = sum(part["seconds"] + part.get("sampling_seconds", 0) for part in report.parts.values())
    memory = max(part["peak_memory_gib"] for part in report.parts.values())
    lines += [
        f"{seconds / 60:.1f} minutes for all parts, the sampling among them, {memory:.2f} GiB at most, on "
        f"{escaped(report.device)} with {report.threads} threads; "
        f"{', '.join(f'{name} {number}' for name, number in report.versions.items())}.",
        "",
        fenced(json.dumps(report.settings, indent=1), "json"),
    ]
    return "\n".join(lines)


def _samples(part: dict[str, Any]) -> list[str]:
    """Return the first texts of a part as a list, each behind its prompt if it has one."""
    texts = [escaped(text) for text in part["texts"][:NUM_SHOWN]]
    prompts = [escaped(prompt) for prompt in part.get("prompts") or [""] * len(texts)]
    return [f"- **{prompt}** {text}" if prompt else f"- {text}" for prompt, text in zip(prompts, texts, strict=False)]


def _cell(interval: Interval | None) -> str:
    if interval is None:
        return ""
    digits = 3 if abs(interval.value) < 10 else 1
    if interval.low != interval.low:  # no interval
        return f"{interval.value:.{digits}f}"
    return f"{interval.value:.{digits}f} ± {(interval.high - interval.low) / 2:.{digits}f}"


def _range(interval: Interval) -> str:
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
