"""Length: how long generated texts are beside real ones."""

import math
from collections.abc import Sequence, Sized


def mean_length(texts: Sequence[Sized]) -> float:
    """Compute the mean length of texts in what they are given as.

    Args:
        texts (`Sequence[Sized]`): Texts as strings (measured in characters), as words, or as token ids.

    Returns:
        `float`: [0, inf); nan where there are no texts.

    Example:
        ```python
        >>> mean_length(["a dog", "cat"])
        4.0

        ```
    """
    return sum(map(len, texts)) / len(texts) if texts else math.nan


def length_ratio(texts: Sequence[Sized], references: Sequence[Sized]) -> float:
    """Compute the mean length of generated texts over that of real texts.

    Of the means, as the brevity penalty of BLEU has it (Papineni et al. 2002,
    [P02-1040](https://aclanthology.org/P02-1040)), so the two sets need not pair up. Length hacking
    shows here first.

    Args:
        texts (`Sequence[Sized]`): Generated texts as strings (measured in characters), as words, or as token ids.
        references (`Sequence[Sized]`): Real texts, in the same form.

    Returns:
        `float`: [0, inf), 1 where they are equally long; nan where one set is empty or the real texts have no length.

    Example:
        ```python
        >>> length_ratio([["a", "small", "dog"]], [["a", "dog"]])
        1.5

        ```
    """
    real = mean_length(references)
    return mean_length(texts) / real if real else math.nan
