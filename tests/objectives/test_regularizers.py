import torch
from torch.testing import assert_close

from hf_mgan.objectives import logit_penalty


def test_logit_penalty_known_value():
    # real 3, -1: mean square (9 + 1) / 2 = 5; fake 2: 4. Half of the sum is 4.5.
    assert_close(logit_penalty(torch.tensor([3.0, -1.0]), torch.tensor([2.0])), torch.tensor(4.5))


def test_logit_penalty_weighs_both_sides_alike():
    assert_close(logit_penalty(torch.ones(1), torch.full((9,), 3.0)), torch.tensor(5.0))


def test_logit_penalty_gradient_draws_to_zero():
    real, fake = torch.tensor([2.0, -3.0], requires_grad=True), torch.tensor([-1.0], requires_grad=True)
    logit_penalty(real, fake).backward()
    assert_close(real.grad, torch.tensor([1.0, -1.5]))  # of x^2 / 4, since two texts share half of the weight
    assert_close(fake.grad, torch.tensor([-1.0]))


def test_logit_penalty_order_and_size_of_the_batch():
    real, fake = torch.randn(5), torch.randn(7)
    assert_close(logit_penalty(real.flip(0), fake.roll(2)), logit_penalty(real, fake))
    assert_close(logit_penalty(real.repeat(2), fake.repeat(2)), logit_penalty(real, fake))


def test_logit_penalty_in_bfloat16():
    values = torch.tensor([1.0078125, -300.0])  # exact in bfloat16; their squares are not
    penalty = logit_penalty(values.bfloat16(), -values.bfloat16())
    assert penalty.dtype == torch.float32
    assert penalty.shape == ()
    assert_close(penalty, logit_penalty(values, -values))


def test_logit_penalty_of_extreme_logits():
    values = torch.tensor([1e4, -1e4], requires_grad=True)
    penalty = logit_penalty(values, -values)
    penalty.backward()
    assert penalty.isfinite()
    assert values.grad.isfinite().all()
    assert logit_penalty(torch.zeros(2), torch.zeros(2)) == 0
