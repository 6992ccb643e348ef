"""The watchdog's verdict: a run in a few sentences, at its end.

In: what the watchdog has seen. Out: a text that says how the run went by its own log, and what only held-out text can
say.
"""

from collections.abc import Sequence
from typing import Any

from .failure_modes import ACCURACY, DUPLICATES, LENGTH_RATIO, REAL_DUPLICATES, VALUE, Means


def verdict(
    steps: int, start: Means, end: Means, alarms: Sequence[Sequence[Any]], active: Sequence[str], folder: str
) -> str:
    """Say in plain words how a run went.

    Args:
        steps (`int`): The generator's steps.
        start (`dict[str, float]`): Means over the first steps; empty if there were too few.
        end (`dict[str, float]`): Means of the last ones.
        alarms (`Sequence` of step, name and message): All alarms.
        active (`Sequence[str]`): Failures that are still there, those of evaluations with the prefix `eval_`.
        folder (`str`): Where the models are saved.

    Returns:
        `str`: One paragraph.
    """
    parts = [_of_alarms(alarms, active)]
    if start:
        parts += [_of_discriminator(start, end), _of_texts(start, end)]
    else:
        parts.append("Too few steps were logged for more: let training go on, or lower logging_steps.")
    parts.append(
        "All this is said of texts that both models have learnt from. Whether the text has become better says only "
        f"held-out text: hf-mgan evaluate --models {folder}."
    )
    return f"Watchdog, after {steps} steps: {' '.join(part for part in parts if part)}"


def _of_alarms(alarms: Sequence[Sequence[Any]], active: Sequence[str]) -> str:
    if not alarms:
        return "no alarm."
    said = {name: step for step, name, _ in reversed(alarms)}  # the first step of each
    still = {name.removeprefix("eval_") for name in active}
    parts = [
        f"{name} since step {step}" if name in still else f"{name} at step {step}, which has passed"
        for name, step in sorted(said.items(), key=lambda pair: pair[1])
    ]
    remedy = "What to change stands in the warnings, and in docs/troubleshooting.md."
    return f"{', '.join(parts)}. {remedy}"


def _of_discriminator(start: Means, end: Means) -> str:
    if ACCURACY not in start or ACCURACY not in end:
        return ""
    value = f" V(D, G) is {end[VALUE]:.2f} nats (-1.39 at chance)." if VALUE in end else ""
    return (
        f"The discriminator tells completions from real text with an accuracy of {end[ACCURACY]:.2f} "
        f"({start[ACCURACY]:.2f} at the start; by chance 0.50).{value}"
    )


def _of_texts(start: Means, end: Means) -> str:
    parts = []
    if LENGTH_RATIO in end:
        before = f" ({start[LENGTH_RATIO]:.2f} at the start)" if LENGTH_RATIO in start else ""
        parts.append(f"Completions have {end[LENGTH_RATIO]:.2f} times the length of real texts{before}.")
    if DUPLICATES in end and REAL_DUPLICATES in end:
        parts.append(f"{end[DUPLICATES]:.0%} of them repeat another one (real texts: {end[REAL_DUPLICATES]:.0%}).")
    return " ".join(parts)
