"""Repetition for `evaluate`: how much a text repeats itself."""

from hf_mgan.metrics import hub_metric, repetition


class Repetition(hub_metric.TextMetric):
    """[`~hf_mgan.metrics.repetition`] in the predictions.

    Args:
        predictions (`list[str]`): Generated texts.
        n (`int`, *optional*, defaults to 4): Length of the n-grams, at least 1.
        unit (`str`, *optional*, defaults to `"auto"`): What texts are counted in; see
            [`~hf_mgan.metrics.split_into_units`].

    Returns:
        `dict`: `repetition`, [0, 1).
    """

    FUNCTION = staticmethod(repetition)
    CITATION = """\
@inproceedings{welleck2020neural,
  title = {Neural Text Generation With Unlikelihood Training},
  author = {Welleck, Sean and Kulikov, Ilia and Roller, Stephen and Dinan, Emily and Cho, Kyunghyun and Weston, Jason},
  booktitle = {ICLR},
  year = {2020}
}
"""
