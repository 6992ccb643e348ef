"""Metrics of a batch of completions beside its real texts: what a collapse or a runaway in length shows in first."""

from collections.abc import Sequence

from ..metrics import duplicates, self_bleu


# Self-BLEU compares every text with every other one; so many show a collapse, at a cost that a step does not feel.
SAMPLE = 64


def batch_metrics(
    completions: Sequence[str], references: Sequence[str], references_repeat: int = 1
) -> dict[str, float]:
    """Compare the completions of a batch with its real texts.

    Args:
        completions (`Sequence[str]` of length B): Generated texts.
        references (`Sequence[str]` of length R): Real texts.
        references_repeat (`int`, *optional*, defaults to 1): How often each stands there in a row: once for each
            completion of its group, where they are the references of the batch. It counts once.

    Returns:
        `dict[str, float]`: `completions/duplicates` and `references/duplicates`, shares in [0, 1); the same of
        `self_bleu` (of the first 64 texts, words split at white space), [0, 1]; `completions/length_ratio`, the mean
        number of characters of a completion by that of a real text, [0, inf).
    """
    metrics: dict[str, float] = {}
    for name, texts in (("completions", completions), ("references", references[::references_repeat])):
        metrics[f"{name}/duplicates"] = duplicates(texts)
        metrics[f"{name}/self_bleu"] = self_bleu([text.split() for text in texts[:SAMPLE]])
    characters = [sum(map(len, texts)) / len(texts) for texts in (completions, references)]
    metrics["completions/length_ratio"] = characters[0] / max(characters[1], 1.0)
    return metrics
