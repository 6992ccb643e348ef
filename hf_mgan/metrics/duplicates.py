"""Duplicates: how many texts of a set say what another one has said already."""

import math
from collections.abc import Sequence

from ..checks import TEXTS


def duplicates(texts: Sequence[str]) -> float:
    """Compute the share of texts that occur earlier among them: 1 - different / all.

    It grows with the set, so compare sets of one size only.

    Args:
        texts (`Sequence[str]`): Texts, compared as they are.

    Returns:
        `float`: [0, 1), 0 where all are different, 1 - 1/N where all N are the same; nan where there are none.

    Example:
        ```python
        >>> duplicates(["a dog", "a cat", "a dog", "a dog"])
        0.5

        ```
    """
    TEXTS("texts", texts)
    return 1 - len(set(texts)) / len(texts) if texts else math.nan
