import math

import pytest
import torch
from torch.testing import assert_close

from hf_mgan.objectives import gradient_penalty, logit_penalty, noise_penalty


def test_logit_penalty_is_the_mean_square_of_both_sides():
    # real 3, -1: mean square (9 + 1) / 2 = 5; fake 2: 4. Half of the sum is 4.5.
    assert_close(logit_penalty(torch.tensor([3.0, -1.0]), torch.tensor([2.0])), torch.tensor(4.5))


def test_both_sides_of_the_logit_penalty_weigh_the_same_however_many_texts_they_have():
    assert_close(logit_penalty(torch.ones(1), torch.full((9,), 3.0)), torch.tensor(5.0))


def test_descent_on_the_logit_penalty_draws_logits_to_zero():
    real, fake = torch.tensor([2.0, -3.0], requires_grad=True), torch.tensor([-1.0], requires_grad=True)
    logit_penalty(real, fake).backward()
    assert_close(real.grad, torch.tensor([1.0, -1.5]))  # of x^2 / 4, since two texts share half of the weight
    assert_close(fake.grad, torch.tensor([-1.0]))


def test_logit_penalty_does_not_depend_on_the_order_or_the_size_of_the_batch():
    real, fake = torch.randn(5), torch.randn(7)
    assert_close(logit_penalty(real.flip(0), fake.roll(2)), logit_penalty(real, fake))
    assert_close(logit_penalty(real.repeat(2), fake.repeat(2)), logit_penalty(real, fake))


def test_gradient_penalty_is_half_the_squared_norm_over_the_tokens_of_a_text():
    # first text: (1, 2) and (2, 0), 1 + 4 + 4 = 9; second: (3, 0) and padding, 9. Half of the mean of both is 4.5.
    gradients = torch.tensor([[[1.0, 2.0], [2.0, 0.0]], [[3.0, 0.0], [0.0, 0.0]]])
    assert_close(gradient_penalty(gradients, torch.tensor([[1, 1], [1, 0]])), torch.tensor(4.5))


@pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.float])
def test_gradient_penalty_is_padding_invariant(dtype):
    gradients, mask = torch.randn(2, 3, 4), torch.tensor([[1, 1, 1], [1, 1, 0]]).to(dtype)
    expected = (gradients[0].square().sum() + gradients[1, :2].square().sum()) / 4
    assert_close(gradient_penalty(gradients, mask), expected)
    for value in (1e4, float("inf"), float("nan")):
        padded = torch.cat([gradients, torch.full((2, 5, 4), value)], dim=1)
        longer = torch.cat([mask, torch.zeros(2, 5, dtype=dtype)], dim=1)
        assert_close(gradient_penalty(padded, longer), expected)


def test_gradient_penalty_does_not_depend_on_the_order_or_the_size_of_the_batch():
    gradients, mask = torch.randn(4, 3, 2), torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]])
    expected = gradient_penalty(gradients, mask)
    assert_close(gradient_penalty(gradients.flip(0), mask.flip(0)), expected)
    assert_close(gradient_penalty(gradients.flip(1), mask.flip(1)), expected)
    assert_close(gradient_penalty(gradients.repeat(2, 1, 1), mask.repeat(2, 1)), expected)


def test_descent_on_the_gradient_penalty_flattens_the_discriminator():
    """logit = w * sum of the embeddings of three tokens of two elements, one of them padding: the gradient is w in
    four places, so the penalty is 1/2 * 4 w^2 and its gradient 4 w."""
    weight = torch.tensor(-1.5, requires_grad=True)
    embeddings = torch.randn(2, 3, 2, requires_grad=True)
    logits = weight * embeddings.sum((1, 2))
    (gradients,) = torch.autograd.grad(logits.sum(), embeddings, create_graph=True)
    penalty = gradient_penalty(gradients, torch.tensor([[1, 1, 0], [0, 1, 1]]))
    assert_close(penalty, torch.tensor(4.5))
    assert_close(torch.autograd.grad(penalty, weight)[0], torch.tensor(-6.0))


@pytest.mark.parametrize("mask", [torch.ones(3), torch.ones(1, 3), torch.ones(2, 3, 1)])
def test_gradient_penalty_refuses_a_mask_of_other_texts(mask):
    with pytest.raises(ValueError, match=r"\(2, 3, 4\) and .*attention mask of the same texts"):
        gradient_penalty(torch.zeros(2, 3, 4), mask)


def test_noise_penalty_is_half_the_squared_change_in_units_of_the_noise():
    # changes 0.5 and -1 over sigma 0.5: 1 and -2; half of the mean of 1 and 4 is 1.25.
    penalty = noise_penalty(torch.tensor([1.0, 2.0]), torch.tensor([1.5, 1.0]), sigma=0.5)
    assert_close(penalty, torch.tensor(1.25))


def test_descent_on_the_noise_penalty_draws_both_logits_together():
    clean, noisy = torch.tensor([1.0], requires_grad=True), torch.tensor([2.0], requires_grad=True)
    noise_penalty(clean, noisy, sigma=0.5).backward()
    assert_close(noisy.grad, torch.tensor([4.0]))  # (noisy - clean) / sigma^2
    assert_close(clean.grad, torch.tensor([-4.0]))


def test_noise_penalty_does_not_depend_on_the_order_or_the_size_of_the_batch():
    clean, noisy = torch.randn(5), torch.randn(5)
    expected = noise_penalty(clean, noisy, 0.1)
    assert_close(noise_penalty(clean.flip(0), noisy.flip(0), 0.1), expected)
    assert_close(noise_penalty(clean.repeat(2), noisy.repeat(2), 0.1), expected)
    assert noise_penalty(clean.flip(0), noisy, 0.1) != expected  # each text against itself


@pytest.mark.parametrize("sigma", [0.0, -0.1, float("nan")])
def test_noise_penalty_refuses_noise_without_a_deviation(sigma):
    with pytest.raises(ValueError, match=f"greater than 0, got {sigma}"):
        noise_penalty(torch.zeros(2), torch.ones(2), sigma)


@pytest.mark.parametrize("shape", [(1,), (2, 1)])
def test_noise_penalty_refuses_logits_of_other_texts(shape):
    with pytest.raises(ValueError, match=r"\(2,\) logits and \(.*same order"):
        noise_penalty(torch.zeros(2), torch.ones(shape), 0.1)


def smooth_logits(embeddings):
    """A curved logit of each text, (..., T, E) -> (...): sum of 2 sin(e) over all elements, plus e_first * e_last."""
    return (2 * embeddings.sin()).sum((-2, -1)) + embeddings[..., 0, 0] * embeddings[..., -1, -1]


def exact_and_noisy(sigma, draws=100_000):
    generator = torch.Generator().manual_seed(0)
    texts = torch.randn(2, 3, 2, dtype=torch.float64, generator=generator).requires_grad_()
    logits = smooth_logits(texts)
    (gradients,) = torch.autograd.grad(logits.sum(), texts)
    noise = torch.randn(draws, 2, 3, 2, dtype=torch.float64, generator=generator)
    noisy = smooth_logits(texts.detach() + sigma * noise)
    penalty = noise_penalty(logits.detach().expand(draws, 2), noisy, sigma)
    return gradient_penalty(gradients, torch.ones(2, 3)).item(), penalty.item()


def test_the_noise_penalty_tends_to_the_gradient_penalty_as_the_noise_vanishes():
    """With 2 x 100,000 draws the sampling error is sqrt(2 / 200,000) = 0.3% of the penalty, if both texts weigh alike,
    and sqrt(2 / 100,000) = 0.45% at most: 1.5% is more than three times that. Logits near 10 are rounded in float32 by
    5e-7, far below sigma."""
    exact, noisy = exact_and_noisy(sigma=1e-2)
    assert noisy == pytest.approx(exact, rel=0.015)
    exact, noisy = exact_and_noisy(sigma=2.0)
    assert noisy != pytest.approx(exact, rel=0.1)  # or the function would be too straight to tell the limit


PENALTIES = {
    "logit": lambda logits: logit_penalty(logits, -logits),
    "gradient": lambda logits: gradient_penalty(logits.reshape(2, 1, 1), torch.ones(2, 1)),
    "noise": lambda logits: noise_penalty(logits, -logits, 0.5),
}


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_bfloat16_inputs_give_a_float32_penalty(name):
    values = torch.tensor([1.0078125, -300.0])  # exact in bfloat16; their squares are not
    penalty = PENALTIES[name](values.bfloat16())
    assert penalty.dtype == torch.float32
    assert penalty.shape == ()
    assert_close(penalty, PENALTIES[name](values))


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_a_penalty_is_finite_at_extreme_values_and_zero_at_none(name):
    values = torch.tensor([1e4, -1e4], requires_grad=True)
    penalty = PENALTIES[name](values)
    penalty.backward()
    assert penalty.isfinite()
    assert values.grad.isfinite().all()
    assert PENALTIES[name](torch.zeros(2)) == 0


def test_the_deviation_of_one_draw_is_that_of_the_docstring():
    """For a logit that is linear with slope g the penalty of one text is g^2 z^2 / 2, z standard normal: its mean is
    g^2 / 2, its variance g^4 / 4 * 2, and so its deviation sqrt(2) times its mean."""
    noise = torch.randn(5000, 1, generator=torch.Generator().manual_seed(0))
    penalties = torch.stack([noise_penalty(torch.zeros(1), 3.0 * 0.1 * draw, 0.1) for draw in noise])
    assert penalties.mean().item() == pytest.approx(9 / 2, rel=0.06)  # three times sqrt(2 / 5000)
    assert (penalties.std() / penalties.mean()).item() == pytest.approx(math.sqrt(2), rel=0.08)
