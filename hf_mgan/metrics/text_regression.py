"""A regression from the n-grams of a text, or from its features, to the log-odds that it is real.

In: the different real and generated texts to train on, and those that set the penalty. Out: a function from texts to
log-odds. No random number is drawn.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor


WORD = re.compile(r"\w+|[^\w\s]")
WORD_ORDERS, CHARACTER_ORDERS = (1, 2, 3), (1, 2, 3, 4, 5)
START, END = "\x02", "\x03"
STEPS = 4  # of the length, a doubling
MIN_TEXTS = 2  # that an n-gram must occur in to be looked at
SMOOTHING = 0.5  # texts
PENALTIES = (0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
ITERATIONS = 200


class Sides(NamedTuple):
    """Different texts, none on both sides of the split that they are trained and tested by."""

    real: list[str]
    generated: list[str]


class Sparse(NamedTuple):
    """A matrix as the entries that are not 0: the row, the column and the value of each."""

    rows: Tensor
    columns: Tensor
    values: Tensor
    height: int
    width: int


Matrix: TypeAlias = Tensor | Sparse
Represent: TypeAlias = Callable[[list[str]], Matrix]  # a row a text


class NgramView:
    """The n-grams and the length of a text, scaled by what they tell: the log of how much likelier in a real text.

    Wang and Manning 2012, "Baselines and bigrams: simple, good sentiment and topic classification"
    ([P12-2018](https://aclanthology.org/P12-2018)), with each row's n-grams and its length scaled to weigh the same in
    long and short texts.

    Args:
        sides ([`Sides`]): Texts to learn from.
    """

    def __init__(self, sides: Sides) -> None:
        counts = [Counter(gram for text in side for gram in (*_ngrams(text), *_lengths(text))) for side in sides]
        known = [gram for gram, count in (counts[0] + counts[1]).items() if count >= MIN_TEXTS]
        self.columns = {gram: column for column, gram in enumerate(known)}
        shares = [
            (torch.tensor([count[gram] for gram in known], dtype=torch.float64) + SMOOTHING) / (len(side) + SMOOTHING)
            for count, side in zip(counts, sides, strict=True)
        ]
        self.ratios = (shares[0] / shares[1]).log()

    def __call__(self, texts: list[str]) -> Sparse:
        """Represent N texts by the n-grams among theirs that are known, as N rows."""
        rows: list[int] = []
        columns: list[int] = []
        scales: list[float] = []
        for row, text in enumerate(texts):
            for grams in (_ngrams(text), _lengths(text)):
                found = [self.columns[gram] for gram in grams if gram in self.columns]
                rows += [row] * len(found)
                columns += found
                scales += [1 / math.sqrt(len(found) or 1)] * len(found)
        index = torch.tensor(columns, dtype=torch.long)
        values = self.ratios[index] * torch.tensor(scales, dtype=torch.float64)
        return Sparse(torch.tensor(rows, dtype=torch.long), index, values, len(texts), len(self.ratios))


class FeatureView:
    """Features of texts, each brought to mean 0 and variance 1/D over the texts to learn from.

    Args:
        sides ([`Sides`]): Texts to learn from.
        features (`dict[str, Tensor]`): Of every text, each of shape `(D,)`.
    """

    def __init__(self, sides: Sides, features: dict[str, Tensor]) -> None:
        self.features = features
        known = self._rows([*sides.real, *sides.generated])
        self.mean, spread = known.mean(0), known.std(0)
        self.scale = torch.where(spread > 0, spread, torch.inf) * known.shape[1] ** 0.5

    def __call__(self, texts: list[str]) -> Tensor:
        """Represent N texts as a matrix of shape `(N, D)`."""
        return (self._rows(texts) - self.mean) / self.scale

    def _rows(self, texts: list[str]) -> Tensor:
        return torch.stack([self.features[text] for text in texts]).double()


def fit_regression(view: Callable[[Sides], Represent], outer: Sides, inner: Sides) -> Callable[[list[str]], Tensor]:
    """Train a logistic regression, with the penalty on the squared weights that an inner split asks for.

    The penalty falls in steps for as long as the loss of the inner texts falls; then all texts are trained on. Both
    sides have the same weight, whatever their numbers.

    Args:
        view (`Callable`): From texts to learn from to a function that represents texts as rows.
        outer ([`Sides`]): Texts that are trained on at each penalty.
        inner ([`Sides`]): Texts that choose among the penalties.

    Returns:
        `Callable`: From N texts to a `Tensor` of shape `(N,)`, float64: log-odds that a text is real, if both sides
        are equally likely beforehand.
    """
    represent = view(outer)
    trained, tested = (represent([*sides.real, *sides.generated]) for sides in (outer, inner))
    weights, lowest, chosen = None, math.inf, PENALTIES[0]
    for penalty in PENALTIES:
        weights = _regress(trained, outer, penalty, weights)
        loss = _loss(_logits(tested, weights), inner).item()
        if loss >= lowest:
            break
        lowest, chosen = loss, penalty

    everything = Sides(*(mine + others for mine, others in zip(outer, inner, strict=True)))
    represent = view(everything)
    weights = _regress(represent([*everything.real, *everything.generated]), everything, chosen)
    return lambda texts: _logits(represent(texts), weights)


def _regress(matrix: Matrix, sides: Sides, penalty: float, start: Tensor | None = None) -> Tensor:
    """Return the weights and, last of them, the intercept, which is not penalised."""
    width = matrix.width if isinstance(matrix, Sparse) else matrix.shape[1]
    weights = torch.zeros(width + 1, dtype=torch.float64) if start is None else start.clone()
    weights.requires_grad_(True)
    optimizer = torch.optim.LBFGS([weights], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = _loss(_logits(matrix, weights), sides) + penalty / 2 * weights[:-1].square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return weights.detach()


def _logits(matrix: Matrix, weights: Tensor) -> Tensor:
    if isinstance(matrix, Tensor):
        return matrix @ weights[:-1] + weights[-1]
    # Faster by a multiple than F.embedding_bag, whose backward pass sorts.
    products = weights.index_select(0, matrix.columns) * matrix.values
    return weights[-1] + torch.zeros(matrix.height, dtype=weights.dtype).index_add(0, matrix.rows, products)


def _loss(logits: Tensor, sides: Sides) -> Tensor:
    """Compute the cross-entropy in nats, the mean of both sides' means; the real texts come first."""
    real, generated = logits.split([len(sides.real), len(sides.generated)])
    return (F.softplus(-real).mean() + F.softplus(generated).mean()) / 2


def _ngrams(text: str) -> list[tuple[str, ...] | str]:
    """List the different n-grams of words, as tuples, and of characters, each once and in order."""
    words, characters = [START, *WORD.findall(text), END], f"{START} {text} {END}"
    grams: dict[tuple[str, ...] | str, None] = {}
    for order in WORD_ORDERS:
        grams |= dict.fromkeys(tuple(words[start : start + order]) for start in range(len(words) - order + 1))
    for order in CHARACTER_ORDERS:
        grams |= dict.fromkeys(characters[start : start + order] for start in range(len(characters) - order + 1))
    return list(grams)


def _lengths(text: str) -> list[int]:
    """List the steps of a logarithmic scale of the number of words that the text reaches."""
    return list(range(int(STEPS * math.log2(1 + len(WORD.findall(text)))) + 1))
