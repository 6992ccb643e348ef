"""The benchmark of the recipe: the perfect discriminator, the conditions, and runs at tiny size."""

import json
import math
import multiprocessing
from dataclasses import asdict, fields, replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import TrainerCallback

from benchmarks.recipe import __main__ as recipe
from benchmarks.recipe import tables as recipe_tables
from benchmarks.recipe.conditions import CONDITIONS, DEFAULT, LOSS_NAMES, REWARD_NAMES, matrix_cell, selected
from benchmarks.recipe.metrics import against_perfect, auc, calibration_error, pearson, ranks, spearman
from benchmarks.recipe.tables import INITIAL_MODELS
from benchmarks.recipe.training import PerfectReward, config_of
from benchmarks.sweep import Job, rounded
from benchmarks.warmup import freeze
from hf_mgan.demo import aside
from hf_mgan.demo.language import Language
from hf_mgan.demo.models import make_tokenizer
from hf_mgan.demo.parts import adversarial_config
from hf_mgan.demo.run import train_one_seed
from hf_mgan.metrics import jensen_shannon
from hf_mgan.training import text_source


SEED = 3
INF = float("inf")


class Uniform(nn.Module):
    """A generator that finds all tokens equally likely."""

    def __init__(self, vocabulary):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.vocabulary = vocabulary

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, self.vocabulary))


def perfect_rewards(shape, clip):
    """Rewards of "the dog sleeps", of the same cut before its end, and of "the dog dog"."""
    language = Language()
    tokenizer = make_tokenizer(language.words, adds_ends=False)
    reward = PerfectReward(language, tokenizer, shape, clip)
    reward.model = Uniform(len(tokenizer))
    rows = tokenizer(["the dog sleeps </s>", "the dog sleeps", "the dog dog </s>"])["input_ids"]
    return torch.tensor(reward(completion_ids=rows, prompts=None)), len(tokenizer)


def test_perfect_reward_is_the_shape_of_the_clipped_log_ratio():
    """Log p by hand.

    "the" 0.4; no adjective 0.8, an animal as the subject (1/2) / (1 + 1/2 + 1/3 + 1/4) = 0.24 (the third class would
    be a thing), its first noun 1 / (1 + 1/2 + 1/3) = 6/11, singular 0.6; a verb 0.7, "sleep" as the third of an
    animal's four (1/3) / (25/12) = 0.16; no adverb 0.8, no second clause 0.75. q is one in V for each of four tokens.
    """
    p = 0.4 * (0.8 * 0.24 * 6 / 11 * 0.6) * (0.7 * 0.16) * (0.8 * 0.75)
    rewards, vocabulary = perfect_rewards("minimax", 12.0)
    ratio = math.log(p) + 4 * math.log(vocabulary)
    assert 5 < ratio < 12  # so that it is cut at 5 and not at 12
    none = math.log1p(math.exp(-12))
    torch.testing.assert_close(rewards, torch.tensor([math.log1p(math.exp(ratio)), none, none]), rtol=1e-5, atol=0)

    rewards, _ = perfect_rewards("logit", 12.0)
    torch.testing.assert_close(rewards, torch.tensor([ratio, -12, -12]), rtol=1e-5, atol=0)
    assert perfect_rewards("logit", 5.0)[0].tolist() == [5, -5, -5]


def test_ranks_of_equal_values_are_their_mean():
    assert ranks(torch.tensor([2.0, -INF, 2.0, 5.0, -INF])).tolist() == [3.5, 1.5, 3.5, 5, 1.5]


def test_correlations_have_their_hand_computed_values():
    """One: 1 2 3 less 2 is -1 0 1; the other: 1 0 5 less 2 is -1 -2 3; 4 / sqrt(2 * 14). Ranks: 1 2 3 and 2 1 3."""
    one, other = torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 0, 5])
    assert pearson(one, other) == pytest.approx(4 / math.sqrt(28))
    assert spearman(one, other) == pytest.approx(0.5)
    assert math.isnan(pearson(one, torch.ones(3)))


def test_auc_counts_pairs_and_halves_ties():
    """Real 1 and 3 against generated 1, 2: 1-1 is a tie, 1-2 lost, both of 3 won: 2.5 of 4."""
    assert auc(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0])) == 2.5 / 4


def test_calibration_error_is_said_less_true():
    """All four say 0.8 and share a bin, in which half are real: 0.3. Two bins, each off by 0.1: 0.1."""
    logit = math.log(4)
    assert calibration_error(torch.full((2,), logit), torch.full((2,), logit)) == pytest.approx(0.3)
    low = -math.log(9)  # says 0.1
    assert calibration_error(torch.tensor([-low]), torch.tensor([low])) == pytest.approx(0.1)


# Four texts, of which the language writes 4, 3, 2, 1 in ten and the generator 1, 2, 3, 4.
RATIOS = torch.tensor([4 / 1, 3 / 2, 2 / 3, 1 / 4]).log()
OF_REAL = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
OF_FAKE = torch.tensor([0, 1, 1, 2, 2, 2, 3, 3, 3, 3])


def test_perfect_discriminator_has_the_best_metrics():
    """It says 0.8, 0.6, 0.4, 0.2: accuracy 7 of 10 per side, and V = 2 JS - log 4.

    AUC: P(real = i, generated = j) over i < j, and ties: (4 * 9 + 3 * 7 + 2 * 4 + (4 + 6 + 6 + 4) / 2) / 100 = 0.75.
    """
    real, fake = RATIOS[OF_REAL], RATIOS[OF_FAKE]
    perfect = against_perfect(real, fake, real, fake)
    for name in ("accuracy", "auc", "value", "calibration_error"):
        assert perfect[name] == perfect[f"best_{name}"]
    assert perfect["best_accuracy"] == pytest.approx(0.7)
    assert perfect["best_auc"] == pytest.approx(0.75)
    # Only the ratios enter, so the densities of the language may be taken as 1.
    js, _ = jensen_shannon(torch.zeros(10), -real, torch.zeros(10), -fake)
    assert perfect["best_value"] == pytest.approx(2 * js * math.log(2) - math.log(4), abs=1e-6)
    assert perfect["best_calibration_error"] == pytest.approx(0, abs=1e-7)
    assert [perfect["spearman"], perfect["spearman_generated"]] == pytest.approx([1, 1])

    # More confident than it may be: the same order, less V, and a calibration error.
    confident = against_perfect(3 * real, 3 * fake, real, fake)
    assert confident["auc"] == confident["best_auc"]
    assert confident["accuracy"] == confident["best_accuracy"]
    assert confident["value"] < confident["best_value"] - 0.1
    assert confident["calibration_error"] > 0.1
    # It takes the second text for a generated one: 1 - 0.3 and 0.2 of ten change sides.
    wrong = torch.tensor([1.0, -1.0, -1.0, -1.0])
    assert against_perfect(wrong[OF_REAL], wrong[OF_FAKE], real, fake)["accuracy"] == pytest.approx((0.4 + 0.9) / 2)


def test_correlations_leave_ungrammatical_sentences_out():
    real, fake = torch.tensor([1.0, 2.0]), torch.tensor([0.0, -INF, 1.5, -INF])
    logits = torch.tensor([0.0, 7.0, 1.5, 9.0])
    result = against_perfect(real, logits, real, fake)
    assert [result["spearman"], result["spearman_generated"]] == pytest.approx([1, 1])
    assert result["accuracy"] == pytest.approx((2 + 1) / 6)
    assert result["best_accuracy"] == pytest.approx((2 + 3) / 6)
    assert math.isfinite(result["best_value"])


# Conditions


def test_conditions_have_settings_that_the_package_accepts(tmp_path):
    for condition in CONDITIONS.values():
        config = config_of(condition, recipe.TINY, str(tmp_path), SEED)
        assert {name: getattr(config, name) for name in condition.config} == condition.config


def test_default_has_the_demos_settings(tmp_path):
    config, demo = (
        config_of(CONDITIONS[DEFAULT], recipe.TINY, str(tmp_path), SEED),
        adversarial_config(recipe.TINY, tmp_path, SEED),
    )
    names = [one.name for one in fields(config) if one.init]
    assert {name: getattr(config, name) for name in names} == {name: getattr(demo, name) for name in names}


def test_matrix_is_whole():
    cells = {matrix_cell(loss, reward) for loss in LOSS_NAMES for reward in REWARD_NAMES}
    assert len(cells) == 20
    assert cells <= set(CONDITIONS)
    assert all(CONDITIONS[cell].config["num_generations"] == 2 for cell in cells if cell.startswith("bradley"))


def test_selected_takes_groups_and_names():
    assert [one.name for one in selected(["frozen", "pairs"])] == ["pairs", "frozen"]
    assert [one.name for one in selected(["headroom"])] == ["default", "perfect", "perfect_logit", "perfect_logit_5"]
    assert selected(["objectives"])[0].name == DEFAULT
    with pytest.raises(ValueError, match=r"--conditions .* got \['unknown'\]"):
        selected(["unknown"])


# Runs


class NoBar(TrainerCallback):
    def move(self, done):
        pass


class NoBars:
    def add(self, *_):
        return NoBar()

    def follow(self, *_): ...


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    recipe.do(Job(INITIAL_MODELS, SEED), recipe.TINY, folder)
    return folder


@pytest.fixture(scope="module")
def default(models):
    return recipe.do(Job(DEFAULT, SEED), recipe.TINY, models)


def test_default_is_the_demos_training(models, default, tmp_path, monkeypatch):
    monkeypatch.setattr(aside, "get_context", lambda _: multiprocessing.get_context("fork"))  # need not import again
    monkeypatch.setattr(text_source, "MOST_HELD_OUT", 200)  # for the demo's samplers, which are not compared here
    demo = train_one_seed(replace(recipe.TINY, output_dir=str(tmp_path)), SEED, NoBars())
    expected = rounded(asdict(demo.adversarial))
    assert {name: default["generator"][name] for name in expected} == expected
    made = recipe.do(Job(INITIAL_MODELS, SEED), recipe.TINY, models)
    for ours, theirs in zip(made["likelihood"], demo.likelihood, strict=True):
        assert {name: ours[name] for name in asdict(theirs)} == rounded(asdict(theirs))
    assert default["initial_models"] == made["initial_models"]
    assert "error" not in default


def test_results_have_what_the_tables_need(models, default):
    made = recipe.do(Job(INITIAL_MODELS, SEED), recipe.TINY, models)
    frozen = recipe.do(Job("frozen", SEED), recipe.TINY, models)
    no_warmup = recipe.do(Job("warmup_0", SEED), recipe.TINY, models)
    perfect = recipe.do(Job("perfect", SEED), recipe.TINY, models)
    results = [made, default, frozen, no_warmup, perfect]
    assert [one.get("error") for one in results] == [None] * 5
    written = recipe_tables.page(json.loads(json.dumps(results)))
    assert "| seeds | 3 |" in written
    updates = {one["condition"]: one["discriminator"]["after_training"]["updates"] for one in results[1:]}
    assert updates == {"default": 12, "frozen": 12, "warmup_0": 10, "perfect": 12}
    assert [one["discriminator"]["after_warmup"]["updates"] for one in results[1:]] == [2, 2, 0, 2]
    # Nothing has been seen before training without a warm-up.
    assert "overfit" in default["discriminator"]["after_warmup"]
    assert "overfit" not in no_warmup["discriminator"]["after_warmup"]
    # With another reward the generator takes another way.
    assert perfect["generator"]["entropy"] != default["generator"]["entropy"]
    # Both begin with the same discriminator, and one goes on.
    values = [one["discriminator"]["after_training"]["value"] for one in (default, frozen)]
    assert default["discriminator"]["after_warmup"] == frozen["discriminator"]["after_warmup"]
    assert values[0] > values[1] + 0.01


def test_freeze_keeps_the_discriminator_as_it_is(make_trainer):
    trainer = make_trainer()
    discriminator = trainer.discriminator
    trainer.create_optimizer_and_scheduler(4)
    texts = ["a dog", "the cat"], ["one two", "three four"]
    discriminator.update(["", ""], *texts)
    freeze(trainer)
    before = {name: value.clone() for name, value in discriminator.model.state_dict().items()}
    discriminator.update(["", ""], *texts)
    discriminator.update(["", ""], *texts)
    assert discriminator.num_updates == 3
    assert all(torch.equal(value, before[name]) for name, value in discriminator.model.state_dict().items())


def test_do_returns_an_error_as_the_result(models):
    result = recipe.do(Job(DEFAULT, SEED + 1), recipe.TINY, models)  # for which there are no models
    assert "Traceback" in result["error"]
    assert "generator" not in result
