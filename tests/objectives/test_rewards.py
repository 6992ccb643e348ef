import math

import pytest
import torch
from torch.testing import assert_close

from hf_mgan.objectives import REWARDS, bce, log_d, logit, minimax, probability


# logit log 3 is D = 3/4
@pytest.mark.parametrize(
    ("reward", "expected"),
    [(log_d, math.log(3 / 4)), (minimax, math.log(4)), (logit, math.log(3)), (probability, 0.75)],
)
def test_reward_known_value(reward, expected):
    assert_close(reward(torch.tensor([math.log(3)])), torch.tensor([expected]))


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_reward_grows_with_the_logit(name):
    rewards = REWARDS[name](torch.tensor([-30.0, -3.0, 0.0, 3.0, 9.0]))
    assert (rewards.diff() > 0).all()


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_reward_of_extreme_logits(name):
    rewards = REWARDS[name](torch.tensor([[-1e4, 1e4]]))
    assert rewards.isfinite().all()
    assert rewards.shape == (1, 2)


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_reward_in_bfloat16(name):
    logits = torch.tensor([0.5, -2.0])
    assert REWARDS[name](logits.bfloat16()).dtype == torch.float32
    assert_close(REWARDS[name](logits.bfloat16()), REWARDS[name](logits))


def test_minimax_is_the_generators_side_of_the_value():
    # V's second term is E[log(1 - D)]; the reward is its negative, so bce's fake term equals the mean reward.
    logits = torch.randn(8)
    undecided = torch.full((1,), 40.0)  # -log D = 0 to float precision: only the fake term is left
    assert_close(bce(undecided, logits), minimax(logits).mean())


def kl(p, q):
    return (p * (p / q).log()).sum()


@pytest.mark.parametrize(
    ("reward", "best_logit", "divergence"),
    [
        (minimax, lambda p, q: (p / q).log(), lambda p, q: kl(p, (p + q) / 2) + kl(q, (p + q) / 2)),
        (logit, lambda p, q: (p / q).log(), lambda p, q: kl(q, p)),
        (logit, lambda p, q: (p - q).sign(), lambda p, q: (p - q).abs().sum()),
        (logit, lambda p, q: (p - q) / (p + q), lambda p, q: 2 * kl(p, (p + q) / 2)),
    ],
    ids=["minimax-bce-2JS", "logit-bce-reverse-KL", "logit-hinge-2TV", "logit-least_squares-2KL-of-the-mixture"],
)
def test_policy_gradient_descends_the_divergence(reward, best_logit, divergence):
    """E_q[reward * grad log q] = -grad divergence(p, q), with the best logit of the loss held fixed - worked on three
    outcomes by finite differences."""
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    theta = torch.tensor([0.1, -0.4, 0.7], dtype=torch.float64, requires_grad=True)
    q = theta.softmax(0)
    rewards = reward(best_logit(p, q.detach()))
    (gradient,) = torch.autograd.grad((q.detach() * rewards * q.log()).sum(), theta)
    step = 1e-6
    finite = torch.stack(
        [
            (divergence(p, (theta + step * unit).softmax(0)) - divergence(p, (theta - step * unit).softmax(0)))
            / (2 * step)
            for unit in torch.eye(3).double()
        ]
    )
    assert_close(gradient, -finite.detach(), atol=1e-6, rtol=1e-4)
