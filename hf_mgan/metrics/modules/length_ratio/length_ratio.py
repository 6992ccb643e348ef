"""The ratio of lengths for `evaluate`: how long generated texts are beside real ones."""

from hf_mgan.metrics import hub_metric, length_ratio


class LengthRatio(hub_metric.TextMetric):
    """[`~hf_mgan.metrics.length_ratio`] in units of the texts.

    Args:
        predictions (`list[str]`): Generated texts.
        references (`list[str]`): As many real texts.
        unit (`str`, *optional*, defaults to `"auto"`): What texts are counted in; see
            [`~hf_mgan.metrics.split_into_units`].

    Returns:
        `dict`: `length_ratio`, [0, inf), 1 where they are equally long.
    """

    FUNCTION = staticmethod(length_ratio)
    FEATURES = hub_metric.PREDICTIONS_AND_REFERENCES
    CITATION = """\
@inproceedings{papineni2002bleu,
  title = {{BLEU}: a Method for Automatic Evaluation of Machine Translation},
  author = {Papineni, Kishore and Roukos, Salim and Ward, Todd and Zhu, Wei-Jing},
  booktitle = {ACL},
  year = {2002}
}
"""
