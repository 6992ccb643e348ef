"""The classifier two-sample test for `evaluate`: can a new classifier tell generated from real texts?"""

from typing import Any

from hf_mgan.metrics import c2st, hub_metric


class C2st(hub_metric.TextMetric):
    """[`~hf_mgan.metrics.c2st`] of the predictions and references.

    Args:
        predictions (`list[str]`): Generated texts.
        references (`list[str]`): As many real texts that the generator was not trained on, cut like the others.
        null (`list[str]`, *optional*): As many further real texts or more, which are tested in their place.
        seed (`int`, *optional*, defaults to 0): Seed of the halves.
        level (`float`, *optional*, defaults to 0.95): How often such intervals hold the area, in (0, 1).
        encoder (`str` or `Callable`, *optional*): Id or folder of a Hub encoder, or a function from texts to
            features of shape `(N, D)`; none looks at n-grams alone.

    Returns:
        `dict`: `auc`, [0, 1], 0.5 where nothing tells the two sides apart, with the ends of its interval,
        `auc_low` and `auc_high`; with `null` also `null_auc`, `null_auc_low` and `null_auc_high`.
    """

    FUNCTION = staticmethod(c2st)
    FEATURES = hub_metric.PREDICTIONS_AND_REFERENCES
    CITATION = """\
@inproceedings{lopezpaz2017revisiting,
  title = {Revisiting Classifier Two-Sample Tests},
  author = {Lopez-Paz, David and Oquab, Maxime},
  booktitle = {ICLR},
  year = {2017}
}
"""

    def _compute(self, predictions: list[str], references: list[str], **settings: Any) -> dict[str, float]:
        result = c2st(references, predictions, **settings)
        areas = {"auc": result.auc, "null_auc": result.null_auc}
        return {
            f"{name}{end}": value
            for name, area in areas.items()
            if area is not None
            for end, value in zip(("", "_low", "_high"), area, strict=True)
        }
