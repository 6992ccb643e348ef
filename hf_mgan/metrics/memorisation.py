"""Memorisation: how much generated texts copy from the training texts, beside what unseen real texts have in common.

Real texts share phrases with other real texts, so a copied phrase alone says nothing: McCoy et al. 2023, "How much do
language models copy from their training data?" ([2111.09509](https://huggingface.co/papers/2111.09509)), hold the
same measure of held-out real texts beside it, and so does [`memorisation`].
"""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import WORDS, Number


SHINGLE = 3
THRESHOLD = Number(above=0, most=1, advice="0.8 is common.")


class Copying(NamedTuple):
    """How much a set of texts has in common with a corpus.

    Args:
        longest_ngram (`float`): Mean number of words of the longest copied n-gram, [0, inf).
        longest_share (`float`): Mean of that number over the words of the text, [0, 1]; 1 where each text occurs in
            the corpus as a whole.
        near_duplicate_share (`float`): Share of texts with a near duplicate in the corpus, [0, 1].
    """

    longest_ngram: float
    longest_share: float
    near_duplicate_share: float


class Memorisation(NamedTuple):
    """Copying by generated texts and, to read it by, that of held-out real texts.

    Args:
        generated ([`Copying`]): Of the generated texts.
        held_out ([`Copying`]): Of real texts that are not in the corpus.
    """

    generated: Copying
    held_out: Copying


def memorisation(
    texts: Sequence[Sequence[str]],
    held_out: Sequence[Sequence[str]],
    corpus: Sequence[Sequence[str]],
    threshold: float = 0.8,
) -> Memorisation:
    """Compare what generated texts copy from the training texts with what held-out real texts share with them.

    Args:
        texts (`Sequence[Sequence[str]]`): Generated texts as words.
        held_out (`Sequence[Sequence[str]]`): Real texts as words that were not trained on; about as long, since a
            longer text has more to share.
        corpus (`Sequence[Sequence[str]]`): The training texts as words.
        threshold (`float`, *optional*, defaults to 0.8): As in [`near_duplicates`].

    Returns:
        [`Memorisation`]: The same three numbers of both sets; nan for a set without texts.

    Raises:
        ValueError: If `threshold` is out of range.

    Example:
        ```python
        >>> memorisation([["a", "dog", "runs"]], [["a", "dog", "eats"]], [["a", "dog", "runs"]]).generated
        Copying(longest_ngram=3.0, longest_share=1.0, near_duplicate_share=1.0)

        ```
    """
    for name, given in (("texts", texts), ("held_out", held_out), ("corpus", corpus)):
        WORDS(name, given)
    threshold = THRESHOLD("threshold", threshold)
    both = [*texts, *held_out]
    longest = longest_copied_ngram(both, corpus)
    near = near_duplicates(both, corpus, threshold)

    def copying(part: slice) -> Copying:
        if not both[part]:
            return Copying(math.nan, math.nan, math.nan)
        shares = [length / max(len(text), 1) for length, text in zip(longest[part], both[part], strict=True)]
        return Copying(fmean(longest[part]), fmean(shares), fmean(near[part]))

    return Memorisation(copying(slice(len(texts))), copying(slice(len(texts), None)))


def longest_copied_ngram(texts: Sequence[Sequence[str]], corpus: Sequence[Sequence[str]]) -> list[int]:
    """Find for each text the longest run of its words that occurs in the corpus, within one text of it.

    The words of all texts are ordered as in a suffix array, by doubling (Manber and Myers 1993, "Suffix arrays"): the
    longest match of the words from a place on stands next to that place in the order. It is exact and takes a time in
    proportion to N log N.

    Args:
        texts (`Sequence[Sequence[str]]`): Texts as words.
        corpus (`Sequence[Sequence[str]]`): Texts as words.

    Returns:
        `list[int]`: The number of words for each text, 0 where no word of it occurs.

    Example:
        ```python
        >>> longest_copied_ngram([["a", "dog", "runs"], ["cat"]], [["see", "a", "dog"]])
        [2, 0]

        ```
    """
    if not texts:
        return []
    vocabulary: dict[str, int] = {}
    symbols: list[int] = []
    for index, text in enumerate([*corpus, *texts]):
        symbols += [vocabulary.setdefault(word, len(vocabulary)) for word in text]
        symbols.append(-1 - index)  # an end of its own, so that no match goes on into the next text
    boundary = len(symbols) - sum(len(text) + 1 for text in texts)
    ranks = _ranks(torch.tensor(symbols), max(map(len, texts)) + 1)

    order = ranks[-1].argsort()
    slots = torch.arange(len(order))
    in_corpus = order < boundary
    before = torch.where(in_corpus, slots, -1).cummax(0).values
    after = torch.where(in_corpus, slots, len(order)).flip(0).cummin(0).values.flip(0)
    places = order[~in_corpus]
    lengths = torch.zeros(len(places), dtype=torch.long)
    for neighbours in (before[~in_corpus], after[~in_corpus]):
        exists = (neighbours >= 0) & (neighbours < len(order))
        matches = _common_lengths(ranks, places[exists], order[neighbours[exists]])
        lengths[exists] = torch.maximum(lengths[exists], matches)

    sizes = torch.tensor([len(text) + 1 for text in texts])
    owners = torch.arange(len(texts)).repeat_interleave(sizes)[places - boundary]
    return torch.zeros(len(texts), dtype=torch.long).scatter_reduce_(0, owners, lengths, "amax").tolist()


def near_duplicates(
    texts: Sequence[Sequence[str]], corpus: Sequence[Sequence[str]], threshold: float = 0.8
) -> list[bool]:
    """Find the texts that have a near duplicate in the corpus.

    Two texts are near duplicates if of the different runs of 3 words that occur in either, a share of at least
    `threshold` occurs in both: the resemblance of Broder 1997, "On the resemblance and containment of documents",
    known as Jaccard's. It is exact: of a text with s runs, any s - ceil(threshold s) + 1 of them hold one that a near
    duplicate shares, so only the corpus texts with one of its rarest runs are compared (Chaudhuri et al. 2006, "A
    primitive operator for similarity joins in data cleaning").

    Args:
        texts (`Sequence[Sequence[str]]`): Texts as words. One with fewer than 3 words is a run by itself.
        corpus (`Sequence[Sequence[str]]`): Texts as words.
        threshold (`float`, *optional*, defaults to 0.8): In (0, 1], 1 for the same runs. Lee et al. 2022,
            "Deduplicating training data makes language models better"
            ([2107.06499](https://huggingface.co/papers/2107.06499)), filter candidates at 0.8.

    Returns:
        `list[bool]`: One entry per text.

    Raises:
        ValueError: If `threshold` is out of range.

    Example:
        ```python
        >>> near_duplicates([["a", "dog", "runs"], ["a", "dog", "eats"]], [["a", "dog", "runs"]])
        [True, False]

        ```
    """
    WORDS("texts", texts)
    WORDS("corpus", corpus)
    threshold = THRESHOLD("threshold", threshold)
    own = [_shingles(text) for text in texts]
    wanted = set().union(*own)
    frequencies = Counter(shingle for text in corpus for shingle in _shingles(text) & wanted)
    # What a product of floats is above a whole number must not count.
    needed = [math.ceil(threshold * len(shingles) - 1e-9) for shingles in own]
    rarest = [
        sorted(shingles, key=lambda shingle: (frequencies[shingle], shingle))[: len(shingles) - least + 1]
        for shingles, least in zip(own, needed, strict=True)
    ]
    index: dict[tuple[str, ...], list[int]] = {shingle: [] for shingles in rarest for shingle in shingles}
    for place, text in enumerate(corpus):
        for shingle in _shingles(text) & index.keys():
            index[shingle].append(place)

    def has_duplicate(shingles: set[tuple[str, ...]], keys: list[tuple[str, ...]]) -> bool:
        candidates = {place for key in keys for place in index[key]}
        return any(_resemblance(shingles, _shingles(corpus[place])) >= threshold for place in candidates)

    return [has_duplicate(shingles, keys) for shingles, keys in zip(own, rarest, strict=True)]


def near_duplicate_share(
    texts: Sequence[Sequence[str]], corpus: Sequence[Sequence[str]], threshold: float = 0.8
) -> float:
    """Compute the share of texts that have a near duplicate in the corpus.

    Args:
        texts (`Sequence[Sequence[str]]`): Texts as words.
        corpus (`Sequence[Sequence[str]]`): Texts as words.
        threshold (`float`, *optional*, defaults to 0.8): As in [`near_duplicates`].

    Returns:
        `float`: [0, 1]; nan where there are no texts.

    Raises:
        ValueError: If `threshold` is out of range.

    Example:
        ```python
        >>> near_duplicate_share([["a", "dog", "runs"], ["a", "dog", "eats"]], [["a", "dog", "runs"]])
        0.5

        ```
    """
    near = near_duplicates(texts, corpus, threshold)
    return fmean(near) if near else math.nan


def _ranks(symbols: Tensor, longest: int) -> list[Tensor]:
    """Number the runs of 1, 2, 4 ... symbols from each place, in their order, up to at least `longest` symbols."""
    ranks = [symbols.unique(return_inverse=True)[1]]
    width = 1
    while width < longest:
        # A run that the last place cuts holds the last end, which occurs once: what follows it is of no consequence.
        following = F.pad(ranks[-1][width:], (0, min(width, len(symbols))))
        ranks.append((ranks[-1] * len(symbols) + following).unique(return_inverse=True)[1])
        width *= 2
    return ranks


def _common_lengths(ranks: list[Tensor], places: Tensor, others: Tensor) -> Tensor:
    """Return how many symbols from two places on are the same, for places whose longest run differs."""
    lengths = torch.zeros_like(places)
    for level in reversed(range(len(ranks))):
        lengths += (ranks[level][places + lengths] == ranks[level][others + lengths]).long() << level
    return lengths


def _shingles(text: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(text[start : start + SHINGLE]) for start in range(max(1, len(text) - SHINGLE + 1))}


def _resemblance(first: set[tuple[str, ...]], second: set[tuple[str, ...]]) -> float:
    common = len(first & second)
    return common / (len(first) + len(second) - common)
