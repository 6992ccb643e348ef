"""Self-BLEU: how much the texts of a set repeat one another."""

import math
from collections import Counter
from collections.abc import Sequence

from ..checks import COUNT, WORDS


EPSILON = 0.1  # of smoothing method 1


def self_bleu(texts: Sequence[Sequence[str]], n: int = 4) -> float:
    """Compute the mean BLEU-n of each text with all other texts as its references.

    Zhu et al. 2018, "Texygen: A benchmarking platform for text generation models", section 3.2
    ([1802.01886](https://huggingface.co/papers/1802.01886)). It grows with the set, so compare sets of one size only.

    A text's score is BP * exp(1/n sum_k log p_k), equations 1 to 3 of Papineni et al. 2002, "BLEU"
    ([P02-1040](https://aclanthology.org/P02-1040)): p_k is the share of its k-grams that occur elsewhere, each counted
    at most as often as in the other text that has most of it, and BP = exp(1 - r/c) for a text of c words whose
    closest other text has r > c words, else 1; of two equally close lengths the shorter one counts. Smoothing is
    method 1 of Chen and Cherry 2014 ([W14-3346](https://aclanthology.org/W14-3346)): a count of 0 is taken for 0.1. A
    text with fewer than k words has 0 of 1 k-grams, so p_k = 0.1; one that shares no word with the others scores 0,
    unsmoothed. In all of this it agrees with nltk's `sentence_bleu` with `SmoothingFunction().method1`, which Texygen
    uses.

    Args:
        texts (`Sequence[Sequence[str]]`): Texts as words.
        n (`int`, *optional*, defaults to 4): Length of the longest n-grams, at least 1.

    Returns:
        `float`: [0, 1], 1 where every text is the same and has n words; nan for fewer than two texts.

    Raises:
        ValueError: If n is less than 1.

    Example:
        ```python
        >>> self_bleu([["a", "dog", "runs"], ["a", "dog", "eats"]], 2)  # p = 2/3, 1/2
        0.5773502691896257

        ```
    """
    WORDS("texts", texts)
    n = COUNT("n", n)
    if len(texts) < 2:
        return math.nan
    log_precisions = [0.0] * len(texts)
    related = [True] * len(texts)
    for order in range(1, n + 1):
        counts = [_ngrams(text, order) for text in texts]
        largest, second = _two_largest(counts)
        for index, own in enumerate(counts):
            matches = 0
            for ngram, count in own.items():
                # A text that has most of an n-gram is compared with the next; if two have as many, that is the same.
                elsewhere = second.get(ngram, 0) if count == largest[ngram] else largest[ngram]
                matches += min(count, elsewhere)
            if order == 1 and not matches:
                related[index] = False
            log_precisions[index] += math.log((matches or EPSILON) / max(own.total(), 1))
    penalties = _log_brevity_penalties([len(text) for text in texts])
    scores = [
        math.exp(log_precision / n + penalty) if known else 0.0
        for log_precision, penalty, known in zip(log_precisions, penalties, related, strict=True)
    ]
    return sum(scores) / len(scores)


def _ngrams(text: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(text[start : start + order]) for start in range(len(text) - order + 1))


def _two_largest(
    counts: list[Counter[tuple[str, ...]]],
) -> tuple[dict[tuple[str, ...], int], dict[tuple[str, ...], int]]:
    """Return the largest count of each n-gram in one text, and the largest in another text."""
    largest: dict[tuple[str, ...], int] = {}
    second: dict[tuple[str, ...], int] = {}
    for own in counts:
        for ngram, count in own.items():
            most = largest.get(ngram, 0)
            if count > most:
                largest[ngram], count = count, most
            if count > second.get(ngram, 0):
                second[ngram] = count
    return largest, second


def _log_brevity_penalties(lengths: list[int]) -> list[float]:
    frequencies = Counter(lengths)

    def closest(length: int) -> int:
        others = (other for other, texts in frequencies.items() if other != length or texts > 1)
        return min(others, key=lambda other: (abs(other - length), other))

    # An empty text shares no word, so that its score is 0 anyway.
    penalties = {length: min(0.0, 1 - closest(length) / max(length, 1)) for length in frequencies}
    return [penalties[length] for length in lengths]
