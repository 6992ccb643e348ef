"""Duplicates for `evaluate`: how many texts of a set say what another one has said."""

import evaluate

from hf_mgan.metrics import duplicates
from hf_mgan.metrics.hub_metric import PREDICTIONS, TextMetric


class Duplicates(TextMetric):
    """[`~hf_mgan.evaluation.duplicates`] among the predictions, compared as they are."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(duplicates.__doc__),
            citation="",
            inputs_description=str(self._compute.__doc__),
            features=PREDICTIONS,
        )

    def _compute(self, predictions: list[str]) -> dict[str, float]:
        """Compute the share of texts that occur earlier among them.

        Args:
            predictions (`list[str]`): Generated texts.

        Returns:
            `dict`: `duplicates`, [0, 1).
        """
        return {"duplicates": duplicates(predictions)}
