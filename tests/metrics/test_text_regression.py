import math

import pytest
import torch

from hf_mgan.metrics.text_regression import (
    FeatureView,
    NgramView,
    Sides,
    Sparse,
    _lengths,
    _logits,
    _loss,
    _ngrams,
    _regress,
    fit_regression,
)


def test_the_ngrams_of_a_text_by_hand():
    """The ends are words; of the characters of "\\x02 ab \\x03" the space occurs twice and counts once."""
    assert _ngrams("ab") == [
        ("\x02",), ("ab",), ("\x03",), ("\x02", "ab"), ("ab", "\x03"), ("\x02", "ab", "\x03"),
        "\x02", " ", "a", "b", "\x03", "\x02 ", " a", "ab", "b ", " \x03", "\x02 a", " ab", "ab ", "b \x03",
        "\x02 ab", " ab ", "ab \x03", "\x02 ab ", " ab \x03",
    ]  # fmt: skip
    assert ("stop", ".", "\x03") in _ngrams("Do stop.")


def test_the_steps_of_a_length_by_hand():
    """4 log2(1 + n): 0 for no word, 4 for one, 8 for three."""
    assert _lengths("") == [0]
    assert _lengths("a") == [0, 1, 2, 3, 4]
    assert len(_lengths("a b c")) == 9


def test_an_ngram_counts_by_how_much_likelier_it_is_in_a_real_text():
    """ "x" occurs in 2 of 2 real texts and in 0 of 2: log((2.5/2.5) / (0.5/2.5)) = log 5; "q" only once, so not."""
    view = NgramView(Sides(["x q", "x y"], ["z w", "v u"]))
    assert view.ratios[view.columns[("x",)]].item() == pytest.approx(math.log(5))
    assert ("q",) not in view.columns
    # The ends and the space are as likely on both sides, log 1 = 0, and take their share of the row's length.
    row = view(["x"])
    values = dict(zip(row.columns.tolist(), row.values.tolist(), strict=True))
    known = [gram for gram in _ngrams("x") if gram in view.columns]
    assert values[view.columns[("x",)]] == pytest.approx(math.log(5) / math.sqrt(len(known)))
    assert values[view.columns[" "]] == 0
    assert len(values) == len(known) + len(_lengths("x"))


def test_the_length_of_a_text_weighs_as_much_as_its_ngrams():
    """Real texts reach step 8, three words, and the others step 4: log 5 as above, over the nine steps of a text."""
    view = NgramView(Sides(["a b c", "d e f"], ["g", "h"]))
    row = view(["x y z"])
    values = dict(zip(row.columns.tolist(), row.values.tolist(), strict=True))
    assert values[view.columns[8]] == pytest.approx(math.log(5) / math.sqrt(9))
    assert values[view.columns[4]] == 0


def test_unknown_texts_have_the_intercept_alone():
    view = NgramView(Sides(["aa bb", "aa cc"], ["dd ee", "dd ff"]))
    weights = torch.ones(len(view.ratios) + 1, dtype=torch.float64)
    rows = view(["aa", ""])
    assert _logits(rows, weights).shape == (2,)
    nothing = Sparse(*(torch.tensor([], dtype=torch.long) for _ in range(2)), torch.tensor([]).double(), 2, 3)
    assert _logits(nothing, torch.tensor([1.0, 1.0, 1.0, 0.5]).double()).tolist() == [0.5, 0.5]


def test_sparse_rows_are_those_of_the_matrix():
    """Rows (2, 0, 3) and (0, 5, 0), weights (1, 10, 100), intercept 0.5."""
    sparse = Sparse(torch.tensor([0, 0, 1]), torch.tensor([0, 2, 1]), torch.tensor([2.0, 3.0, 5.0]).double(), 2, 3)
    weights = torch.tensor([1.0, 10.0, 100.0, 0.5]).double()
    assert _logits(sparse, weights).tolist() == [302.5, 50.5]
    assert _logits(torch.tensor([[2.0, 0, 3], [0, 5, 0]]).double(), weights).tolist() == [302.5, 50.5]


def test_the_loss_weighs_both_sides_alike_by_hand():
    """-log sigmoid(0) = log 2 for the one real text; log(1 + e^z) of generated ones: log 2 and 0, mean (log 2) / 2."""
    value = _loss(torch.tensor([0.0, 0.0, -1000.0]), Sides(["a"], ["b", "c"])).item()
    assert value == pytest.approx((math.log(2) + math.log(2) / 2) / 2)


def test_the_regression_is_at_the_minimum():
    """At the penalised minimum of x = 1 for real and -1 for generated texts, sigmoid(-w) = penalty * w.

    The derivative of softplus(-w) is -sigmoid(-w); with penalty = sigmoid(-1) the weight is 1. The intercept is 0.
    """
    matrix, sides = torch.tensor([[1.0], [-1.0]]).double(), Sides(["a"], ["b"])
    weights = _regress(matrix, sides, penalty=1 / (1 + math.e))
    assert weights.tolist() == pytest.approx([1.0, 0.0], abs=1e-5)
    assert _regress(
        matrix, sides, 1 / (1 + math.e), start=torch.tensor([5.0, 3.0]).double()
    ).tolist() == pytest.approx([1.0, 0.0], abs=1e-5)


def test_the_intercept_is_free():
    """Both sides moved by 1: the same weight, and an intercept that takes the move back."""
    weights = _regress(torch.tensor([[2.0], [0.0]]).double(), Sides(["a"], ["b"]), penalty=1 / (1 + math.e))
    assert weights.tolist() == pytest.approx([1.0, -1.0], abs=1e-5)


def test_features_are_brought_to_one_scale():
    """Of values 0 and 2, mean 1 and standard deviation sqrt 2, in two dimensions; a constant becomes 0."""
    features = {"a": torch.tensor([0.0, 7.0]), "b": torch.tensor([2.0, 7.0]), "c": torch.tensor([5.0, 9.0])}
    view = FeatureView(Sides(["a"], ["b"]), features)
    assert view(["b", "c"]).tolist() == [pytest.approx([1 / 2, 0]), pytest.approx([2.0, 0])]


def planted(count, signal, seed):
    """Features of which the first tells the sides apart, by `signal` standard deviations."""
    features = torch.randn(2 * count, 20, generator=torch.Generator().manual_seed(seed))
    features[:count, 0] += signal
    names = [f"{seed} {index}" for index in range(2 * count)]
    return Sides(names[:count], names[count:]), dict(zip(names, features, strict=True))


@pytest.mark.parametrize(("signal", "penalised"), [(0.0, True), (5.0, False)])
def test_the_inner_split_sets_the_penalty(signal, penalised):
    """Where there is nothing to learn, weights stay next to 0; where there is much, they grow."""
    outer, features = planted(40, signal, 0)
    inner, more = planted(40, signal, 1)
    test, rest = planted(200, signal, 2)
    view = lambda sides: FeatureView(sides, features | more | rest)  # noqa: E731
    log_odds = fit_regression(view, outer, inner)([*test.real, *test.generated])
    assert (log_odds.abs().mean() < 0.6) == penalised
    if not penalised:
        assert ((log_odds > 0) == (torch.arange(400) < 200)).float().mean() > 0.95


def test_all_texts_are_trained_on_once_the_penalty_is_set():
    """The words that tell the inner texts apart occur in no other text, nor do their letters."""
    outer = Sides(["aa bb", "aa cc"], ["dd ee", "dd ff"])
    inner = Sides(["gg bb", "gg cc"], ["hh ee", "hh ff"])
    real, generated = fit_regression(NgramView, outer, inner)(["gg", "hh"]).tolist()
    assert real > generated
