"""The Frechet distance for `evaluate`, between real and generated texts as clouds of features."""

from collections.abc import Callable

import evaluate
from torch import Tensor

from hf_mgan.metrics import frechet_distance
from hf_mgan.metrics.hub_metric import PREDICTIONS_AND_REFERENCES, TextMetric, features_of


CITATION = """\
@inproceedings{heusel2017gans,
  title = {{GANs} Trained by a Two Time-Scale Update Rule Converge to a Local {Nash} Equilibrium},
  author = {Heusel, Martin and Ramsauer, Hubert and Unterthiner, Thomas and Nessler, Bernhard and Hochreiter, Sepp},
  booktitle = {NIPS},
  year = {2017}
}
@article{semeniuta2018accurate,
  title = {On Accurate Evaluation of {GANs} for Language Generation},
  author = {Semeniuta, Stanislau and Severyn, Aliaksei and Gelly, Sylvain},
  journal = {arXiv:1806.04936},
  year = {2018}
}
"""


class FrechetDistance(TextMetric):
    """[`~hf_mgan.evaluation.frechet_distance`] of an encoder's features of the predictions and references."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(frechet_distance.__doc__),
            citation=CITATION,
            inputs_description=str(self._compute.__doc__),
            features=PREDICTIONS_AND_REFERENCES,
        )

    def _compute(
        self, predictions: list[str], references: list[str], encoder: str | Callable[[list[str]], Tensor]
    ) -> dict[str, float]:
        """Compute the squared Frechet distance.

        Args:
            predictions (`list[str]`): Generated texts, at least 2.
            references (`list[str]`): As many real texts.
            encoder (`str` or `Callable`): Id or folder of a Hub encoder, whose last hidden states are averaged over a
                text, or a function from texts to features of shape `(N, D)`, such as
                [`~hf_mgan.evaluation.encoder_features`] makes for another device or length.

        Returns:
            `dict`: `frechet_distance`, [0, inf).
        """
        return {"frechet_distance": frechet_distance(*features_of(encoder, references, predictions))}
