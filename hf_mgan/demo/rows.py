"""The rows of the demo's table: every model of all seeds, alone and with its discriminator at generation.

In: the results of the seeds. Out: [`Row`]s, each the mean over the seeds; `demo.json` and the report have them.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .exact_metrics import GuidedQuality, Quality


if TYPE_CHECKING:
    from .run import SeedResult

LANGUAGE, ADVERSARIAL = "the language", "adversarial"


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name (`str`): The model, or the models.
        temperature (`float`, *optional*): Temperature of the generator, the mean over the seeds.
        threshold (`float`, *optional*): c of rejection in nats, where a discriminator takes part.
        js (`float`): Jensen-Shannon divergence to the language in bits.
        js_error (`float`): Its standard deviation over the seeds, or the standard error where there is one seed.
        draws (`float`): Sentences drawn per sentence kept.
        real_nll (`float`): Negative log-likelihood of a real sentence in nats.
        grammatical (`float`): Share of grammatical sentences.
        entropy (`float`): Entropy of a sentence in nats.
        mean_length (`float`): Words per sentence.
    """

    name: str
    temperature: float | None
    threshold: float | None
    js: float
    js_error: float
    draws: float
    real_nll: float
    grammatical: float
    entropy: float
    mean_length: float


def table_rows(runs: "Sequence[SeedResult]", real: dict[str, float]) -> list[Row]:
    """Make the rows of the table.

    Args:
        runs (`Sequence[SeedResult]`): One per seed.
        real (`dict[str, float]`): Metrics of the language itself.

    Returns:
        `list[Row]`: The language first.
    """
    entropy, length = real["entropy"], real["mean_length"]
    rows = [Row(LANGUAGE, None, None, 0.0, 0.0, 1.0, entropy, real["grammatical"], entropy, length)]
    rows.append(_row("maximum likelihood", [at_one(run.likelihood) for run in runs]))
    rows.append(_row("  at its best T", [run.likelihood[0] for run in runs]))
    rows.append(_row("  after 2x steps", [run.likelihood_again[0] for run in runs]))
    rows.append(_row(ADVERSARIAL, [run.adversarial for run in runs]))
    for name in runs[0].guided:
        guided = [_row(name, list(same)) for same in zip(*(run.guided[name] for run in runs), strict=True)]
        at = len(rows) if name.startswith(ADVERSARIAL) else [row.name for row in rows].index(ADVERSARIAL)
        rows[at:at] = guided
    return rows


def at_one(qualities: list[Quality]) -> Quality:
    """Return the metrics at temperature 1."""
    return next(quality for quality in qualities if quality.temperature == 1.0)


def _row(name: str, qualities: Sequence[Quality | GuidedQuality]) -> Row:
    def mean(key: str) -> Any:
        return statistics.fmean(getattr(quality, key) for quality in qualities)

    first, divergences = qualities[0], [quality.divergence for quality in qualities]
    return Row(
        name=name,
        temperature=mean("temperature"),
        threshold=first.threshold if isinstance(first, GuidedQuality) else None,
        js=mean("divergence"),
        js_error=statistics.stdev(divergences) if len(divergences) > 1 else first.standard_error,
        draws=mean("draws") if isinstance(first, GuidedQuality) else 1.0,
        real_nll=mean("real_nll"),
        grammatical=mean("grammatical"),
        entropy=mean("entropy"),
        mean_length=mean("mean_length"),
    )
