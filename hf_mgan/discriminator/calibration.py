"""Calibration: from the discriminator's logit to the log-ratio log p(x) - log q(x) of real to generated text.

The logit of the best discriminator is that log-ratio. One that is trained for a while is too confident or not
confident enough; Turner et al. 2019 ([1811.11357](https://huggingface.co/papers/1811.11357)) calibrate it on held-out
texts before they sample with it. In: logits of held-out real texts and of texts of the generator as it is sampled.
Out: a [`Calibration`], Platt's (a logistic regression on the logit, by scikit-learn), which lies beside the
discriminator as `calibration.json`.
"""

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers.utils import cached_file

from ..checks import COUNT, FLAG, INDEX, POSITIVE, Check, Dict, Number, Text, check_fields, optional
from ..metrics.extras import require_packages
from ..metrics.intervals import Interval, auc_interval


CALIBRATION_FILE = "calibration.json"
LEAST_TEXTS = 20  # of each side; an area under the curve of fewer says nothing
NUM_BINS = 10
FIELDS: dict[str, Check] = {
    "slope": Number(),
    "intercept": Number(),
    "label": INDEX,
    "with_prompt": FLAG,
    "temperature": POSITIVE,
    "max_new_tokens": COUNT,
    "generation_kwargs": Dict(),
    "prefixes": FLAG,
    "boundary": Text(what="white space, or an empty string", pattern=r"\s*", optional=True),
    "are_whole": FLAG,
    "previous_threshold": optional(Number()),
    "previous_draws": optional(Number(least=1)),
}


@dataclass(frozen=True)
class Calibration:
    """How a discriminator's logit becomes a log-ratio, and for which texts.

    Args:
        slope (`float`): The log-ratio is `slope * logit + intercept`, in nats. Below 1: the logit was too confident.
        intercept (`float`): See `slope`.
        label (`int`): Index of the classifier's label that means real.
        with_prompt (`bool`): Whether the discriminator was shown prompts.
        temperature (`float`): That at which the generator was sampled.
        max_new_tokens (`int`): Number of tokens at which texts were cut.
        generation_kwargs (`dict`): What else shaped the distribution of the generator.
        num_texts (`int`): Held-out texts of each side.
        auc (`tuple[float, float, float]`): How often a held-out real text has a higher logit than a generated one, and
            the ends of its 95 % interval.
        loss (`float`): Binary cross-entropy on held-out texts in nats, each half calibrated by the other; log 2 =
            0.693 says that the discriminator is at chance.
        uncalibrated_loss (`float`): That of the logit as it is.
        error (`float`): Expected calibration error in [0, 1], each half calibrated by the other: how far the
            probability of being real is from the share of real texts, on average (Guo et al. 2017,
            [1706.04599](https://huggingface.co/papers/1706.04599)).
        uncalibrated_error (`float`): That of the logit as it is.
        prefixes (`bool`): Whether the discriminator has learnt from all prefixes of a text.
        boundary (`str`, *optional*): The white space that it has seen all completions begin with; None if they began
            in different ways.
        are_whole (`bool`): Whether prompt and completion were shown as one text.
        previous_threshold (`float`, *optional*): c of rejection by a previous discriminator, in nats, which the
            generated texts had come through; None if they were the generator's own.
        previous_draws (`float`, *optional*): Draws per text that it took, on average.

    Raises:
        TypeError: If a value is of another type.
        ValueError: If a value is out of range, or one of the last two is given alone.
    """

    slope: float
    intercept: float
    label: int
    with_prompt: bool
    temperature: float
    max_new_tokens: int
    num_texts: int
    auc: tuple[float, float, float]
    loss: float
    uncalibrated_loss: float
    error: float
    uncalibrated_error: float
    generation_kwargs: dict[str, Any] = field(default_factory=dict)
    prefixes: bool = False
    boundary: str | None = None
    are_whole: bool = False
    previous_threshold: float | None = None
    previous_draws: float | None = None

    def __post_init__(self) -> None:
        check_fields(self, FIELDS)
        if (self.previous_threshold is None) != (self.previous_draws is None):
            raise ValueError(
                f"previous_threshold={self.previous_threshold} and previous_draws={self.previous_draws} belong "
                "together: give both, or neither."
            )

    def log_ratio(self, logits: Tensor, previous: Tensor | None = None) -> Tensor:
        """Compute log p(x) - log q(x) of real texts p to the generator q, in nats.

        What a previous discriminator keeps has the density q(x) min(1, exp(r'(x) - c)) / Z with its log-ratio r' and
        1 / Z draws per text, so that the log-ratio r'' of real texts to that makes

            log p(x) - log q(x) = r''(x) + min(0, r'(x) - c) + log(1 / Z).

        Args:
            logits (`Tensor` of any shape): Of the discriminator.
            previous (`Tensor` of that shape, *optional*): r'. Without it the result is r''.
        """
        log_ratio = self.slope * logits + self.intercept
        if previous is None or self.previous_threshold is None or self.previous_draws is None:
            return log_ratio
        return log_ratio + (previous - self.previous_threshold).clamp(max=0) + math.log(self.previous_draws)

    def save(self, folder: str | Path) -> None:
        """Write `calibration.json` into a folder."""
        (Path(folder) / CALIBRATION_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "Calibration":
        """Read what [`save`] wrote.

        Raises:
            ValueError: If the file holds something else.
        """
        try:
            values = json.loads(Path(path).read_text())
            return cls(**{**values, "auc": tuple(values["auc"])})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no calibration of a discriminator: {error}. Calibrate it anew.") from error


def saved_calibration(source: str, revision: str | None = None) -> Calibration | None:
    """Read the calibration that lies beside a saved discriminator.

    Args:
        source (`str`): Folder or Hub id.
        revision (`str`, *optional*): Branch, tag or commit.

    Returns:
        [`Calibration`], *optional*: None where there is none.
    """
    path = cached_file(
        source,
        CALIBRATION_FILE,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,  # the model itself may be there, kept from before
    )
    return None if path is None else Calibration.load(path)


def calibrate(
    real_logits: Tensor,
    fake_logits: Tensor,
    *,
    label: int,
    with_prompt: bool,
    temperature: float,
    max_new_tokens: int,
    generation_kwargs: Mapping[str, Any] | None = None,
    prefixes: bool = False,
    boundary: str | None = None,
    are_whole: bool = False,
    previous_threshold: float | None = None,
    previous_draws: float | None = None,
) -> Calibration:
    """Fit a calibration to the logits of held-out texts, real and generated ones counting alike.

    Args:
        real_logits (`Tensor` of shape `(R,)`): Of real texts that the discriminator has not learnt from.
        fake_logits (`Tensor` of shape `(B,)`): Of texts of the generator, newly drawn.
        label (`int`): See [`Calibration`], as all that follow.
        with_prompt (`bool`): See there.
        temperature (`float`): See there.
        max_new_tokens (`int`): See there.
        generation_kwargs (`Mapping`, *optional*): See there.
        prefixes (`bool`, *optional*, defaults to `False`): See there.
        boundary (`str`, *optional*): See there.
        are_whole (`bool`, *optional*, defaults to `False`): See there.
        previous_threshold (`float`, *optional*): See there.
        previous_draws (`float`, *optional*): See there.

    Returns:
        [`Calibration`]: The calibration.

    Raises:
        ImportError: If scikit-learn is missing.
        TypeError: If a value is of another type.
        ValueError: If there are fewer than 20 texts of a side, a logit is not finite, or a value is out of range.

    Warns:
        UserWarning: If the logits rank generated texts as high as real ones or higher. They are a log-ratio of no
            slope then, and the slope is 0: all texts are alike to the discriminator.
    """
    require_packages("A calibration", "scikit-learn")
    sides = real, fake = [side.detach().double().cpu() for side in (real_logits, fake_logits)]
    if min(map(len, sides)) < LEAST_TEXTS:
        raise ValueError(
            f"A calibration takes at least {LEAST_TEXTS} held-out texts of each side, got {len(sides[0])} real and "
            f"{len(sides[1])} generated ones. Give more held-out real texts; 1000 are common."
        )
    if not torch.cat(sides).isfinite().all():
        raise ValueError("A logit of the held-out texts is not finite, so that nothing can be calibrated.")
    auc = auc_interval(real, fake)
    slope, intercept = _fitted(real, fake)
    if slope <= 0:
        warnings.warn(
            f"The discriminator ranks held-out generated texts as high as real ones (AUC {auc.value:.3f}, "
            f"{auc.low:.3f} to {auc.high:.3f}), so it is calibrated to tell nothing apart. Train it for longer, or "
            "see whether discriminator_label means real; if the texts cannot be told apart, there is nothing to mend.",
            stacklevel=2,
        )
        slope = intercept = 0.0
    # Each half is calibrated by the other, so that the error is that on texts which the calibration has not seen.
    crossed = [torch.empty_like(side) for side in sides]
    for first in (0, 1):
        fit = _fitted(*(side[first::2] for side in sides))
        for side, values in zip(sides, crossed, strict=True):
            values[1 - first :: 2] = fit[0] * side[1 - first :: 2] + fit[1]
    return Calibration(
        slope=slope,
        intercept=intercept,
        label=label,
        with_prompt=with_prompt,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        generation_kwargs=dict(generation_kwargs or {}),
        prefixes=prefixes,
        boundary=boundary,
        are_whole=are_whole,
        previous_threshold=previous_threshold,
        previous_draws=previous_draws,
        num_texts=min(map(len, sides)),
        auc=_rounded(auc),
        loss=_loss(*crossed),
        uncalibrated_loss=_loss(*sides),
        error=calibration_error(*crossed),
        uncalibrated_error=calibration_error(*sides),
    )


def calibration_error(real_log_ratios: Tensor, fake_log_ratios: Tensor) -> float:
    """Compute the expected calibration error of log-ratios, in ten bins of probability, each side weighing a half.

    Args:
        real_log_ratios (`Tensor` of shape `(R,)`): Of real texts.
        fake_log_ratios (`Tensor` of shape `(B,)`): Of generated texts.

    Returns:
        `float`: In [0, 1]; 0 where the probability of being real is the share of real texts in every bin.

    Example:
        ```python
        >>> calibration_error(torch.tensor([9.0]), torch.tensor([9.0]))  # says 1.0 of what is half and half
        0.4998...

        ```
    """
    probs = torch.cat([real_log_ratios, fake_log_ratios]).double().sigmoid()
    sizes = len(real_log_ratios), len(fake_log_ratios)
    weights = torch.cat([torch.full((size,), 0.5 / size, dtype=torch.float64) for size in sizes])
    is_real = (torch.arange(len(probs)) < sizes[0]).double()
    bins = (probs * NUM_BINS).long().clamp(max=NUM_BINS - 1)
    gaps = torch.zeros(NUM_BINS, dtype=torch.float64).index_add_(0, bins, weights * (probs - is_real))
    return gaps.abs().sum().item()


def _fitted(real_logits: Tensor, fake_logits: Tensor) -> tuple[float, float]:
    """Return slope and intercept of Platt's calibration, each side weighing a half."""
    from sklearn.linear_model import LogisticRegression

    logits = torch.cat([real_logits, fake_logits])[:, None].numpy()
    is_real = [1] * len(real_logits) + [0] * len(fake_logits)
    # The mild penalty of scikit-learn's default keeps the slope finite where the logits part the two sides.
    fit = LogisticRegression(class_weight="balanced").fit(logits, is_real)
    return round(float(fit.coef_[0, 0]), 6), round(float(fit.intercept_[0]), 6)


def _loss(real_logits: Tensor, fake_logits: Tensor) -> float:
    losses = [
        binary_cross_entropy_with_logits(side, torch.full_like(side, target)).item()
        for side, target in ((real_logits, 1.0), (fake_logits, 0.0))
    ]
    return round(sum(losses) / 2, 6)


def _rounded(interval: Interval) -> tuple[float, float, float]:
    return round(interval.value, 6), round(interval.low, 6), round(interval.high, 6)
