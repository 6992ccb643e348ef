import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer

from hf_mgan.metrics.text_regression import (
    FeatureView,
    LabelledTexts,
    NgramView,
    _fit,
    _length_steps,
    _regression,
    _words,
    count_ngrams,
    fit_regression,
)


def view_of(real, generated, *others):
    """Return the view that is learnt from two sides, and the columns of its blocks by what they count."""
    counts = count_ngrams([*real, *generated, *others])
    return NgramView(LabelledTexts(real, generated), counts)


def test_count_ngrams_by_hand():
    """The ends are words; of the characters of "\\x02 ab \\x03" the space occurs twice and counts once.

    Six n-grams of words: both ends, "ab", and what of two and three of them stand in order. Of characters 5 different
    ones, 5 - 1 + 1 pairs, then 4, 3 and 2... of "\\x02 ab \\x03", which has six: 5 pairs, 4 triples, 3 and 2.
    """
    counts = count_ngrams(["ab"])
    ngrams, length = counts.blocks
    assert ngrams.shape == (1, 6 + 5 + 5 + 4 + 3 + 2)
    assert ngrams.toarray().tolist() == [[1] * 25]
    assert length.shape == (1, 5)
    assert counts.rows == {"ab": 0}


def test_count_ngrams_counts_once_and_keeps_case():
    """In common are both ends as words, the same with the space as characters, and the space beside either end."""
    ngrams, _ = count_ngrams(["a a", "A"]).blocks
    assert ngrams.max() == 1
    assert len(np.flatnonzero(ngrams[0].toarray() * ngrams[1].toarray())) == 2 + 3 + 2


def test_length_steps_by_hand():
    """4 log2(1 + n): 0 for no word, 4 for one, 8 for three."""
    assert _length_steps("") == ["0"]
    assert _length_steps("a") == ["0", "1", "2", "3", "4"]
    assert len(_length_steps("a b c")) == 9


@pytest.mark.parametrize("text", ["我们去", "食べる", "กาน", "我a的"])
def test_length_steps_of_scripts_without_spaces(text):
    """Three characters, or two around a word, are as long as three words."""
    assert _length_steps(text) == _length_steps("a b c")


def test_count_ngrams_of_a_script_without_spaces():
    """Chinese has the n-grams that the same text has where spaces part its characters; other characters the same."""
    words = CountVectorizer(tokenizer=_words, token_pattern=None, ngram_range=(1, 3), binary=True)
    assert words.fit_transform(["我们去 学校", "我 们 去 学 校"]).toarray().tolist() == [[1] * 12] * 2


def test_ngram_view_scales_by_the_log_ratio_by_hand():
    """ "x" occurs in 2 of 2 real texts and in 0 of 2: log((2.5/2.5) / (0.5/2.5)) = log 5; "q" only once, so not.

    Eight n-grams of "\\x02 x \\x03" are as likely as "x": of words "x" and "\\x02 x", of characters "x", " x", "x ",
    " x ", "\\x02 x" and "\\x02 x ". Seven more are known and as likely on both sides, log 1 = 0: both ends as words,
    the ends and the space as characters, the space beside either end.
    """
    row = view_of(["x q", "x y"], ["z w", "v u"], "x")(["x"]).toarray()[0]
    assert row[row != 0].tolist() == pytest.approx([math.log(5) / math.sqrt(8 + 7)] * 8)


def test_ngram_view_weighs_length_as_much_as_ngrams():
    """Real texts reach step 8, three words, and the others step 4: log 5 as above, over the nine steps of a text."""
    row = view_of(["a b c", "d e f"], ["g", "h"], "x y z")(["x y z"]).toarray()[0]
    steps = row[-9:]
    assert sorted(steps[steps != 0].tolist()) == pytest.approx([math.log(5) / math.sqrt(9)] * 4)


def test_ngram_view_learns_from_its_own_texts_alone():
    """What the other texts hold neither becomes a column nor changes a ratio."""
    real, generated = ["aa bb", "aa cc"], ["dd ee", "dd ff"]
    alone, beside = view_of(real, generated), view_of(real, generated, "aa zz", "zz", "dd zz")
    assert np.sort(beside(["aa cc"]).data).tolist() == np.sort(alone(["aa cc"]).data).tolist()
    assert alone(real).shape == beside(real).shape


def fitted(rows, real, generated, penalty):
    regression = _regression()
    _fit(regression, np.array(rows), LabelledTexts(["a"] * real, ["b"] * generated), penalty)
    return [*regression.coef_[0], *regression.intercept_]


def test_regression_is_at_the_minimum():
    """At the penalised minimum of x = 1 for real and -1 for generated texts, sigmoid(-w) = penalty * w.

    The derivative of softplus(-w) is -sigmoid(-w); with penalty = sigmoid(-1) the weight is 1. The intercept is 0.
    """
    assert fitted([[1.0], [-1.0]], 1, 1, 1 / (1 + math.e)) == pytest.approx([1.0, 0.0], abs=1e-5)


def test_regression_intercept_is_free():
    """Both sides moved by 1: the same weight, and an intercept that takes the move back."""
    assert fitted([[2.0], [0.0]], 1, 1, 1 / (1 + math.e)) == pytest.approx([1.0, -1.0], abs=1e-5)


def test_regression_weighs_both_sides_alike():
    """Three copies of the generated text change nothing: the mean of the sides' means has the same minimum."""
    assert fitted([[1.0], [-1.0], [-1.0], [-1.0]], 1, 3, 1 / (1 + math.e)) == pytest.approx([1.0, 0.0], abs=1e-5)


def test_feature_view_by_hand():
    """Of values 0 and 2, mean 1 and standard deviation 1, in two dimensions; a constant becomes 0."""
    features = {"a": torch.tensor([0.0, 7.0]), "b": torch.tensor([2.0, 7.0]), "c": torch.tensor([5.0, 7.0])}
    view = FeatureView(LabelledTexts(["a"], ["b"]), features)
    assert view(["b", "c"]).tolist() == [pytest.approx([1 / math.sqrt(2), 0]), pytest.approx([4 / math.sqrt(2), 0])]


def planted(count, signal, seed):
    """Features of which the first tells the sides apart, by `signal` standard deviations."""
    features = torch.randn(2 * count, 20, generator=torch.Generator().manual_seed(seed))
    features[:count, 0] += signal
    names = [f"{seed} {index}" for index in range(2 * count)]
    return LabelledTexts(names[:count], names[count:]), dict(zip(names, features, strict=True))


@pytest.mark.parametrize(("signal", "penalised"), [(0.0, True), (5.0, False)])
def test_fit_regression_sets_the_penalty_by_the_inner_split(signal, penalised):
    """Where there is nothing to learn, weights stay next to 0; where there is much, they grow."""
    outer, features = planted(40, signal, 0)
    inner, more = planted(40, signal, 1)
    test, rest = planted(200, signal, 2)
    view = partial(FeatureView, features=features | more | rest)
    log_odds = fit_regression(view, outer, inner)([*test.real, *test.generated])
    assert (log_odds.abs().mean() < 0.6) == penalised
    if not penalised:
        assert ((log_odds > 0) == (torch.arange(400) < 200)).float().mean() > 0.95


def test_fit_regression_trains_on_all_texts_in_the_end():
    """The words that tell the inner texts apart occur in no other text, nor do their letters."""
    outer = LabelledTexts(["aa bb", "aa cc"], ["dd ee", "dd ff"])
    inner = LabelledTexts(["gg bb", "gg cc"], ["hh ee", "hh ff"])
    counts = count_ngrams([text for side in (*outer, *inner) for text in side] + ["gg", "hh"])
    real, generated = fit_regression(partial(NgramView, counts=counts), outer, inner)(["gg", "hh"]).tolist()
    assert real > generated
