"""Memorisation for `evaluate`: how much generated texts copy from the training texts, beside held-out real texts."""

from hf_mgan.metrics import hub_metric, memorisation, split_into_units
from hf_mgan.metrics.units import Unit


class Memorisation(hub_metric.TextMetric):
    """[`~hf_mgan.metrics.memorisation`] of texts and those they may be copied from.

    Args:
        predictions (`list[str]`): Generated texts.
        references (`list[str]`): As many real texts that were not trained on.
        corpus (`list[str]`): The training texts, as many as there are.
        threshold (`float`, *optional*, defaults to 0.8): Resemblance of near duplicates, in (0, 1].
        unit (`str`, *optional*, defaults to `"auto"`): What texts are counted in; see
            [`~hf_mgan.metrics.split_into_units`].

    Returns:
        `dict`: Of the predictions `longest_ngram`, units of the longest copied n-gram; `longest_share`, these over
        the units of the text, [0, 1]; `near_duplicate_share`, [0, 1]; to read them by, the same of the references,
        as `held_out_longest_ngram` and so on.
    """

    FUNCTION = staticmethod(memorisation)
    FEATURES = hub_metric.PREDICTIONS_AND_REFERENCES
    CITATION = """\
@article{mccoy2023how,
  title = {How Much Do Language Models Copy From Their Training Data? Evaluating Linguistic Novelty in Text
    Generation Using {RAVEN}},
  author = {McCoy, R. Thomas and Smolensky, Paul and Linzen, Tal and Gao, Jianfeng and Celikyilmaz, Asli},
  journal = {TACL},
  year = {2023}
}
"""

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        corpus: list[str],
        threshold: float = 0.8,
        unit: Unit = "auto",
    ) -> dict[str, float]:
        generated, held_out, training = (split_into_units(texts, unit) for texts in (predictions, references, corpus))
        result = memorisation(generated, held_out, training, threshold)
        beside = {f"held_out_{name}": value for name, value in result.held_out._asdict().items()}
        return {**result.generated._asdict(), **beside}
