import math

import pytest
import torch

from hf_mgan.metrics import best_value, jensen_shannon, kullback_leibler


P, Q = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])


def samples_of(probs):
    """Return each of three texts as often as its probability says, of 400."""
    return torch.arange(3).repeat_interleave((probs * 400).long())


def test_kullback_leibler_by_hand():
    # KL(P, Q) = 1/2 log 2 + 1/4 log 1 - 1/4 log 2 = 1/4 log 2
    drawn = samples_of(P)
    value, error = kullback_leibler(P.log()[drawn], Q.log()[drawn])
    assert value == pytest.approx(math.log(2) / 4)
    # The ratios are log 2 in a half, 0 in a quarter and -log 2 in a quarter: variance (3/4 - 1/16) log^2 2
    assert error == pytest.approx(math.log(2) * math.sqrt(11 / 16 / 399))


def test_kullback_leibler_is_not_symmetric_and_0_of_a_distribution_with_itself():
    skewed = torch.tensor([0.9, 0.05, 0.05])
    there, back = (
        kullback_leibler(one.log()[samples_of(one)], other.log()[samples_of(one)])[0]
        for one, other in ((P, skewed), (skewed, P))
    )
    assert there > back > 0
    assert kullback_leibler(P.log(), P.log()) == (0.0, 0.0)


def test_a_text_that_q_cannot_produce_makes_it_infinite():
    assert kullback_leibler(torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, -math.inf]))[0] == math.inf


@pytest.mark.parametrize(("one", "other"), [((3,), (2,)), ((1,), (1,)), ((2, 2), (2, 2))])
def test_samples_must_pair_up(one, other):
    with pytest.raises(ValueError, match="Each sample has a log-probability under P and one under Q"):
        kullback_leibler(torch.zeros(one), torch.zeros(other))


def test_the_best_value_is_that_of_the_best_discriminator():
    of_p, of_q = samples_of(P), samples_of(Q)
    js, _ = jensen_shannon(P.log()[of_p], Q.log()[of_p], P.log()[of_q], Q.log()[of_q])
    # D* = p / (p + q) is 2/3, 1/2 and 1/3
    best = torch.tensor([2 / 3, 1 / 2, 1 / 3])
    value = (P * best.log()).sum() + (Q * (1 - best).log()).sum()
    assert best_value(js) == pytest.approx(value.item(), abs=1e-6)
    assert best_value(0.0) == pytest.approx(-math.log(4))


@pytest.mark.parametrize("divergence", [2.0, -0.5, math.nan])
def test_a_divergence_out_of_range_has_no_value(divergence):
    with pytest.raises(ValueError, match="between 0 and 1 bit"):
        best_value(divergence)
