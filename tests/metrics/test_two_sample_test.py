"""A toy language: "the old dog sees a cat", drawn word by word, so that a noisy or a cold source is at hand."""

import inspect
import json
import math
import random
from pathlib import Path

import pytest
import torch

from hf_mgan import metrics
from hf_mgan.metrics import Interval, auc_difference, c2st
from hf_mgan.metrics.two_sample_test import (
    FOLDS,
    C2STResult,
    CalibrationBin,
    _calibration,
    _interval,
    _parts,
    _variance_of_mean,
)


DATA = Path(__file__).parents[3] / "shared" / "data"
NOUNS = [f"{stem}{end}" for stem in ("dog", "cat", "bird", "king", "fish") for end in ("", "let", "like")]
ADJECTIVES = ["old", "small", "red", "wise", "tall"]
VERBS = ["sees", "eats", "hears", "likes", "finds"]
WORDS = ["the", "a", *NOUNS, *ADJECTIVES, *VERBS]


def sentences(count, seed, temperature=1.0):
    """Of words with weights 1, 1/2, 1/3 ..., to the power of 1 / temperature."""
    draw = random.Random(seed)

    def one(words):
        return draw.choices(words, [(1 / rank) ** (1 / temperature) for rank in range(1, len(words) + 1)])[0]

    def phrase():
        adjectives = [one(ADJECTIVES) for _ in range(draw.choice([0, 1, 1, 2]))]
        return " ".join([draw.choice(["the", "a"]), *adjectives, one(NOUNS)])

    return [f"{phrase()} {one(VERBS)} {phrase()} near {phrase()}" for _ in range(count)]


def shuffled(texts):
    draw = random.Random(0)
    return [" ".join(draw.sample(words, len(words))) for words in map(str.split, texts)]


def noisy(texts, share=0.1):
    draw = random.Random(0)
    return [" ".join(draw.choice(WORDS) if draw.random() < share else word for word in text.split()) for text in texts]


def collapsed(count):
    """Many different texts, all from one corner of the language."""
    draw = random.Random(0)
    return [f"the dog {draw.choice(VERBS)} the {draw.choice(NOUNS)} near the dog" for _ in range(count)]


def strangers(count, seed):
    """Texts that have no n-gram of letters in common but by chance."""
    draw = random.Random(seed)
    return ["".join(chr(draw.randrange(0x4E00, 0x9F00)) for _ in range(6)) for _ in range(count)]


GENERATED = {
    "shuffled": shuffled(sentences(200, 1)),
    "colder": sentences(200, 1, temperature=0.7),
    "collapsed": collapsed(200),
    "too long": [f"{text} near {more}" for text, more in zip(sentences(200, 1), sentences(200, 2), strict=True)],
    "noisy": noisy(sentences(200, 1)),
}


@pytest.mark.parametrize("kind", GENERATED)
def test_c2st_tells_generated_texts_from_real_ones(kind):
    assert c2st(sentences(200, 0), GENERATED[kind]).auc.low > 0.5


@pytest.mark.statistics
def test_c2st_of_real_against_real_covers_one_half():
    """Of twenty intervals that hold 0.5 with a probability of 95 %, four or more would miss it in 1.6 % of cases."""
    areas = [c2st(sentences(40, 100 + seed), sentences(40, 200 + seed)).auc for seed in range(20)]
    assert sum(area.low <= 0.5 <= area.high for area in areas) >= 17
    # Neither folds that leak nor scores that are pooled across folds are hidden by a wide interval.
    assert sum(area.value for area in areas) / 20 == pytest.approx(0.5, abs=0.05)


def test_c2st_keeps_copies_on_one_side_of_the_split():
    """Each text has nothing in common with the others, so one that is not known by heart cannot be told."""
    real, generated = strangers(40, 0) * 5, strangers(40, 1) * 5
    result = c2st(real, generated)
    assert result.auc.low < 0.5 < result.auc.high
    for texts, folds in ((real, result.real_folds), (generated, result.generated_folds)):
        assert len(set(zip(texts, folds.tolist(), strict=True))) == 40
        assert folds.bincount().tolist() == [100, 100]


def test_c2st_gives_a_text_on_both_sides_one_score():
    texts = sentences(100, 0)
    result = c2st(texts, texts[:50] + shuffled(texts[50:]))
    assert result.real_scores[:50].equal(result.generated_scores[:50])
    assert result.real_folds[:50].equal(result.generated_folds[:50])


def test_c2st_interval_takes_copies_as_one_draw():
    """Each text of both sides thrice: area and error are the same, and the error is not that of thrice as many."""
    real, generated = sentences(40, 0), sentences(40, 1, temperature=0.7)
    once, thrice = c2st(real, generated), c2st(real * 3, generated * 3)
    assert thrice.auc == pytest.approx(once.auc, abs=1e-6)


def test_variance_of_mean_with_copies_by_hand():
    """Two draws, 1 and 0, whatever the copies: variance 1/2, over 2. Without copies of four values: 1/3, over 4."""
    values = torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert _variance_of_mean(values, ["a", "a", "b", "b"]) == pytest.approx(1 / 4)
    assert _variance_of_mean(values, ["a", "b", "c", "d"]) == pytest.approx(1 / 12)


def test_c2st_ignores_spaces_and_unicode_composition():
    """\u00e9 in one character or in two."""
    real = [f"caf\u00e9 {index} old" for index in range(20)]
    result = c2st(real, [f" cafe\u0301  {index}\told\n" for index in range(20)])
    assert result.auc.value == 0.5
    assert result.generated_texts == real


def test_c2st_depends_on_the_seed_alone():
    real, generated = sentences(40, 0), sentences(40, 1)
    first, again, other = (c2st(real, generated, seed=seed) for seed in (0, 0, 1))
    assert first.real_scores.equal(again.real_scores)
    assert first.auc == again.auc
    assert not first.real_folds.equal(other.real_folds)


def test_c2st_is_permutation_invariant():
    real, generated = sentences(40, 0), GENERATED["noisy"][:40]
    forwards, backwards = c2st(real, generated), c2st(real[::-1], generated[::-1])
    torch.testing.assert_close(backwards.real_scores.flip(0), forwards.real_scores, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(backwards.generated_scores.flip(0), forwards.generated_scores, rtol=1e-6, atol=1e-6)


def test_c2st_halves_of_real_texts_are_always_the_same():
    real = sentences(40, 0)
    first, second = (c2st(real, sentences(40, seed)).real_folds for seed in (1, 2))
    assert first.equal(second)


def test_c2st_parts_are_as_large_as_can_be():
    real, generated = [f"r{index}" for index in range(18)], [f"g{index}" for index in range(11)] + ["r0"]
    parts = _parts(real, generated, seed=0)
    assert sorted(list(map(parts.get, real)).count(part) for part in range(8)) == [2] * 6 + [3] * 2
    assert sorted(list(map(parts.get, generated)).count(part) for part in range(8)) == [1] * 4 + [2] * 4


def test_c2st_null_is_tested_like_generated_texts():
    real, generated, null = sentences(40, 0), GENERATED["shuffled"][:30], sentences(60, 3)
    result = c2st(real, generated, null)
    assert result.null_auc == c2st(real, null[:30]).auc
    assert result.auc == c2st(real, generated).auc
    assert c2st(real, generated).null_auc is None


def test_c2st_higher_scores_are_more_real_and_calibrated():
    result = c2st(sentences(200, 0), GENERATED["shuffled"])
    assert result.real_scores.mean() > 0 > result.generated_scores.mean()
    assert sum(bin_.texts for bin_ in result.calibration) == 400
    assert result.calibration[0].real_share < 0.1 < 0.9 < result.calibration[-1].real_share


def test_calibration_by_hand():
    """Log-odds ln 4 and ln(1/4) are the probabilities 0.8 and 0.2.

    Each real text weighs 1/4, each generated one 1/2. At 0.2 lie one real and one generated text: 1/3 real. At 0.8
    lie three and one: 3/4 of 5/4.
    """
    high, low = math.log(4.04), math.log(1 / 4.04)  # off the bounds of the bins
    bins = _calibration(torch.tensor([high, high, high, low]).double(), torch.tensor([high, low]).double())
    assert [bin_.texts for bin_ in bins] == [2, 4]
    assert [bin_.real_share for bin_ in bins] == pytest.approx([1 / 3, 3 / 5])
    assert [bin_.prob for bin_ in bins] == pytest.approx([1 / 5.04, 4.04 / 5.04])
    assert isinstance(bins[0], CalibrationBin)


def test_c2st_interval_of_separated_sides_by_hand():
    """0.025^(1/100) = 0.9638, the smaller side being of 100 texts."""
    real = [f"the dog sees {n} birds" for n in range(100)]
    result = c2st(real, [f"{n} dog the sees birds" for n in range(120)])
    assert result.auc == pytest.approx((1.0, 0.9638, 1.0), abs=1e-4)
    assert _interval(0.0, 0.0, 100, 0.95) == pytest.approx((0.0, 0.0, 0.0362), abs=1e-4)


def test_c2st_interval_grows_with_the_level():
    """1.96 and 2.576 standard errors of 0.1."""
    assert _interval(0.6, 0.1, 50, 0.95) == pytest.approx((0.6, 0.404, 0.796), abs=1e-3)
    assert _interval(0.6, 0.1, 50, 0.99) == pytest.approx((0.6, 0.3424, 0.8576), abs=1e-3)
    assert _interval(0.95, 0.1, 50, 0.95).high == 1.0


def by_hand(real_scores, generated_scores):
    """Two texts of each side in each fold."""
    folds = torch.tensor([0, 0, 1, 1])
    real, generated = (torch.tensor(scores, dtype=torch.float64) for scores in (real_scores, generated_scores))
    names = [["r0", "r1", "r2", "r3"], ["g0", "g1", "g2", "g3"]]
    return C2STResult(Interval(0.5, 0, 1), None, [], real, generated, *names, folds, folds)


def test_auc_difference_by_hand():
    """In the first fold the areas are 1 and 1/2, in the second 3/4 both, from the same scores.

    First fold: real texts lie above a share V = (1, 1) and (0, 1) of the generated ones, whose difference (1, 0) has
    the variance 1/2, over 2 texts: 1/4. Generated texts lie below W = (1, 1) and (1/2, 1/2) of the real ones, which
    do not vary. Second fold: V = (1/2, 1) twice, no difference; W = (1/2, 1) twice, variance 1/8 over 2 each: 1/8 in
    all. The value is 1/4, the standard error the mean of 1/2 and sqrt(1/8).
    """
    first = by_hand([3, 4, 1, 3], [1, 2, 2, 0])
    second = by_hand([0, 4, 1, 3], [1, 2, 2, 0])
    reach = 1.959964 * (1 / 2 + math.sqrt(1 / 8)) / 2
    assert auc_difference(first, second) == pytest.approx((1 / 4, 1 / 4 - reach, min(1, 1 / 4 + reach)), abs=1e-6)


def test_c2st_error_is_the_mean_of_both_halves():
    """A classifier without an opinion has V = W = 1/2 everywhere; otherwise what DeLong's method says of each half."""
    result = c2st(sentences(60, 0), GENERATED["noisy"][:60])
    errors, values = [], []
    for fold in range(FOLDS):
        sides = result.real_scores[result.real_folds == fold], result.generated_scores[result.generated_folds == fold]
        values.append(metrics.auc(*sides))
        errors.append(metrics.auc_standard_error(*sides))
    assert len(set(result.real_texts)) == 60  # so that no text is drawn twice
    assert result.auc.value == pytest.approx(sum(values) / 2)
    assert result.auc.high - result.auc.value == pytest.approx(1.959964 * sum(errors) / 2, rel=1e-5)


def test_auc_difference_sees_a_colder_generator():
    real = sentences(200, 0)
    colder, equal = c2st(real, GENERATED["colder"]), c2st(real, sentences(200, 1))
    assert auc_difference(colder, equal).low > 0
    assert auc_difference(equal, colder).high < 0


def test_auc_difference_refuses_other_real_texts():
    result = by_hand([3, 4, 1, 3], [1, 2, 2, 0])
    other_texts = result._replace(real_texts=["r1", "r0", "r2", "r3"])
    other_halves = result._replace(real_folds=torch.tensor([0, 1, 0, 1]))
    for other in (other_texts, other_halves):
        with pytest.raises(ValueError, match="the same real texts, in the same order, and of one seed"):
            auc_difference(result, other)


def test_c2st_uses_the_features_of_an_encoder():
    """n-grams know nothing of these texts; the features say which side each is from."""
    real, generated = strangers(40, 0), strangers(40, 1)
    calls = []

    def features(texts):
        calls.append(texts)
        noise = torch.Generator().manual_seed(0)
        return torch.tensor([[float(text in real), 0.0] for text in texts]) + 0.1 * torch.randn(
            len(texts), 2, generator=noise
        )

    assert c2st(real, generated).auc.low < 0.5
    assert c2st(real, generated, real, encoder=features).auc.value > 0.99
    assert [sorted(texts) for texts in calls] == [sorted(real + generated)]  # each different text once


def test_c2st_refuses_features_that_are_not_finite():
    with pytest.raises(ValueError, match="those of 1 of 80 different texts are not, first those of text 79"):
        c2st(
            strangers(40, 0),
            strangers(40, 1),
            encoder=lambda texts: torch.eye(len(texts)) / (79 - torch.arange(80.0))[:, None],
        )


def test_c2st_refuses_too_few_different_texts():
    with pytest.raises(ValueError, match=r"at least 8 different texts per side.* of the 70 generated texts 7 differ"):
        c2st(sentences(40, 0), sentences(7, 1) * 10)
    with pytest.raises(ValueError, match="of the 0 real texts 0 differ"):
        c2st([], sentences(40, 1))


def test_c2st_refuses_a_small_null_and_a_bad_level():
    real = sentences(40, 0)
    with pytest.raises(ValueError, match="as many real texts as there are generated ones, 40, and 39 are given"):
        c2st(real, GENERATED["noisy"][:40], sentences(39, 2))
    for level in (0, 1):
        with pytest.raises(ValueError, match="level must be greater than 0"):
            c2st(real, real, level=level)


def test_metrics_package_exports_functions_not_modules():
    for name in metrics.__all__:
        assert inspect.isroutine(getattr(metrics, name)) or inspect.isclass(getattr(metrics, name)), name
        assert getattr(metrics, name).__module__.startswith("hf_mgan.metrics."), name
    assert metrics.mauve.__module__ == "hf_mgan.metrics.mauve"
    assert sorted(metrics.__all__) == metrics.__all__


def wordnet(split):
    path = DATA / f"wordnet_examples.{split}.jsonl"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    with path.open() as file:
        return [json.loads(line)["text"] for line in file]


@pytest.mark.real
def test_c2st_on_wordnet_sentences():
    texts = random.Random(0).sample(wordnet("train"), 400)  # neighbours in the file may stem from one source
    result = c2st(texts[:200], shuffled(texts[200:]), texts[200:], level=0.99)
    assert result.auc.low > 0.7
    assert result.null_auc.low < 0.5 < result.null_auc.high


@pytest.mark.real
def test_c2st_tells_two_authors_apart():
    path = DATA / "austen_sentences.train.jsonl"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    with path.open() as file:
        austen = [json.loads(line)["text"] for line, _ in zip(file, range(200), strict=False)]
    assert c2st(wordnet("train")[:200], austen).auc.low > 0.8
