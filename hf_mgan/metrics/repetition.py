"""Repetition: how much a text repeats itself."""

import math
from collections.abc import Hashable, Sequence

from ..checks import COUNT, WORDS


def repeated_share(text: Sequence[Hashable], n: int = 4) -> float:
    """Compute the share of a text's n-grams that have occurred in it before: 1 - different / all.

    It is seq-rep-n of Welleck et al. 2020, "Neural text generation with unlikelihood training"
    ([1908.04319](https://huggingface.co/papers/1908.04319)), who report n = 4 on continuations of one length. A longer
    text has more to repeat, so read it beside the same share of real texts.

    Args:
        text (`Sequence[Hashable]`): A text as words or as token ids.
        n (`int`, *optional*, defaults to 4): Length of the n-grams, at least 1.

    Returns:
        `float`: [0, 1), 0 where no n-gram occurs twice, and where the text has fewer than n words.

    Raises:
        ValueError: If n is less than 1.

    Example:
        ```python
        >>> repeated_share(["a", "dog", "a", "dog"], 2)  # "a dog" twice, "dog a" once
        0.33333333333333337

        ```
    """
    n = COUNT("n", n)
    ngrams = [tuple(text[start : start + n]) for start in range(len(text) - n + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def repetition(texts: Sequence[Sequence[Hashable]], n: int = 4) -> float:
    """Compute the mean of [`repeated_share`] over texts.

    What a text shares with others does not count: for that there are distinct-n and self-BLEU.

    Args:
        texts (`Sequence[Sequence[Hashable]]`): Texts as words or as token ids.
        n (`int`, *optional*, defaults to 4): Length of the n-grams, at least 1.

    Returns:
        `float`: [0, 1); nan where there are no texts.

    Raises:
        ValueError: If n is less than 1.

    Example:
        ```python
        >>> repetition([["a", "a", "a"], ["a", "dog", "a"]], 1)  # 2/3 and 1/3
        0.5

        ```
    """
    WORDS("texts", texts)
    return sum(repeated_share(text, n) for text in texts) / len(texts) if texts else math.nan
