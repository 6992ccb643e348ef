import copy
import json
import math
import random
import sys

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertModel, TrainerCallback, TrainerControl, TrainerState
from trl import GRPOConfig

from hf_mgan import GeneratorEvaluator, SafetyGate, Watchdog
from hf_mgan.evaluation import evaluator as evaluator_module
from hf_mgan.data import as_completions
from hf_mgan.decoding.sampling import sample
from hf_mgan.evaluation.text_metrics import text_metrics
from hf_mgan.metrics import bleu, encoder_features, self_bleu

from ..conftest import VOCABULARY, WORDS, texts
from ..test_distributed import run_on_two_processes, save_players
from ..training.test_weight_average import ADAPTERS, Path, average, trained
from ..watchdog.test_callback import say_only


COUNT = 32
ALWAYS = {"c2st_auc", "self_bleu", "distinct_4", "duplicates", "length_ratio", "repetition"}
HELD_OUT = {"self_bleu", "distinct_4", "duplicates", "repetition"}


@pytest.fixture
def held_out():
    return Dataset.from_dict({"text": texts(COUNT, seed=5)})


@pytest.fixture
def make_evaluated(make_trainer, make_config, dataset):
    """Make a trainer that evaluates every second step on four texts, with these callbacks."""

    def make(*callbacks, config=None, **changes):
        settings = {"eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 4, **(config or {})}
        arguments = {"eval_dataset": dataset.select(range(4)), **changes}
        return make_trainer(make_config(**settings), callbacks=list(callbacks), **arguments)

    return make


@pytest.fixture
def encoder(tmp_path, pair_tokenizer):
    """A folder whose weights lack the pooler, which loading it therefore draws."""
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=48,
        initializer_range=0.3,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "encoder")
    pair_tokenizer.save_pretrained(tmp_path / "encoder")
    return str(tmp_path / "encoder")


def small(held_out, **changes):
    return GeneratorEvaluator(held_out, **{"num_samples": COUNT, **changes})


def in_its_order(held_out, seed=0):
    """Return the held-out texts in the order in which an evaluation of this seed chooses them."""
    return [held_out[place]["text"] for place in random.Random(seed).sample(range(len(held_out)), COUNT)]


def figures_of(metrics, group="samples"):
    start = f"eval_{group}/"
    return {name.removeprefix(start): value for name, value in metrics.items() if name.startswith(start)}


def logged(trainer, name="eval_samples/c2st_auc"):
    return {entry["step"]: entry[name] for entry in trainer.state.log_history if name in entry}


class Spoils(TrainerCallback):
    """Makes the generator say one word from a step on."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, model, **kwargs):
        if state.global_step == self.step:
            say_only(model, "dog")


@pytest.fixture
def drawn(monkeypatch):
    """The arguments of each call of `sample`, and what it returned."""
    calls = []

    def recorded(model, tokenizer, prompts, *args):
        samples = sample(model, tokenizer, prompts, *args)
        calls.append((prompts, args, samples, trained(model)))
        return samples

    monkeypatch.setattr(evaluator_module, "sample", recorded)
    return calls


def test_the_figures_are_those_of_samples_of_the_generator(
    make_evaluated, held_out, generator, tokenizer, encoder, dataset
):
    evaluation = small(
        held_out, temperature=0.9, max_completion_length=5, encoder=encoder, training=dataset, seed=3, batch_size=20
    )
    metrics = make_evaluated(evaluation).evaluate()
    expected = sample(generator, tokenizer, ["<s>"] * COUNT, 5, 0.9, 3, 20)
    real = [" ".join(text.split()[:5]) for text in in_its_order(held_out, 3)]
    measured = text_metrics(
        expected.texts,
        real,
        training=dataset["text"],
        features=encoder_features(encoder),
        reverse=False,
        seed=3,
    ).figures
    assert set(measured) == ALWAYS | {"encoder_c2st_auc", "mauve", "frechet", "copied_share", "near_duplicates"}
    found = figures_of(metrics)
    assert set(found) == set(measured)
    for name, value in found.items():
        assert type(value) is float
        assert value == pytest.approx(measured[name].value, abs=1e-6), name
    # What the real texts have themselves, for the figures that are neither to rise nor to fall.
    beside = figures_of(metrics, "held_out")
    assert set(beside) == HELD_OUT | {"copied_share", "near_duplicates"}
    assert beside["self_bleu"] == pytest.approx(self_bleu([text.split() for text in real], 4))
    assert beside["self_bleu"] != pytest.approx(found["self_bleu"])
    assert metrics["eval_loss"] is not None


def test_reverse_perplexity_and_other_words_are_measured_where_asked_for(
    make_evaluated, held_out, generator, tokenizer
):
    evaluation = small(held_out, reverse_perplexity=True, words=list)
    found = figures_of(make_evaluated(evaluation).evaluate())
    expected = sample(generator, tokenizer, ["<s>"] * COUNT, 8)
    measured = text_metrics(expected.texts, in_its_order(held_out), words=list).figures
    assert set(found) == ALWAYS | {"reverse_perplexity"} == set(measured)
    for name in ("reverse_perplexity", "distinct_4", "length_ratio"):
        assert found[name] == pytest.approx(measured[name].value)


class Listens(TrainerCallback):
    def __init__(self):
        self.logs, self.metrics = [], []

    def on_log(self, args, state, control, logs, **kwargs):
        if "eval_loss" in logs:
            self.logs.append(dict(logs))

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        self.metrics.append(dict(metrics))


def test_figures_are_logged_and_reach_callbacks_that_stand_before(make_evaluated, held_out):
    listener = Listens()
    trainer = make_evaluated(listener, small(held_out))
    trainer.train()
    assert list(logged(trainer)) == [2, 4]
    for seen in (*listener.logs, *listener.metrics):
        assert set(figures_of(seen)) == ALWAYS
        assert set(figures_of(seen, "held_out")) == HELD_OUT
    assert [log["eval_samples/c2st_auc"] for log in listener.logs] == [*logged(trainer).values()]
    assert len(listener.metrics) == 2


def test_the_generator_of_the_moment_writes_from_the_same_seed(make_evaluated, held_out, drawn):
    make_evaluated(small(held_out)).train()
    first, second = ([*call[2].texts] for call in drawn)
    assert first != second  # it has learnt
    drawn.clear()
    make_evaluated(small(held_out), config={"learning_rate": 0.0}).train()
    first, second = ([*call[2].texts] for call in drawn)
    assert first == second


def test_the_checkpoint_with_the_best_samples_is_kept_and_loaded(make_evaluated, held_out, tmp_path):
    best = {
        "save_strategy": "steps",
        "save_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "samples/c2st_auc",
        "greater_is_better": False,
        "max_steps": 6,
    }
    trainer = make_evaluated(small(held_out), Spoils(3), config=best)
    trainer.train()
    auc = logged(trainer)
    assert math.isfinite(auc[2])
    assert math.isnan(auc[4])  # 32 times one text: there is nothing to train a judge on
    assert trainer.state.best_metric == auc[2]
    assert trainer.state.best_model_checkpoint == str(tmp_path / "out" / "checkpoint-2")
    kept = type(trainer.model).from_pretrained(tmp_path / "out" / "checkpoint-2").state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in trainer.model.state_dict().items())


def test_a_checkpoint_is_saved_only_where_the_samples_are_better(make_evaluated, held_out, tmp_path):
    best = {
        "save_strategy": "best",
        "metric_for_best_model": "eval_samples/duplicates",
        "greater_is_better": False,
        "learning_rate": 0.0,
        "max_steps": 6,
    }
    make_evaluated(small(held_out), Spoils(3), config=best).train()
    assert [path.name for path in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-2"]


@pytest.mark.parametrize("watchdog_first", [True, False])
def test_training_stops_when_the_samples_no_longer_improve(make_evaluated, held_out, watchdog_first):
    """A generator that does not move writes the same samples: one evaluation is the best, two more are not."""
    watchdog = Watchdog(early_stopping_metric="samples/c2st_auc", early_stopping_patience=2, greater_is_better=False)
    order = [watchdog, small(held_out)] if watchdog_first else [small(held_out), watchdog]
    trainer = make_evaluated(*order, config={"learning_rate": 0.0, "max_steps": 12})
    trainer.train()
    assert trainer.state.global_step == 6
    assert [alarm.name for alarm in watchdog.alarms] == ["early_stopping"]
    assert watchdog.memory["best"] == logged(trainer)[2]


def test_samples_that_are_all_the_same_are_no_improvement_and_no_nan_of_the_training(
    make_evaluated, held_out, generator, encoder
):
    watchdog = Watchdog(early_stopping_metric="samples/c2st_auc", early_stopping_patience=1, greater_is_better=False)
    say_only(generator, "dog")
    trainer = make_evaluated(small(held_out, encoder=encoder), watchdog, config={"learning_rate": 0.0})
    trainer.train()
    assert trainer.state.global_step == 2
    assert [alarm.name for alarm in watchdog.alarms] == ["early_stopping"]
    assert math.isnan(logged(trainer, "eval_samples/encoder_c2st_auc")[2])
    assert logged(trainer, "eval_samples/duplicates") == {2: (COUNT - 1) / COUNT}


def test_the_average_of_the_weights_writes(make_evaluated, held_out, drawn):
    path = Path()
    trainer = make_evaluated(small(held_out), path, config={"ema_decay": 0.7}, **ADAPTERS)
    trainer.train()
    expected = average(path.points[:3], 0.7)
    seen = drawn[0][3]
    assert all(torch.allclose(seen[name], expected[name]) for name in expected)
    assert not any(torch.equal(path.points[2][name], expected[name]) for name in expected)


def test_training_is_the_same_bit_for_bit_with_and_without(
    make_evaluated, held_out, generator, classifier, encoder, dataset
):
    class Chance(TrainerCallback):
        """Notes the state of all random numbers after each evaluation."""

        def on_evaluate(self, args, state, control, **kwargs):
            numbers = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
            states[-1].append(numbers)

    logs, weights, states = [], [], []
    for own in ([], [small(held_out, encoder=encoder, training=dataset, reverse_perplexity=True)]):
        states.append([])
        trainer = make_evaluated(
            *own,
            Chance(),
            config={"eval_on_start": True},
            model=copy.deepcopy(generator),
            discriminator=copy.deepcopy(classifier),
        )
        trainer.train()
        ours = ("eval_samples/", "eval_held_out/")
        timed = ("runtime", "per_second", "step_time")
        logs.append(
            [
                {
                    name: value
                    for name, value in entry.items()
                    if not name.startswith(ours) and not name.endswith(timed)
                }
                for entry in trainer.state.log_history
            ]
        )
        weights.append({**trainer.model.state_dict(), **trainer.discriminator.model.state_dict()})
    assert len(states[0]) == 3
    assert states[0] == states[1]
    assert logs[0] == logs[1]
    assert sum("loss" in entry for entry in logs[0]) == 4
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_of_several_evaluation_sets_the_first_brings_the_samples(make_evaluated, held_out, dataset, drawn):
    sets = {"a": dataset.select(range(4)), "b": dataset.select(range(4, 8))}
    listener = Listens()
    watchdog = Watchdog(early_stopping_metric="samples/c2st_auc", early_stopping_patience=1, greater_is_better=False)
    trainer = make_evaluated(
        listener, watchdog, small(held_out), eval_dataset=sets, config={"learning_rate": 0.0, "max_steps": 12}
    )
    trainer.train()
    assert trainer.state.global_step == 4  # one evaluation is no improvement, as two evaluations and not as four
    assert len(drawn) == 2
    assert ["eval_a_loss" in seen for seen in listener.metrics] == [True, False] * 2
    assert ["eval_samples/c2st_auc" in seen for seen in listener.metrics] == [True, False] * 2
    metrics = trainer.evaluate()
    assert {"eval_a_loss", "eval_b_loss", "eval_samples/c2st_auc"} <= set(metrics)
    assert len(drawn) == 3


def test_predictions_are_no_evaluation(make_evaluated, held_out, drawn):
    trainer = make_evaluated(small(held_out))
    assert figures_of(trainer.predict(trainer.eval_dataset).metrics) == {}
    assert drawn == []


def test_an_evaluation_that_fails_leaves_the_next_one_its_samples(make_evaluated, held_out, monkeypatch):
    trainer = make_evaluated(small(held_out))
    step = trainer.prediction_step

    def broken(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(trainer, "prediction_step", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.evaluate()
    monkeypatch.setattr(trainer, "prediction_step", step)
    assert set(figures_of(trainer.evaluate())) == ALWAYS


def says_dog(completions):
    return ["dog" in text.split() for text in completions]


def test_the_unsafe_rate_is_that_of_the_trainers_gate(make_evaluated, held_out, drawn):
    watchdog = Watchdog(unsafe_limit=0.01)
    metrics = make_evaluated(small(held_out), watchdog, safety_gate=says_dog).evaluate()
    share = sum(says_dog(drawn[0][2].texts)) / COUNT
    assert 0 < share < 1
    assert metrics["eval_samples/unsafe_rate"] == share
    assert metrics["eval_held_out/unsafe_rate"] == sum(says_dog(in_its_order(held_out))) / COUNT


def test_a_gate_of_its_own_comes_before_the_trainers_and_is_watched(make_evaluated, held_out):
    """The trainer's finds nothing unsafe."""
    watchdog = Watchdog(unsafe_limit=0.9)
    own = small(held_out, safety=lambda completions: [1.0] * len(completions))
    trainer = make_evaluated(own, watchdog, safety_gate=lambda completions: [0.0] * len(completions))
    metrics = trainer.evaluate()
    assert metrics["eval_safety/unsafe_rate"] == 0
    assert metrics["eval_samples/unsafe_rate"] == 1
    assert [alarm.name for alarm in watchdog.alarms] == ["unsafe"]
    assert "100.0% of the completions" in watchdog.alarms[0].message


def with_prompts(count=COUNT):
    prompts = [f"<s> {WORDS[place % len(WORDS)]}" for place in range(count)]
    return Dataset.from_dict({"prompt": prompts, "completion": texts(count, seed=5)})


def test_samples_follow_their_prompts_and_are_compared_with_their_real_texts(make_evaluated, drawn, tokenizer):
    seen = []

    def judge(prompts, completions):
        seen.append((prompts, completions))
        return [0.0] * len(completions)

    rows = with_prompts()
    gate = SafetyGate(judge, with_prompt=True)
    metrics = make_evaluated(small(rows, bleu=True, safety=gate)).evaluate()
    order = random.Random(0).sample(range(COUNT), COUNT)
    prompts, references = ([rows[place][name] for place in order] for name in ("prompt", "completion"))
    assert drawn[0][0] == [tokenizer(prompt)["input_ids"] for prompt in prompts]
    samples = drawn[0][2].texts
    assert metrics["eval_samples/bleu"] == pytest.approx(bleu(samples, references).score)
    assert "eval_held_out/bleu" not in metrics
    assert seen[0] == ([prompt.removeprefix("<s> ") for prompt in prompts], samples)
    assert seen[1][1] == references


def test_conversations_are_written_out_as_in_training(make_evaluated, tokenizer, drawn):
    """The template's own argument, which makes another word of the prompt, is the trainer's."""
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['content'] }} {% endfor %}"
        "{% if add_generation_prompt %}{{ ending or 'cat' }}{% endif %}"
    )
    answers = texts(COUNT, seed=5)
    rows = Dataset.from_dict(
        {
            "messages": [
                [{"role": "user", "content": "one"}, {"role": "assistant", "content": answer}] for answer in answers
            ]
        }
    )
    trainer = make_evaluated(
        small(rows),
        train_dataset=rows,
        eval_dataset=rows.select(range(4)),
        config={"chat_template_kwargs": {"ending": "king"}},
    )
    metrics = trainer.evaluate()
    assert drawn[0][0] == [[VOCABULARY["one"], VOCABULARY["king"]]] * COUNT
    assert metrics["eval_held_out/self_bleu"] == pytest.approx(self_bleu([text.split() for text in answers], 4))


def test_prompts_are_made_as_in_training(make_evaluated, held_out, drawn, tokenizer):
    make_evaluated(small(held_out), config={"min_prompt_tokens": 1, "max_prompt_tokens": 3}).evaluate()
    starts = [tokenizer(f"<s> {text}")["input_ids"] for text in in_its_order(held_out)]
    lengths = [len(prompt) for prompt in drawn[0][0]]
    assert drawn[0][0] == [start[:length] for start, length in zip(starts, lengths, strict=True)]
    assert set(lengths) == {2, 3, 4}


def test_a_streaming_set_gives_its_first_texts(make_evaluated, held_out, drawn):
    stream = held_out.to_iterable_dataset()
    metrics = make_evaluated(small(stream, num_samples=20)).evaluate()
    assert len(drawn[0][2].texts) == 20
    first = [text.split() for text in held_out["text"][:20]]
    assert metrics["eval_held_out/self_bleu"] == pytest.approx(self_bleu(first, 4))
    with pytest.raises(ValueError, match=r"compares 33 samples .* there are 32: give more"):
        make_evaluated(small(stream, num_samples=33)).evaluate()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"held_out": ["a text"]}, TypeError, "held_out must be a Dataset or an IterableDataset, got list"),
        ({"training": ["a text"]}, TypeError, "training must be a Dataset.*got list"),
        ({"num_samples": 15}, ValueError, "num_samples must be at least 16, got 15"),
        ({"num_samples": 33}, ValueError, "compares 33 samples .* there are 32"),
        ({"max_completion_length": 0}, ValueError, "max_completion_length must be at least 1, got 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"temperature": 0.0}, ValueError, "temperature must be greater than 0 and finite, got 0.0"),
        ({"temperature": math.inf}, ValueError, "temperature must be greater than 0 and finite, got inf"),
    ],
)
def test_arguments_out_of_range_are_refused(held_out, arguments, error, message):
    with pytest.raises(error, match=message):
        small(**{"held_out": held_out, **arguments})


def test_bleu_names_the_extra_that_is_missing(held_out, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    small(held_out)
    with pytest.raises(ImportError, match=r"hf-mgan\[evaluation\]"):
        small(held_out, bleu=True)


@pytest.mark.parametrize(
    ("config", "data", "arguments", "message"),
    [
        ({"eval_strategy": "no"}, None, {}, "at every evaluation, and there are none: set eval_strategy"),
        (
            {"metric_for_best_model": "eval_samples/mauve"},
            None,
            {},
            "'eval_samples/mauve' is measured only where GeneratorEvaluator is given encoder=",
        ),
        ({"metric_for_best_model": "samples/encoder_c2st_auc"}, None, {}, "is given encoder="),
        ({"metric_for_best_model": "samples/bleu"}, None, {}, "is given bleu="),
        ({}, {"text": ["dog"] * 20 + texts(12)}, {}, "32 held-out texts, cut at 8 tokens, 13 differ"),
        (
            {},
            {"text": [f"dog {text}" for text in texts(32)]},
            {"max_completion_length": 1},
            "cut at 1 tokens, 1 differ.*or a greater max_completion_length",
        ),
        ({}, {"prompt": ["<s>"] * 32}, {}, "no `completion` column"),
        ({}, {"text": texts(32)}, {"bleu": True}, "all prompts are the same"),
    ],
)
def test_what_could_not_be_measured_is_said_before_the_first_step(
    make_evaluated, held_out, config, data, arguments, message
):
    evaluation = small(held_out if data is None else Dataset.from_dict(data), **arguments)
    trainer = make_evaluated(evaluation, config=config)
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert trainer.state.global_step == 0


def test_another_trainer_is_refused_by_its_arguments(held_out, tokenizer, tmp_path):
    args = GRPOConfig(str(tmp_path), eval_strategy="steps", eval_steps=1, use_cpu=True, bf16=False)
    with pytest.raises(TypeError, match=r"AdversarialTrainer's evaluations.*arguments are GRPOConfig"):
        small(held_out).on_train_begin(args, TrainerState(), TrainerControl(), processing_class=tokenizer)


def test_a_processor_of_more_than_text_is_refused(make_evaluated, held_out):
    trainer = make_evaluated(small(held_out))
    with pytest.raises(TypeError, match="prompts of text alone, and this generator has a object"):
        small(held_out).prepare(object(), trainer.args)


def test_two_of_them_or_one_beside_text_of_others_are_refused(make_evaluated, held_out):
    with pytest.raises(ValueError, match="There are 2 GeneratorEvaluator callbacks"):
        make_evaluated(small(held_out), small(held_out, temperature=0.5))
    with pytest.raises(ValueError, match="the generator alone has written, and tools puts text"):
        make_evaluated(small(held_out), tools=[max])


DISTRIBUTED = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from datasets import Dataset
from tests import conftest
from tests.evaluation.test_evaluator import says_dog, with_prompts
from hf_mgan import AdversarialConfig, AdversarialTrainer, GeneratorEvaluator, Watchdog
from hf_mgan.evaluation import evaluator as evaluator_module

folder, rank = Path({folder!r}), int(os.environ["RANK"])
measured = []


def watched(texts, real, measure=evaluator_module.text_metrics, **kwargs):
    measured.append([list(texts), list(real)])
    return measure(texts, real, **kwargs)


evaluator_module.text_metrics = watched
trainer = AdversarialTrainer(
    str(folder / "g"),
    discriminator=str(folder / "d"),
    train_dataset=Dataset.from_dict({{"text": conftest.texts(64)}}),
    eval_dataset=Dataset.from_dict({{"text": conftest.texts(8)}}),
    safety_gate=says_dog,
    callbacks=[
        GeneratorEvaluator(with_prompts(33), num_samples=33),
        Watchdog(early_stopping_metric="samples/c2st_auc", early_stopping_patience=2, greater_is_better=False),
    ],
    args=AdversarialConfig(
        str(folder / "out"), max_steps=12, per_device_train_batch_size=4, num_generations=4, max_completion_length=8,
        discriminator_learning_rate=1e-2, learning_rate=0.0, logging_steps=1, eval_strategy="steps", eval_steps=1,
        per_device_eval_batch_size=4, save_strategy="steps", save_steps=1, load_best_model_at_end=True,
        metric_for_best_model="samples/c2st_auc", greater_is_better=False, report_to="none", use_cpu=True,
        bf16=False, gradient_checkpointing=False, disable_tqdm=True, ddp_backend="gloo",
    ),
)
assert trainer.accelerator.num_processes == 2
trainer.train()
evaluations = [
    {{name: value for name, value in entry.items() if name.startswith(("eval_samples/", "eval_held_out/"))}}
    for entry in trainer.state.log_history if "eval_loss" in entry
]
(folder / f"seen_{{rank}}.json").write_text(json.dumps({{
    "evaluations": evaluations, "measured": measured, "step": trainer.state.global_step,
    "best": trainer.state.best_model_checkpoint,
}}))
"""


def test_two_processes_draw_a_part_each_and_decide_by_the_same_figures(
    tmp_path, generator, tokenizer, classifier, pair_tokenizer
):
    save_players(tmp_path, (generator, tokenizer), (classifier, pair_tokenizer))
    run_on_two_processes(DISTRIBUTED, tmp_path)
    first, second = (json.loads((tmp_path / f"seen_{rank}.json").read_text()) for rank in (0, 1))
    rows = with_prompts(33)
    order = random.Random(0).sample(range(33), 33)
    prompts, references = ([rows[place][name] for place in order] for name in ("prompt", "completion"))
    # 33 prompts: the first process has those at even places, the second those at odd ones and the first prompt again.
    even = sample(generator, tokenizer, prompts[::2], 8, seed=0).texts
    odd = sample(generator, tokenizer, [*prompts[1::2], prompts[0]], 8, seed=1).texts
    drawn = [text for pair in zip(even, odd, strict=True) for text in pair][:33]
    real = as_completions(references, tokenizer, 8)
    assert first["measured"] == [[drawn, real], [real, real], [drawn, real], [drawn, real]]
    assert second["measured"] == []
    assert len(first["evaluations"]) == 3
    assert set(figures_of(first["evaluations"][0])) == ALWAYS | {"unsafe_rate"}
    assert second["evaluations"] == first["evaluations"]
    assert first["step"] == second["step"] == 3
    assert first["best"] == second["best"] == str(tmp_path / "out" / "checkpoint-1")
    assert first["evaluations"][0]["eval_samples/unsafe_rate"] == sum(says_dog(drawn)) / 33
