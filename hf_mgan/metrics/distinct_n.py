"""Distinct-n: how many of the n-grams in a set of texts are different."""

from collections.abc import Sequence

from ..checks import COUNT, WORDS


def distinct_n(texts: Sequence[Sequence[str]], n: int) -> float:
    """Compute the share of different n-grams among all n-grams, over all texts together.

    Li et al. 2016, "A diversity-promoting objective function for neural conversation models", section 5.2
    ([1510.03055](https://huggingface.co/papers/1510.03055)). It falls as the set grows, so compare sets of one size
    only.

    Args:
        texts (`Sequence[Sequence[str]]`): Texts as words.
        n (`int`): Length of the n-grams, at least 1.

    Returns:
        `float`: (0, 1], and 0 where no text has n words.

    Raises:
        ValueError: If n is less than 1.

    Example:
        ```python
        >>> distinct_n([["a", "dog", "a", "dog"]], 2)  # "a dog" twice, "dog a" once
        0.6666666666666666

        ```
    """
    WORDS("texts", texts)
    n = COUNT("n", n)
    ngrams = [tuple(text[start : start + n]) for text in texts for start in range(len(text) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0
