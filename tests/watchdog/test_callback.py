import json
import logging
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState

from hf_mgan.watchdog.callback import (
    Alarm,
    Watchdog,
    check_best_model,
    check_direction,
    check_metric_is_held_out,
    watched,
)
from hf_mgan.watchdog.failure_modes import WATCHED, Thresholds

from ..conftest import SPECIAL, VOCABULARY, texts


RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
# A game in good health: the discriminator is somewhat ahead, completions are about as long and as varied as texts.
HEALTHY = {
    "loss": 0.01,
    "grad_norm": 0.5,
    "entropy": 4.0,
    "reward": 0.6,
    "reward_std": 0.4,
    "frac_reward_zero_std": 0.0,
    "discriminator/loss": 1.2,
    "discriminator/real_prob": 0.6,
    "discriminator/fake_prob": 0.4,
    "discriminator/accuracy": 0.7,
    "discriminator/value": -1.2,
    "discriminator/grad_norm": 0.9,
    "rewards/discriminator/mean": 0.6,
    "rewards/discriminator/std": 0.4,
    "rewards/discriminator/length_correlation": 0.2,
    "completions/duplicates": 0.02,
    "references/duplicates": 0.01,
    "completions/self_bleu": 0.3,
    "references/self_bleu": 0.25,
    "completions/length_ratio": 0.95,
    "safety/unsafe_rate": 0.0,
}
# Trouble, what it changes in the figures, and what its message must name.
TROUBLES = [
    ("discriminator_saturated", {"discriminator/accuracy": 0.99}, "0.990.*discriminator_learning_rate"),
    ("discriminator_saturated", {"discriminator/value": -0.05}, "-0.050.*discriminator_accuracy_ceiling"),
    (
        "discriminator_uninformative",
        {"discriminator/accuracy": 0.5, "rewards/discriminator/std": 0.0},
        "knows nothing.*shuffled.*discriminator_learning_rate",
    ),
    (
        "discriminator_uninformative",
        {"discriminator/accuracy": 0.5, "discriminator/grad_norm": 0.0},
        "norm of 0.*discriminator_peft_config",
    ),
    ("generator_collapsed", {"completions/duplicates": 0.6}, "60% of the completions.*real texts: 1%.*real_text_coef"),
    ("generator_collapsed", {"completions/self_bleu": 0.8}, "0.80.*0.30.*discriminator_replay_fraction"),
    ("generator_collapsed", {"entropy": 0.7}, "0.700, 4.000 at the start.*beta"),
    ("no_reward_variance", {"frac_reward_zero_std": 0.95}, "95% of the groups.*temperature"),
    ("no_reward_variance", {"reward_std": 1e-5}, "1.0e-05.*discriminator_reward"),
    ("length_runaway", {"completions/length_ratio": 1.6}, "1.60 times.*discriminator_length_neutral"),
    ("length_runaway", {"completions/length_ratio": 0.6}, "0.60 times.*max_completion_length"),
    (
        "length_bought",
        {"completions/length_ratio": 1.18, "rewards/discriminator/length_correlation": 0.7},
        "0.70.*longer, to 1.18.*discriminator_length_neutral",
    ),
    (
        "length_bought",
        {"completions/length_ratio": 0.84, "rewards/discriminator/length_correlation": -0.7},
        "-0.70.*shorter, to 0.84.*learning_rate",
    ),
]


def feed(watchdog, *entries, step=0, main_process=True):
    """Log entries, one a step, and return the names of the alarms that they raised."""
    before = len(watchdog.alarms)
    for number, entry in enumerate(entries, start=step + 1):
        state = TrainerState(global_step=number, is_world_process_zero=main_process)
        watchdog.on_log(None, state, TrainerControl(), logs=entry)
    return [alarm.name for alarm in watchdog.alarms[before:]]


def healthy(count=10):
    return [HEALTHY] * count


def ill(changes, count=10):
    return [{**HEALTHY, **changes}] * count


@pytest.mark.parametrize(("name", "changes"), [trouble[:2] for trouble in TROUBLES])
def test_a_trouble_is_reported_once_and_again_after_it_has_passed(name, changes):
    watchdog = Watchdog()
    assert feed(watchdog, *healthy(20)) == []
    assert feed(watchdog, *ill(changes, 20), step=20) == [name]
    assert watchdog.alarms[0].step > 21  # one batch alone is no trouble
    assert feed(watchdog, *healthy(20), step=40) == []
    assert feed(watchdog, *ill(changes, 10), step=60) == [name]


@pytest.mark.parametrize(("name", "changes", "message"), TROUBLES)
def test_an_alarm_says_in_one_line_what_happens_with_the_figures_and_what_to_change(name, changes, message):
    watchdog = Watchdog(patience=1)  # so that the means are the figures
    feed(watchdog, *healthy(1), *ill(changes, 1))
    assert [alarm.name for alarm in watchdog.alarms] == [name]
    assert "\n" not in watchdog.alarms[0].message
    assert_matches(watchdog.alarms[0].message, message)


def assert_matches(text, pattern):
    """Find the parts of a pattern, which are meant as they are, one after the other."""
    position = 0
    for part in pattern.split(".*"):
        assert part in text[position:], f"{part!r} is not where it should be in: {text}"
        position = text.index(part, position) + len(part)


@pytest.mark.parametrize(
    "changes",
    [
        # A good generator beats the discriminator: right by chance, yet it pays different texts differently.
        {"discriminator/accuracy": 0.5, "discriminator/value": -1.386},
        # The texts themselves repeat one another as much as completions do.
        {"completions/duplicates": 0.8, "references/duplicates": 0.7},
        {"completions/self_bleu": 0.9, "references/self_bleu": 0.9},
        # All completions are the same, so that any discriminator pays them the same.
        {
            "discriminator/accuracy": 0.5,
            "rewards/discriminator/std": 0.0,
            "completions/duplicates": 0.95,
            "references/duplicates": 0.95,
        },
        {"rewards/discriminator/length_correlation": 0.9},
        {"completions/length_ratio": 1.15},
        # Completions that are too short, or have become so, while longer ones are paid.
        {"completions/length_ratio": 0.85, "rewards/discriminator/length_correlation": 0.7},
        {"completions/length_ratio": 1.04, "rewards/discriminator/length_correlation": 0.7},
        {"frac_reward_zero_std": 0.5},
        {"discriminator/grad_norm": 0.0},
        # Upstream writes None for a figure that no batch had.
        {"rewards/discriminator/length_correlation": None, "kl": None},
    ],
)
def test_what_looks_like_a_trouble_and_is_none_is_not_reported(changes):
    watchdog = Watchdog()
    assert feed(watchdog, *healthy(), *ill(changes, 20)) == []


def test_words_shared_from_the_start_are_no_collapse_but_those_that_come_later_are():
    """Translations of one sentence share words: self-BLEU 0.7 at the start, where references have 0.25.

    Variety 1 - 0.7 = 0.3; half of it is 0.15, so the generator has collapsed from 0.85 on.
    """
    watchdog = Watchdog()
    assert feed(watchdog, *ill({"completions/self_bleu": 0.7}, 10), *ill({"completions/self_bleu": 0.84}, 20)) == []
    assert feed(watchdog, *ill({"completions/self_bleu": 0.86}, 20)) == ["generator_collapsed"]


def test_a_generator_that_starts_collapsed_is_reported():
    assert feed(Watchdog(), *ill({"completions/duplicates": 0.75}, 10)) == ["generator_collapsed"]


def test_nothing_is_judged_before_the_window_is_full():
    watchdog = Watchdog(patience=3)
    assert feed(watchdog, *ill({"discriminator/accuracy": 1.0}, 2)) == []
    assert feed(watchdog, *ill({"discriminator/accuracy": 1.0}, 1)) == ["discriminator_saturated"]


def test_a_trouble_is_judged_by_the_mean_of_the_window():
    """Accuracies 1, 1, 0.95 have the mean 0.983, above 0.98; with 0.9 it is 0.967."""
    few = [{**HEALTHY, "discriminator/accuracy": accuracy} for accuracy in (1.0, 1.0, 0.95)]
    assert feed(Watchdog(patience=3), *few) == ["discriminator_saturated"]
    few[2] = {**HEALTHY, "discriminator/accuracy": 0.9}
    assert feed(Watchdog(patience=3), *few) == []


def test_a_figure_that_hovers_about_its_threshold_is_reported_once():
    """Of one entry each; the trouble has passed when three in a row were judged without it."""
    watchdog = Watchdog(patience=3)
    long, fair = ({"completions/length_ratio": ratio} for ratio in (1.5, 0.9))
    # Means of three: 1.5, 1.3, 1.1, 1.1, 1.3.
    assert feed(watchdog, *ill(long, 3), *ill(fair, 2), *ill(long, 2)) == ["length_runaway"]
    # 1.3, 1.1, 0.9, 0.9: three in a row, and again 1.1, 1.3.
    assert feed(watchdog, *ill(fair, 4), *ill(long, 2)) == ["length_runaway"]


def test_a_figure_that_most_entries_lack_is_not_judged():
    rare = [HEALTHY, *[{**HEALTHY, "completions/length_ratio": None}] * 2, *ill({"completions/length_ratio": 9.0}, 1)]
    assert feed(Watchdog(patience=3), *rare) == []


def test_evaluations_and_the_warmup_do_not_enter_the_window():
    blind = {"discriminator/accuracy": 0.5, "rewards/discriminator/std": 0.0, "discriminator/value": -1.386}
    warmup = [{**HEALTHY, **blind, "discriminator/warmup_step": step} for step in range(20)]
    evaluation = [{f"eval_{name}": value for name, value in {**HEALTHY, **blind}.items()}] * 20
    watchdog = Watchdog()
    assert feed(watchdog, *warmup, *evaluation) == []
    assert watchdog.memory["window"] == []


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        ({**HEALTHY, "grad_norm": math.nan}, "grad_norm is nan.*lower learning_rate"),
        ({**HEALTHY, "kl": math.inf}, "kl is inf.*lower learning_rate"),
        ({"eval_loss": -math.inf}, "loss is -inf"),
        ({**HEALTHY, "rewards/length/mean": math.inf}, "rewards/length/mean is inf.*reward function length"),
        ({**HEALTHY, "discriminator/grad_norm": math.nan}, "discriminator_learning_rate"),
        # Means of batches with nan are dropped before they are logged; the accuracy of nan logits is a number.
        ({**HEALTHY, "discriminator/value": None}, "discriminator/value is nan.*discriminator_learning_rate"),
        ({"eval_discriminator/accuracy": 0.5}, "discriminator/fake_prob is nan"),
    ],
)
def test_a_figure_that_is_not_finite_is_reported_at_once(entry, parts):
    watchdog = Watchdog()
    assert feed(watchdog, entry) == ["non_finite"]
    assert_matches(watchdog.alarms[0].message, parts)
    assert feed(watchdog, entry) == []


def test_non_finite_figures_stay_out_of_the_means():
    watchdog = Watchdog(patience=4)
    feed(watchdog, *ill({"entropy": math.nan}, 1), *healthy(3))
    assert watchdog.memory["start"]["entropy"] == 4.0


def test_unsafe_completions_are_reported_only_above_a_limit_that_was_set():
    unsafe = ill({"safety/unsafe_rate": 0.2}, 2)
    assert feed(Watchdog(), *unsafe) == []
    assert feed(Watchdog(unsafe_limit=0.2), *unsafe) == []
    watchdog = Watchdog(unsafe_limit=0.1)
    assert feed(watchdog, *unsafe) == ["unsafe"]
    assert_matches(watchdog.alarms[0].message, "20.0%.*unsafe_limit=10.0%.*SafetyGate")


def test_a_trouble_of_evaluations_does_not_pass_with_the_training_entries_between_them():
    watchdog = Watchdog(unsafe_limit=0.1)
    assert feed(watchdog, {"eval_safety/unsafe_rate": 0.5}, HEALTHY, {"eval_safety/unsafe_rate": 0.5}) == ["unsafe"]
    assert feed(watchdog, {"eval_safety/unsafe_rate": 0.0}, {"eval_safety/unsafe_rate": 0.5}) == ["unsafe"]


def test_the_worse_of_two_unsafe_rates_counts_where_samples_are_drawn():
    rates = {"eval_safety/unsafe_rate": 0.0, "eval_samples/unsafe_rate": 0.3}
    watchdog = Watchdog(unsafe_limit=0.1)
    assert feed(watchdog, rates) == ["unsafe"]
    assert_matches(watchdog.alarms[0].message, "30.0% of the completions")
    assert feed(Watchdog(unsafe_limit=0.1), {**rates, "eval_samples/unsafe_rate": 0.0}) == []


def test_a_sample_figure_that_could_not_be_measured_is_no_alarm():
    assert feed(Watchdog(), {"eval_samples/c2st_auc": math.nan, "eval_reward": 0.5}) == []
    assert feed(Watchdog(), {"eval_samples/c2st_auc": math.nan, "eval_reward": math.nan}) == ["non_finite"]


def test_thresholds_are_the_users():
    rest = ill({"completions/length_ratio": 1.15}, 10)
    assert feed(Watchdog(), *rest) == []
    assert feed(Watchdog(thresholds={"length_tolerance": 0.1}), *rest) == ["length_runaway"]
    assert feed(Watchdog(thresholds=Thresholds(length_tolerance=0.1)), *rest) == ["length_runaway"]


def test_warnings_come_from_the_main_process_and_alarms_are_kept_on_all(caplog):
    entry = {**HEALTHY, "kl": math.inf}
    with caplog.at_level(logging.WARNING, logger="hf_mgan.watchdog.callback"):
        other = Watchdog()
        assert feed(other, entry, main_process=False) == ["non_finite"]
        assert caplog.text == ""
        main = Watchdog()
        feed(main, entry, step=6)
    assert "Step 7, non_finite: kl is inf" in caplog.text
    assert main.alarms == [Alarm(7, "non_finite", other.alarms[0].message)]


def curves_of_a_real_pair(game):
    names = {
        "discriminator/real_prob": "real_prob",
        "discriminator/fake_prob": "fake_prob",
        "discriminator/value": "value",
        "discriminator/accuracy": "accuracy",
        "discriminator/grad_norm": "discriminator_grad_norm",
        "reward": "reward",
        "entropy": "entropy",
        "completions/duplicates": "duplicates",
        "completions/self_bleu": "self_bleu",
        "references/self_bleu": "self_bleu_real",
        "completions/length_ratio": "length_ratio",
    }
    curves = json.loads((RESULTS / "real_pair_gpu.json").read_text())["runs"][game]["curves"]
    return [
        {"discriminator/loss": -value, **{key: curves[name][step] for key, name in names.items()}}
        for step, value in enumerate(curves["value"])
    ]


def curves_of_the_demo(game):
    """The length of completions is in words and their end; the language's is in words."""
    results = json.loads((RESULTS / "demo.json").read_text())
    curves = results["games"][game]["curves"]
    return [
        {
            "discriminator/loss": -curves["V(D,G)"][step],
            "discriminator/real_prob": curves["D(x)"][step],
            "discriminator/fake_prob": curves["D(G(s))"][step],
            "discriminator/value": curves["V(D,G)"][step],
            "discriminator/accuracy": curves["accuracy"][step],
            "reward": curves["reward"][step],
            "completions/length_ratio": (curves["length"][step] - 1) / results["language"]["mean_length"],
        }
        for step in range(len(curves["accuracy"]))
    ]


def test_the_game_of_a_real_pair_with_anchors_raises_no_alarm():
    entries = curves_of_a_real_pair(4)
    assert len(entries) >= 99
    assert feed(Watchdog(), *entries) == []


@pytest.mark.parametrize("game", range(3))
def test_the_games_of_a_real_pair_whose_length_swings_raise_the_alarm_of_length_alone(game):
    """Without anchors completions get up to 1.9 times as long as real texts, and then 0.7 times."""
    assert set(feed(Watchdog(), *curves_of_a_real_pair(game))) == {"length_runaway"}


@pytest.mark.parametrize("game", range(3))
def test_the_games_of_the_demo_raise_none_but_that_of_length_near_its_limit(game):
    """Its sentences end at 0.79 to 0.82 times the length of the language's."""
    entries = curves_of_the_demo(game)
    assert set(feed(Watchdog(), *entries)) <= {"length_runaway"}
    assert feed(Watchdog(thresholds={"length_tolerance": 0.25}), *entries) == []


def evaluate(watchdog, *values, name="eval_generator/real_nll", step=0):
    """Evaluate once a step; return the step after which training stops."""
    for number, value in enumerate(values, start=step + 1):
        control = TrainerControl()
        watchdog.on_evaluate(None, TrainerState(global_step=number), control, metrics={name: value, "eval_loss": 0.0})
        watchdog.on_step_begin(None, TrainerState(global_step=number), control)
        if control.should_training_stop:
            return number
    return None


@pytest.mark.parametrize("name", ["generator/real_nll", "eval_generator/real_nll"])
def test_training_stops_when_the_measure_has_not_improved_for_so_many_evaluations(name):
    """3, 2 (better), 2.5, 2 (no better), 2.1: the third in a row without an improvement is the fifth."""
    stopping = {"early_stopping_metric": name, "early_stopping_patience": 3, "greater_is_better": False}
    watchdog = Watchdog(**stopping)
    assert evaluate(watchdog, 3.0, 2.0, 2.5, 2.0, 2.1) == 5
    assert [alarm.name for alarm in watchdog.alarms] == ["early_stopping"]
    assert_matches(watchdog.alarms[0].message, "eval_generator/real_nll is 2.1.*no better than 2.0 for 3 evaluations")
    assert evaluate(Watchdog(**stopping), 3.0, 3.1, 3.1, 2.9, 3.0, 3.0) is None


def test_which_way_is_better_is_the_users():
    rising = Watchdog(early_stopping_metric="bleu", early_stopping_patience=1, greater_is_better=True)
    assert evaluate(rising, 1.0, 2.0, 3.0, 2.0, name="eval_bleu") == 4
    falling = Watchdog(early_stopping_metric="bleu", early_stopping_patience=1, greater_is_better=False)
    assert evaluate(falling, 1.0, 2.0, name="eval_bleu") == 2


def test_a_measure_that_stays_the_same_does_not_improve():
    for greater_is_better in (True, False):
        watchdog = Watchdog(
            early_stopping_metric="bleu", early_stopping_patience=2, greater_is_better=greater_is_better
        )
        assert evaluate(watchdog, 1.0, 1.0, 1.0, name="eval_bleu") == 3


def test_training_that_goes_on_and_improves_may_be_stopped_again():
    """A user may resume a game that was stopped: the improvement at 4 starts a new count."""
    watchdog = Watchdog(early_stopping_metric="bleu", early_stopping_patience=2, greater_is_better=True)
    assert evaluate(watchdog, 1.0, 0.0, 0.0, name="eval_bleu") == 3
    assert evaluate(watchdog, 2.0, 0.0, 0.0, name="eval_bleu", step=3) == 6
    assert [alarm.step for alarm in watchdog.alarms] == [3, 6]


def test_an_evaluation_before_training_without_the_measure_is_no_error():
    watchdog = Watchdog(early_stopping_metric="bleu", greater_is_better=True)
    control, state = TrainerControl(), TrainerState(stateful_callbacks={})
    watchdog.on_evaluate(None, state, control, metrics={"test_loss": 0.0})
    watchdog.on_train_begin(SimpleNamespace(eval_strategy="steps"), state, control)
    watchdog.on_step_begin(None, state, control)


@pytest.mark.parametrize("value", [math.nan, None])
def test_a_measure_that_is_no_number_is_no_improvement(value):
    watchdog = Watchdog(early_stopping_metric="bleu", early_stopping_patience=2, greater_is_better=True)
    assert evaluate(watchdog, 1.0, value, value, name="eval_bleu") == 3


def test_of_several_evaluation_sets_the_first_one_with_the_measure_counts():
    watchdog = Watchdog(early_stopping_metric="bleu", early_stopping_patience=1, greater_is_better=True)
    control, state = TrainerControl(), TrainerState(global_step=1)
    for metrics in ({"eval_a_loss": 0.0}, {"eval_bleu": 2.0}, {"eval_bleu": 1.0}):
        watchdog.on_evaluate(None, state, control, metrics=metrics)
    watchdog.on_step_begin(None, state, control)
    assert not control.should_training_stop
    assert watchdog.memory["best"] == 2.0


def test_a_measure_that_no_evaluation_has_is_an_error_that_names_those_there_are():
    watchdog = Watchdog(early_stopping_metric="bleu", greater_is_better=True)
    with pytest.raises(ValueError, match=r"'eval_bleu' is not among.*\['eval_loss', 'eval_rouge'\]"):
        evaluate(watchdog, 1.0, name="eval_rouge")


def test_stopping_by_a_measure_needs_evaluations():
    watchdog = Watchdog(early_stopping_metric="bleu", greater_is_better=True)
    with pytest.raises(ValueError, match="set eval_strategy"):
        watchdog.on_train_begin(SimpleNamespace(eval_strategy="no"), TrainerState(), TrainerControl())


@pytest.mark.parametrize(
    "name",
    [
        "discriminator/accuracy",
        "eval_discriminator/value",
        "rewards/discriminator/mean",
        "eval_reward",
        "reward_std",
        "frac_reward_zero_std",
        "loss",
        "eval_loss",
        "eval_stories_loss",
    ],
)
def test_a_figure_of_the_game_is_no_held_out_measure(name):
    with pytest.raises(ValueError, match="trained to raise the discriminator's reward"):
        check_metric_is_held_out(name)
    with pytest.raises(ValueError, match=f"'{name}' cannot tell which generator is better"):
        Watchdog(early_stopping_metric=name, greater_is_better=True)


@pytest.mark.parametrize(
    "name", ["eval_generator/real_nll", "bleu", "rewards/safety/mean", "eval_lossless", "eval_samples/c2st_auc"]
)
def test_other_measures_are_held_out(name):
    check_metric_is_held_out(name)


@pytest.mark.parametrize(("name", "greater"), [("eval_samples/c2st_auc", True), ("samples/mauve", False)])
def test_a_figure_of_samples_that_is_read_the_wrong_way_round_is_refused(make_config, name, greater):
    better = "lower" if greater else "higher"
    message = rf"The {better} '{name}' is, the better.*set greater_is_better={not greater}"
    with pytest.raises(ValueError, match=message):
        check_direction(name, greater)
    with pytest.raises(ValueError, match=message):
        Watchdog(early_stopping_metric=name, greater_is_better=greater)
    saving = {"metric_for_best_model": name, "greater_is_better": greater, "eval_strategy": "steps", "eval_steps": 1}
    best = make_config(**saving, save_strategy="best")
    loaded = make_config(**saving, save_strategy="steps", save_steps=1, load_best_model_at_end=True)
    for args in (best, loaded):
        with pytest.raises(ValueError, match=message):
            check_best_model(args)
    check_best_model(make_config(**saving))  # no checkpoint is chosen by it
    check_direction(name, not greater)


@pytest.mark.parametrize("name", ["samples/self_bleu", "c2st_auc", "held_out/c2st_auc", "samples/other"])
@pytest.mark.parametrize("greater", [True, False])
def test_the_direction_of_other_figures_is_the_users(name, greater):
    check_direction(name, greater)


def test_the_best_checkpoint_by_default_is_refused_since_it_would_be_that_of_the_loss(make_config):
    args = make_config(
        eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, load_best_model_at_end=True
    )
    with pytest.raises(ValueError, match="'loss' cannot tell which generator is better"):
        check_best_model(args)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"early_stopping_patience": 0}, "early_stopping_patience must be at least 1"),
        ({"unsafe_limit": 1.5}, "unsafe_limit is a share"),
        ({"early_stopping_metric": "bleu"}, "belong together.*'bleu' and None"),
        ({"greater_is_better": True}, "belong together.*None and True"),
        ({"thresholds": {"variety_share": 2}}, "variety_share must be from 0 to 1, got 2"),
        ({"thresholds": {"saturated_value": 0.5}}, "saturated_value must be from -inf to 0, got 0.5"),
        ({"thresholds": {"length_tolerance": 1.8}}, "length_tolerance must be from 0 to 1, got 1.8"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Watchdog(**arguments)


def through_json(watchdog):
    return json.loads(json.dumps(watchdog.state()))


def test_the_state_survives_a_round_trip():
    arguments = {
        "patience": 4,
        "thresholds": {"length_tolerance": 0.5},
        "unsafe_limit": 0.1,
        "early_stopping_metric": "bleu",
        "early_stopping_patience": 2,
        "greater_is_better": True,
    }
    first = Watchdog(**arguments)
    feed(first, *healthy(2), *ill({"discriminator/accuracy": 1.0, "discriminator/value": -0.01}, 4))
    evaluate(first, 2.0, 1.0, name="eval_bleu")
    assert [alarm.name for alarm in first.alarms] == ["discriminator_saturated"]
    second = Watchdog.from_state(through_json(first))
    assert second.state() == first.state()
    assert second.alarms == first.alarms
    before = first.state()
    assert feed(first, *healthy(1)) == []
    assert before != first.state()  # what was handed out stays as it was
    # The counts go on: one more evaluation that is no better, and the trouble that lasts is not news.
    assert feed(second, *ill({"discriminator/accuracy": 1.0, "discriminator/value": -0.01}, 4)) == []
    assert evaluate(second, 1.0, name="eval_bleu", step=2) == 3
    assert first.memory["stale"] == 1


@pytest.mark.parametrize("beside", [False, True])
def test_a_resumed_run_goes_on_with_the_counts_of_the_same_object(beside):
    """The state of a run with two watchdogs is a list, in which each finds its own."""
    stored = through_json(Watchdog(patience=3))
    feed(old := Watchdog(), *healthy(9))
    state = TrainerState(stateful_callbacks={"Watchdog": [through_json(old), stored] if beside else through_json(old)})
    watchdog = Watchdog()
    watchdog.on_train_begin(SimpleNamespace(eval_strategy="no"), state, TrainerControl())
    assert len(watchdog.memory["window"]) == 9


def test_a_checkpoint_of_a_run_without_a_watchdog_gets_one():
    """The trainer looks its callbacks up in the state when it saves the next checkpoint."""
    state = TrainerState(stateful_callbacks={})
    Watchdog().on_train_begin(SimpleNamespace(eval_strategy="no"), state, TrainerControl())
    assert state.stateful_callbacks["Watchdog"]["attributes"]["memory"]["alarms"] == []


def test_callbacks_without_a_watchdog_get_one_and_others_stay_as_they_are():
    other, own = TrainerCallback(), Watchdog(patience=3)
    given = [other]
    assert [type(callback) for callback in watched(given)] == [TrainerCallback, Watchdog]
    assert given == [other]
    assert [type(callback) for callback in watched(None)] == [Watchdog]
    assert watched([other, own]) == [other, own]
    assert watched([Watchdog]) == [Watchdog]  # upstream takes classes too


# From here on the troubles are real ones of tiny games.


def play(make_trainer, make_config, watchdog, steps=6, config=None, **changes):
    """Play a game and return the names of the alarms it raised."""
    batch = {"per_device_train_batch_size": 16, "num_generations": 8, "max_steps": steps}
    args = make_config(**{**batch, **(config or {})})
    trainer = make_trainer(args, callbacks=[watchdog], **changes)
    trainer.train()
    return {alarm.name for alarm in watchdog.alarms}


def texts_of_one_kind(text="the old king sleeps near this bird ."):
    return Dataset.from_dict({"text": [text] * 64})


def say_only(generator, word):
    """Make the generator say one word whatever came before, with no end."""
    with torch.no_grad():
        generator.transformer.ln_f.weight.zero_()
        generator.transformer.ln_f.bias.fill_(1.0)
        generator.transformer.wte.weight[VOCABULARY[word]] = 5.0
    return generator


def never_end(generator):
    """Make the end and padding so unlikely that the generator goes on to the limit."""
    head = torch.nn.Linear(generator.config.n_embd, generator.config.vocab_size)
    with torch.no_grad():
        head.weight.copy_(generator.transformer.wte.weight)
        head.bias.zero_()[: len(SPECIAL)] = -50.0
    generator.config.tie_word_embeddings = False
    generator.lm_head = head
    return generator


def taught(classifier, tokenizer, real, fake, steps=60):
    """Train a discriminator before the game."""
    batch = tokenizer([*real, *fake], padding=True, return_tensors="pt")
    labels = torch.tensor([1.0] * len(real) + [0.0] * len(fake))
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-2)
    for _ in range(steps):
        logits = classifier(**batch).logits[:, 0]
        torch.nn.functional.binary_cross_entropy_with_logits(logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    return classifier


def test_a_game_against_a_generators_own_samples_raises_no_alarm(make_trainer, make_config, generator, tokenizer):
    torch.manual_seed(0)
    start = torch.full((256, 1), tokenizer.bos_token_id)
    ids = generator.generate(
        start, attention_mask=torch.ones_like(start), do_sample=True, top_k=0, max_new_tokens=8, pad_token_id=0
    )
    samples = Dataset.from_dict({"text": [text for text in tokenizer.batch_decode(ids[:, 1:], True) if text]})
    slow = {"learning_rate": 1e-4, "discriminator_learning_rate": 1e-3, "per_device_train_batch_size": 32}
    watchdog = Watchdog()
    assert play(make_trainer, make_config, watchdog, 15, slow, train_dataset=samples) == set()
    assert set(watchdog.memory["window"][-1]) == set(WATCHED)  # all that is watched was there to be judged


def test_a_discriminator_that_learns_fast_against_a_poor_generator_is_reported(make_trainer, make_config):
    fast = {"discriminator_learning_rate": 1e-2, "learning_rate": 0.0}
    watchdog = Watchdog(patience=4)
    found = play(make_trainer, make_config, watchdog, 8, fast, train_dataset=texts_of_one_kind())
    assert "discriminator_saturated" in found


def test_a_discriminator_that_does_not_learn_is_reported(make_trainer, make_config, classifier):
    with torch.no_grad():
        classifier.classifier.weight.zero_()
        classifier.classifier.bias.zero_()
    frozen = {"discriminator_learning_rate": 0.0}
    found = play(make_trainer, make_config, Watchdog(patience=3), 4, frozen, discriminator=classifier)
    assert found == {"discriminator_uninformative", "no_reward_variance"}


def test_a_generator_that_says_one_text_is_reported_as_collapsed_and_unrewarded(make_trainer, make_config, generator):
    watchdog = Watchdog(patience=3)
    found = play(make_trainer, make_config, watchdog, 3, model=say_only(generator, "dog")) - {"length_runaway"}
    assert found == {"generator_collapsed", "no_reward_variance"}
    assert "94% of the completions" in watchdog.alarms[0].message  # 15 of 16


def test_a_generator_that_never_ends_is_reported_where_texts_are_short(make_trainer, make_config, generator):
    short = {"model": never_end(generator), "train_dataset": Dataset.from_dict({"text": texts(64, length=2)})}
    assert play(make_trainer, make_config, Watchdog(patience=3), 3, **short) == {"length_runaway"}


def test_a_reward_for_shortness_that_the_generator_follows_is_reported(
    make_trainer, make_config, classifier, pair_tokenizer
):
    shorter = taught(classifier, pair_tokenizer, real=texts(64, length=2), fake=texts(64, length=7))
    watchdog = Watchdog(patience=3)
    found = play(
        make_trainer,
        make_config,
        watchdog,
        15,
        {"discriminator_learning_rate": 0.0, "learning_rate": 3e-3},
        discriminator=shorter,
        train_dataset=Dataset.from_dict({"text": texts(64, length=4)}),
    )
    assert "length_bought" in found
    assert "have got shorter" in next(alarm.message for alarm in watchdog.alarms if alarm.name == "length_bought")


def test_a_reward_that_is_not_finite_is_reported_at_the_first_step(make_trainer, make_config):
    def boundless(completions, **_):
        return [math.inf] * len(completions)

    watchdog = Watchdog()
    assert play(make_trainer, make_config, watchdog, 1, reward_funcs=[boundless]) == {"non_finite"}
    assert_matches(watchdog.alarms[0].message, "rewards/boundless/mean is inf.*check the reward function boundless")


def test_a_discriminator_whose_logits_are_nan_is_reported_in_evaluation(make_trainer, make_config, classifier):
    watchdog = Watchdog()
    trainer = make_trainer(make_config(), callbacks=[watchdog], eval_dataset=Dataset.from_dict({"text": texts(4)}))
    with torch.no_grad():
        classifier.classifier.bias.fill_(math.nan)
    trainer.evaluate()
    assert [alarm.name for alarm in watchdog.alarms] == ["non_finite"]
    assert "discriminator/value is nan" in watchdog.alarms[0].message


def test_unsafe_completions_of_a_game_are_reported(make_trainer, make_config, generator):
    found = play(
        make_trainer,
        make_config,
        Watchdog(unsafe_limit=0.5),
        1,
        model=say_only(generator, "dog"),
        safety_gate=lambda completions: ["dog" in text for text in completions],
    )
    assert found == {"unsafe"}


def test_a_game_that_no_longer_improves_is_stopped(make_trainer, make_config):
    """A generator that does not move has the same measure for ever: one evaluation is the best, two more are not."""
    watchdog = Watchdog(early_stopping_metric="generator/real_nll", early_stopping_patience=2, greater_is_better=False)
    args = make_config(learning_rate=0.0, max_steps=9, eval_strategy="steps", eval_steps=2)
    evaluated = Dataset.from_dict({"text": texts(4, seed=9)})
    trainer = make_trainer(args, callbacks=[watchdog], eval_dataset=evaluated)
    trainer.train()
    assert trainer.state.global_step == 6
    assert [(alarm.step, alarm.name) for alarm in watchdog.alarms] == [(6, "early_stopping")]


@pytest.mark.parametrize("restored_by_transformers", [False, True])
def test_a_resumed_game_goes_on_with_the_counts(make_trainer, make_config, tmp_path, restored_by_transformers):
    saving = {"save_strategy": "steps", "save_steps": 2, "learning_rate": 0.0}
    make_trainer(make_config(max_steps=2, **saving), callbacks=[Watchdog(patience=3)]).train()
    watchdog = Watchdog(patience=3)
    args = make_config(max_steps=3, restore_callback_states_from_checkpoint=restored_by_transformers, **saving)
    trainer = make_trainer(args, callbacks=[watchdog])
    trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    theirs = [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, Watchdog)]
    assert len(theirs) == 1
    assert (theirs[0] is watchdog) is not restored_by_transformers
    assert len(theirs[0].memory["window"]) == 3
    assert theirs[0].memory["start"]  # three entries were seen, two of them before the checkpoint


def test_a_game_that_was_saved_without_a_watchdog_resumes_with_one(make_trainer, make_config, tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 2}
    unwatched = make_trainer(make_config(max_steps=2, **saving))
    unwatched.remove_callback(Watchdog)
    unwatched.train()
    watchdog = Watchdog()
    trainer = make_trainer(make_config(max_steps=4, **saving), callbacks=[watchdog])
    trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert len(watchdog.memory["window"]) == 2
    saved = json.loads((tmp_path / "out" / "checkpoint-4" / "trainer_state.json").read_text())
    assert len(saved["stateful_callbacks"]["Watchdog"]["attributes"]["memory"]["window"]) == 2
