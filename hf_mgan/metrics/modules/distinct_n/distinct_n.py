"""Distinct-n for `evaluate`: how many of the n-grams in a set of texts are different."""

import evaluate

from hf_mgan.metrics import distinct_n
from hf_mgan.metrics.hub_metric import PREDICTIONS, TextMetric, words


CITATION = """\
@inproceedings{li2016diversity,
  title = {A Diversity-Promoting Objective Function for Neural Conversation Models},
  author = {Li, Jiwei and Galley, Michel and Brockett, Chris and Gao, Jianfeng and Dolan, Bill},
  booktitle = {NAACL-HLT},
  year = {2016}
}
"""


class DistinctN(TextMetric):
    """[`~hf_mgan.evaluation.distinct_n`] of the predictions, whose words are the runs between white space."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(distinct_n.__doc__),
            citation=CITATION,
            inputs_description=str(self._compute.__doc__),
            features=PREDICTIONS,
        )

    def _compute(self, predictions: list[str], n: int = 2) -> dict[str, float]:
        """Compute distinct-n.

        Args:
            predictions (`list[str]`): Generated texts.
            n (`int`, *optional*, defaults to 2): Length of the n-grams, at least 1.

        Returns:
            `dict`: `distinct_n`, [0, 1].
        """
        return {"distinct_n": distinct_n(words(predictions), n)}
