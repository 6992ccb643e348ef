import math

import pytest
import torch

from hf_mgan.metrics import best_value, jensen_shannon, kullback_leibler


P, Q = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])


def samples_of(probs):
    """Return each of three texts as often as its probability says, of 400."""
    return torch.arange(3).repeat_interleave((probs * 400).long())


def logps(*probs):
    return torch.tensor(probs, dtype=torch.float64).log()


def test_kullback_leibler_by_hand():
    # KL(P, Q) = 1/2 log 2 + 1/4 log 1 - 1/4 log 2 = 1/4 log 2
    drawn = samples_of(P)
    value, error = kullback_leibler(P.log()[drawn], Q.log()[drawn])
    assert value == pytest.approx(math.log(2) / 4)
    # The ratios are log 2 in a half, 0 in a quarter and -log 2 in a quarter: variance (3/4 - 1/16) log^2 2
    assert error == pytest.approx(math.log(2) * math.sqrt(11 / 16 / 399))


def test_kullback_leibler_is_not_symmetric_and_0_of_itself():
    skewed = torch.tensor([0.9, 0.05, 0.05])
    there, back = (
        kullback_leibler(one.log()[samples_of(one)], other.log()[samples_of(one)])[0]
        for one, other in ((P, skewed), (skewed, P))
    )
    assert there > back > 0
    assert kullback_leibler(P.log(), P.log()) == (0.0, 0.0)


def test_kullback_leibler_infinite_where_q_is_zero():
    assert kullback_leibler(torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, -math.inf]))[0] == math.inf


@pytest.mark.parametrize(("one", "other"), [((3,), (2,)), ((1,), (1,)), ((2, 2), (2, 2))])
def test_kullback_leibler_refuses_unpaired_samples(one, other):
    with pytest.raises(ValueError, match="Each sample has a log-probability under P and one under Q"):
        kullback_leibler(torch.zeros(one), torch.zeros(other))


def test_best_value_is_that_of_the_best_discriminator():
    of_p, of_q = samples_of(P), samples_of(Q)
    js, _ = jensen_shannon(P.log()[of_p], Q.log()[of_p], P.log()[of_q], Q.log()[of_q])
    # D* = p / (p + q) is 2/3, 1/2 and 1/3
    best = torch.tensor([2 / 3, 1 / 2, 1 / 3])
    value = (P * best.log()).sum() + (Q * (1 - best).log()).sum()
    assert best_value(js) == pytest.approx(value.item(), abs=1e-6)
    assert best_value(0.0) == pytest.approx(-math.log(4))


@pytest.mark.parametrize("divergence", [2.0, -0.5, math.nan])
def test_best_value_refuses_a_divergence_out_of_range(divergence):
    with pytest.raises(ValueError, match="between 0 and 1 bit"):
        best_value(divergence)


def test_jensen_shannon_of_two_coins_by_hand():
    """P = (1/2, 1/2), Q = (1, 0). m = (3/4, 1/4).

    KL(P, m) = 1/2 log2(2/3) + 1/2 log2(2) = 0.207519; KL(Q, m) = log2(4/3) = 0.415037; JS = 0.311278 bits. The samples
    stand for the distributions exactly: one head and one tail of P, heads of Q.
    """
    value, _ = jensen_shannon(logps(0.5, 0.5), logps(1, 0), logps(0.5, 0.5), logps(1, 1))
    assert value == pytest.approx(0.311278, abs=1e-6)


def test_jensen_shannon_of_equals_and_of_strangers():
    same = logps(0.1, 0.4, 0.5)
    assert jensen_shannon(same, same, same, same) == pytest.approx((0.0, 0.0), abs=1e-12)
    assert jensen_shannon(same, logps(0, 0, 0), logps(0, 0, 0), same) == pytest.approx((1.0, 0.0), abs=1e-12)


def test_jensen_shannon_standard_error_is_that_of_a_mean():
    """Terms 1 and 1 - log2(1 + 1) = 0 on the first side, 1 and 1 on the other: variance 1/2 over 2 samples, halved."""
    _, error = jensen_shannon(logps(0.5, 0.5), logps(0, 0.5), logps(0, 0), logps(0.5, 0.5))
    assert error == pytest.approx(math.sqrt(0.5 / 2) / 2)
