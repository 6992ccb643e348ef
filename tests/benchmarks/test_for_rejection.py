"""Adversarial training for the sampler that rejects: the gradient of what is kept."""

import math

import pytest
import torch

from benchmarks import for_rejection
from benchmarks.for_rejection import ForFourDrawsTrainer, ForRejectionTrainer, rewards_of_kept


REAL = torch.tensor([0.02, 0.03, 0.05, 0.1, 0.8], dtype=torch.float64).log()


def kept(logits, ratios, draws):
    """Return the log-density of what is kept of five texts: log q + log a + log(draws), c such that it sums to 1."""
    logps, low, high = logits.log_softmax(0), -50.0, 50.0
    for _ in range(100):
        threshold = (low + high) / 2
        accepted = (ratios - threshold).clamp(max=0)
        low, high = (threshold, high) if (logps + accepted).exp().sum() > 1 / draws else (low, threshold)
    return logps + accepted + math.log(draws), threshold


@pytest.mark.parametrize("draws", [1.5, 2.0, 3.0])
def test_gradient_is_that_of_what_is_kept_at_equal_draws(draws):
    """Of sum_x p(x) R(x), with r and R held fixed, by finite differences; q is uniform: a batch of one text each."""
    logits = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    ratios = (REAL - logits.log_softmax(0)).detach()
    logps, threshold = kept(logits.detach(), ratios, draws)
    rewards = torch.nn.functional.softplus(REAL - logps)
    steps = 1e-4 * torch.eye(5, dtype=torch.float64)
    exact = [
        sum(sign * (kept(sign * step, ratios, draws)[0].exp() * rewards).sum().item() for sign in (1, -1)) / 2e-4
        for step in steps
    ]
    found = rewards_of_kept(ratios, draws)
    (by_policy,) = torch.autograd.grad((logits.log_softmax(0) * found).mean(), logits)
    assert by_policy.tolist() == pytest.approx(exact, abs=1e-5)
    assert max(map(abs, exact)) > 0.01
    assert ((found > 0) == (ratios > threshold)).all()


def test_trainer_hands_over_the_rewards_of_kept_texts(monkeypatch):
    logits = torch.tensor([[-2.0], [-1.0], [0.0], [1.0], [4.0]])
    monkeypatch.setattr(for_rejection.AdversarialTrainer, "_calculate_rewards", lambda self, *args: logits)
    for draws, trainer_class in ((2.0, ForRejectionTrainer), (4.0, ForFourDrawsTrainer)):
        trainer = object.__new__(trainer_class)
        rewards = trainer._calculate_rewards()
        assert torch.equal(rewards, rewards_of_kept(logits[:, 0], draws)[:, None])
        assert rewards.any()
    logits = torch.zeros(4, 1)  # of the warm-up
    assert torch.equal(trainer._calculate_rewards(), logits)
