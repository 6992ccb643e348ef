"""What the examples found as lines of results, and the parts of the how-tos that are made of them.

A part of a page stands between `<!-- measured: table -->` or `<!-- measured: samples -->` and `<!-- end -->`.
"""

import json
import re
from pathlib import Path
from typing import Any

from hf_mgan.discriminator.calibration import CALIBRATION_FILE
from hf_mgan.evaluation.report import REAL
from hf_mgan.evaluation.text_metrics import METRICS
from hf_mgan.markdown import fenced

from ..pages.results import evaluation_lines
from ..sweep import PAGES, rounded
from ..sweep.tables import table, with_error


HOW_TOS = {  # by the name of their how-to
    "stories": ("stories",),
    "chatbot": ("chat",),
    "translation": ("translation", "translation_es_en"),
    "style_transfer": ("style_transfer",),
    "qlora": ("qlora", "lora", "lora_supervised"),
}
COLUMNS = ("c2st_auc", "bleu", "chrf", "self_bleu", "length_ratio", "near_duplicates", "draws")
DIGITS = {"bleu": 1, "chrf": 1, "draws": 1}  # of all others 3
ACCURACY = "discriminator/accuracy"
NUM_SAMPLES = 4
PART = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Result = dict[str, Any]


def lines_of(name: str, folder: Path) -> list[Result]:
    """Return a line for each row of the report of an example, with its first texts.

    Args:
        name (`str`): Name of the example.
        folder (`Path`): Its folder of output.
    """
    report = json.loads((folder / "evaluation" / "report.json").read_text())
    about = json.loads((folder / "run.json").read_text())
    states = sorted(folder.glob("checkpoint-*/trainer_state.json"), key=lambda path: path.stat().st_mtime)
    logged = [entry for state in states[-1:] for entry in json.loads(state.read_text())["log_history"]]
    about["discriminator_accuracy"] = [[entry["step"], entry[ACCURACY]] for entry in logged if ACCURACY in entry]
    calibration = folder / "discriminator" / CALIBRATION_FILE
    about["discriminator_auc"] = json.loads(calibration.read_text())["auc"] if calibration.exists() else None
    sentences = {
        model: [verdict["sentence"] for verdict in of_model.values()] for model, of_model in report["verdicts"].items()
    }
    lines = []
    for part, line in zip(report["parts"], evaluation_lines(report), strict=True):
        kind = "parts" if part == REAL else "samples"
        texts = json.loads((folder / "evaluation" / kind / f"{part}.json").read_text())
        one = {
            "application": name,
            **line,
            "texts": texts["texts"][:NUM_SAMPLES],
            "prompts": (texts["prompts"] or [""] * NUM_SAMPLES)[:NUM_SAMPLES],
            "verdicts": sentences.get(line["model"], []),
            "samples_each": report["settings"]["samples_each"],
            "seed": report["settings"]["seed"],
            "threads": report["threads"],
            **about,
        }
        lines.append(rounded(one))
    return lines


def measured_table(lines: list[Result]) -> str:
    """Return the rows of an example, values with half of their intervals, behind what they were measured on."""
    shown = [name for name in COLUMNS if any(name in one["metrics"] for one in lines)]
    rows = [
        [
            one["model"],
            "" if one["temperature"] is None else f"{one['temperature']:g}",
            *(with_error(one["metrics"].get(name), DIGITS.get(name, 3)) for name in shown),
        ]
        for one in lines
    ]
    first = lines[0]
    said = (
        f"{first['generator']} and {first['discriminator']}, {first['samples_each']} unseen texts of\n"
        f"`{first['corpus']}` and as many written ones, seed {first['seed']}, in {first['seconds'] / 60:.0f} minutes "
        f"({first['device']}, threads: {first['threads']}):"
    )
    commands = fenced("\n".join(first["commands"]), "text")
    verdicts = [f"- {sentence}" for one in _last_of_each(lines) for sentence in one["verdicts"]]
    accuracies = [accuracy for step, accuracy in first["discriminator_accuracy"] if step]
    if accuracies:
        verdicts.append(
            f"- The discriminator's accuracy, entries of the log from step 1 on: "
            f"{', '.join(f'{accuracy:.2f}' for accuracy in accuracies)}."
        )
    if (auc := first["discriminator_auc"]) is not None:
        verdicts.append(f"- The discriminator's AUC on held-out texts: {auc[0]:.2f} ({auc[1]:.2f} to {auc[2]:.2f}).")
    head = ["way to write", "T", *(METRICS[name].title for name in shown)]
    return "\n\n".join([said, commands, table(head, rows), "\n".join(verdicts)]).strip()


def measured_samples(lines: list[Result]) -> str:
    """Return the first texts of each way to write, at its highest temperature, as they are."""
    return "\n\n".join(
        f"{_title(one)}:\n\n" + fenced("\n".join(map(_shown, one["prompts"], one["texts"])), "text")
        for one in _last_of_each(lines)
    )


PARTS = {"table": measured_table, "samples": measured_samples}


def page(name: str, results: list[Result]) -> str:
    """Return the text of a how-to with its measured parts made of the results, if its example has some.

    Args:
        name (`str`): Name of the how-to, such as `stories`.
        results (`list[dict]`): Of all examples.
    """
    text = (PAGES / f"how_to/{name}.md").read_text()
    runs = [[one for one in results if one["application"] == application] for application in HOW_TOS[name]]

    def made(part: re.Match[str]) -> str:
        of_runs = []
        for lines in filter(None, runs):
            title = f"**{lines[0]['application']}**\n\n" if len(runs) > 1 else ""
            of_runs.append(f"{title}{PARTS[part[2]](lines)}\n\n")
        return f"{part[1]}\n{''.join(of_runs)}{part[3]}"

    return PART.sub(made, text) if any(runs) else text


def _last_of_each(lines: list[Result]) -> list[Result]:
    """Return one line for each model, that of its highest temperature."""
    return list({one["model"]: one for one in sorted(lines, key=lambda one: one["temperature"] or 0)}.values())


def _title(line: Result) -> str:
    title = line["model"] if line["temperature"] is None else f"{line['model']}, T = {line['temperature']:g}"
    return title[0].upper() + title[1:]


def _shown(prompt: str, text: str) -> str:
    """Return a text behind its prompt, if it has one, in one line, a bar between."""
    return " ".join((f"{prompt} | {text}" if prompt else text).split())
