"""A fresh judge for `evaluate`: can a classifier that took no part in the game tell generated from real texts?"""

from collections.abc import Callable

import evaluate
from torch import Tensor

from hf_mgan.metrics import c2st
from hf_mgan.metrics.hub_metric import PREDICTIONS_AND_REFERENCES, TextMetric, check_texts


CITATION = """\
@inproceedings{lopezpaz2017revisiting,
  title = {Revisiting Classifier Two-Sample Tests},
  author = {Lopez-Paz, David and Oquab, Maxime},
  booktitle = {ICLR},
  year = {2017}
}
"""


class C2ST(TextMetric):
    """[`~hf_mgan.evaluation.c2st`] of the predictions and references."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(c2st.__doc__),
            citation=CITATION,
            inputs_description=str(self._compute.__doc__),
            features=PREDICTIONS_AND_REFERENCES,
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        null: list[str] | None = None,
        seed: int = 0,
        level: float = 0.95,
        encoder: str | Callable[[list[str]], Tensor] | None = None,
    ) -> dict[str, float]:
        """Compute how often the judge scores a real text higher than a generated one.

        Args:
            predictions (`list[str]`): Generated texts.
            references (`list[str]`): As many real texts that the generator was not trained on, cut like the others.
            null (`list[str]`, *optional*): As many further real texts or more, which are judged in their place.
            seed (`int`, *optional*, defaults to 0): Seed of the halves.
            level (`float`, *optional*, defaults to 0.95): How often such intervals hold the area, in (0, 1).
            encoder (`str` or `Callable`, *optional*): Id or folder of a Hub encoder, or a function from texts to
                features of shape `(N, D)`; none looks at n-grams alone.

        Returns:
            `dict`: `auc`, [0, 1], 0.5 where nothing tells the two sides apart, with the ends of its interval,
            `auc_low` and `auc_high`; with `null` also `null_auc`, `null_auc_low` and `null_auc_high`.
        """
        if null is not None:
            check_texts("null", null)
        result = c2st(references, predictions, null, seed, level, encoder)
        figures = {"auc": result.auc.value, "auc_low": result.auc.low, "auc_high": result.auc.high}
        if result.null_auc is not None:
            value, low, high = result.null_auc
            figures |= {"null_auc": value, "null_auc_low": low, "null_auc_high": high}
        return figures
