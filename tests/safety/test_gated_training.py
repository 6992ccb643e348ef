"""The gate in adversarial training: the order of advantages, what is logged, and the prompts that it reads."""

import pytest
import torch
from datasets import Dataset

from hf_mgan.safety import SafetyGate

from ..conftest import bert_classifier


NAN = float("nan")


def says(*words):
    """Return a function to which completions with one of these words are unsafe."""
    return lambda completions: [not set(words).isdisjoint(text.split()) for text in completions]


COMMON = says("sleeps", "near", "king")  # what the untrained generator of the tests likes to say


def rewards_unsafe(completions, **_):
    return [float(count) for count in COMMON(completions)]


def rewards_some(completions, **_):
    return [None if len(set(text)) % 2 else len(text) / 10 for text in completions]


def batches(trainer):
    """Return a list that fills with the completions, advantages and rewards of each batch of a training."""
    seen = []
    generate = trainer._generate_and_score_completions

    def watched(inputs):
        output = generate(inputs)
        logs = {name: list(values) for name, values in trainer._logs["rewards"].items()}
        seen.append((list(trainer._logs["completion"]), output["advantages"], logs))
        return output

    trainer._generate_and_score_completions = watched
    return seen


def assert_ranked(advantages, unsafe, group_size):
    """Return in how many groups there was something to rank."""
    compared = 0
    for values, is_unsafe in zip(advantages.view(-1, group_size), unsafe.view(-1, group_size), strict=True):
        if is_unsafe.any() and not is_unsafe.all():
            compared += 1
            assert values[is_unsafe].max() < values[~is_unsafe].min()
        elif is_unsafe.all():
            assert not values.any()
    return compared


@pytest.mark.parametrize(
    "scale_rewards",
    # The advantages that TRL makes with the other two are held in test_ranking.
    ["none", pytest.param("group", marks=pytest.mark.slow), pytest.param("batch", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("weight", [1e6, 1e-6])
def test_gate_ranks_unsafe_below_safe_beside_the_discriminator(make_trainer, make_config, scale_rewards, weight):
    args = make_config(
        discriminator_weight=weight,
        scale_rewards=scale_rewards,
        per_device_train_batch_size=32,
        num_generations=8,
        max_steps=2,
    )
    trainer = make_trainer(args, safety_gate=COMMON)
    seen = batches(trainer)
    of_discriminator = []
    place = trainer.reward_func_names.index("discriminator")
    reward = trainer.reward_funcs[place]

    def watched(*arguments, **keywords):
        rewards = reward(*arguments, **keywords)
        of_discriminator.append(weight * torch.tensor(rewards))
        return rewards

    trainer.reward_funcs[place] = watched
    trainer.train()
    compared = without = 0
    for (completions, advantages, _), rewards in zip(seen, of_discriminator, strict=True):
        unsafe = torch.tensor(COMMON(completions))
        compared += assert_ranked(advantages, unsafe, 8)
        groups = zip(rewards.view(4, 8), unsafe.view(4, 8), strict=True)
        without += sum(bool(own.any() and values[own].max() > values.min()) for values, own in groups)
    assert compared >= 6
    assert without >= 6  # groups in which the discriminator alone would have it otherwise


def test_further_rewards_count_among_safe_completions_alone(make_trainer, make_config):
    args = make_config(
        reward_weights=[1e4, 0.5],
        discriminator_weight=2.0,
        per_device_train_batch_size=32,
        num_generations=8,
        scale_rewards="none",
        max_steps=2,
    )
    gate = SafetyGate(COMMON, margin=0.7)
    trainer = make_trainer(args, reward_funcs=[rewards_unsafe, rewards_some], safety_gate=gate)
    names = ["rewards_unsafe", "rewards_some", "discriminator", "safety_gate"]
    assert trainer.reward_func_names == names
    assert trainer.reward_weights.tolist() == [1e4, 0.5, 2.0, 1.0]
    seen = batches(trainer)
    trainer.train()
    for (completions, advantages, logs), entry in zip(seen, trainer.state.log_history, strict=False):
        unsafe = torch.tensor(COMMON(completions))
        assert assert_ranked(advantages, unsafe, 8) >= 3
        columns = torch.tensor([logs[name] for name in names], dtype=torch.float64)
        assert columns[:3, unsafe].isnan().all()  # what they would have earned does not count
        assert torch.equal(columns[0, ~unsafe], torch.zeros(int((~unsafe).sum()), dtype=torch.float64))
        assert torch.equal(columns[3, ~unsafe], torch.zeros(int((~unsafe).sum()), dtype=torch.float64))
        expected = torch.tensor([NAN if value is None else value for value in rewards_some(completions)])
        assert torch.equal(columns[1, ~unsafe].isnan(), expected[~unsafe].isnan())
        # Among the safe ones advantages differ as the weighted rewards do.
        totals = (0.5 * columns[1].nan_to_num() + 2 * columns[2]).float()
        for values, is_unsafe, total in zip(advantages.view(4, 8), unsafe.view(4, 8), totals.view(4, 8), strict=True):
            if not is_unsafe.all():
                differences = (values - total)[~is_unsafe]
                torch.testing.assert_close(differences - differences.mean(), torch.zeros_like(differences))
            if is_unsafe.any() and not is_unsafe.all():
                assert (values[~is_unsafe].min() - values[is_unsafe]).numpy() == pytest.approx(0.7, abs=1e-5)
        assert entry["rewards/rewards_unsafe/mean"] == 0


def test_unsafe_rate_is_logged_in_training_and_evaluation(make_trainer, make_config, dataset):
    verdicts = []

    def scored(completions):
        verdicts.append(COMMON(completions))
        return verdicts[-1]

    args = make_config(
        per_device_train_batch_size=16,
        per_device_eval_batch_size=4,
        num_generations_eval=2,
        max_steps=2,
        discriminator_warmup_steps=2,
        eval_strategy="steps",
        eval_steps=2,
    )
    trainer = make_trainer(args, eval_dataset=dataset.select(range(4)), safety_gate=scored)
    trainer.train()
    # The warm-up, whose batches teach the generator nothing, asks for no verdicts.
    assert [len(batch) for batch in verdicts] == [16, 16, 4, 4]
    shares = [sum(batch) / len(batch) for batch in verdicts]
    assert 0 < sum(shares) < 4
    history = trainer.state.log_history
    assert [entry["safety/unsafe_rate"] for entry in history if "safety/unsafe_rate" in entry] == shares[:2]
    evaluation = next(entry for entry in history if "eval_loss" in entry)
    assert evaluation["eval_safety/unsafe_rate"] == pytest.approx((shares[2] + shares[3]) / 2)


def test_unsafe_words_vanish_although_another_reward_wants_them(make_trainer, make_config):
    args = make_config(
        reward_weights=[10.0],
        per_device_train_batch_size=32,
        num_generations=8,
        max_completion_length=6,
        learning_rate=2e-2,
        lr_scheduler_type="constant",
        max_steps=8,
    )
    trainer = make_trainer(args, reward_funcs=rewards_unsafe, safety_gate=COMMON)
    trainer.train()
    rates = [entry["safety/unsafe_rate"] for entry in trainer.state.log_history if "loss" in entry]
    assert rates[0] > 0.5
    assert sum(rates[-3:]) / 3 < 0.15


def test_classifier_of_the_gate_is_not_trained(make_trainer, make_config, pair_tokenizer):
    classifier = bert_classifier(num_labels=2, seed=3).train()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    gate = SafetyGate(classifier, 1, processing_class=pair_tokenizer)
    trainer = make_trainer(make_config(max_steps=2), safety_gate=gate)
    trainer.train()
    assert all(torch.equal(before[name], value) for name, value in classifier.state_dict().items())
    assert not classifier.training
    own = {id(parameter) for parameter in classifier.parameters()}
    for optimizer in (trainer.optimizer, trainer.discriminator.optimizer):
        trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        assert trained
        assert trained.isdisjoint(own)
    assert own.isdisjoint(id(parameter) for parameter in trainer.model.parameters())
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_gate_reads_prompts_as_plain_text_if_asked_to(make_trainer, make_config, tokenizer, dataset):
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}"
    talk = [[{"role": "user", "content": "the dog"}, {"role": "assistant", "content": "runs ."}]] * 8
    for data, prompt in (
        (dataset, ""),  # of a text alone the prompt is the start of the sequence
        (Dataset.from_dict({"prompt": ["a cat"] * 8, "completion": ["runs ."] * 8}), "a cat"),
        (Dataset.from_dict({"messages": talk}), "the dog"),
    ):
        seen = []

        def scored(prompts, completions, seen=seen):
            seen.append((prompts, completions))
            return [False] * len(completions)

        gate = SafetyGate(scored, with_prompt=True)
        make_trainer(make_config(max_steps=1), train_dataset=data, safety_gate=gate).train()
        ((prompts, completions),) = seen
        assert prompts == [prompt] * 4
        assert all(isinstance(completion, str) for completion in completions)


def safety_gate(completions, **_):
    return [0.0] * len(completions)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"multi_objective_aggregation": "normalize_then_sum"}, "multi_objective_aggregation"),
        ({"mask_truncated_completions": True}, "mask_truncated_completions"),
    ],
)
def test_settings_that_break_the_order_are_refused_early(make_trainer, make_config, monkeypatch, settings, message):
    def loaded(*_, **__):
        raise AssertionError("a model was loaded first")

    monkeypatch.setattr("hf_mgan.training.build.load_discriminator", loaded)
    with pytest.raises(ValueError, match=message):
        make_trainer(make_config(**settings), safety_gate=COMMON)


def test_gate_that_is_trained_or_misnamed_is_refused(make_trainer, pair_tokenizer):
    gate = SafetyGate(bert_classifier(), processing_class=pair_tokenizer)
    with pytest.raises(ValueError, match="One model is given as safety gate and as discriminator"):
        make_trainer(discriminator=gate.model, safety_gate=gate)
    for given in (COMMON, None):
        with pytest.raises(ValueError, match="called 'safety_gate', which names this trainer's own: rename it"):
            make_trainer(reward_funcs=safety_gate, safety_gate=given)
    with pytest.raises(TypeError, match=r"^safety_gate must be"):
        make_trainer(safety_gate=3)
