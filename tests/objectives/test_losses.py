import inspect
import math

import pytest
import torch
from torch.testing import assert_close

from hf_mgan.objectives import (
    LOSSES,
    NEEDS_PENALTY,
    PAIRED,
    SMOOTHABLE,
    bce,
    bradley_terry,
    hinge,
    least_squares,
    logit_penalty,
    relativistic_average,
    wasserstein,
)


def test_bce_is_minus_the_value():
    # logits log 3 and -log 3 are D = 3/4 and 1/4: V = log(3/4) + log(1 - 1/4) = 2 log(3/4), so L = 2 log(4/3) =
    # 0.5754.
    loss = bce(torch.tensor([math.log(3)]), torch.tensor([-math.log(3)]))
    assert_close(loss, torch.tensor(2 * math.log(4 / 3)))
    assert_close(loss, torch.tensor(0.5754), atol=1e-4, rtol=0)


def test_bce_of_undecided_logits_is_log_four():
    assert_close(bce(torch.zeros(3), torch.zeros(5)), torch.tensor(math.log(4)))


def test_bradley_terry_compares_within_pairs():
    # differences log 3 and 0: mean of -log(3/4) and -log(1/2) = (0.28768 + 0.69315) / 2 = 0.49041
    loss = bradley_terry(torch.tensor([math.log(3) + 5, -2.0]), torch.tensor([5.0, -2.0]))
    assert_close(loss, torch.tensor((math.log(4 / 3) + math.log(2)) / 2))


def test_bradley_terry_refuses_unequal_sides():
    with pytest.raises(ValueError, match=r"\(3,\) real and \(2,\) generated.*relativistic_average"):
        bradley_terry(torch.zeros(3), torch.zeros(2))


def test_relativistic_average_known_value():
    # real (2, 0), mean 1; fake (1, -1), mean 0. Real terms: softplus(-2) = 0.126928, softplus(0) = 0.693147, mean
    # 0.410038. Fake terms: softplus(1 - 1) = 0.693147, softplus(-1 - 1) = 0.126928, mean 0.410038. Sum 0.820075.
    loss = relativistic_average(torch.tensor([2.0, 0.0]), torch.tensor([1.0, -1.0]))
    assert_close(loss, torch.tensor(0.820075), atol=1e-6, rtol=0)


def test_relativistic_losses_ignore_a_common_shift():
    real, fake = torch.randn(6), torch.randn(6)
    for loss in (bradley_terry, relativistic_average):
        assert_close(loss(real + 9, fake + 9), loss(real, fake), atol=1e-5, rtol=1e-5)


def test_hinge_known_value():
    # real 2, 0.5, -1: relu(1 - x) = 0, 0.5, 2, mean 5/6; fake -3, 1: relu(1 + x) = 0, 2, mean 1. Sum 11/6.
    loss = hinge(torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 1.0]))
    assert_close(loss, torch.tensor(11 / 6))


def test_hinge_has_no_gradient_beyond_the_margin():
    real, fake = torch.tensor([1.5, 0.5], requires_grad=True), torch.tensor([-1.5, -0.5], requires_grad=True)
    hinge(real, fake).backward()
    assert real.grad.tolist() == [0.0, -0.5]
    assert fake.grad.tolist() == [0.0, 0.5]


def test_least_squares_known_value():
    # real 2, -1: (x - 1)^2 = 1, 4, mean 2.5; fake 1: (1 + 1)^2 = 4. (2.5 + 4) / 2 = 3.25.
    assert_close(least_squares(torch.tensor([2.0, -1.0]), torch.tensor([1.0])), torch.tensor(3.25))


def test_least_squares_beyond_its_target():
    real, fake = torch.tensor([3.0], requires_grad=True), torch.tensor([-2.0], requires_grad=True)
    least_squares(real, fake).backward()
    assert_close(real.grad, torch.tensor([2.0]))
    assert_close(fake.grad, torch.tensor([-1.0]))


def test_least_squares_is_penalised_wasserstein_plus_one():
    # (x - 1)^2 / 2 + (y + 1)^2 / 2 = (y - x) + (x^2 + y^2) / 2 + 1
    real, fake = torch.randn(5), torch.randn(7)
    assert_close(least_squares(real, fake), wasserstein(real, fake) + logit_penalty(real, fake) + 1)


def test_wasserstein_is_the_difference_of_the_means():
    # fake 1, 4: mean 2.5; real 3, -1, 1: mean 1.
    assert_close(wasserstein(torch.tensor([3.0, -1.0, 1.0]), torch.tensor([1.0, 4.0])), torch.tensor(1.5))


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_without_a_minimum(name):
    real, fake = torch.tensor([1.0, -0.5]), torch.tensor([-1.0, 0.25])
    losses = [LOSSES[name](scale * real, scale * fake) for scale in (1e-2, 1.0, 1e2, 1e4)]
    assert (min(losses) < 0) == (name in NEEDS_PENALTY)
    assert (losses[-1] < losses[-2]) == (name in NEEDS_PENALTY)


# Three texts, of 10 real ones 6, 3 and 1, of 10 generated ones 2, 2 and 6.
P, Q = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.2, 0.2, 0.6])


def found_best_logits(loss):
    """The best logit of each of the three texts by trying a grid; the others' terms are constants."""
    grid = torch.linspace(-3, 3, 1201)
    best = []
    for text in range(3):
        losses = []
        for logit in grid:
            logits = torch.zeros(3)
            logits[text] = logit
            real, fake = (logits.repeat_interleave((10 * share).round().long()) for share in (P, Q))
            losses.append(loss(real, fake))
        best.append(grid[torch.stack(losses).argmin()])
    return torch.stack(best)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [(bce, (P / Q).log()), (hinge, (P - Q).sign()), (least_squares, (P - Q) / (P + Q))],
    ids=["bce", "hinge", "least_squares"],
)
def test_best_logit_is_that_of_the_docstring(loss, expected):
    assert_close(found_best_logits(loss), expected, atol=0.006, rtol=0)  # the step of the grid is 0.005


def test_best_logit_of_penalised_wasserstein():
    best = found_best_logits(lambda real, fake: wasserstein(real, fake) + 0.5 * logit_penalty(real, fake))
    assert_close(best, (P - Q) / (P + Q) / 0.5, atol=0.006, rtol=0)


SMOOTHED = {
    "bce": lambda eps: ((1 - eps) * P / (Q + eps * P)).log(),
    "least_squares": lambda eps: (1 - eps) * 2 * P / (P + Q) - 1,
}


@pytest.mark.parametrize("eps", [0.1, 0.4])
@pytest.mark.parametrize("name", sorted(SMOOTHABLE))
def test_best_logit_with_smoothed_labels(name, eps):
    """The best D is (1 - eps) p / (p + q); for least_squares D is (1 + logit) / 2."""
    best = found_best_logits(lambda real, fake: LOSSES[name](real, fake, label_smoothing=eps))
    assert_close(best, SMOOTHED[name](eps), atol=0.006, rtol=0)
    assert (best - found_best_logits(LOSSES[name])).abs().max() > 0.1


def test_smoothed_bce_known_value():
    # D = 3/4 on real text with target 0.9: -0.9 log(3/4) - 0.1 log(1/4) = 0.258914 + 0.138629; D = 1/4 on generated
    # text: -log(3/4) = 0.287682. Sum 0.685225.
    loss = bce(torch.tensor([math.log(3)]), torch.tensor([-math.log(3)]), label_smoothing=0.1)
    assert_close(loss, torch.tensor(0.685225), atol=1e-6, rtol=0)


def test_smoothed_least_squares_known_value():
    # eps = 0.1: real 1 is 0.2 from 0.8, fake 0 is 1 from -1: (0.04 + 1) / 2 = 0.52
    assert_close(least_squares(torch.ones(1), torch.zeros(1), label_smoothing=0.1), torch.tensor(0.52))


@pytest.mark.parametrize("name", sorted(SMOOTHABLE))
def test_smoothing_leaves_generated_text_alone(name):
    gradients = []
    for eps in (0.0, 0.3):
        real, fake = torch.tensor([0.5], requires_grad=True), torch.tensor([0.5], requires_grad=True)
        LOSSES[name](real, fake, label_smoothing=eps).backward()
        gradients.append((real.grad, fake.grad))
    assert gradients[0][1] == gradients[1][1]
    assert gradients[0][0] < gradients[1][0]


@pytest.mark.parametrize("name", sorted(SMOOTHABLE))
def test_smoothed_loss_bounds_real_logits(name):
    real = torch.full((1,), 1e4, requires_grad=True)
    loss = LOSSES[name](real, torch.full((1,), -1e4), label_smoothing=0.1)
    loss.backward()
    assert loss.isfinite()
    assert 0 < real.grad < float("inf")


@pytest.mark.parametrize("eps", [-0.1, 0.5, float("nan")])
@pytest.mark.parametrize("name", sorted(SMOOTHABLE))
def test_label_smoothing_out_of_range(name, eps):
    with pytest.raises(ValueError, match="label_smoothing"):
        LOSSES[name](torch.zeros(1), torch.zeros(1), label_smoothing=eps)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_smoothable_losses_take_label_smoothing(name):
    assert ("label_smoothing" in inspect.signature(LOSSES[name]).parameters) == (name in SMOOTHABLE)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_loss_gradient_signs(name):
    # within (-1, 1): beyond its target hinge has no gradient, and that of least_squares turns
    real, fake = (torch.randn(4).tanh().mul(0.9).requires_grad_() for _ in range(2))
    LOSSES[name](real, fake).backward()
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_loss_of_extreme_logits(name):
    real, fake = torch.full((2,), -1e4, requires_grad=True), torch.full((2,), 1e4, requires_grad=True)
    for sign in (1, -1):  # all wrong, then all right
        loss = LOSSES[name](sign * real, sign * fake)
        gradients = torch.autograd.grad(loss, (real, fake))
        assert loss.isfinite()
        assert all(gradient.isfinite().all() for gradient in gradients)


# all logits right at 1e4: (1e4 - 1)^2 for least_squares, twice half of it; -1e4 - 1e4 for wasserstein
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_loss_of_a_confident_right_discriminator(name):
    expected = {"least_squares": (1e4 - 1) ** 2, "wasserstein": -2e4}.get(name, 0.0)
    assert_close(LOSSES[name](torch.full((2,), 1e4), torch.full((2,), -1e4)), torch.tensor(expected))


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_loss_is_a_mean_over_texts(name):
    real, fake = torch.randn(4), torch.randn(4)
    assert LOSSES[name](real, fake).shape == ()
    assert_close(LOSSES[name](real.repeat(2), fake.repeat(2)), LOSSES[name](real, fake))


@pytest.mark.parametrize("name", sorted(set(LOSSES) - PAIRED))
def test_unpaired_loss_is_a_mean_per_side(name):
    real, fake = torch.randn(4), torch.randn(4)
    assert_close(LOSSES[name](real, fake.repeat(3)), LOSSES[name](real, fake))


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_loss_in_bfloat16(name):
    # exact in bfloat16, while their distance from 1 and their means are not
    real, fake = torch.tensor([0.0157470703125, -3.0]), torch.tensor([0.0157470703125, 2.0])
    loss = LOSSES[name](real.bfloat16(), fake.bfloat16())
    assert loss.dtype == torch.float32
    assert_close(loss, LOSSES[name](real, fake))


@pytest.mark.parametrize("name", sorted(set(LOSSES) - PAIRED))
def test_unpaired_loss_order_of_texts(name):
    real, fake = torch.randn(5), torch.randn(7)
    assert_close(LOSSES[name](real.flip(0), fake.roll(2)), LOSSES[name](real, fake))


def test_paired_loss_depends_on_the_pairs():
    real, fake = torch.tensor([3.0, -1.0]), torch.tensor([2.0, 0.0])
    assert bradley_terry(real.flip(0), fake) != bradley_terry(real, fake)


def test_paired_loss_order_of_pairs():
    real, fake = torch.randn(5), torch.randn(5)
    assert_close(bradley_terry(real.flip(0), fake.flip(0)), bradley_terry(real, fake))
