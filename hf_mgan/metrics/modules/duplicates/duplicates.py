"""Duplicates for `evaluate`: how many texts of a set occur earlier in it."""

from hf_mgan.metrics import duplicates, hub_metric


class Duplicates(hub_metric.TextMetric):
    """[`~hf_mgan.metrics.duplicates`] among the predictions, compared as they are.

    Args:
        predictions (`list[str]`): Generated texts.

    Returns:
        `dict`: `duplicates`, [0, 1).
    """

    FUNCTION = staticmethod(duplicates)

    def _compute(self, predictions: list[str]) -> dict[str, float]:
        return {"duplicates": duplicates(predictions)}
