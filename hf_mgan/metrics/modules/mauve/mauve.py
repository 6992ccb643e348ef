"""MAUVE for `evaluate`: how far real and generated texts overlap, as two clouds of features."""

from collections.abc import Callable

import evaluate
from torch import Tensor

from hf_mgan.metrics import mauve
from hf_mgan.metrics.hub_metric import PREDICTIONS_AND_REFERENCES, TextMetric, features_of


CITATION = """\
@inproceedings{pillutla2021mauve,
  title = {{MAUVE}: Measuring the Gap Between Neural Text and Human Text using Divergence Frontiers},
  author = {Pillutla, Krishna and Swayamdipta, Swabha and Zellers, Rowan and Thickstun, John and Welleck, Sean and
    Choi, Yejin and Harchaoui, Zaid},
  booktitle = {NeurIPS},
  year = {2021}
}
"""


class Mauve(TextMetric):
    """[`~hf_mgan.evaluation.mauve`] of an encoder's features of the predictions and references."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(mauve.__doc__),
            citation=CITATION,
            inputs_description=str(self._compute.__doc__),
            features=PREDICTIONS_AND_REFERENCES,
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        encoder: str | Callable[[list[str]], Tensor],
        num_clusters: int | None = None,
        scaling: float = 5.0,
        pseudocount: float = 0.0,
        seed: int = 0,
    ) -> dict[str, float]:
        """Compute MAUVE.

        Args:
            predictions (`list[str]`): Generated texts.
            references (`list[str]`): As many real texts.
            encoder (`str` or `Callable`): Id or folder of a Hub encoder, whose last hidden states are averaged over a
                text, or a function from texts to features of shape `(N, D)`, such as
                [`~hf_mgan.evaluation.encoder_features`] makes for another device or length.
            num_clusters (`int`, *optional*): Cells of the histograms, a tenth of the texts by default.
            scaling (`float`, *optional*, defaults to 5.0): Sets where scores lie in (0, 1].
            pseudocount (`float`, *optional*, defaults to 0.0): Added to each cell's count.
            seed (`int`, *optional*, defaults to 0): Seed of the clusters.

        Returns:
            `dict`: `mauve`, (0, 1], and `frontier_integral`, [0, 1], which has no scaling.
        """
        result = mauve(*features_of(encoder, references, predictions), num_clusters, scaling, pseudocount, seed)
        return {"mauve": result.score, "frontier_integral": result.frontier_integral}
