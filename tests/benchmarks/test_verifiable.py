"""The benchmark of verifiable rewards: targets with known densities, combinations, and runs at tiny size."""

import math
import re

import pytest
import torch
from transformers import TrainerCallback

from benchmarks.recipe.__main__ import TINY
from benchmarks.recipe.initial_models import make_initial_models
from benchmarks.sweep import read_lines
from benchmarks.verifiable import __main__ as verifiable
from benchmarks.verifiable.conditions import CONDITIONS, GROUPS, selected
from benchmarks.verifiable.tables import SECTIONS, draw, points
from benchmarks.verifiable.target import REWARDS, Target
from benchmarks.verifiable.training import (
    COMBINATIONS,
    LEVEL,
    MULTIPLIER_RATE,
    CombiningTrainer,
    Measurement,
    _trainer,
)
from hf_mgan import AdversarialTrainer
from hf_mgan.demo.language import Language
from hf_mgan.demo.models import train_generator


LANGUAGE = Language()
SENTENCES = LANGUAGE.sample(5000, 1)


def test_rewards_are_what_they_say():
    words = ["the", "old", "young", "old", "dog", "sees", "a", "heavy", "door"]
    assert [REWARDS[name].value(words) for name in ("dog", "adjectives", "capped")] == [1, 4, 2]
    assert [REWARDS[name].value(["these", "men", "sing"]) for name in REWARDS] == [0, 0, 0]
    for reward in REWARDS.values():
        assert reward.of(SENTENCES).max() <= reward.highest


@pytest.mark.parametrize("name", ["adjectives", "capped"])
def test_the_page_says_the_mean_rewards(name):
    """Over 5,000 sentences, the weights of which lie between exp(-4) and 1."""
    values, weights = REWARDS[name].of(SENTENCES), REWARDS[name].log_weights(SENTENCES).exp()
    of_language, of_target = re.search(r"([\d.]+) in\s+the language and ([\d.]+\d)", SECTIONS[name][1]).groups()
    assert values.mean().item() == pytest.approx(float(of_language), abs=0.03)
    assert ((weights * values).sum() / weights.sum()).item() == pytest.approx(float(of_target), abs=0.05)


@pytest.mark.benchmark
@pytest.mark.parametrize("name", REWARDS)
def test_a_target_is_a_distribution(name):
    """The sum of p*(x) is 1: over a sample of p, the mean of p*(x) / p(x) is."""
    target = Target(LANGUAGE, REWARDS[name])
    ratios = (target.logps(SENTENCES) - LANGUAGE.logps(SENTENCES)).exp()
    assert ratios.mean().item() == pytest.approx(1, abs=4 * ratios.std().item() / math.sqrt(len(ratios)))
    drawn = target.sample(300, seed=5)
    expected = (ratios * REWARDS[name].of(SENTENCES)).mean().item() / ratios.mean().item()
    values = REWARDS[name].of(drawn)
    assert values.mean().item() == pytest.approx(expected, abs=5 * max(values.std().item(), 1e-6) / math.sqrt(300))


def test_combinations_pay_as_they_say():
    """Two completions, one of which has a dog; the discriminator's rewards are 0.5 and 2."""
    rewards, dog = torch.tensor([[1.0, 0.5], [0.0, 2.0]]), REWARDS["dog"]
    assert COMBINATIONS["product"]()(rewards, dog).tolist() == [0.5, 0]
    constraint = COMBINATIONS["constraint"]()
    assert constraint(rewards, dog).tolist() == [0.5, 2]
    raised = MULTIPLIER_RATE * (LEVEL - 0.5)
    assert constraint(rewards, dog).tolist() == pytest.approx([0.5 + raised, 2])
    for _ in range(10):
        constraint(torch.ones(2, 2), dog)
    assert constraint.multiplier < 2 * raised  # it falls again


@pytest.mark.parametrize("combination", ["product", "constraint"])
def test_combined_rewards_are_paid_and_the_verifiable_one_is_logged(combination, monkeypatch):
    """TRL pays the sum of the columns, each times its weight, and the watchdog reads their means."""
    rewards = torch.tensor([[1.0, 0.5], [0.0, 2.0]])
    monkeypatch.setattr(AdversarialTrainer, "_calculate_rewards", lambda self: rewards)
    trainer = CombiningTrainer.__new__(CombiningTrainer)
    trainer.combination, trainer.reward = COMBINATIONS[combination](), REWARDS["dog"]
    trainer.reward_weights = torch.tensor([0.0, 2.0])
    found = trainer._calculate_rewards()
    assert found[:, 0].equal(rewards[:, 0])
    assert (found @ trainer.reward_weights).equal(COMBINATIONS[combination]()(rewards, REWARDS["dog"]))


def test_conditions_are_chosen_by_name_and_group():
    assert [one.name for one in selected(["product", "grpo_0"])] == ["grpo_0", "product"]
    assert len(selected(list(GROUPS))) == len(CONDITIONS)
    assert [one.name for one in selected(["grpo"]) if one.times > 1] == [
        f"grpo_{kl}_longer" for kl in (0.1, 0.2, 0.5, 1)
    ]
    with pytest.raises(ValueError, match="neither groups"):
        selected(["grpo_7"])


@pytest.mark.benchmark
def test_verifiable_runs_and_writes_its_page(tmp_path, in_this_process):
    in_this_process(verifiable)
    conditions = "grpo_0.05 grpo_0.2_longer watched_0 real_0 product constraint perfect supervised decoding"
    verifiable.main(f"--tiny --seeds 0 --rewards dog --output {tmp_path} --conditions {conditions}".split())
    results = read_lines(tmp_path / "verifiable.jsonl")
    assert [one.get("error") for one in results] == [None] * 12  # `supervised` and `perfect` are groups of two
    page = (tmp_path / "verifiable.md").read_text()
    assert "{" not in page
    for row in (
        "GRPO, KL 0.05",
        "GRPO, KL 0.2, 3 times the steps",
        "reward x -log(1 - D)",
        "filter + D, c = 2",
        "imitation, round 2",
        "supervised, filter + D, c = 0",
        "supervised on 400 texts of the target",
        "a perfect D of the target",
        "supervised, then a perfect D of the target, 3 times the steps",
    ):
        assert f"| {row} |" in page
    assert "| dog | GRPO, KL 0, D watches | 1 | " in page
    found = points(results, "dog")
    assert {name: len(of_kind) for name, of_kind in found.items()} == {
        "grpo": 3, "real": 1, "combined": 2, "imitation": 3, "maximum likelihood": 1, "filter + D": 3,
        "supervised on rewarded real texts": 1, "supervised, then D on rewarded real texts": 1,
        "supervised, then D on rewarded real texts, 3 times the steps": 1, "supervised, filter + D": 3,
        "supervised, then a perfect D of the target": 1,
    }  # fmt: skip
    draw(results, tmp_path / "picture.svg")
    assert all(label in (tmp_path / "picture.svg").read_text() for label in ("GRPO, by KL", "the start", "bits"))
    rows = next(one for one in results if one["condition"] == "dog.decoding")["rows"]
    assert rows["filter"][0]["reward"] == pytest.approx(1)
    draws = [point["draws"] for point in (*rows["filter"], *rows["filter + D"])]
    assert draws == sorted(draws)
    assert draws[0] > 1


@pytest.mark.benchmark
def test_a_discriminator_of_the_target_is_not_filtered(tmp_path, in_this_process):
    """It asks for the reward already, so that a filter would count what is no yes or no twice."""
    in_this_process(verifiable)
    verifiable.main(f"--tiny --seeds 0 --rewards capped --output {tmp_path} --conditions supervised".split())
    results = read_lines(tmp_path / "verifiable.jsonl")
    assert [one.get("error") for one in results] == [None] * 3
    rows = next(one for one in results if one["condition"] == "capped.supervised")["rows"]
    measurement = Measurement(TINY, 0, REWARDS["capped"])
    given = measurement.sentences, measurement.tokenizer, tmp_path / "generator", 4, 16, 0, TrainerCallback()
    model = train_generator(*given)
    filtered, free = (measurement.guided(model, None, (0.0,), filters)[0]["draws"] for filters in (True, False))
    assert free == pytest.approx(1)
    assert filtered > rows["supervised, D of the target"][0]["draws"]


@pytest.mark.benchmark
def test_the_perfect_discriminator_is_that_of_the_target(tmp_path):
    """A sentence of the language without a dog is worth as little as one that is no sentence."""
    measurement = Measurement(TINY, 0, REWARDS["dog"])
    tokenizer, folder = measurement.tokenizer, tmp_path / "maximum_likelihood"
    train_generator(measurement.sentences, tokenizer, folder, 4, 16, 0, TrainerCallback())
    (pays,) = _trainer(CONDITIONS["perfect"], measurement, tmp_path, tmp_path / "out").reward_funcs
    words = SENTENCES[:200]
    found = pays(completion_ids=[[*tokenizer(" ".join(one)).input_ids, tokenizer.eos_token_id] for one in words])
    has_dog = REWARDS["dog"].of(words).bool().tolist()
    least = min(found)
    assert {reward == least for reward, dog in zip(found, has_dog, strict=True) if not dog} == {True}
    assert {reward > least for reward, dog in zip(found, has_dog, strict=True) if dog} == {True}


@pytest.mark.benchmark
def test_longer_is_a_multiple_of_the_steps(tmp_path):
    measurement = Measurement(TINY, 0, REWARDS["dog"])
    folder = tmp_path / "maximum_likelihood"
    train_generator(measurement.sentences, measurement.tokenizer, folder, 4, 16, 0, TrainerCallback())
    for name, times in (("grpo_1", 1), ("grpo_1_longer", 3)):
        trainer = _trainer(CONDITIONS[name], measurement, tmp_path, tmp_path / name)
        assert trainer.args.max_steps == times * TINY.steps


@pytest.mark.benchmark
def test_only_a_sum_weighs_the_verifiable_reward_beside_the_combined_one(tmp_path):
    make_initial_models(TINY, 0, tmp_path)
    measurement = Measurement(TINY, 0, REWARDS["dog"])
    for name, weights in (("sum_3", [3, 1]), ("product", [0, 1]), ("constraint", [0, 1])):
        trainer = _trainer(CONDITIONS[name], measurement, tmp_path, tmp_path / name)
        assert trainer.reward_weights.tolist() == weights
