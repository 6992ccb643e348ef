"""Which words a generator writes too seldom and too often, and what rejection makes of it: plain values in and out."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence


WORD = re.compile(r"\w+")
NUM_WORDS = 8  # of each kind


def telling_words(
    real: Sequence[str], generated: Sequence[str], others: Mapping[str, Sequence[str]]
) -> dict[str, list]:
    """Return the words that two sides differ in most, and the share of texts with them everywhere.

    The difference of the numbers a and b of texts with a word counts in the unit of its noise, (a - b) / √(a + b).

    Args:
        real (`Sequence[str]` of length N): Real texts.
        generated (`Sequence[str]` of length B): Of a generator.
        others (`Mapping[str, Sequence[str]]`): Further texts by name.

    Returns:
        `dict`: The names of all sides, "real" and "generated" first, and rows of a word and its shares in [0, 1],
        those that are too seldom in generated texts first.
    """
    counted = {name: _shares(texts) for name, texts in {"real": real, "generated": generated, **others}.items()}
    more, fewer = counted["real"], counted["generated"]

    def difference(word: str) -> float:
        first, second = more.get(word, 0.0), fewer.get(word, 0.0)
        return (first - second) / (first / len(real) + second / len(generated)) ** 0.5

    words = sorted(more.keys() | fewer.keys(), key=lambda word: (-difference(word), word))
    chosen = [*words[:NUM_WORDS], *words[: -NUM_WORDS - 1 : -1]]
    return {
        "names": list(counted),
        "words": [[word, *(side.get(word, 0.0) for side in counted.values())] for word in chosen],
    }


def _shares(texts: Sequence[str]) -> dict[str, float]:
    """Return the share of texts with each word."""
    counts = Counter(word for text in texts for word in set(WORD.findall(text)))
    return {word: count / len(texts) for word, count in counts.items()}
