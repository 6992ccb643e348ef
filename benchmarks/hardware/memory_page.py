"""The page docs/memory.md, from what was measured and from the formula: plain values in, Markdown out."""

from pathlib import Path
from typing import Any

from ..sweep.tables import table
from .memory_formula import COMPUTED, COMPUTED_SIZE, MEASURED, MEASURED_SIZE, PHASES, SHAPES, computed, name_of


TEMPLATE = Path(__file__).with_name("memory.md.in")
COLUMNS = ("weights", "adapters", "optimizer", "gradients", *PHASES, "peak")

Result = dict[str, Any]


def amount(gib: float) -> str:
    return f"{gib:.2f}" if gib < 10 else f"{gib:.1f}"


def errors(measured: Result, formula: dict[str, float]) -> dict[str, float]:
    """Return the formula's error in the models alone and in the peak, as parts of what was measured."""
    return {
        "models": round(formula["weights"] / measured["models"] - 1, 3),
        "peak": round(formula["peak"] / measured["peak"] - 1, 3),
    }


def computed_table() -> str:
    """Return the formula's amounts for the large pairs."""
    rows = []
    for cell in COMPUTED:
        amounts = computed(cell, COMPUTED_SIZE, cuda=True)
        rows.append([*cell, *(amount(amounts[column]) for column in COLUMNS)])
    return table(["generator", "discriminator", "both models", *COLUMNS], rows)


def measured_table(measured: list[Result]) -> str:
    """Return what was measured beside what the formula says, one line per cell."""
    rows = []
    for one in measured:
        formula = computed(tuple(one["cell"]), MEASURED_SIZE, cuda=False)
        error = errors(one, formula)["peak"]
        amounts = (one["models"], formula["weights"], one["peak"], formula["peak"])
        rows.append([*one["cell"][1:], *map(amount, amounts), f"{error:+.0%}", f"{one['seconds']:.0f}"])
    head = ["discriminator", "both models", "as loaded", "computed", "peak", "computed", "error", "seconds"]
    return table(head, rows)


def parts_table(measured: list[Result]) -> str:
    """Return the same for each part of a step."""
    rows = []
    for one in measured:
        formula = computed(tuple(one["cell"]), MEASURED_SIZE, cuda=False)
        pairs = [(one[phase], always(formula) + formula[phase]) for phase in PHASES]
        rows.append([*one["cell"][1:], *(amount(value) for pair in pairs for value in pair)])
    head = ["discriminator", "both models"]
    return table(head + [cell for phase in PHASES for cell in (phase, "computed")], rows)


def always(formula: dict[str, float]) -> float:
    return sum(formula[name] for name in ("weights", "adapters", "optimizer"))


def gpu_table(gpu: list[Result]) -> str:
    """Return what was measured on a GPU beside what the formula says of the same pair."""
    measured = next(one["memory_gib"] for one in gpu if one["part"] == "adversarial")
    formula = computed(("7B", "0.4B", "4-bit + LoRA"), COMPUTED_SIZE, cuda=True)
    rows = [[part, amount(measured[part]), amount(always(formula) + formula[part])] for part in PHASES]
    rows.append(["peak", amount(measured["peak"]), amount(formula["peak"])])
    return table(["part of a step", "measured", "computed"], rows)


def page(measured: list[Result], gpu: list[Result]) -> str:
    """Return the page.

    Args:
        measured (`list[dict]`): Results of `hardware.memory`, one per cell.
        gpu (`list[dict]`): Results of `hardware.gpu`, one per part.
    """
    by_name = {name_of(one["cell"]): one for one in measured}
    ordered = [by_name[name_of(cell)] for cell in MEASURED if name_of(cell) in by_name]
    formulas = [computed(tuple(one["cell"]), MEASURED_SIZE, cuda=False) for one in ordered]
    gaps = [
        one["discriminator"] - always(formula) - formula["discriminator"]
        for one, formula in zip(ordered, formulas, strict=True)
    ]
    worst = max((errors(*pair)["peak"] for pair in zip(ordered, formulas, strict=True)), key=abs)
    return TEMPLATE.read_text().format(
        shapes=table(["name", "shape of"], [[name, shape] for name, shape in SHAPES.items()]),
        computed=computed_table(),
        measured=measured_table(ordered),
        parts=parts_table(ordered),
        gpu=gpu_table(gpu),
        gpu_device=gpu[0]["device"],
        worst=f"{worst:+.0%}",
        least=f"{min(gaps):.2f}",
        most=f"{max(gaps):.2f}",
        computed_size=COMPUTED_SIZE,
        measured_size=MEASURED_SIZE,
    )
