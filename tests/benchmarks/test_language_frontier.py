"""The frontier on the demo's language: the gradient of what is kept, tables, and the command at tiny size."""

import math

import pytest
import torch

from benchmarks.language_frontier import __main__ as language_frontier
from benchmarks.language_frontier import for_rejection
from benchmarks.language_frontier.for_rejection import ForFourDrawsTrainer, ForRejectionTrainer, rewards_of_kept
from benchmarks.language_frontier.generators import GENERATORS
from benchmarks.language_frontier.tables import TITLES, divergences_table, draw, gather, page


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


def test_divergences_are_read_at_equal_draws():
    curve = [{"draws": 1.0, "divergence": 0.4}, {"draws": 4.0, "divergence": 0.2}]
    runs = [
        {"trained": "for_2_draws", "seed": seed, "alone": {"divergence": 0.5 + seed / 10}, "with_its_own": curve}
        for seed in (0, 1)
    ]
    row = divergences_table(runs).splitlines()[2]
    assert (
        row
        == "| adversarial, for 2 draws | 0, 1 | 0.550 ± 0.071 | 0.300 ± 0.000 | 0.242 ± 0.000 | 0.200 ± 0.000 | - |"
    )


@pytest.mark.benchmark
def test_command_runs_goes_on_and_writes_its_page(tmp_path, capsys):
    command = ["--tiny", "--seeds", "0", "--output", str(tmp_path)]
    language_frontier.main([*command, "--generators", "distilled_twice"])  # with what it goes on from
    assert {run["trained"] for run in gather(tmp_path)} == {"likelihood", "distilled", "distilled_twice"}
    language_frontier.main(command)
    assert "likelihood is there already" in capsys.readouterr().out
    runs = gather(tmp_path)
    assert {run["trained"] for run in runs} == set(GENERATORS) == set(TITLES)
    likelihoods = {run["trained"]: run["alone"]["real_nll"] for run in runs}
    assert len(set(likelihoods.values())) == len(likelihoods)
    text = page(runs)
    assert "{" not in text
    assert "| adversarial, for 2 draws |" in text
    draw(runs, tmp_path / "drawn.svg")
    assert (tmp_path / "drawn.svg").read_text().startswith("<?xml")


def test_command_refuses_to_publish_a_dry_run(tmp_path, capsys):
    with pytest.raises(SystemExit):
        language_frontier.main(["--tiny", "--publish", "--output", str(tmp_path)])
    assert "nothing to publish" in capsys.readouterr().err
