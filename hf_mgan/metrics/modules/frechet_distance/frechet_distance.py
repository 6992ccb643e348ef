"""The Frechet distance for `evaluate`, between real and generated texts as clouds of features."""

from typing import Any

from hf_mgan.metrics import frechet_distance, hub_metric


class FrechetDistance(hub_metric.TextMetric):
    """[`~hf_mgan.metrics.frechet_distance`] of an encoder's features of the predictions and references.

    Args:
        predictions (`list[str]`): Generated texts, at least 2.
        references (`list[str]`): As many real texts.
        encoder (`str` or `Callable`): Id or folder of a Hub encoder, whose last hidden states are averaged over a
            text, or a function from texts to features of shape `(N, D)`, such as
            [`~hf_mgan.metrics.encoder_features`] makes for another device or length.

    Returns:
        `dict`: `frechet_distance`, [0, inf).
    """

    FUNCTION = staticmethod(frechet_distance)
    FEATURES = hub_metric.PREDICTIONS_AND_REFERENCES
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

    def _compute(self, predictions: list[str], references: list[str], encoder: Any) -> dict[str, float]:
        return {"frechet_distance": frechet_distance(*hub_metric.features_of(encoder, references, predictions))}
