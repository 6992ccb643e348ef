"""The tables of `benchmarks.mixture`: plain values in, Markdown out."""

from statistics import fmean, stdev
from typing import Any

from ..sweep.tables import NOT_RUN, table


LOSS_NAMES = ("bce", "bradley_terry", "relativistic_average", "hinge", "least_squares")
ANCHORS = {
    "none": "no anchor",
    "real text": "`real_text_coef=0.1`",
    "KL": "`beta=0.1`",
    "replay": "`discriminator_replay_fraction=0.5`",
}
STARTS = ("one", "all")


def modes_table(results: list[dict[str, Any]], start: str) -> str:
    """Return the divergence of every loss with every anchor, and the modes that are covered."""
    rows = []
    for loss in LOSS_NAMES:
        row = [f"`{loss}`"]
        for anchor in ANCHORS:
            wanted = (start, loss, anchor)
            ends = [one["after"] for one in results if (one["start"], one["loss"], one["anchor"]) == wanted]
            divergences = [end["divergence"] for end in ends]
            deviation = f" ± {stdev(divergences):.3f}" if len(ends) > 1 else ""
            modes = f" ({fmean(end['modes'] for end in ends):.1f})" if ends else ""
            row.append(f"{fmean(divergences):.3f}{deviation}{modes}" if ends else NOT_RUN)
        rows.append(row)
    return table(["loss", *ANCHORS.values()], rows)
