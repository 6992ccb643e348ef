"""The ratio of lengths for `evaluate`: how long generated texts are beside real ones."""

import evaluate

from hf_mgan.metrics import length_ratio
from hf_mgan.metrics.hub_metric import PREDICTIONS_AND_REFERENCES, TextMetric, words


CITATION = """\
@inproceedings{papineni2002bleu,
  title = {{BLEU}: a Method for Automatic Evaluation of Machine Translation},
  author = {Papineni, Kishore and Roukos, Salim and Ward, Todd and Zhu, Wei-Jing},
  booktitle = {ACL},
  year = {2002}
}
"""


class LengthRatio(TextMetric):
    """[`~hf_mgan.evaluation.length_ratio`] in words, which are the runs between white space."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(length_ratio.__doc__),
            citation=CITATION,
            inputs_description=str(self._compute.__doc__),
            features=PREDICTIONS_AND_REFERENCES,
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        """Compute the mean number of words of generated texts over that of real ones.

        Args:
            predictions (`list[str]`): Generated texts.
            references (`list[str]`): As many real texts.

        Returns:
            `dict`: `length_ratio`, [0, inf), 1 where they are equally long.
        """
        return {"length_ratio": length_ratio(words(predictions), words(references))}
