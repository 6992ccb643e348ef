"""What a model card shows of the log of a run: curves, evaluation and safety.

In: the trainer's log. Out: Markdown, and the evaluation as the Hub's `model-index` has it.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, cast

from huggingface_hub import EvalResult

from ..evaluation.text_metrics import METRICS, SAMPLES_PREFIX
from ..markdown import code, escaped


ROWS = 8  # of the table of curves, at most
CURVES = {
    "discriminator/real_prob": "D(x)",
    "discriminator/fake_prob": "D(G(s))",
    "discriminator/accuracy": "accuracy of D",
    "discriminator/value": "V(D, G)",
    "reward": "reward",
    "completions/length_ratio": "length ratio",
    "safety/unsafe_rate": "unsafe",
}
OF_DISCRIMINATOR = {
    "discriminator/real_prob": "D(x), mean probability it gives real text",
    "discriminator/fake_prob": "D(G(s)), mean probability it gives generated text",
    "discriminator/accuracy": "its accuracy on text it was not yet trained on",
    "discriminator/value": "V(D, G) in nats; -log 4 = -1.386 where it cannot tell",
}
# An evaluation set of several has its name in between; what only serves the training itself is left out.
EVALUATED = re.compile(
    r"eval_(?:(?P<set>.+?)_)?(?P<name>(?:samples|held_out)/.+|generator/real_nll|safety/unsafe_rate"
    r"|discriminator/(?:real_prob|fake_prob|accuracy|value)|rewards/(?!(?:discriminator|safety_gate)/).+/mean)"
)
BETTER = {"lower": "lower is better", "higher": "higher is better", "real": "best where real text is"}
Log = Sequence[dict[str, Any]]


def last_metrics(log: Log) -> dict[str, float]:
    """Return the last values of the discriminator's metrics in training."""
    entries = [entry for entry in log if "discriminator/value" in entry]
    return {name: entries[-1][name] for name in OF_DISCRIMINATOR if name in entries[-1]} if entries else {}


def curves(log: Log) -> str:
    """Return a table of what moved in training, "" before any step; steps stand at even distances."""
    entries = [entry for entry in log if "discriminator/value" in entry and "discriminator/warmup_step" not in entry]
    if not entries:
        return ""
    number = min(ROWS, len(entries))
    chosen = [entries[round(at * (len(entries) - 1) / max(number - 1, 1))] for at in range(number)]
    names = [name for name in CURVES if any(name in entry for entry in chosen)]
    head = f"| step | {' | '.join(CURVES[name] for name in names)} |\n|---|{'---|' * len(names)}\n"
    rows = [f"| {entry['step']} | {' | '.join(_number(entry.get(name)) for name in names)} |\n" for entry in chosen]
    return (
        f"{head}{''.join(rows)}\nV(D, G) is in nats, and -1.386 where the discriminator cannot tell the two apart.\n"
    )


def evaluation(log: Log) -> dict[str, float]:
    """Return the last finite value of each metric of an evaluation, by its name in the log."""
    found: dict[str, float] = {}
    for entry in log:
        found |= {
            name: value
            for name, value in entry.items()
            if EVALUATED.fullmatch(name) and isinstance(value, (int, float)) and math.isfinite(value)
        }
    return found


def evaluation_table(log: Log) -> str:
    """Return a table of the last evaluation, "" without one."""
    found = evaluation(log)
    if not found:
        return ""
    step = max(entry["step"] for entry in log if any(name in found for name in entry))
    rows = [f"| {escaped(_title(name))} | {_number(value)} | {_explained(name)} |\n" for name, value in found.items()]
    return f"At step {step}, on held-out texts.\n\n| metric | value | |\n|---|---|---|\n{''.join(rows)}"


def eval_results(log: Log, datasets: Sequence[str]) -> list[EvalResult] | None:
    """Return the last evaluation as the Hub's `model-index` has it, None without one.

    Args:
        log (`Sequence[dict]`): The trainer's log.
        datasets (`Sequence[str]`): Hub ids of the data; held-out texts belong to the first one.
    """
    results = [
        EvalResult(
            task_type="text-generation",
            task_name="Text Generation",
            dataset_type=datasets[0] if datasets else "held-out-texts",
            dataset_name=f"held-out texts of {datasets[0]}" if datasets else "held-out texts",
            metric_type=_short(name),
            metric_name=_title(name),
            metric_value=round(value, 6),
        )
        for name, value in evaluation(log).items()
    ]
    return results or None


def safety_section(log: Log, gate: str, threshold: float, num_left_out: int) -> str:
    """Return what a safety gate has seen.

    Args:
        log (`Sequence[dict]`): The trainer's log.
        gate (`str`): What the gate is, in Markdown.
        threshold (`float`): P(unsafe) from which on a completion is unsafe.
        num_left_out (`int`): Samples that the card leaves out since the gate takes them for unsafe.
    """
    rates = [(entry["step"], entry["safety/unsafe_rate"]) for entry in log if "safety/unsafe_rate" in entry]
    rates = [rate for rate in rates if isinstance(rate[1], (int, float))]
    rows = []
    if rates:
        rows.append(f"| share of unsafe completions at step {rates[0][0]} | {rates[0][1]:.4f} |\n")
        rows.append(f"| at step {rates[-1][0]} | {rates[-1][1]:.4f} |\n")
        mean = sum(rate for _, rate in rates) / len(rates)
        rows.append(f"| mean of {len(rates)} entries of the log | {mean:.4f} |\n")
    rows += [
        f"| {escaped(_title(name))} in evaluation | {value:.4f} |\n"
        for name, value in evaluation(log).items()
        if name.endswith("/unsafe_rate")
    ]
    return (
        f"In training a safety gate, {gate}, put every completion that it takes for unsafe (P(unsafe) of at least "
        f"{threshold:g}) below all safe ones of its group. It does not stop the model from writing one. "
        f"Samples left out of this card, since it takes them for unsafe: {num_left_out}.\n\n"
        f"| | |\n|---|---|\n{''.join(rows)}"
    )


def _title(name: str) -> str:
    """Return what a metric of an evaluation is called in a table."""
    match = cast("re.Match[str]", EVALUATED.fullmatch(name))
    of_set = f", {match['set']}" if match["set"] else ""
    metric = match["name"]
    if metric in OF_DISCRIMINATOR:
        return f"{CURVES[metric]}{of_set}"
    if metric == "generator/real_nll":
        return f"negative log-likelihood of real text, in nats per token{of_set}"
    if metric.startswith("rewards/"):
        return f"reward {metric.removeprefix('rewards/').removesuffix('/mean')}{of_set}"
    side, _, last = metric.rpartition("/")
    known = METRICS[last].title if last in METRICS else last.replace("_", " ")
    return f"{known}{' of real texts' if side == 'held_out' else ''}{of_set}"


def _explained(name: str) -> str:
    metric = name.rpartition("/")[2]
    if SAMPLES_PREFIX in name and metric in METRICS:
        return BETTER[METRICS[metric].better]
    return code(name)


def _short(name: str) -> str:
    return re.sub(r"[^\w]+", "_", name.removeprefix("eval_"))


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, (int, float)) else ""
