"""Self-BLEU for `evaluate`: how much the texts of a set repeat one another."""

import evaluate

from hf_mgan.metrics import self_bleu
from hf_mgan.metrics.hub_metric import PREDICTIONS, TextMetric, words


CITATION = """\
@inproceedings{zhu2018texygen,
  title = {Texygen: A Benchmarking Platform for Text Generation Models},
  author = {Zhu, Yaoming and Lu, Sidi and Zheng, Lei and Guo, Jiaxian and Zhang, Weinan and Wang, Jun and Yu, Yong},
  booktitle = {SIGIR},
  year = {2018}
}
"""


class SelfBleu(TextMetric):
    """[`~hf_mgan.evaluation.self_bleu`] of the predictions, whose words are the runs between white space."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(self_bleu.__doc__),
            citation=CITATION,
            inputs_description=str(self._compute.__doc__),
            features=PREDICTIONS,
        )

    def _compute(self, predictions: list[str], n: int = 4) -> dict[str, float]:
        """Compute self-BLEU.

        Args:
            predictions (`list[str]`): Generated texts.
            n (`int`, *optional*, defaults to 4): Length of the longest n-grams, at least 1.

        Returns:
            `dict`: `self_bleu`, [0, 1].
        """
        return {"self_bleu": self_bleu(words(predictions), n)}
