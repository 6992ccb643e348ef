"""The benchmark of the recipe: the perfect discriminator, the figures of others, the tables, and jobs that go on."""

import json
import math
from dataclasses import asdict, fields
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import TrainerCallback

from benchmarks import recipe, recipe_tables
from benchmarks.recipe import Job
from benchmarks.recipe_conditions import (
    CONDITIONS,
    DEFAULT,
    LOSS_NAMES,
    REWARD_NAMES,
    Condition,
    matrix_cell,
    selected,
)
from benchmarks.recipe_game import PerfectReward, config_of, freeze
from benchmarks.recipe_measures import against_perfect, auc, calibration_error, pearson, ranks, spearman
from hf_mgan.demo.language import Language
from hf_mgan.demo.models import make_tokenizer
from hf_mgan.demo.run import adversarial_config, play
from hf_mgan.metrics import jensen_shannon


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


def test_the_perfect_reward_is_the_shape_of_the_clipped_log_ratio():
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


def test_equal_values_share_the_mean_of_their_ranks():
    assert ranks(torch.tensor([2.0, -INF, 2.0, 5.0, -INF])).tolist() == [3.5, 1.5, 3.5, 5, 1.5]


def test_correlations_have_their_hand_computed_values():
    """One: 1 2 3 less 2 is -1 0 1; the other: 1 0 5 less 2 is -1 -2 3; 4 / sqrt(2 * 14). Ranks: 1 2 3 and 2 1 3."""
    one, other = torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 0, 5])
    assert pearson(one, other) == pytest.approx(4 / math.sqrt(28))
    assert spearman(one, other) == pytest.approx(0.5)
    assert math.isnan(pearson(one, torch.ones(3)))


def test_the_auc_counts_pairs_and_halves_ties():
    """Real 1 and 3 against generated 1, 2: 1-1 is a tie, 1-2 lost, both of 3 won: 2.5 of 4."""
    assert auc(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0])) == 2.5 / 4


def test_the_calibration_error_is_the_gap_between_what_is_said_and_what_is_so():
    """All four say 0.8 and share a bin, in which half are real: 0.3. Two bins, each off by 0.1: 0.1."""
    logit = math.log(4)
    assert calibration_error(torch.full((2,), logit), torch.full((2,), logit)) == pytest.approx(0.3)
    low = -math.log(9)  # says 0.1
    assert calibration_error(torch.tensor([-low]), torch.tensor([low])) == pytest.approx(0.1)


# Four texts, of which the language writes 4, 3, 2, 1 in ten and the generator 1, 2, 3, 4.
RATIOS = torch.tensor([4 / 1, 3 / 2, 2 / 3, 1 / 4]).log()
OF_REAL = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
OF_FAKE = torch.tensor([0, 1, 1, 2, 2, 2, 3, 3, 3, 3])


def test_the_perfect_discriminators_figures_are_the_best_ones():
    """It says 0.8, 0.6, 0.4, 0.2: accuracy 7 of 10 a side, and V = 2 JS - log 4.

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
    correlations = [perfect[name] for name in ("pearson", "spearman", "pearson_generated", "spearman_generated")]
    assert correlations == pytest.approx([1] * 4)
    assert perfect["infinite"] == 0

    # Surer than it may be: the same order, less V, and a calibration error.
    sure = against_perfect(3 * real, 3 * fake, real, fake)
    assert sure["auc"] == sure["best_auc"]
    assert sure["accuracy"] == sure["best_accuracy"]
    assert sure["value"] < sure["best_value"] - 0.1
    assert sure["calibration_error"] > 0.1
    # It takes the second text for a generated one: 1 - 0.3 and 0.2 of ten change sides.
    wrong = torch.tensor([1.0, -1.0, -1.0, -1.0])
    assert against_perfect(wrong[OF_REAL], wrong[OF_FAKE], real, fake)["accuracy"] == pytest.approx((0.4 + 0.9) / 2)


def test_sentences_that_the_language_does_not_have_are_left_out_of_correlations_alone():
    real, fake = torch.tensor([1.0, 2.0]), torch.tensor([0.0, -INF, 1.5, -INF])
    logits = torch.tensor([0.0, 7.0, 1.5, 9.0])
    result = against_perfect(real, logits, real, fake)
    assert [result["pearson"], result["pearson_generated"]] == pytest.approx([1, 1])
    assert result["infinite"] == 0.5
    assert result["accuracy"] == pytest.approx((2 + 1) / 6)
    assert result["best_accuracy"] == pytest.approx((2 + 3) / 6)
    assert math.isfinite(result["best_value"])


# Conditions


def test_every_condition_that_can_be_played_has_settings_that_the_package_accepts(tmp_path):
    for condition in CONDITIONS.values():
        if not condition.missing():
            config = config_of(condition, recipe.TINY, str(tmp_path), SEED)
            assert {name: getattr(config, name) for name in condition.config} == condition.config


def test_the_default_has_the_demos_settings(tmp_path):
    config, demo = (
        config_of(CONDITIONS[DEFAULT], recipe.TINY, str(tmp_path), SEED),
        adversarial_config(recipe.TINY, tmp_path, SEED),
    )
    names = [one.name for one in fields(config) if one.init]
    assert {name: getattr(config, name) for name in names} == {name: getattr(demo, name) for name in names}


def test_the_matrix_is_whole_and_the_names_serve_as_file_names():
    cells = {matrix_cell(loss, reward) for loss in LOSS_NAMES for reward in REWARD_NAMES}
    assert len(cells) == 24
    assert cells <= set(CONDITIONS)
    assert all(CONDITIONS[cell].config["num_generations"] == 2 for cell in cells if cell.startswith("bradley"))


def test_a_condition_names_what_the_package_does_not_have():
    condition = Condition("x", "ablations", "x", {"not_there": 1, "beta": 0.1, "discriminator_loss": "unknown"})
    assert condition.missing() == ["not_there", "discriminator_loss='unknown'"]
    assert CONDITIONS[DEFAULT].missing() == []


def test_conditions_are_chosen_by_group_and_name():
    assert [one.name for one in selected(["frozen", "pairs"])] == ["pairs", "frozen"]
    assert [one.name for one in selected(["headroom"])] == ["default", "perfect", "perfect_logit", "perfect_logit_5"]
    assert selected(["objectives"])[0].name == DEFAULT
    with pytest.raises(ValueError, match=r"no condition or group called \['unknown'\]"):
        selected(["unknown"])


# Games


class NoBars:
    def add(self, *_):
        return TrainerCallback()


@pytest.fixture(scope="module")
def players(tmp_path_factory):
    folder = tmp_path_factory.mktemp("players")
    recipe.do(Job("players", SEED), recipe.TINY, folder)
    return folder


@pytest.fixture(scope="module")
def default(players):
    return recipe.do(Job(DEFAULT, SEED), recipe.TINY, players)


def test_the_default_is_the_demos_game(players, default, tmp_path):
    demo = play(recipe.TINY, Language(), SEED, tmp_path, NoBars())
    expected = recipe.finite(asdict(demo.adversarial))
    assert {name: default["generator"][name] for name in expected} == expected
    made = recipe.do(Job("players", SEED), recipe.TINY, players)
    for ours, theirs in zip(made["likelihood"], demo.likelihood, strict=True):
        assert {name: ours[name] for name in asdict(theirs)} == recipe.finite(asdict(theirs))
    assert default["players"] == made["players"]
    assert "error" not in default
    # Steps 2, 4, ... 10; the demo measures every step, and on the same number of sentences.
    assert default["curve"] == recipe.finite(demo.divergences[1::2])


def test_a_result_has_everything_that_the_tables_ask_for(players, default):
    made = recipe.do(Job("players", SEED), recipe.TINY, players)
    frozen = recipe.do(Job("frozen", SEED), recipe.TINY, players)
    no_warmup = recipe.do(Job("warmup_0", SEED), recipe.TINY, players)
    perfect = recipe.do(Job("perfect", SEED), recipe.TINY, players)
    results = [made, default, frozen, no_warmup, perfect]
    assert [one.get("error") for one in results] == [None] * 5
    written = recipe_tables.page(json.loads(json.dumps(results)))
    assert "Seeds: 3; 4 games" in written
    updates = {one["condition"]: one["discriminator"]["after_game"]["updates"] for one in results[1:]}
    assert updates == {"default": 12, "frozen": 12, "warmup_0": 10, "perfect": 12}
    assert [one["discriminator"]["after_warmup"]["updates"] for one in results[1:]] == [2, 2, 0, 2]
    # Nothing has been seen before the game without a warm-up.
    assert "overfit" in default["discriminator"]["after_warmup"]
    assert "overfit" not in no_warmup["discriminator"]["after_warmup"]
    # Paid by another, the generator takes another way.
    assert perfect["generator"]["entropy"] != default["generator"]["entropy"]
    # Both begin with the same discriminator, and one goes on.
    values = [one["discriminator"]["after_game"]["value"] for one in (default, frozen)]
    assert default["discriminator"]["after_warmup"] == frozen["discriminator"]["after_warmup"]
    assert values[0] > values[1] + 0.01


def test_a_frozen_discriminator_stays_as_it_is(make_trainer):
    trainer = make_trainer()
    player = trainer.discriminator
    trainer.create_optimizer_and_scheduler(4)
    texts = ["a dog", "the cat"], ["one two", "three four"]
    player.update(["", ""], *texts)
    freeze(trainer)
    before = {name: value.clone() for name, value in player.model.state_dict().items()}
    player.update(["", ""], *texts)
    player.update(["", ""], *texts)
    assert player.num_updates == 3
    assert all(torch.equal(value, before[name]) for name, value in player.model.state_dict().items())


def test_an_error_becomes_the_result(players):
    result = recipe.do(Job(DEFAULT, SEED + 1), recipe.TINY, players)  # for which there are no players
    assert "Traceback" in result["error"]
    assert "generator" not in result


# Jobs


def result(name, seed, divergence=0.25, **changes):
    """What a job leaves, as little as the tables need."""
    made = {"condition": name, "seed": seed, "settings": recipe.settings(recipe.TINY), "players": "same"}
    quality = {
        "temperature": 1.0,
        "divergence": divergence,
        "grammatical": 0.8,
        "entropy": 11.0,
        "real_nll": 15.0,
        "length_ratio": 1.0,
        "distinct_4": 0.3,
    }
    if name == "players":
        made["likelihood"] = [{**quality, "temperature": 0.8}, {**quality, "divergence": divergence + 0.02}]
    else:
        judged = {"accuracy": 0.7, "auc": 0.8, "value": -1.0, "calibration_error": 0.02}
        judged |= {f"best_{key}": value for key, value in judged.items()}
        judged |= {"spearman": 0.6, "spearman_generated": 0.5, "overfit": None}
        made |= {"generator": quality, "discriminator": {"after_warmup": judged, "after_game": judged}}
    return {**made, "job_seconds": 1.0, **changes}


@pytest.fixture
def arguments(tmp_path):
    words = ["--output", str(tmp_path / "out"), "--tiny", "--seeds", "0", "1"]
    return recipe.parsed_arguments(words)


def leave(started, failing=()):
    """Return what does a job here: it leaves a made-up result."""

    def start(job, arguments):
        started.append(job)
        error = {"error": "Traceback\nValueError: no luck"} if job in failing else {}
        recipe.write(job.path(arguments.output), result(*job, **error))

    return start


def test_jobs_go_group_by_group_and_seed_by_seed():
    chosen = [CONDITIONS[name] for name in ("frozen", "default", "pairs", "perfect")]
    names = [f"{job.name}.{job.seed}" for job in recipe.jobs_of(chosen, [0, 1])]
    assert names == [
        *["default.0", "perfect.0", "default.1", "perfect.1"],
        *["frozen.0", "pairs.0", "frozen.1", "pairs.1"],
    ]


def test_a_run_goes_on_where_it_stopped(arguments, tmp_path, capsys):
    jobs = [Job("default", 0), Job("frozen", 0), Job("default", 1), Job("frozen", 1)]
    path, started = tmp_path / "bundle.jsonl", []
    recipe.run(jobs[:2], arguments, recipe.Bundle(path), leave(started, failing=[jobs[1]]))
    assert "frozen.0: failed: ValueError: no luck" in capsys.readouterr().out
    path.write_text(path.read_text() + '{"condition": "cut wh')  # as a machine leaves it that is taken away
    recipe.run(jobs, arguments, recipe.Bundle(path), leave(started))
    assert started == jobs  # none twice
    assert sorted(recipe.known(arguments.output)) == sorted(jobs)
    arguments.retry = True
    recipe.run(jobs, arguments, recipe.Bundle(path), leave(started))
    assert started == [*jobs, jobs[1]]

    # The bundle alone gives the same folder.
    other = tmp_path / "other"
    recipe.merge([path], other)
    assert recipe.known(other) == recipe.known(arguments.output)
    assert not any("error" in one for one in recipe.known(other).values())
    # So does a new one, which nothing is played for.
    late = tmp_path / "late.jsonl"
    recipe.run(jobs, arguments, recipe.Bundle(late), leave(started))
    assert len(started) == 5
    assert {Job(one["condition"], one["seed"]): one for one in recipe.results_in(late)} == recipe.known(other)
    assert "a line of 21 characters is no result and is left out" in capsys.readouterr().out


def test_no_job_starts_too_late(arguments):
    arguments.stop_after, started = -1.0, []
    recipe.run([Job("default", 0)], arguments, recipe.Bundle(None), leave(started))
    assert started == []
    assert recipe.known(arguments.output) == {}


def test_players_are_made_where_only_their_result_is(arguments):
    started = []
    job = Job("players", 0)
    recipe.write(job.path(arguments.output), result("players", 0))
    recipe.run([job], arguments, recipe.Bundle(None), leave(started))
    assert started == [job]
    recipe.write(arguments.players / "seed_0" / "measures.json", {})
    recipe.run([job], arguments, recipe.Bundle(None), leave(started))
    assert started == [job]


def test_merging_keeps_what_is_there(tmp_path, capsys):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    here = [result("default", 0), result("frozen", 0, error="Traceback\nValueError: x")]
    there = [result("default", 0, 0.5), result("frozen", 0, 0.5), result("pairs", 0, 0.5)]
    for folder, results in ((out, here), (elsewhere, there)):
        for one in results:
            recipe.write(Job(one["condition"], one["seed"]).path(folder), one)
    recipe.merge([elsewhere], out)
    assert "2 new, 0 there already, 1 different from the one there, which is kept" in capsys.readouterr().out
    merged = recipe.known(out)
    assert {job.name: recipe_tables.divergence(one) for job, one in merged.items()} == {
        "default": 0.25,
        "frozen": 0.5,
        "pairs": 0.5,
    }
    assert "error" not in merged[Job("frozen", 0)]

    recipe.summarise(out, publish=False)
    again = tmp_path / "again"
    recipe.merge([out / "recipe.json"], again)
    assert recipe.known(again) == merged
    recipe.write(Job("ema", 0).path(elsewhere), result("ema", 0, settings={"sentences": 1}))
    with pytest.raises(ValueError, match="different sizes"):
        recipe.merge([elsewhere], out)


def test_a_process_that_dies_leaves_its_error(arguments, monkeypatch):
    monkeypatch.setattr(recipe.sys, "executable", "false")
    recipe.in_a_process(Job("default", 0), arguments)
    assert recipe.known(arguments.output)[Job("default", 0)]["error"].startswith("The process ended with 1")


def test_no_game_is_played_without_players(arguments, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(recipe.run, "__defaults__", (leave(started, failing=[Job("players", 0)]),))
    recipe.main(["--output", str(arguments.output), "--tiny", "--seeds", "0", "--only", "default"])
    assert started == [Job("players", 0)]
    assert "no players for the seeds [0]" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_plays_in_processes_of_its_own(players, default, tmp_path):
    out = tmp_path / "out"
    words = ["--output", str(out), "--players", str(players), "--tiny", "--seeds", str(SEED), "--only", DEFAULT]
    recipe.main(words)
    made = recipe.known(out)[Job(DEFAULT, SEED)]
    same = ("generator", "discriminator", "curve", "training", "players", "config", "settings")
    assert {key: made[key] for key in same} == {key: json.loads(json.dumps(default))[key] for key in same}
    assert (out / "recipe.md").read_text().startswith("## Headroom")


# Tables


def test_differences_are_between_games_of_the_same_seed():
    """-0.02, -0.03, -0.04 at seeds 0 to 2: mean -0.03, deviation 0.01; t = 0.03 / (0.01 / sqrt 3) = 5.2 > 4.303."""
    results = recipe_tables.by_condition(
        [
            *[result("default", seed, 0.30) for seed in range(4)],
            *[result("pairs", seed, 0.28 - seed / 100) for seed in range(3)],
            *[result("ema", seed, value) for seed, value in enumerate((0.28, 0.30, 0.26))],
            *[result("frozen", seed, value) for seed, value in enumerate((0.40, 0.41, 0.42))],
            result("steps_2", 0, 0.10),
            result("warmup_0", 5, 0.10),
        ]
    )
    difference = recipe_tables.paired(results["pairs"], results["default"])
    assert difference.mean == pytest.approx(-0.03)
    assert difference.standard_error == pytest.approx(0.01 / math.sqrt(3))
    assert difference.seeds == 3
    assert difference.verdict == "✓"
    # -0.02, 0, -0.04: mean -0.02, error 0.02 / sqrt 3, t = 1.7.
    assert recipe_tables.paired(results["ema"], results["default"]).verdict == ""
    assert recipe_tables.paired(results["frozen"], results["default"]).verdict == "✗"
    assert recipe_tables.paired(results["steps_2"], results["default"]).verdict == ""
    assert recipe_tables.paired(results["warmup_0"], results["default"]) is None

    lines = recipe_tables.ablations_table(results).splitlines()
    row = next(line for line in lines if line.startswith(f"| {CONDITIONS['pairs'].text} |"))
    assert row.split(" | ")[1:4] == ["0.270 ± 0.010 (3)", "-0.0300 ± 0.0058", "✓"]
    assert next(line for line in lines if "label_smoothing" in line).split(" | ")[1] == "not run"


def test_the_share_of_the_gap_is_taken_over_the_seeds_of_all():
    """ML 0.34 and 0.36, the default 0.28 and 0.30, perfect 0.24 and 0.24: (0.35 - 0.29) / (0.35 - 0.24)."""
    results = [result("players", 0, 0.34), result("players", 1, 0.36), result("players", 2, 0.9)]
    results += [result("default", 0, 0.28), result("default", 1, 0.30), result("default", 2, 0.9)]
    results += [result("perfect", 0, 0.24), result("perfect", 1, 0.24), result("perfect", 2, 0.2, error="x")]
    sorted_results = recipe_tables.by_condition(results)
    assert recipe_tables.gap_closed(sorted_results, "default") == pytest.approx(0.06 / 0.11)
    assert recipe_tables.gap_closed(sorted_results, "perfect") == pytest.approx(1)
    assert recipe_tables.gap_closed(sorted_results, "perfect_logit") is None
    table = recipe_tables.headroom_table(sorted_results)
    assert "| maximum likelihood, best temperature | 0.533 ± 0.318 (3) | 0 |" in table
    assert "| maximum likelihood, temperature 1 | 0.553 ± 0.318 (3) |  |" in table
    assert "| the default | 0.493 ± 0.352 (3) | 0.55 |" in table


def test_the_matrix_has_every_loss_and_reward_at_its_place():
    results = recipe_tables.by_condition(
        [result("default", 0, 0.1), result("hinge-logit", 0, 0.2), result("bce-probability", 0, 0.3)]
    )
    lines = recipe_tables.objectives_table(results).splitlines()
    assert lines[2] == "| `bce` | 0.100 (1) | not run | not run | 0.300 (1) |"
    assert lines[5] == "| `hinge` | not run | not run | 0.200 (1) | not run |"


def test_the_hours_are_those_of_the_processor():
    """Players state their parts, 1000 + 800; a game also the sum, 1800, of its parts: one hour."""
    results = [
        result("players", 0, seconds={"encoder": 1000.0, "causal": 800.0}),
        result("default", 0, seconds={"game": 1700.0, "all": 1800.0}),
        {"condition": "ema", "seed": 0, "error": "x"},
    ]
    assert recipe_tables.fields_of(results)["hours"] == "1.0"


def test_the_page_is_made_of_the_results():
    results = json.loads(recipe.RESULTS.read_text())["results"]
    assert recipe.PAGE.read_text() == recipe_tables.page(results)


def test_failures_and_different_players_are_told():
    assert "Every job ended well" in recipe_tables.notes([result("default", 0), result("frozen", 0)])
    told = recipe_tables.notes(
        [result("default", 0), result("frozen", 0, players="others"), result("ema", 1, error="Traceback\nOSError: x")]
    )
    assert "- ema, seed 1, failed: `OSError: x`" in told
    assert "seed 0 began with 2 different sets of players" in told


def test_the_result_of_every_condition_is_found_in_a_folder_whatever_its_name(tmp_path):
    """Some names hold a number with a point; the files made of all results are no results."""
    for name in CONDITIONS:
        Job(name, 0).path(tmp_path).write_text(json.dumps({"condition": name}))
    (tmp_path / "recipe.json").write_text("{}")
    assert {result["condition"] for result in recipe.results_in(tmp_path)} == set(CONDITIONS)
