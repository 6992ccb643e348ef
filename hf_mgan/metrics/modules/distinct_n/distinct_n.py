"""Distinct-n for `evaluate`: how many of the n-grams in a set of texts are different."""

from typing import Any

from hf_mgan.metrics import distinct_n, hub_metric


class DistinctN(hub_metric.TextMetric):
    """[`~hf_mgan.metrics.distinct_n`] of the predictions.

    Args:
        predictions (`list[str]`): Generated texts.
        n (`int`, *optional*, defaults to 2): Length of the n-grams, at least 1.
        unit (`str`, *optional*, defaults to `"auto"`): What texts are counted in; see
            [`~hf_mgan.metrics.split_into_units`].

    Returns:
        `dict`: `distinct_n`, [0, 1].
    """

    FUNCTION = staticmethod(distinct_n)
    CITATION = """\
@inproceedings{li2016diversity,
  title = {A Diversity-Promoting Objective Function for Neural Conversation Models},
  author = {Li, Jiwei and Galley, Michel and Brockett, Chris and Gao, Jianfeng and Dolan, Bill},
  booktitle = {NAACL-HLT},
  year = {2016}
}
"""

    def _compute(self, *args: Any, **given: Any) -> dict[str, float]:
        return super()._compute(**{"n": 2, **given})
