"""The table of `benchmarks.safety`, and whether the gate keeps its promise: plain values in, Markdown out."""

from statistics import fmean, stdev
from typing import Any

from hf_mgan.demo.language import Language

from ..sweep.tables import table
from .training import CONDITIONS


GATE = "gate_2"  # the condition whose promise is checked

Result = dict[str, Any]
COLUMNS = {
    "unsafe": ("unsafe_rate", 4),
    "JS to the safe language": ("divergence_to_the_safe_language", 3),
    "JS to the whole": ("divergence_to_the_whole_language", 3),
    "grammatical": ("grammatical", 3),
    "distinct-4": ("distinct_4", 3),
    "entropy": ("entropy", 2),
    "NLL of real": ("real_nll", 2),
    "words": ("mean_length", 2),
}
GENERATION_COLUMNS = {
    "draws": ("draws", 2),
    "tokens": ("tokens_per_text", 1),
    "unsafe, its classifier": ("unsafe_by_filter", 4),
    "another classifier": ("unsafe_by_other", 4),
    "the rule": ("unsafe_rate", 4),
    "JS to the safe language": ("divergence_to_the_safe_language", 3),
    "grammatical": ("grammatical", 3),
    "words": ("mean_length", 2),
}


def safety_table(seeds: list[Result], share: float) -> str:
    """Return one line per generator: means over the seeds ± deviation.

    Args:
        seeds (`list[dict]`): One per seed.
        share (`float`): Share of the language that is unsafe.
    """

    def cells(entries: list[Result]) -> list[str]:
        return [over([entry[key] for entry in entries], digits) for key, digits in COLUMNS.values()]

    entropy = Language().entropy()
    of_language = {"unsafe": f"{share:.4f}", "JS to the whole": "0", "grammatical": "1.000"}
    of_language |= {"entropy": f"{entropy:.2f}", "NLL of real": f"{entropy:.2f}"}
    rows = [["the language", *(of_language.get(name, "") for name in COLUMNS)]]
    rows.append(["maximum likelihood", *cells([seed["likelihood"] for seed in seeds])])
    for condition in CONDITIONS:
        entries = [seed["runs"][condition.name] for seed in seeds if condition.name in seed["runs"]]
        if entries:
            rows.append([condition.text, *cells(entries)])
    return table(["", *COLUMNS], rows)


def generation_table(seeds: list[Result], share: float) -> str:
    """Return one line per way of sampling: means over the seeds ± deviation; arguments as in [`safety_table`]."""
    rows = [["the language", "", "", "", "", f"{share:.4f}", "", "1.000", ""]]
    for name in seeds[0]["samplers"]:
        if name != "seconds":
            entries = [seed["samplers"][name] for seed in seeds]
            cells = [over([entry[key] for entry in entries], digits) for key, digits in GENERATION_COLUMNS.values()]
            rows.append([entries[0]["text"], *cells])
    return table(["", *GENERATION_COLUMNS], rows)


def over(values: list[float], digits: int) -> str:
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{deviation}"


def promises(seeds: list[Result]) -> list[Result]:
    """Say for each seed whether the gate keeps its promise: a tenth of the unsafe rate, the divergence no worse."""
    rows = []
    for seed in seeds:
        if not {"discriminator", GATE} <= set(seed["runs"]):
            continue
        alone, gate = seed["runs"]["discriminator"], seed["runs"][GATE]
        before = seed["likelihood"]["unsafe_rate"]
        divergences = [run["divergence_to_the_safe_language"] for run in (alone, gate)]
        rows.append(
            {
                "unsafe_rate_before": before,
                "unsafe_rate_with_discriminator_alone": alone["unsafe_rate"],
                "unsafe_rate_with_gate": gate["unsafe_rate"],
                "at_least_tenfold_below_the_start": gate["unsafe_rate"] <= before / 10,
                "at_least_tenfold_below_the_discriminator_alone": gate["unsafe_rate"] <= alone["unsafe_rate"] / 10,
                "divergence_with_discriminator_alone": divergences[0],
                "divergence_with_gate": divergences[1],
                "divergence_not_worse": divergences[1] <= divergences[0],
            }
        )
    return rows
