"""Repetition for `evaluate`: how much a text repeats itself."""

import evaluate

from hf_mgan.metrics import repetition
from hf_mgan.metrics.hub_metric import PREDICTIONS, TextMetric, words


CITATION = """\
@inproceedings{welleck2020neural,
  title = {Neural Text Generation With Unlikelihood Training},
  author = {Welleck, Sean and Kulikov, Ilia and Roller, Stephen and Dinan, Emily and Cho, Kyunghyun and Weston, Jason},
  booktitle = {ICLR},
  year = {2020}
}
"""


class Repetition(TextMetric):
    """[`~hf_mgan.evaluation.repetition`] in the predictions, whose words are the runs between white space."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(repetition.__doc__),
            citation=CITATION,
            inputs_description=str(self._compute.__doc__),
            features=PREDICTIONS,
        )

    def _compute(self, predictions: list[str], n: int = 4) -> dict[str, float]:
        """Compute the mean share of n-grams that a text has had before.

        Args:
            predictions (`list[str]`): Generated texts.
            n (`int`, *optional*, defaults to 4): Length of the n-grams, at least 1.

        Returns:
            `dict`: `repetition`, [0, 1).
        """
        return {"repetition": repetition(words(predictions), n)}
