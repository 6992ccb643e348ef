"""The classifier two-sample test (C2ST): can a new classifier tell generated from real texts, and how well?

The discriminator of the training cannot say: the generator is trained against it, and knows what it overlooks. The
classifiers here are new, and score only texts that they have not been trained on: Lopez-Paz and Oquab 2017,
"Revisiting classifier two-sample tests" ([1610.06545](https://huggingface.co/papers/1610.06545)), with the area under
the curve (AUC) as the statistic.

In: plain texts, real and generated, and further real texts for the null. Out: the AUC with its interval, 0.5 where
nothing tells the two sides apart, beside the AUC of real against real.

A test sees what its classifier can learn. That of [`fine_tuned_c2st`] is a pretrained encoder with all its weights
(`fine_tuning`). That of [`c2st`] takes seconds: a logistic regression on the n-grams of words and of characters and on
the length (`text_regression`), by scikit-learn, of the extra `evaluation`. With `encoder` its score is the mean with
that of a second regression, on frozen features.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ..checks import COUNT, LEVEL, PLACE, POSITIVE, SEED, TEXTS, Check, Instance, checked, optional
from .extras import require_packages
from .features import check_finite, encoder_features
from .fine_tuning import BATCH_SIZE, EPOCHS, fine_tune, load_with_new_head, refuse_discriminator
from .intervals import Interval, placements, separated_interval
from .text_regression import FeatureView, LabelledTexts, NgramView, View, count_ngrams, fit_regression


if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

FOLDS = 2
NUM_PARTS = 8  # of the different texts; each fold has four, and one of the four keeps the classifier from overfitting
NUM_BINS = 10

# From texts to train on, and those that say when it overfits, to a function from N texts to log-odds of shape (N,).
Fit: TypeAlias = Callable[[LabelledTexts, LabelledTexts], Callable[[list[str]], Tensor]]
ENCODER = Instance(
    of=(str, Path), what="a Hub id, a folder or a function from texts to features", function=True, optional=True
)
FINE_TUNING: dict[str, Check] = {
    "learning_rate": optional(POSITIVE),
    "epochs": COUNT,
    "batch_size": COUNT,
    "seed": SEED,
    "level": LEVEL,
}


class CalibrationBin(NamedTuple):
    """What became of the texts whose probability of being real lies in one tenth of [0, 1].

    Args:
        prob (`float`): Mean probability of the classifier for them, if both sides are equally likely beforehand.
        real_share (`float`): Share of real texts among them, each side weighed as a half of all; the
            classifier is calibrated where it is `prob`.
        texts (`int`): Their number.
    """

    prob: float
    real_share: float
    texts: int


class C2STResult(NamedTuple):
    """What a classifier two-sample test finds in real and generated texts.

    Args:
        auc ([`Interval`]): How often a real text scores higher than a generated one, a tie counting half.
        null_auc ([`Interval`], *optional*): The same of real texts against further real texts.
        calibration (`list[CalibrationBin]`): From low to high probabilities, without empty bins.
        real_scores (`Tensor` of shape `(R,)`): Log-odds that a text is real, from the classifier that has not seen
            it, in the order of the texts. Scores of one fold come from one classifier, and compare with each other
            only.
        generated_scores (`Tensor` of shape `(B,)`): Those of the generated texts.
        real_texts (`list[str]` of length R): The texts as they were compared.
        generated_texts (`list[str]` of length B): Those generated.
        real_folds (`Tensor` of shape `(R,)`): The fold of each text, 0 or 1.
        generated_folds (`Tensor` of shape `(B,)`): Those of the generated texts.
    """

    auc: Interval
    null_auc: Interval | None
    calibration: list[CalibrationBin]
    real_scores: Tensor
    generated_scores: Tensor
    real_texts: list[str]
    generated_texts: list[str]
    real_folds: Tensor
    generated_folds: Tensor


def c2st(
    real: Sequence[str],
    generated: Sequence[str],
    null: Sequence[str] | None = None,
    seed: int = 0,
    level: float = 0.95,
    encoder: str | Path | Callable[[list[str]], Tensor] | None = None,
) -> C2STResult:
    """Train a classifier on one half of the texts, test it on the other, and the other way round.

    Both sides are written the same way (Unicode's composed form, one space between words, none at the ends), so a
    text that differs only in that is the same text. The halves, and within each the quarter that sets the penalty of
    the regression, are drawn by different text: all copies of a text, on whichever side, lie in the same part. The
    classifier learns each different text once, and each text counts in the AUC. What repeats itself exactly is
    therefore not held against the generator, it only widens the interval: read [`duplicates`] beside it. The real
    texts fall in the same halves whatever they are compared with.

    The AUC is the mean over both halves, each by DeLong's method for its classifier ([`auc_interval`]), with the
    copies of a text as one draw (Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data"). The standard
    errors are averaged, which is what they come to if the halves err together, and the most they can come to. On real
    against real they do: the direction in which the halves happen to agree lifts both areas. Adding them as
    independent errors gives intervals that are too narrow: of 105 pairs of 150 sentences of WordNet per side, such
    intervals held 0.5 in 83 %, and these in 95 %. The interval is that of the two classifiers at hand: one that is
    trained on more texts may see more.

    Args:
        real (`Sequence[str]` of length R): Real texts that the generator was not trained on, cut like the completions
            ([`~hf_mgan.data.TextPath`]).
        generated (`Sequence[str]` of length B): Generated texts, at best as many.
        null (`Sequence[str]`, *optional*): Further real texts, at least B of them; the first B are compared with
            `real`. It shows what the way in which the texts were gathered does to the AUC.
        seed (`int`, *optional*, defaults to 0): Seed of the halves; nothing else is drawn.
        level (`float`, *optional*, defaults to 0.95): How often such intervals hold the AUC of their classifiers, (0,
            1).
        encoder (`str` or `Callable`, *optional*): Id or folder of a Hub encoder, or a function from a list of N texts
            to features of shape `(N, D)`. The score is the mean of both regressions. None looks at n-grams alone and
            loads nothing.

    Returns:
        [`C2STResult`]: The areas, the calibration, and each text's score.

    Raises:
        ImportError: If scikit-learn is missing.
        ValueError: If a side is too small to be split, if the null is smaller than the generated texts, if `level` is
            out of range, or if a feature is not finite.

    Example:
        ```python
        >>> real = [f"the dog sees {n} birds" for n in range(100)]
        >>> c2st(real, [f"{n} dog the sees birds" for n in range(100)]).auc
        Interval(value=1.0, low=0.963..., high=1.0)

        ```
    """
    require_packages("The two-sample test", "scikit-learn")
    from threadpoolctl import threadpool_limits  # of scikit-learn

    TEXTS("real", real)
    TEXTS("generated", generated)
    optional(TEXTS)("null", null)
    seed, level = SEED("seed", seed), LEVEL("level", level)
    ENCODER("encoder", encoder)
    if null is not None and len(null) < len(generated):
        raise ValueError(
            f"The null compares as many real texts as there are generated ones, {len(generated)}, and {len(null)} are "
            "given. Give more real texts, or leave the null out."
        )
    real, generated, null = (_normalised(texts or ()) for texts in (real, generated, null))
    different = list(dict.fromkeys([*real, *generated, *null]))
    views: list[View] = [partial(NgramView, counts=count_ngrams(different))]
    if encoder is not None:
        features = (encoder_features(str(encoder)) if isinstance(encoder, (str, Path)) else encoder)(different)
        check_finite(features, "different")
        views.append(partial(FeatureView, features=dict(zip(different, features, strict=True))))

    fits = [partial(fit_regression, view) for view in views]
    with threadpool_limits(1):  # such small problems lose time with more, and sum in another order
        result = _tested(real, generated, seed, level, fits)
        if not null:
            return result
        return result._replace(null_auc=_tested(real, null[: len(generated)], seed, level, fits).auc)


def fine_tuned_c2st(
    real: Sequence[str],
    generated: Sequence[str],
    encoder: str,
    *,
    discriminator: "str | PreTrainedModel | PeftModel | None" = None,
    learning_rate: float | None = None,
    epochs: int = EPOCHS,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    level: float = 0.95,
) -> C2STResult:
    """Fine-tune an encoder on one half of the texts, test it on the other, and the other way round.

    Texts, halves, area and interval are those of [`c2st`]; the quarter of a half that sets the penalty there says here
    which weights to keep ([`~fine_tuning.fine_tune`]). A GPU is taken where there is one. There, or with another
    number of threads, sums differ in their last digits, and scores with them.

    Args:
        real (`Sequence[str]` of length R): Real texts, as in [`c2st`].
        generated (`Sequence[str]` of length B): Generated texts, at best as many.
        encoder (`str`): Id on the Hub or folder of a pretrained model, bidirectional or causal, and of its tokenizer.
            All its weights are trained, with a new head, and none of its files changes.
        discriminator (`str`, `PreTrainedModel` or `PeftModel`, *optional*): The discriminator that the generator was
            trained against, to make sure that it is not the encoder. What both started as may be.
        learning_rate (`float`, *optional*): The highest one; by default what the width of the encoder asks for, as in
            [`~fine_tuning.fine_tune`].
        epochs (`int`, *optional*, defaults to 10): Passes over a half, at most; more where they are less than 100
            steps.
        batch_size (`int`, *optional*, defaults to 32): Texts per side and step.
        seed (`int`, *optional*, defaults to 0): Seed of the halves, the head, the batches and dropout; the state of
            the caller's random numbers stays as it is.
        level (`float`, *optional*, defaults to 0.95): As in [`c2st`].

    Returns:
        [`C2STResult`]: The area, the calibration, and each text's score.

    Raises:
        ValueError: If a side is too small to be split, a value is out of range, the encoder cannot be fine-tuned, or
            it has the weights of the discriminator.

    Example:
        ```python
        >>> fine_tuned_c2st(real, generated, "sentence-transformers/all-MiniLM-L6-v2").auc  # doctest: +SKIP
        Interval(value=0.75..., low=0.72..., high=0.78...)

        ```
    """
    learning_rate, epochs, batch_size, seed, level = checked(FINE_TUNING, locals()).values()
    for name, texts in (("real", real), ("generated", generated)):
        TEXTS(name, texts)
    PLACE("encoder", encoder)
    if discriminator is not None:
        refuse_discriminator(encoder, discriminator)
    real, generated = _normalised(real), _normalised(generated)
    _parts(real, generated, seed)  # refuses what is too small before anything is loaded
    pretrained = load_with_new_head(encoder, seed)
    fit = partial(fine_tune, pretrained, learning_rate=learning_rate, epochs=epochs, batch_size=batch_size, seed=seed)
    return _tested(real, generated, seed, level, [fit])


def auc_difference(first: C2STResult, second: C2STResult, level: float = 0.95) -> Interval:
    """Compute first AUC - second AUC: by how much the second texts are harder to tell from real ones.

    Both sets are compared with the same real texts and the same seed, so what makes a real text easy to tell for both
    classifiers cancels (DeLong et al. 1988). The generated texts count as independent, also where they begin with
    the same random numbers, and the errors of the halves are averaged as in [`c2st`]: both only widen it.

    Args:
        first ([`C2STResult`]): Of one generator, such as before training.
        second ([`C2STResult`]): Of another one, such as after it.
        level (`float`, *optional*, defaults to 0.95): As in [`c2st`].

    Returns:
        [`Interval`]: [-1, 1], above 0 where the second texts are harder to tell from real ones.

    Raises:
        ValueError: If the real texts or their halves are not the same, or if `level` is out of range.
    """
    level = LEVEL("level", level)
    if first.real_texts != second.real_texts or not first.real_folds.equal(second.real_folds):
        raise ValueError("A difference needs two results of the same real texts, in the same order, and of one seed.")
    values, errors = [], []
    for fold in range(FOLDS):
        (real_1, fake_1), (real_2, fake_2) = (
            placements(
                result.real_scores[result.real_folds == fold], result.generated_scores[result.generated_folds == fold]
            )
            for result in (first, second)
        )
        variance = _variance_of_mean(real_1 - real_2, _those(first.real_texts, first.real_folds == fold))
        for result, fake in ((first, fake_1), (second, fake_2)):
            variance += _variance_of_mean(fake, _those(result.generated_texts, result.generated_folds == fold))
        values.append((real_1.mean() - real_2.mean()).item())
        errors.append(math.sqrt(variance))
    value, reach = fmean(values), NormalDist().inv_cdf((1 + level) / 2) * fmean(errors)
    return Interval(value, max(-1.0, value - reach), min(1.0, value + reach))


def _tested(real: list[str], generated: list[str], seed: int, level: float, fits: Sequence[Fit]) -> C2STResult:
    parts = _parts(real, generated, seed)
    scores = _scores(real, generated, parts, fits)
    texts = (real, generated)
    of_real, of_generated = (torch.tensor([scores[text] for text in side], dtype=torch.float64) for side in texts)
    real_folds, generated_folds = (torch.tensor([parts[text] % FOLDS for text in side]) for side in texts)
    values, errors = [], []
    for fold in range(FOLDS):
        in_real, in_generated = real_folds == fold, generated_folds == fold
        of_sides = placements(of_real[in_real], of_generated[in_generated])
        values.append(of_sides[0].mean().item())
        errors.append(
            math.sqrt(sum(map(_variance_of_mean, of_sides, (_those(real, in_real), _those(generated, in_generated)))))
        )
    value, smaller = fmean(values), min(len(set(real)), len(set(generated)))
    return C2STResult(
        _interval(value, fmean(errors), smaller, level),
        None,
        _calibration(of_real, of_generated),
        of_real,
        of_generated,
        real,
        generated,
        real_folds,
        generated_folds,
    )


def _normalised(texts: Sequence[str]) -> list[str]:
    return [" ".join(unicodedata.normalize("NFC", text).split()) for text in texts]


def _parts(real: list[str], generated: list[str], seed: int) -> dict[str, int]:
    """Deal the different texts to the parts, real ones first; the fold of a text is its part modulo the folds."""

    def order(texts: set[str]) -> list[str]:
        return sorted(texts, key=lambda text: blake2b(f"{seed} {text}".encode()).digest())

    parts = {text: index % NUM_PARTS for index, text in enumerate(order(set(real)))}
    counts = Counter(parts[text] for text in set(generated) if text in parts)
    for text in order(set(generated) - parts.keys()):
        parts[text] = min(range(NUM_PARTS), key=lambda part: (counts[part], part))
        counts[parts[text]] += 1
    for name, texts in (("real", real), ("generated", generated)):
        if len({parts[text] for text in texts}) < NUM_PARTS:
            raise ValueError(
                "Each half of the texts is trained on, tested, and split once more to see overfitting. That takes at "
                f"least {NUM_PARTS} different texts per side, more where a text is on both, and of the {len(texts)} "
                f"{name} texts {len(set(texts))} differ. If they are a generator's, their duplicates say enough."
            )
    return parts


def _scores(real: list[str], generated: list[str], parts: dict[str, int], fits: Sequence[Fit]) -> dict[str, float]:
    """Score each text by the mean of the classifiers that are trained on the other fold, in log-odds."""
    scores = dict.fromkeys(parts, 0.0)
    sides = [[text for text in parts if text in side] for side in (set(real), set(generated))]
    for fold in range(FOLDS):
        trained = [[text for text in side if parts[text] % FOLDS != fold] for side in sides]
        inner = LabelledTexts(*([text for text in side if parts[text] < FOLDS] for side in trained))
        outer = LabelledTexts(*([text for text in side if parts[text] >= FOLDS] for side in trained))
        tested = [text for text in parts if parts[text] % FOLDS == fold]
        for fit in fits:
            log_odds = fit(outer, inner)(tested).tolist()
            for text, value in zip(tested, log_odds, strict=True):
                scores[text] += value / len(fits)
    return scores


def _those(texts: list[str], chosen: Tensor) -> list[str]:
    return [text for text, keep in zip(texts, chosen.tolist(), strict=True) if keep]


def _variance_of_mean(values: Tensor, texts: list[str]) -> float:
    """Estimate the variance of the mean of values that are the same draw where their texts are the same."""
    numbers: dict[str, int] = {}
    owners = torch.tensor([numbers.setdefault(text, len(numbers)) for text in texts])
    deviations = torch.zeros(len(numbers), dtype=values.dtype).index_add_(0, owners, values - values.mean())
    return (deviations.square().sum() * len(numbers) / (len(numbers) - 1) / len(values) ** 2).item()


def _interval(value: float, error: float, smaller: int, level: float) -> Interval:
    """Return the normal interval, or the one of [`auc_interval`] where the scores part the two sides."""
    if value in (0.0, 1.0):
        return separated_interval(value, smaller, level)
    reach = NormalDist().inv_cdf((1 + level) / 2) * error
    return Interval(value, max(0.0, value - reach), min(1.0, value + reach))


def _calibration(real_scores: Tensor, generated_scores: Tensor) -> list[CalibrationBin]:
    probs = torch.cat([real_scores, generated_scores]).sigmoid()
    weights = torch.cat([torch.full_like(scores, 1 / len(scores)) for scores in (real_scores, generated_scores)])
    is_real = torch.arange(len(probs)) < len(real_scores)
    places = (probs * NUM_BINS).long().clamp(max=NUM_BINS - 1)
    bins = []
    for place in places.unique().tolist():
        inside = places == place
        weight = weights[inside]
        prob, share = (((values[inside] * weight).sum() / weight.sum()).item() for values in (probs, is_real))
        bins.append(CalibrationBin(prob, share, int(inside.sum())))
    return bins
