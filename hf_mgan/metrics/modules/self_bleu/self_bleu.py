"""Self-BLEU for `evaluate`: how much the texts of a set repeat one another."""

from hf_mgan.metrics import hub_metric, self_bleu


class SelfBleu(hub_metric.TextMetric):
    """[`~hf_mgan.metrics.self_bleu`] of the predictions.

    Args:
        predictions (`list[str]`): Generated texts.
        n (`int`, *optional*, defaults to 4): Length of the longest n-grams, at least 1.
        unit (`str`, *optional*, defaults to `"auto"`): What texts are counted in; see
            [`~hf_mgan.metrics.split_into_units`].

    Returns:
        `dict`: `self_bleu`, [0, 1].
    """

    FUNCTION = staticmethod(self_bleu)
    CITATION = """\
@inproceedings{zhu2018texygen,
  title = {Texygen: A Benchmarking Platform for Text Generation Models},
  author = {Zhu, Yaoming and Lu, Sidi and Zheng, Lei and Guo, Jiaxian and Zhang, Weinan and Wang, Jun and Yu, Yong},
  booktitle = {SIGIR},
  year = {2018}
}
"""
