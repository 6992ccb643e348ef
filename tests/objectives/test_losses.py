import math

import pytest
import torch
from torch.testing import assert_close

from hf_mgan.objectives import LOSSES, PAIRED, bce, bradley_terry, relativistic_average


def test_bce_is_minus_the_value_of_the_game():
    # logits log 3 and -log 3 are D = 3/4 and 1/4: V = log(3/4) + log(1 - 1/4) = 2 log(3/4), so L = 2 log(4/3) =
    # 0.5754.
    loss = bce(torch.tensor([math.log(3)]), torch.tensor([-math.log(3)]))
    assert_close(loss, torch.tensor(2 * math.log(4 / 3)))
    assert_close(loss, torch.tensor(0.5754), atol=1e-4, rtol=0)


def test_bce_of_an_undecided_discriminator_is_log_four():
    assert_close(bce(torch.zeros(3), torch.zeros(5)), torch.tensor(math.log(4)))


def test_bradley_terry_compares_within_pairs():
    # differences log 3 and 0: mean of -log(3/4) and -log(1/2) = (0.28768 + 0.69315) / 2 = 0.49041
    loss = bradley_terry(torch.tensor([math.log(3) + 5, -2.0]), torch.tensor([5.0, -2.0]))
    assert_close(loss, torch.tensor((math.log(4 / 3) + math.log(2)) / 2))


def test_bradley_terry_refuses_sides_that_do_not_pair_up():
    with pytest.raises(ValueError, match=r"\(3,\) real and \(2,\) generated.*relativistic_average"):
        bradley_terry(torch.zeros(3), torch.zeros(2))


def test_relativistic_average_compares_with_the_mean_of_the_other_side():
    # real (2, 0), mean 1; fake (1, -1), mean 0. Real terms: softplus(-2) = 0.126928, softplus(0) = 0.693147, mean
    # 0.410038. Fake terms: softplus(1 - 1) = 0.693147, softplus(-1 - 1) = 0.126928, mean 0.410038. Sum 0.820075.
    loss = relativistic_average(torch.tensor([2.0, 0.0]), torch.tensor([1.0, -1.0]))
    assert_close(loss, torch.tensor(0.820075), atol=1e-6, rtol=0)


def test_relativistic_losses_ignore_a_common_shift():
    real, fake = torch.randn(6), torch.randn(6)
    for loss in (bradley_terry, relativistic_average):
        assert_close(loss(real + 9, fake + 9), loss(real, fake), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_descent_raises_real_and_lowers_fake_logits(name):
    real, fake = torch.randn(4, requires_grad=True), torch.randn(4, requires_grad=True)
    LOSSES[name](real, fake).backward()
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_extreme_logits_stay_finite(name):
    real, fake = torch.full((2,), -1e4, requires_grad=True), torch.full((2,), 1e4, requires_grad=True)
    loss = LOSSES[name](real, fake)
    loss.backward()
    assert loss.isfinite()
    assert real.grad.isfinite().all()
    assert_close(LOSSES[name](-real, -fake), torch.tensor(0.0))


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_bfloat16_logits_give_a_float32_loss(name):
    real, fake = torch.tensor([0.5, -1.0]), torch.tensor([0.25, 2.0])  # exact in bfloat16
    loss = LOSSES[name](real.bfloat16(), fake.bfloat16())
    assert loss.dtype == torch.float32
    assert_close(loss, LOSSES[name](real, fake))


@pytest.mark.parametrize("name", sorted(set(LOSSES) - PAIRED))
def test_unpaired_losses_do_not_depend_on_the_order(name):
    real, fake = torch.randn(5), torch.randn(7)
    assert_close(LOSSES[name](real.flip(0), fake), LOSSES[name](real, fake))


def test_the_paired_loss_depends_on_the_order():
    real, fake = torch.tensor([3.0, -1.0]), torch.tensor([2.0, 0.0])
    assert bradley_terry(real.flip(0), fake) != bradley_terry(real, fake)
