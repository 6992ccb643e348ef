"""MAUVE for `evaluate`: how far real and generated texts overlap, as two clouds of features."""

from typing import Any

from hf_mgan.metrics import hub_metric, mauve


class Mauve(hub_metric.TextMetric):
    """[`~hf_mgan.metrics.mauve`] of an encoder's features of the predictions and references.

    Args:
        predictions (`list[str]`): Generated texts.
        references (`list[str]`): As many real texts.
        encoder (`str` or `Callable`): Id or folder of a Hub encoder, whose last hidden states are averaged over a
            text, or a function from texts to features of shape `(N, D)`, such as
            [`~hf_mgan.metrics.encoder_features`] makes for another device or length.
        num_clusters (`int`, *optional*): Cells of the histograms, a tenth of the texts by default.
        scaling (`float`, *optional*, defaults to 5.0): Sets where scores lie in (0, 1].
        pseudocount (`float`, *optional*, defaults to 0.0): Added to each cell's count.
        seed (`int`, *optional*, defaults to 0): Seed of the clusters.

    Returns:
        `dict`: `mauve`, (0, 1], and `frontier_integral`, [0, 1], which has no scaling.
    """

    FUNCTION = staticmethod(mauve)
    FEATURES = hub_metric.PREDICTIONS_AND_REFERENCES
    CITATION = """\
@inproceedings{pillutla2021mauve,
  title = {{MAUVE}: Measuring the Gap Between Neural Text and Human Text using Divergence Frontiers},
  author = {Pillutla, Krishna and Swayamdipta, Swabha and Zellers, Rowan and Thickstun, John and Welleck, Sean and
    Choi, Yejin and Harchaoui, Zaid},
  booktitle = {NeurIPS},
  year = {2021}
}
"""

    def _compute(
        self, predictions: list[str], references: list[str], encoder: Any, **settings: Any
    ) -> dict[str, float]:
        result = mauve(*hub_metric.features_of(encoder, references, predictions), **settings)
        return {"mauve": result.score, "frontier_integral": result.frontier_integral}
