"""A regression from the n-grams of a text, or from its features, to the log-odds that it is real.

In: the different real and generated texts to train on, and those that set the penalty. Out: a function from texts to
log-odds. No random number is drawn. Vectorising, scaling and the regression are scikit-learn's, of the extra
`evaluation`.
"""

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import regex
import torch
from torch import Tensor

from .units import HAS_NO_SPACES, WITHOUT_SPACES


if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

WORD = re.compile(r"\w+|[^\w\s]")
# Where a script is written without spaces, its characters stand for words.
WORD_OR_CHARACTER = regex.compile(rf"(?=[{WITHOUT_SPACES}])\X|[^\W{WITHOUT_SPACES}]+|[^\w\s]")
WORD_ORDERS, CHARACTER_ORDERS = (1, 3), (1, 5)  # the shortest and the longest n-grams
LENGTH_STEPS = 4  # per doubling
MIN_TEXTS = 2  # that an n-gram must occur in to be looked at
SMOOTHING = 0.5  # texts
PENALTIES = (0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
TOLERANCE = 1e-6  # of the gradient, in nats
MAX_ITERATIONS = 1000


class LabelledTexts(NamedTuple):
    """Different texts, none on both sides of the split that they are trained and tested by."""

    real: list[str]
    generated: list[str]


# From texts to learn from to a function from N texts to a matrix of N rows, sparse or not.
View: TypeAlias = Callable[[LabelledTexts], Callable[[list[str]], Any]]


class NgramCounts(NamedTuple):
    """What occurs in each of a set of texts, counted once for all that is learnt from parts of the set.

    Args:
        rows (`dict[str, int]`): The row of each text.
        blocks (`list` of sparse matrices): The n-grams of words and of characters, and the steps of the length; 1
            where one occurs in the text, however often.
    """

    rows: dict[str, int]
    blocks: list[Any]


def count_ngrams(texts: list[str]) -> NgramCounts:
    """Count the n-grams of words and of characters of different texts, and the steps of their lengths.

    The ends of a text are words and characters of their own, and where a script is written without spaces each
    character is a word, as in [`~metrics.split_into_units`]. The steps are those of a logarithmic scale of the number
    of words, up to the one that the text reaches.

    Args:
        texts (`list[str]`): Different texts.

    Returns:
        [`NgramCounts`]: With a row per text.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.pipeline import make_union

    settings: dict[str, Any] = {"preprocessor": "\x02 {} \x03".format, "binary": True}
    ngrams = make_union(
        CountVectorizer(tokenizer=_words, token_pattern=None, ngram_range=WORD_ORDERS, **settings),
        CountVectorizer(analyzer="char", ngram_range=CHARACTER_ORDERS, **settings),
    )
    length = CountVectorizer(analyzer=_length_steps, binary=True)
    rows = {text: row for row, text in enumerate(texts)}
    return NgramCounts(rows, [counter.fit_transform(texts).tocsr() for counter in (ngrams, length)])


class NgramView:
    """The n-grams and the length of a text, scaled by what they tell: the log of how much likelier in a real text.

    Wang and Manning 2012, "Baselines and bigrams: simple, good sentiment and topic classification"
    ([P12-2018](https://aclanthology.org/P12-2018)), with each row's n-grams and its length brought to length 1, so
    that both weigh the same in long and short texts.

    Args:
        texts ([`LabelledTexts`]): Texts to learn from: which n-grams there are, and what each of them tells.
        counts ([`NgramCounts`]): Of every text.
    """

    def __init__(self, texts: LabelledTexts, counts: NgramCounts) -> None:
        import numpy as np

        self._rows = counts.rows
        self._blocks = []
        for block in counts.blocks:
            real, generated = (np.asarray(block[self._places(side)].sum(0)).ravel() for side in texts)
            known = np.flatnonzero(real + generated >= MIN_TEXTS)
            shares = [
                (occurs[known] + SMOOTHING) / (len(side) + SMOOTHING)
                for occurs, side in zip((real, generated), texts, strict=True)
            ]
            self._blocks.append((block[:, known], np.log(shares[0] / shares[1])))

    def __call__(self, texts: list[str]) -> Any:
        """Represent N texts by the n-grams among theirs that are known, as a sparse matrix of N rows."""
        from scipy.sparse import hstack
        from sklearn.preprocessing import normalize

        places = self._places(texts)
        return hstack(
            [normalize(block[places].astype(float)).multiply(ratios) for block, ratios in self._blocks], format="csr"
        )

    def _places(self, texts: list[str]) -> list[int]:
        return [self._rows[text] for text in texts]


class FeatureView:
    """Features of texts, each brought to mean 0 and variance 1/D over the texts to learn from.

    Args:
        texts ([`LabelledTexts`]): Texts to learn from.
        features (`dict[str, Tensor]`): Of every text, each of shape `(D,)`.
    """

    def __init__(self, texts: LabelledTexts, features: dict[str, Tensor]) -> None:
        from sklearn.preprocessing import StandardScaler

        self._features = features
        self._scaler = StandardScaler().fit(self._rows([*texts.real, *texts.generated]))

    def __call__(self, texts: list[str]) -> Any:
        """Represent N texts as an array of shape `(N, D)`."""
        scaled = self._scaler.transform(self._rows(texts))
        return scaled / scaled.shape[1] ** 0.5

    def _rows(self, texts: list[str]) -> Any:
        return torch.stack([self._features[text] for text in texts]).double().numpy()


def fit_regression(view: View, outer: LabelledTexts, inner: LabelledTexts) -> Callable[[list[str]], Tensor]:
    """Train a logistic regression, with the penalty on the squared weights that an inner split asks for.

    The penalty falls in steps for as long as the loss of the inner texts falls; then all texts are trained on. Both
    sides have the same weight, whatever their numbers.

    Args:
        view (`Callable`): From texts to learn from to a function that represents texts as rows.
        outer ([`LabelledTexts`]): Texts that are trained on at each penalty.
        inner ([`LabelledTexts`]): Texts that choose among the penalties.

    Returns:
        `Callable`: From N texts to a `Tensor` of shape `(N,)`, float64: log-odds that a text is real, if both sides
        are equally likely beforehand.
    """
    from sklearn.metrics import log_loss
    from sklearn.utils.class_weight import compute_sample_weight

    represent = view(outer)
    trained, tested = (represent([*texts.real, *texts.generated]) for texts in (outer, inner))
    weights = compute_sample_weight("balanced", _labels(inner))
    regression, lowest, chosen = _regression(), math.inf, PENALTIES[0]
    for penalty in PENALTIES:  # each fit starts from the one before
        _fit(regression, trained, outer, penalty)
        loss = log_loss(_labels(inner), regression.predict_proba(tested), sample_weight=weights)
        if loss >= lowest:
            break
        lowest, chosen = loss, penalty

    everything = LabelledTexts(*(mine + others for mine, others in zip(outer, inner, strict=True)))
    represent = view(everything)
    regression = _regression()
    _fit(regression, represent([*everything.real, *everything.generated]), everything, chosen)
    return lambda texts: torch.from_numpy(regression.decision_function(represent(texts)))


def _labels(texts: LabelledTexts) -> list[int]:
    return [1] * len(texts.real) + [0] * len(texts.generated)


def _regression() -> "LogisticRegression":
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(class_weight="balanced", tol=TOLERANCE, max_iter=MAX_ITERATIONS, warm_start=True)


def _fit(regression: "LogisticRegression", rows: Any, texts: LabelledTexts, penalty: float) -> None:
    """Minimise the mean of both sides' mean losses + penalty/2 |weights|^2; scikit-learn sums over the texts."""
    labels = _labels(texts)
    regression.set_params(C=1 / (penalty * len(labels))).fit(rows, labels)


def _words(text: str) -> list[str]:
    """Split a text into words and punctuation, and what is written without spaces into characters."""
    return (WORD_OR_CHARACTER if HAS_NO_SPACES.search(text) else WORD).findall(text)


def _length_steps(text: str) -> list[str]:
    """List the steps of a logarithmic scale of the number of words that the text reaches."""
    reached = int(LENGTH_STEPS * math.log2(1 + len(_words(text))))
    return [str(step) for step in range(reached + 1)]
