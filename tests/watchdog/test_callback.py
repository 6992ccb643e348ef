import json
import logging
import math
import re
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState

from hf_mgan.watchdog.callback import Alarm, Watchdog, watched
from hf_mgan.watchdog.failure_modes import STEPS, WATCHED, Thresholds

from ..conftest import SPECIAL, VOCABULARY, texts


# In health the discriminator is somewhat ahead, completions are about as long and as varied as texts.
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
    "rewards/dog/mean": 0.2,
    "rewards/dog/std": 0.4,
    "completions/duplicates": 0.02,
    "references/duplicates": 0.01,
    "completions/self_bleu": 0.3,
    "references/self_bleu": 0.25,
    "completions/length_ratio": 0.95,
    "safety/unsafe_rate": 0.0,
}
# A failure mode, what it changes in the metrics, and what its message must name.
FAILURES = [
    ("discriminator_saturated", {"discriminator/accuracy": 0.99}, "0.990.*discriminator_learning_rate"),
    ("discriminator_saturated", {"discriminator/value": -0.05}, "-0.050.*discriminator_update_gating"),
    (
        "discriminator_uninformative",
        {"discriminator/accuracy": 0.5, "rewards/discriminator/std": 0.0},
        "near chance.*shuffled.*discriminator_learning_rate",
    ),
    (
        "discriminator_uninformative",
        {"discriminator/accuracy": 0.5, "discriminator/grad_norm": 0.0},
        "norm of 0.*discriminator_peft_config",
    ),
    ("generator_collapsed", {"completions/duplicates": 0.6}, "60% of the completions.*real texts: 1%.*real_text_coef"),
    ("generator_collapsed", {"completions/self_bleu": 0.8}, "0.80.*0.30.*real_text_coef"),
    ("generator_collapsed", {"entropy": 0.7}, "0.700, 4.000 at the start.*beta"),
    ("no_reward_variance", {"frac_reward_zero_std": 0.95}, "95% of the groups.*temperature"),
    ("no_reward_variance", {"reward_std": 1e-5}, "1.0e-05.*discriminator_reward"),
    ("length_runaway", {"completions/length_ratio": 1.6}, "1.60 times.*real_text_coef"),
    ("length_runaway", {"completions/length_ratio": 0.6}, "0.60 times.*max_completion_length"),
    (
        "length_hacking",
        {"completions/length_ratio": 1.18, "rewards/discriminator/length_correlation": 0.7},
        "0.70.*longer, to 1.18.*real_text_coef",
    ),
    (
        "length_hacking",
        {"completions/length_ratio": 0.84, "rewards/discriminator/length_correlation": -0.7},
        "-0.70.*shorter, to 0.84.*learning_rate",
    ),
    (
        "reward_hacking",
        {"rewards/dog/mean": 0.6, "discriminator/accuracy": 0.85},
        "dog has risen from 0.2 to 0.6.*accuracy of 0.850, 0.700 at the start.*discriminator_weight.*real_dataset",
    ),
]


ARGS = SimpleNamespace(discriminator_warmup_steps=200, discriminator_steps=1, generation_batch_size=16)


def feed(watchdog, *entries, step=0, main_process=True, args=ARGS, every=1):
    """Log an entry every so many steps, and return the names of the alarms that they raised."""
    before = len(watchdog.alarms)
    for number, entry in enumerate(entries, start=1):
        state = TrainerState(global_step=step + every * number, is_world_process_zero=main_process)
        watchdog.on_log(args, state, TrainerControl(), logs=entry)
    return [alarm.name for alarm in watchdog.alarms[before:]]


def healthy(count=10):
    return [HEALTHY] * count


def failing(changes, count=10):
    return [{**HEALTHY, **changes}] * count


@pytest.mark.parametrize(("name", "changes"), [failure[:2] for failure in FAILURES])
def test_failure_is_reported_once_until_it_has_passed(name, changes):
    watchdog = Watchdog()
    assert feed(watchdog, *healthy(20)) == []
    assert feed(watchdog, *failing(changes, 20), step=20) == [name]
    assert watchdog.alarms[0].step > 21  # one batch alone is no trouble
    assert feed(watchdog, *healthy(20), step=40) == []
    assert feed(watchdog, *failing(changes, 10), step=60) == [name]


@pytest.mark.parametrize(("name", "changes", "message"), FAILURES)
def test_alarm_names_metrics_and_what_to_change(name, changes, message):
    watchdog = Watchdog(patience=1)  # so that the means are the metrics
    feed(watchdog, *healthy(1), *failing(changes, 1))
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
        # A reward that rises while texts stay as real, texts that become less real while no reward rises, or only
        # what pays them: the discriminator itself, and safety.
        {"rewards/dog/mean": 0.9, "discriminator/accuracy": 0.75},
        {"rewards/dog/mean": 0.3, "discriminator/accuracy": 0.9},
        {"rewards/dog/mean": 0.0, "discriminator/accuracy": 0.9},
        {"rewards/discriminator/mean": 2.0, "rewards/safety/mean": 1.0, "discriminator/accuracy": 0.9},
        {"frac_reward_zero_std": 0.5},
        {"discriminator/grad_norm": 0.0},
        # Upstream writes None for a metric that no batch had.
        {"rewards/discriminator/length_correlation": None, "kl": None},
    ],
)
def test_healthy_metrics_raise_no_alarm(changes):
    watchdog = Watchdog()
    assert feed(watchdog, *healthy(), *failing(changes, 20)) == []


def test_self_bleu_is_compared_with_its_start():
    """Translations of one sentence share words: self-BLEU 0.7 at the start, where references have 0.25.

    Variety 1 - 0.7 = 0.3; half of it is 0.15, so the generator has collapsed from 0.85 on.
    """
    watchdog = Watchdog()
    assert (
        feed(watchdog, *failing({"completions/self_bleu": 0.7}, 10), *failing({"completions/self_bleu": 0.84}, 20))
        == []
    )
    assert feed(watchdog, *failing({"completions/self_bleu": 0.86}, 20)) == ["generator_collapsed"]


def test_generator_that_starts_collapsed_is_reported():
    assert feed(Watchdog(), *failing({"completions/duplicates": 0.75}, 10)) == ["generator_collapsed"]


def test_no_alarm_before_the_window_is_full():
    watchdog = Watchdog(patience=3)
    assert feed(watchdog, *failing({"discriminator/accuracy": 1.0}, 2)) == []
    assert feed(watchdog, *failing({"discriminator/accuracy": 1.0}, 1)) == ["discriminator_saturated"]


@pytest.mark.parametrize(("every", "first"), [(1, 10), (4, 12), (10, 10), (50, 50)])
def test_an_entry_counts_as_the_steps_that_it_is_a_mean_over(every, first):
    """Ten steps are one entry with TRL's `logging_steps`, and its alarms come as early as those of ten entries."""
    watchdog = Watchdog()
    assert feed(watchdog, *failing({"discriminator/accuracy": 1.0}, 60 // every), every=every)
    assert watchdog.alarms[0].step == first
    assert "accuracy of 1.00 (1.00 at the start" in watchdog.verdict(60, "out")
    feed(watchdog, *healthy(-(-20 // every)), step=100, every=every)  # twenty steps or more
    assert "which has passed" in watchdog.verdict(600, "out")


def test_means_are_over_steps_not_entries():
    """One step of 0.7 and nine of 1 have the mean 0.97; the two entries have 0.85."""
    watchdog, entries = Watchdog(), [{**HEALTHY, "discriminator/accuracy": accuracy} for accuracy in (0.7, 1.0)]
    feed(watchdog, entries[0])
    assert feed(watchdog, entries[1], step=1, every=9) == []
    assert watchdog.memory["start"]["discriminator/accuracy"] == pytest.approx(0.97)


def test_an_entry_after_a_checkpoint_counts_the_steps_since():
    watchdog = Watchdog()
    watchdog.on_train_begin(SimpleNamespace(), TrainerState(global_step=95, stateful_callbacks={}), TrainerControl())
    assert feed(watchdog, *failing({"discriminator/accuracy": 1.0}, 1), step=99) == []
    assert feed(watchdog, *failing({"discriminator/accuracy": 1.0}, 1), step=104) == ["discriminator_saturated"]


def test_failure_is_told_from_the_mean_of_the_window():
    """Accuracies 1, 1, 0.95 have the mean 0.983, above 0.98; with 0.9 it is 0.967."""
    few = [{**HEALTHY, "discriminator/accuracy": accuracy} for accuracy in (1.0, 1.0, 0.95)]
    assert feed(Watchdog(patience=3), *few) == ["discriminator_saturated"]
    few[2] = {**HEALTHY, "discriminator/accuracy": 0.9}
    assert feed(Watchdog(patience=3), *few) == []


def test_metric_that_hovers_is_reported_once():
    """Of one entry each; the failure has passed when three means in a row are without it."""
    watchdog = Watchdog(patience=3)
    long, fair = ({"completions/length_ratio": ratio} for ratio in (1.5, 0.9))
    # Means of three: 1.5, 1.3, 1.1, 1.1, 1.3.
    assert feed(watchdog, *failing(long, 3), *failing(fair, 2), *failing(long, 2)) == ["length_runaway"]
    # 1.3, 1.1, 0.9, 0.9: three in a row, and again 1.1, 1.3.
    assert feed(watchdog, *failing(fair, 4), *failing(long, 2)) == ["length_runaway"]


def test_metric_that_most_entries_lack_is_left_out():
    rare = [
        HEALTHY,
        *[{**HEALTHY, "completions/length_ratio": None}] * 2,
        *failing({"completions/length_ratio": 9.0}, 1),
    ]
    assert feed(Watchdog(patience=3), *rare) == []


def warm_up(*accuracies, every):
    """Return entries of a warm-up of 200 updates."""
    return [
        {**HEALTHY, "discriminator/accuracy": accuracy, "discriminator/warmup_step": every * number}
        for number, accuracy in enumerate(accuracies, start=1)
    ]


# The second half of the warm-up are 1,600 completions, so chance ends at 0.525.
@pytest.mark.parametrize(
    ("entries", "alarms"),
    [
        (warm_up(0.9, 0.9, 0.5, 0.54, every=50), ["discriminator_cold"]),
        (warm_up(0.5, 0.5, 0.5, 0.56, every=50), []),
        (warm_up(0.5, 0.5, 0.5, every=50), []),  # it goes on
        (warm_up(0.5, every=200), []),  # a mean over its beginning and its end says nothing of the end
    ],
)
def test_warm_up_that_ends_at_chance(entries, alarms):
    watchdog = Watchdog()
    assert feed(watchdog, *entries) == alarms
    if alarms:
        assert watchdog.alarms[0].step == len(entries)
        assert re.search("at chance .*last 1600 completions.*discriminator_warmup_steps", watchdog.alarms[0].message)


def test_several_updates_on_a_batch_count_its_texts_once():
    args = SimpleNamespace(**{**vars(ARGS), "discriminator_steps": 16})
    assert feed(Watchdog(), *warm_up(0.5, 0.55, every=100), args=args) == ["discriminator_cold"]  # 100 completions
    assert feed(Watchdog(), *warm_up(0.5, 0.61, every=100), args=args) == []


def test_cold_discriminator_that_warms_up_in_training():
    watchdog = Watchdog()
    feed(watchdog, *warm_up(0.5, 0.5, every=100))
    feed(watchdog, *failing({"discriminator/accuracy": 0.52}))
    assert "discriminator_cold since step" in watchdog.verdict(20, "out")
    feed(watchdog, *healthy(20))
    assert re.search("discriminator_cold at step 2, which has passed", watchdog.verdict(40, "out"))


def test_window_leaves_evaluations_and_warm_up_out():
    blind = {"discriminator/accuracy": 0.5, "rewards/discriminator/std": 0.0, "discriminator/value": -1.386}
    warmup = [{**HEALTHY, **blind, "discriminator/warmup_step": step} for step in range(1, 20)]
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
def test_non_finite_metric_is_reported_at_once(entry, parts):
    watchdog = Watchdog()
    assert feed(watchdog, entry) == ["non_finite"]
    assert_matches(watchdog.alarms[0].message, parts)
    assert feed(watchdog, entry) == []


def test_non_finite_metrics_stay_out_of_the_means():
    watchdog = Watchdog(patience=4)
    feed(watchdog, *failing({"entropy": math.nan}, 1), *healthy(3))
    assert watchdog.memory["start"]["entropy"] == 4.0


def test_unsafe_rate_above_its_limit_is_reported():
    unsafe = failing({"safety/unsafe_rate": 0.2}, 2)
    assert feed(Watchdog(), *unsafe) == []
    assert feed(Watchdog(unsafe_limit=0.2), *unsafe) == []
    watchdog = Watchdog(unsafe_limit=0.1)
    assert feed(watchdog, *unsafe) == ["unsafe"]
    assert_matches(watchdog.alarms[0].message, "20.0%.*unsafe_limit=10.0%.*SafetyGate")


def test_failure_of_evaluations_outlasts_training_entries():
    watchdog = Watchdog(unsafe_limit=0.1)
    assert feed(watchdog, {"eval_safety/unsafe_rate": 0.5}, HEALTHY, {"eval_safety/unsafe_rate": 0.5}) == ["unsafe"]
    assert feed(watchdog, {"eval_safety/unsafe_rate": 0.0}, {"eval_safety/unsafe_rate": 0.5}) == ["unsafe"]


def test_greater_of_two_unsafe_rates_counts():
    rates = {"eval_safety/unsafe_rate": 0.0, "eval_samples/unsafe_rate": 0.3}
    watchdog = Watchdog(unsafe_limit=0.1)
    assert feed(watchdog, rates) == ["unsafe"]
    assert_matches(watchdog.alarms[0].message, "30.0% of the completions")
    assert feed(Watchdog(unsafe_limit=0.1), {**rates, "eval_samples/unsafe_rate": 0.0}) == []


def test_nan_of_samples_is_no_alarm():
    assert feed(Watchdog(), {"eval_samples/c2st_auc": math.nan, "eval_reward": 0.5}) == []
    assert feed(Watchdog(), {"eval_samples/c2st_auc": math.nan, "eval_reward": math.nan}) == ["non_finite"]


def test_thresholds_are_the_users():
    rest = failing({"completions/length_ratio": 1.15}, 10)
    assert feed(Watchdog(), *rest) == []
    assert feed(Watchdog(thresholds={"length_tolerance": 0.1}), *rest) == ["length_runaway"]
    assert feed(Watchdog(thresholds=Thresholds(length_tolerance=0.1)), *rest) == ["length_runaway"]


def test_warnings_come_from_the_main_process_alone(caplog):
    entry = {**HEALTHY, "kl": math.inf}
    with caplog.at_level(logging.WARNING, logger="hf_mgan.watchdog.callback"):
        other = Watchdog()
        assert feed(other, entry, main_process=False) == ["non_finite"]
        assert caplog.text == ""
        main = Watchdog()
        feed(main, entry, step=6)
    assert "Step 7, non_finite: kl is inf" in caplog.text
    assert main.alarms == [Alarm(7, "non_finite", other.alarms[0].message)]


def curve(*points, num_entries=100):
    """Return a metric that goes in straight lines from point to point, at equal distances."""
    places = torch.linspace(0, len(points) - 1, num_entries)
    values = torch.tensor(points)
    before = places.long().clamp(max=len(points) - 2)
    return torch.lerp(values[before], values[before + 1], places - before).tolist()


def run_of(**curves):
    """Return the log of a run, healthy but for these metrics; `__` stands for the `/` of a name."""
    names = {name.replace("__", "/"): values for name, values in curves.items()}
    return [{**HEALTHY, **dict(zip(names, row, strict=True))} for row in zip(*names.values(), strict=True)]


def noisy(values, size, seed=0):
    noise = torch.rand(len(values), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return (torch.tensor(values) + size * noise).tolist()


def test_run_with_anchors_raises_no_alarm():
    """Length within 1.15, a discriminator that is ahead and comes back, an entropy that halves."""
    entries = run_of(
        completions__length_ratio=noisy(curve(0.85, 1.0, 1.15, 1.05), 0.02),
        discriminator__accuracy=noisy(curve(0.65, 0.9, 0.75, 0.65), 0.05),
        entropy=curve(4.0, 3.0, 2.5, 2.0),
        completions__self_bleu=noisy(curve(0.25, 0.35, 0.4), 0.05),
    )
    assert feed(Watchdog(), *entries) == []


def test_run_whose_length_swings_raises_length_alarms_alone():
    """Without anchors completions get up to 1.9 times as long as real texts, and then 0.7 times."""
    entries = run_of(
        completions__length_ratio=noisy(curve(1.0, 1.9, 1.0, 0.7), 0.05),
        discriminator__accuracy=noisy(curve(0.65, 0.9, 0.7, 0.8), 0.05),
        entropy=curve(4.0, 3.0, 2.5, 2.0),
    )
    # In between the length is that of real texts for as many means as end the first alarm.
    assert feed(Watchdog(), *entries) == ["length_runaway"] * 2


def test_run_near_the_length_tolerance_is_the_users():
    """Sentences that end at 0.79 to 0.82 times the length of the language's."""
    entries = run_of(completions__length_ratio=curve(1.0, 0.85, 0.79, 0.79))
    assert feed(Watchdog(), *entries) == ["length_runaway"]
    assert feed(Watchdog(thresholds={"length_tolerance": 0.25}), *entries) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patience": 0}, "patience must be .* got 0"),
        ({"unsafe_limit": 1.5}, "unsafe_limit .* got 1.5"),
        ({"thresholds": {"variety_share": 2}}, "variety_share in thresholds must be .* got 2"),
        ({"thresholds": {"saturated_value": 0.5}}, "saturated_value in thresholds must be .* got 0.5"),
        ({"thresholds": {"informative_std": -1.0}}, "informative_std in thresholds must be .* got -1"),
        ({"thresholds": {"length_tolerance": 1.8}}, "length_tolerance in thresholds must be .* got 1.8"),
    ],
)
def test_watchdog_refuses_values_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        Watchdog(**arguments)


def through_json(watchdog):
    return json.loads(json.dumps(watchdog.state()))


def test_state_survives_a_round_trip():
    first = Watchdog(patience=4, thresholds={"length_tolerance": 0.5}, unsafe_limit=0.1)
    saturated = failing({"discriminator/accuracy": 1.0, "discriminator/value": -0.01}, 4)
    feed(first, *healthy(2), *saturated)
    assert [alarm.name for alarm in first.alarms] == ["discriminator_saturated"]
    second = Watchdog.from_state(through_json(first))
    assert second.state() == first.state()
    assert second.alarms == first.alarms
    before = first.state()
    assert feed(first, *healthy(1)) == []
    assert before != first.state()  # what was handed out stays as it was
    assert feed(second, *saturated) == []  # the counts go on: a failure that lasts is not news


@pytest.mark.parametrize("beside", [False, True])
def test_on_train_begin_restores_the_counts(beside):
    """The state of a run with two watchdogs is a list, in which each finds its own."""
    stored = through_json(Watchdog(patience=3))
    feed(old := Watchdog(), *healthy(9))
    state = TrainerState(stateful_callbacks={"Watchdog": [through_json(old), stored] if beside else through_json(old)})
    watchdog = Watchdog()
    watchdog.on_train_begin(SimpleNamespace(), state, TrainerControl())
    assert len(watchdog.memory["window"]) == 9


def test_on_train_begin_without_a_stored_watchdog():
    """The trainer looks its callbacks up in the state when it saves the next checkpoint."""
    state = TrainerState(stateful_callbacks={})
    Watchdog().on_train_begin(SimpleNamespace(), state, TrainerControl())
    assert state.stateful_callbacks["Watchdog"]["attributes"]["memory"]["alarms"] == []


def test_watched_adds_a_watchdog_where_there_is_none():
    other, own = TrainerCallback(), Watchdog(patience=3)
    given = [other]
    assert [type(callback) for callback in watched(given)] == [TrainerCallback, Watchdog]
    assert given == [other]
    assert [type(callback) for callback in watched(None)] == [Watchdog]
    assert watched([other, own]) == [other, own]
    assert watched([Watchdog]) == [Watchdog]  # upstream takes classes too


# From here on the failures are real ones of tiny runs.


def alarms_of_a_run(make_trainer, make_config, watchdog, steps=6, config=None, **changes):
    """Train and return the names of the alarms that were raised."""
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
    """Train a discriminator beforehand."""
    batch = tokenizer([*real, *fake], padding=True, return_tensors="pt")
    labels = torch.tensor([1.0] * len(real) + [0.0] * len(fake))
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-2)
    for _ in range(steps):
        logits = classifier(**batch).logits[:, 0]
        torch.nn.functional.binary_cross_entropy_with_logits(logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    return classifier


def test_run_on_own_samples_raises_no_alarm(make_trainer, make_config, generator, tokenizer):
    torch.manual_seed(0)
    start = torch.full((256, 1), tokenizer.bos_token_id)
    ids = generator.generate(
        start, attention_mask=torch.ones_like(start), do_sample=True, top_k=0, max_new_tokens=8, pad_token_id=0
    )
    samples = Dataset.from_dict({"text": [text for text in tokenizer.batch_decode(ids[:, 1:], True) if text]})
    slow = {"learning_rate": 1e-4, "discriminator_learning_rate": 1e-3, "per_device_train_batch_size": 32}
    watchdog = Watchdog()
    assert alarms_of_a_run(make_trainer, make_config, watchdog, 15, slow, train_dataset=samples) == set()
    assert set(watchdog.memory["window"][-1]) == {STEPS, *WATCHED}  # all that is watched was there


def test_run_with_a_fast_discriminator_is_reported(make_trainer, make_config):
    fast = {"discriminator_learning_rate": 1e-2, "learning_rate": 0.0}
    watchdog = Watchdog(patience=4)
    found = alarms_of_a_run(make_trainer, make_config, watchdog, 8, fast, train_dataset=texts_of_one_kind())
    assert "discriminator_saturated" in found


def test_run_with_a_frozen_discriminator_is_reported(make_trainer, make_config, classifier):
    with torch.no_grad():
        classifier.classifier.weight.zero_()
        classifier.classifier.bias.zero_()
    frozen = {"discriminator_learning_rate": 0.0}
    found = alarms_of_a_run(make_trainer, make_config, Watchdog(patience=3), 4, frozen, discriminator=classifier)
    assert found == {"discriminator_uninformative", "no_reward_variance"}


def test_run_with_a_collapsed_generator_is_reported(make_trainer, make_config, generator):
    watchdog = Watchdog(patience=3)
    found = alarms_of_a_run(make_trainer, make_config, watchdog, 3, model=say_only(generator, "dog")) - {
        "length_runaway"
    }
    assert found == {"generator_collapsed", "no_reward_variance"}
    assert "94% of the completions" in watchdog.alarms[0].message  # 15 of 16


def test_run_of_endless_completions_is_reported(make_trainer, make_config, generator):
    short = {"model": never_end(generator), "train_dataset": Dataset.from_dict({"text": texts(64, length=2)})}
    assert alarms_of_a_run(make_trainer, make_config, Watchdog(patience=3), 3, **short) == {"length_runaway"}


def test_run_with_a_reward_for_shortness_is_reported(make_trainer, make_config, classifier, pair_tokenizer):
    shorter = taught(classifier, pair_tokenizer, real=texts(64, length=2), fake=texts(64, length=7))
    watchdog = Watchdog(patience=3)
    found = alarms_of_a_run(
        make_trainer,
        make_config,
        watchdog,
        15,
        {"discriminator_learning_rate": 0.0, "learning_rate": 3e-3},
        discriminator=shorter,
        train_dataset=Dataset.from_dict({"text": texts(64, length=4)}),
    )
    assert "length_hacking" in found
    assert "have got shorter" in next(alarm.message for alarm in watchdog.alarms if alarm.name == "length_hacking")


def test_evaluation_with_an_infinite_reward_is_reported(make_trainer, make_config):
    def boundless(completions, **_):
        return [math.inf] * len(completions)

    watchdog, held_out = Watchdog(), Dataset.from_dict({"text": texts(4)})
    make_trainer(make_config(), callbacks=[watchdog], reward_funcs=[boundless], eval_dataset=held_out).evaluate()
    assert [alarm.name for alarm in watchdog.alarms] == ["non_finite"]
    assert_matches(watchdog.alarms[0].message, "rewards/boundless/mean is inf.*check the reward function boundless")


def test_evaluation_with_nan_logits_is_reported(make_trainer, make_config, classifier):
    watchdog = Watchdog()
    trainer = make_trainer(make_config(), callbacks=[watchdog], eval_dataset=Dataset.from_dict({"text": texts(4)}))
    with torch.no_grad():
        classifier.classifier.bias.fill_(math.nan)
    trainer.evaluate()
    assert [alarm.name for alarm in watchdog.alarms] == ["non_finite"]
    assert "discriminator/value is nan" in watchdog.alarms[0].message


def test_run_with_unsafe_completions_is_reported(make_trainer, make_config, generator):
    found = alarms_of_a_run(
        make_trainer,
        make_config,
        Watchdog(unsafe_limit=0.5),
        1,
        model=say_only(generator, "dog"),
        safety_gate=lambda completions: ["dog" in text for text in completions],
    )
    assert found == {"unsafe"}


@pytest.mark.parametrize("restored_by_transformers", [False, True])
def test_resumed_run_goes_on_with_the_counts(make_trainer, make_config, tmp_path, restored_by_transformers):
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


def test_resumed_run_saved_without_a_watchdog(make_trainer, make_config, tmp_path):
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
