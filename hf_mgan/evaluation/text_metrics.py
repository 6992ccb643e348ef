"""All metrics of a set of generated texts, each with its interval where it has one.

In: generated texts, real texts that the generator was not trained on, and what is known beside them. Out: one
[`Interval`] per metric, by its name in [`METRICS`]. Every set is cut to the same number of texts, since most metrics
depend on it; real texts take the generated texts' place for the row that all others are read by.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..metrics.bleu import ReferenceScore, bleu, chrf
from ..metrics.distinct_n import distinct_n
from ..metrics.duplicates import duplicates
from ..metrics.frechet import frechet_distance
from ..metrics.intervals import Interval, bootstrap_interval, jackknife_interval, share_interval
from ..metrics.length import mean_length
from ..metrics.likelihood import reverse_perplexity, small_language_model
from ..metrics.mauve import mauve
from ..metrics.memorisation import longest_copied_ngram, near_duplicates
from ..metrics.repetition import repeated_share
from ..metrics.self_bleu import self_bleu
from ..metrics.two_sample_test import NUM_PARTS, C2STResult, c2st, fine_tuned_c2st
from ..metrics.units import Unit, split_into_units


SAMPLES_PREFIX = "samples/"  # what the metrics of an evaluator's samples begin with
NGRAM = 4
NEAR = 0.8  # resemblance of near duplicates, as in `near_duplicates`
VOCABULARY = 5000  # words of the small language model of reverse perplexity
UNKNOWN, START, END = 0, 1, 2
FIRST_WORD = 3


class MetricDescription(NamedTuple):
    """How a metric is to be read.

    Args:
        title (`str`): Its heading in a table.
        better (`str`): `"lower"`, `"higher"`, or `"real"` where the value of real texts is the best.
        explanation (`str`): What it is, its unit or range, and what it is blind to.
    """

    title: str
    better: Literal["lower", "higher", "real"]
    explanation: str


# In the order of the tables: what no cheat is known to improve stands first.
METRICS: dict[str, MetricDescription] = {
    "fine_tuned_c2st_auc": MetricDescription(
        "fine-tuned C2ST AUC",
        "lower",
        "how often an encoder that is fine-tuned to tell the two sides apart scores a real text higher than a "
        "generated one; 0.5 = it cannot, with so many texts. Blind to repetition of a whole text and to copies of "
        "the training texts",
    ),
    "c2st_auc": MetricDescription(
        "C2ST AUC",
        "lower",
        "how often the classifier of a two-sample test on n-grams scores a real text higher than a generated one; "
        "0.5 = cannot be told apart. Blind to sense beyond a few words, to repetition of a whole text and to copies "
        "of the training texts",
    ),
    "encoder_c2st_auc": MetricDescription(
        "encoder C2ST AUC",
        "lower",
        "the same with a classifier that also sees the features, which a generator may exploit whose discriminator is "
        "made of that encoder",
    ),
    "mauve": MetricDescription("MAUVE", "higher", "overlap of the two clouds of features, (0, 1]"),
    "frechet": MetricDescription(
        "Frechet", "lower", "distance of the two clouds of features, from 0; blind to copies"
    ),
    "reverse_perplexity": MetricDescription(
        "reverse ppl", "lower", "perplexity of real texts under a small model that has learnt from these, from 1"
    ),
    "real_nll": MetricDescription(
        "NLL of real",
        "lower",
        "nats per token of held-out real texts under the generator, at the temperature of the row",
    ),
    "self_bleu": MetricDescription(
        "self-BLEU", "real", "BLEU-4 of each text against all others, [0, 1]: how much the texts repeat one another"
    ),
    "distinct_4": MetricDescription("distinct-4", "real", "share of different ones among all runs of 4 words, [0, 1]"),
    "duplicates": MetricDescription("duplicates", "real", "share of texts that occur earlier in the set, [0, 1)"),
    "entropy": MetricDescription(
        "entropy",
        "real",
        "nats per token of the generator's own texts; far below NLL of real, they are too alike",
    ),
    "length_ratio": MetricDescription("length", "real", "mean number of words over that of real texts, 1 = as long"),
    "repetition": MetricDescription(
        "repetition", "real", "share of a text's runs of 4 words that it has had before, [0, 1)"
    ),
    "copied_share": MetricDescription(
        "copied", "real", "longest run of words that stands in a training text, over the length of the text, [0, 1]"
    ),
    "near_duplicates": MetricDescription(
        "near dup.", "real", "share of texts with a near duplicate among the training texts"
    ),
    "draws": MetricDescription(
        "draws", "lower", "candidates drawn per text, 1 for a generator alone: what guided sampling costs"
    ),
    "tokens_per_text": MetricDescription(
        "tokens", "lower", "tokens drawn per text, those of rejected candidates included"
    ),
    "bleu": MetricDescription("BLEU", "higher", "BLEU against the references, [0, 100]"),
    "chrf": MetricDescription("chrF", "higher", "chrF against the references, [0, 100]: as BLEU, of characters"),
    "unsafe_rate": MetricDescription(
        "unsafe", "lower", "share of texts that the safety classifier calls unsafe, [0, 1]"
    ),
}


# The first one that was computed decides a verdict.
TESTS = ("fine_tuned_c2st_auc", "c2st_auc", "encoder_c2st_auc")
# Those that take the generator and not its texts alone.
OF_GENERATOR = ("real_nll", "entropy", "draws", "tokens_per_text")


class TextMetrics(NamedTuple):
    """The metrics of a set of texts.

    Args:
        metrics (`dict[str, Interval]`): By the names in [`METRICS`]; an end is nan where a metric has no interval.
        c2st ([`C2STResult`], *optional*): The two-sample test on n-grams, with the score of each text; None where the
            texts are too few or too much alike for one.
        lengths (`list[int]`): Units of each text.
    """

    metrics: dict[str, Interval]
    c2st: C2STResult | None
    lengths: list[int]


def text_metrics(
    texts: Sequence[str],
    real: Sequence[str],
    *,
    training: Sequence[str] | None = None,
    references: Sequence[str] | None = None,
    encoder: str | None = None,
    features: Callable[[Sequence[str]], Tensor] | None = None,
    is_unsafe: Callable[[Sequence[str]], Sequence[bool]] | None = None,
    unit: Unit = "auto",
    reverse: bool = True,
    seed: int = 0,
    level: float = 0.95,
) -> TextMetrics:
    """Compute all metrics of a set of generated texts that can be computed from texts alone.

    Intervals are those of [`c2st`] for its area, of a bootstrap for means over texts, of Wilson for the unsafe
    rate ([`share_interval`]), and of a grouped jackknife ([`jackknife_interval`]) for what depends on the set as a
    whole. All but those of [`c2st`] leave the real texts as they are. Reverse perplexity has none: its greatest error
    is that of its training.

    Args:
        texts (`Sequence[str]` of length N): Generated texts, independent of one another, at least 3.
        real (`Sequence[str]` of length N): Real texts that the generator was not trained on, cut like the completions.
        training (`Sequence[str]`, *optional*): The texts it was trained on; without them nothing is said of copies.
        references (`Sequence[str]` of length N, *optional*): The reference of each text's prompt, where texts have
            prompts.
        encoder (`str`, *optional*): Id or folder of the encoder that [`fine_tuned_c2st`] fine-tunes, which takes
            longer than all else; without it there is no such test.
        features (`Callable`, *optional*): From M texts to a `Tensor` of shape `(M, D)`, such as [`encoder_features`];
            without it there is neither MAUVE nor Frechet distance, nor a test on frozen features.
        is_unsafe (`Callable`, *optional*): From texts to as many verdicts.
        unit (`str`, *optional*, defaults to `"auto"`): What texts are counted in; see
            [`~metrics.split_into_units`]. What is said of words is of these units.
        reverse (`bool`, *optional*, defaults to `True`): Whether to train a small model for the reverse perplexity.
        seed (`int`, *optional*, defaults to 0): Seed of the halves of [`c2st`], the bootstrap, the clusters of MAUVE
            and the small model.
        level (`float`, *optional*, defaults to 0.95): Level of the intervals, in (0, 1).

    Returns:
        [`TextMetrics`]: The metrics, without the generator's own ([`OF_GENERATOR`]).

    Raises:
        ImportError: If a package of the extra `evaluation` is missing.
        TypeError: If a text is no string.
        ValueError: If the sides are not of one size, a real text is empty, or a value is out of range.
    """
    if len(texts) != len(real) or len(texts) < 3:
        raise ValueError(
            f"Most metrics depend on the number of texts, so both sides need as many, and at least 3, of which a "
            f"jackknife leaves one out; got {len(texts)} generated and {len(real)} real texts. Cut the longer side."
        )
    if references is not None and len(references) != len(texts):
        raise ValueError(f"references are one per text, got {len(references)} for {len(texts)} texts.")
    if isinstance(texts, str):
        raise TypeError(f"texts must be a list of strings, got the string {texts[:40]!r}: write [text].")
    for name, side in (("real", real), ("training", training), ("references", references)):
        _check_real(name, side)
    split, real_split = split_into_units(texts, unit), split_into_units(real, unit)

    def of_texts(values: Sequence[float]) -> Interval:
        return bootstrap_interval(list(values), n=1000, level=level, seed=seed)

    def of_set(entries: Sequence[Any], statistic: Callable[[list[Any]], float]) -> Interval:
        return jackknife_interval(entries, statistic, min(10, len(entries)), level)

    metrics: dict[str, Interval] = {}
    test = None
    if can_be_tested(texts, real):
        test = c2st(real, texts, seed=seed, level=level)
        metrics["c2st_auc"] = test.auc
        if encoder is not None:
            metrics["fine_tuned_c2st_auc"] = fine_tuned_c2st(real, texts, encoder, seed=seed, level=level).auc
    if features is not None:
        of_real, own = features(list(real)), features(list(texts))
        if test is not None:
            known = dict(zip([*real, *texts], [*of_real, *own], strict=True))
            of_encoder = c2st(real, texts, seed=seed, level=level, encoder=partial(_looked_up, known, features))
            metrics["encoder_c2st_auc"] = of_encoder.auc
        metrics["mauve"] = of_set(list(own), lambda rows: mauve(of_real, torch.stack(rows), seed=seed).score)
        metrics["frechet"] = of_set(list(own), lambda rows: frechet_distance(of_real, torch.stack(rows)))
    if reverse:
        value = _reverse_perplexity(split, real_split, seed)
        metrics["reverse_perplexity"] = Interval(value, math.nan, math.nan)
    metrics["self_bleu"] = of_set(split, lambda rows: self_bleu(rows, NGRAM))
    metrics["distinct_4"] = of_set(split, lambda rows: distinct_n(rows, NGRAM))
    metrics["duplicates"] = of_set(list(texts), duplicates)
    longest = mean_length(real_split)
    metrics["length_ratio"] = of_texts([len(row) / longest if longest else math.nan for row in split])
    metrics["repetition"] = of_texts([repeated_share(row, NGRAM) for row in split])
    if training is not None:
        corpus = split_into_units(training, unit)
        copied = longest_copied_ngram(split, corpus)
        metrics["copied_share"] = of_texts([run / max(len(row), 1) for run, row in zip(copied, split, strict=True)])
        metrics["near_duplicates"] = of_texts([float(one) for one in near_duplicates(split, corpus, NEAR)])
    if references is not None:
        # With spaces between units, which are what BLEU counts also where texts are written without.
        sides = zip(split, split_into_units(references, unit), strict=True)
        pairs = [(" ".join(row), " ".join(reference)) for row, reference in sides]
        metrics["bleu"] = of_set(pairs, partial(_against_references, bleu))
        metrics["chrf"] = of_set(list(zip(texts, references, strict=True)), partial(_against_references, chrf))
    if is_unsafe is not None:
        verdicts = [bool(one) for one in is_unsafe(texts)]
        if len(verdicts) != len(texts):
            raise ValueError(
                f"is_unsafe returned {len(verdicts)} verdicts on {len(texts)} texts: return one for each."
            )
        metrics["unsafe_rate"] = share_interval(verdicts, level)
    lengths = [len(row) for row in split]
    return TextMetrics({name: metrics[name] for name in METRICS if name in metrics}, test, lengths)


def _against_references(score: Callable[..., ReferenceScore], pairs: list[tuple[str, str]]) -> float:
    return score([text for text, _ in pairs], [reference for _, reference in pairs]).score


def _check_real(name: str, texts: Sequence[str] | None) -> None:
    """Refuse real texts that are none, since an empty one is as near to all as to nothing."""
    if isinstance(texts, str):
        raise TypeError(f"{name} must be a list of strings, got the string {texts[:40]!r}: write [text].")
    if texts is not None and not len(texts):
        raise ValueError(f"{name} has no texts: give some, or None where it may be left out.")
    for index, text in enumerate(texts or ()):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{index}] is {text!r} and must be a string: write it out, or leave the row out.")
        if not text.strip():
            raise ValueError(f"{name}[{index}] is an empty text, {text!r}: leave the row out on all sides.")


def can_be_tested(texts: Sequence[str], real: Sequence[str]) -> bool:
    """Return whether there are enough different texts for [`c2st`], as a generator that repeats itself may not have.

    Args:
        texts (`Sequence[str]`): Generated texts.
        real (`Sequence[str]`): Real texts.

    Returns:
        `bool`: Whether either side has twice the parts of the test, apart from what is on both sides.
    """
    sides = [{" ".join(text.split()) for text in side} for side in (texts, real)]
    common = sides[0] & sides[1]
    return all(len(side - common) >= 2 * NUM_PARTS for side in sides)


def _looked_up(known: dict[str, Tensor], features: Callable[[Sequence[str]], Tensor], texts: Sequence[str]) -> Tensor:
    """Return features of shape (M, D) of texts, encoding those that are not known: [`c2st`] writes some otherwise."""
    new = [text for text in texts if text not in known]
    if new:
        known.update(zip(new, features(new), strict=True))
    return torch.stack([known[text] for text in texts])


def _reverse_perplexity(texts: list[list[str]], real: list[list[str]], seed: int) -> float:
    """Compute the reverse perplexity over the commonest words of the real texts, all others being one word."""
    common = Counter(word for row in real for word in row).most_common(VOCABULARY)
    numbers = {word: place + FIRST_WORD for place, (word, _) in enumerate(common)}

    def encoded(rows: list[list[str]]) -> list[list[int]]:
        return [[*(numbers.get(word, UNKNOWN) for word in row), END] for row in rows]

    longest = 2 + max(len(row) for row in (*texts, *real))
    model = small_language_model(FIRST_WORD + len(numbers), longest, seed)
    return reverse_perplexity(
        encoded(texts), None, encoded(real), model=model, start_token_id=START, seed=seed
    ).generated
