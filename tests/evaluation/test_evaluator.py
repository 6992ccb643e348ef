import copy
import json
import math
import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertModel, EarlyStoppingCallback, TrainerCallback

from hf_mgan import GeneratorEvaluator, SafetyGate, Watchdog
from hf_mgan.data import TextPath, inspected
from hf_mgan.data.text_path import with_boundary
from hf_mgan.decoding.sampling import sample
from hf_mgan.evaluation import evaluator as evaluator_module
from hf_mgan.evaluation.text_metrics import text_metrics
from hf_mgan.metrics import bleu, encoder_features, self_bleu

from ..conftest import VOCABULARY, WORDS, texts
from ..test_distributed import run_on_two_processes, save_models
from ..watchdog.test_callback import say_only


COUNT = 32
ALWAYS = {"c2st_auc", "self_bleu", "distinct_4", "duplicates", "length_ratio", "repetition"}
HELD_OUT = {"self_bleu", "distinct_4", "duplicates", "repetition"}


@pytest.fixture
def held_out():
    return Dataset.from_dict({"text": texts(COUNT, seed=5)})


@pytest.fixture
def make_evaluated(make_trainer, make_config, dataset):
    """Make a trainer that evaluates every second step on four texts, with this evaluator."""

    def make(evaluator, *callbacks, config=None, **changes):
        settings = {"eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 4, **(config or {})}
        arguments = {"eval_dataset": dataset.select(range(4)), **changes}
        return make_trainer(make_config(**settings), evaluator=evaluator, callbacks=list(callbacks), **arguments)

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
    """Return the held-out texts in the order in which an evaluator of this seed chooses them."""
    return [held_out[place]["text"] for place in random.Random(seed).sample(range(len(held_out)), COUNT)]


def metrics_of(metrics, group="samples"):
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
        calls.append((prompts, args, samples))
        return samples

    monkeypatch.setattr(evaluator_module, "sample", recorded)
    return calls


def test_evaluator_metrics_are_those_of_its_samples(make_evaluated, held_out, generator, tokenizer, encoder, dataset):
    evaluator = small(
        held_out, temperature=0.9, max_completion_length=5, encoder=encoder, training=dataset, seed=3, batch_size=20
    )
    metrics = make_evaluated(evaluator).evaluate()
    expected = sample(generator, tokenizer, ["<s>"] * COUNT, 5, 0.9, 3, 20)
    real = [" ".join(text.split()[:5]) for text in in_its_order(held_out, 3)]
    measured = text_metrics(
        expected.texts,
        real,
        training=dataset["text"],
        features=encoder_features(encoder),
        reverse=False,
        seed=3,
    ).metrics
    assert set(measured) == ALWAYS | {"encoder_c2st_auc", "mauve", "frechet", "copied_share", "near_duplicates"}
    found = metrics_of(metrics)
    assert set(found) == set(measured)
    for name, value in found.items():
        assert type(value) is float
        assert value == pytest.approx(measured[name].value, abs=1e-6), name
    # What the real texts have themselves, for the metrics that are neither to rise nor to fall.
    beside = metrics_of(metrics, "held_out")
    assert set(beside) == HELD_OUT | {"copied_share", "near_duplicates"}
    assert beside["self_bleu"] == pytest.approx(self_bleu([text.split() for text in real], 4))
    assert beside["self_bleu"] != pytest.approx(found["self_bleu"])
    assert metrics["eval_loss"] is not None


def test_evaluator_with_reverse_perplexity_and_characters(make_evaluated, held_out, generator, tokenizer):
    evaluator = small(held_out, reverse_perplexity=True)
    found = metrics_of(make_evaluated(evaluator, config={"unit": "character"}).evaluate())
    expected = sample(generator, tokenizer, ["<s>"] * COUNT, 8)
    measured = text_metrics(expected.texts, in_its_order(held_out), unit="character").metrics
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


def test_evaluator_metrics_are_logged_and_reach_callbacks(make_evaluated, held_out):
    listener = Listens()
    trainer = make_evaluated(small(held_out), listener)
    trainer.train()
    assert list(logged(trainer)) == [2, 4]
    for seen in (*listener.logs, *listener.metrics):
        assert set(metrics_of(seen)) == ALWAYS
        assert set(metrics_of(seen, "held_out")) == HELD_OUT
    assert [log["eval_samples/c2st_auc"] for log in listener.logs] == [*logged(trainer).values()]
    assert len(listener.metrics) == 2


def test_evaluator_draws_from_the_current_generator(held_out, make_config, generator, tokenizer, drawn):
    """From the same seed: the same generator writes the same samples, and another one others."""
    evaluator = small(held_out)
    evaluator.prepare(tokenizer, make_config(eval_strategy="steps", eval_steps=1))
    first, again = evaluator(generator), evaluator(generator)
    assert first == again
    with torch.no_grad():
        generator.transformer.wte.weight.normal_()
    assert evaluator(generator) != first
    assert drawn[0][2].texts == drawn[1][2].texts != drawn[2][2].texts


@pytest.mark.slow  # that the samples are those of the generator as it stands is held by the two tests above
def test_evaluator_draws_anew_in_training(make_evaluated, held_out, drawn):
    make_evaluated(small(held_out)).train()
    first, second = ([*call[2].texts] for call in drawn)
    assert first != second  # it has learnt
    drawn.clear()
    make_evaluated(small(held_out), config={"learning_rate": 0.0}).train()
    first, second = ([*call[2].texts] for call in drawn)
    assert first == second


def test_evaluator_chooses_the_best_checkpoint(make_evaluated, held_out, tmp_path):
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
    assert math.isnan(auc[4])  # 32 times one text: there is nothing to train a classifier on
    assert trainer.state.best_metric == auc[2]
    assert trainer.state.best_model_checkpoint == str(tmp_path / "out" / "checkpoint-2")
    kept = type(trainer.model).from_pretrained(tmp_path / "out" / "checkpoint-2").state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in trainer.model.state_dict().items())


@pytest.mark.slow  # that its metrics choose a checkpoint is held above
def test_evaluator_with_save_strategy_best(make_evaluated, held_out, tmp_path):
    best = {
        "save_strategy": "best",
        "metric_for_best_model": "eval_samples/duplicates",
        "greater_is_better": False,
        "learning_rate": 0.0,
        "max_steps": 6,
    }
    make_evaluated(small(held_out), Spoils(3), config=best).train()
    assert [path.name for path in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-2"]


STOPS = {
    "learning_rate": 0.0,
    "max_steps": 12,
    "save_strategy": "steps",
    "save_steps": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": GeneratorEvaluator.primary_metric,
    "greater_is_better": GeneratorEvaluator.greater_is_better,
}


def test_evaluator_stops_training_without_improvement(make_evaluated, held_out):
    """A generator that does not move writes the same samples: one evaluation is the best, two more are not."""
    trainer = make_evaluated(small(held_out), EarlyStoppingCallback(2), config=STOPS)
    trainer.train()
    assert trainer.state.global_step == 6
    assert trainer.state.best_metric == logged(trainer)[2]


def test_evaluator_of_one_text_over_and_over_is_nan(make_evaluated, held_out, generator, encoder):
    """It is no improvement, and no nan of the training."""
    say_only(generator, "dog")
    trainer = make_evaluated(small(held_out, encoder=encoder), config={"learning_rate": 0.0})
    trainer.train()
    assert trainer.state.global_step == 4
    assert all(math.isnan(logged(trainer)[step]) for step in (2, 4))
    assert math.isnan(logged(trainer, "eval_samples/encoder_c2st_auc")[2])
    assert logged(trainer, "eval_samples/duplicates")[2] == (COUNT - 1) / COUNT


def test_training_is_bitwise_equal_with_an_evaluator(
    make_evaluated, held_out, generator, classifier, encoder, dataset
):
    class Chance(TrainerCallback):
        """Notes the state of all random numbers after each evaluation."""

        def on_evaluate(self, args, state, control, **kwargs):
            numbers = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
            states[-1].append(numbers)

    logs, weights, states = [], [], []
    for own in (None, small(held_out, encoder=encoder, training=dataset, reverse_perplexity=True)):
        states.append([])
        trainer = make_evaluated(
            own,
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


def test_evaluator_runs_with_the_first_of_several_sets(make_evaluated, held_out, dataset, drawn):
    sets = {"a": dataset.select(range(4)), "b": dataset.select(range(4, 8))}
    listener = Listens()
    trainer = make_evaluated(small(held_out), listener, eval_dataset=sets)
    trainer.train()
    assert len(drawn) == 2
    assert ["eval_a_loss" in seen for seen in listener.metrics] == [True, False] * 2
    assert ["eval_samples/c2st_auc" in seen for seen in listener.metrics] == [True, False] * 2
    metrics = trainer.evaluate()
    assert {"eval_a_loss", "eval_b_loss", "eval_samples/c2st_auc"} <= set(metrics)
    assert len(drawn) == 3


def test_evaluator_does_not_run_in_predict(make_evaluated, held_out, drawn):
    trainer = make_evaluated(small(held_out))
    assert metrics_of(trainer.predict(trainer.eval_dataset).metrics) == {}
    assert drawn == []


def test_evaluator_runs_again_after_a_failed_evaluation(make_evaluated, held_out, monkeypatch):
    trainer = make_evaluated(small(held_out))
    step = trainer.prediction_step

    def broken(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(trainer, "prediction_step", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.evaluate()
    monkeypatch.setattr(trainer, "prediction_step", step)
    assert set(metrics_of(trainer.evaluate())) == ALWAYS


def says_dog(completions):
    return ["dog" in text.split() for text in completions]


def test_evaluator_unsafe_rate_is_the_trainers_gate(make_evaluated, held_out, drawn):
    watchdog = Watchdog(unsafe_limit=0.01)
    metrics = make_evaluated(small(held_out), watchdog, safety_gate=says_dog).evaluate()
    share = sum(says_dog(drawn[0][2].texts)) / COUNT
    assert 0 < share < 1
    assert metrics["eval_samples/unsafe_rate"] == share
    assert metrics["eval_held_out/unsafe_rate"] == sum(says_dog(in_its_order(held_out))) / COUNT


def test_evaluator_own_gate_comes_before_the_trainers(make_evaluated, held_out):
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


def test_evaluator_samples_follow_their_prompts(make_evaluated, drawn, tokenizer):
    seen = []

    def classify(prompts, completions):
        seen.append((prompts, completions))
        return [0.0] * len(completions)

    rows = with_prompts()
    gate = SafetyGate(classify, with_prompt=True)
    metrics = make_evaluated(small(rows, bleu=True, safety=gate)).evaluate()
    order = random.Random(0).sample(range(COUNT), COUNT)
    prompts, references = ([rows[place][name] for place in order] for name in ("prompt", "completion"))
    assert drawn[0][0] == [tokenizer(prompt)["input_ids"] for prompt in prompts]
    samples = [text.lstrip() for text in drawn[0][2].texts]  # as the references begin
    assert metrics["eval_samples/bleu"] == pytest.approx(bleu(samples, references).score)
    assert "eval_held_out/bleu" not in metrics
    assert seen[0] == ([prompt.removeprefix("<s> ") for prompt in prompts], samples)
    assert seen[1][1] == references


def test_evaluator_encodes_conversations_as_in_training(make_evaluated, tokenizer, drawn):
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


def test_evaluator_makes_prompts_as_in_training(make_evaluated, held_out, drawn, tokenizer):
    make_evaluated(small(held_out), config={"min_prompt_tokens": 1, "max_prompt_tokens": 3}).evaluate()
    starts = [tokenizer(f"<s> {text}")["input_ids"] for text in in_its_order(held_out)]
    lengths = [len(prompt) for prompt in drawn[0][0]]
    assert drawn[0][0] == [start[:length] for start, length in zip(starts, lengths, strict=True)]
    assert set(lengths) == {2, 3, 4}


def test_evaluator_takes_the_first_texts_of_a_stream(make_evaluated, held_out, drawn):
    stream = held_out.to_iterable_dataset()
    metrics = make_evaluated(small(stream, num_samples=20)).evaluate()
    assert len(drawn[0][2].texts) == 20
    first = [text.split() for text in held_out["text"][:20]]
    assert metrics["eval_held_out/self_bleu"] == pytest.approx(self_bleu(first, 4))
    with pytest.raises(ValueError, match=r"compares 33 samples .* there are 32: give more"):
        make_evaluated(small(stream, num_samples=33))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"held_out": ["a text"]}, TypeError, "held_out must be a Dataset or an IterableDataset, got list"),
        ({"training": ["a text"]}, TypeError, "training must be a Dataset.*got list"),
        ({"num_samples": 15}, ValueError, "num_samples must be at least 16, got 15"),
        ({"num_samples": 33}, ValueError, "compares 33 samples .* there are 32"),
        ({"max_completion_length": 0}, ValueError, "max_completion_length must be at least 1, or None, got 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"temperature": 0.0}, ValueError, "temperature must be greater than 0 and finite, got 0.0"),
        ({"temperature": math.inf}, ValueError, "temperature must be greater than 0 and finite, got inf"),
    ],
)
def test_evaluator_refuses_arguments_out_of_range(held_out, arguments, error, message):
    with pytest.raises(error, match=message):
        small(**{"held_out": held_out, **arguments})


def test_evaluator_bleu_names_the_extra_that_is_missing(held_out, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    small(held_out)
    with pytest.raises(ImportError, match=r"hf-mgan\[evaluation\]"):
        small(held_out, bleu=True)


@pytest.mark.parametrize(
    ("config", "data", "arguments", "match"),
    [
        ({"eval_strategy": "no"}, None, {}, "eval_strategy"),
        ({"metric_for_best_model": "eval_samples/mauve"}, None, {}, "metric_for_best_model.*encoder="),
        ({"metric_for_best_model": "samples/encoder_c2st_auc"}, None, {}, "metric_for_best_model.*encoder="),
        ({"metric_for_best_model": "samples/fine_tuned_c2st_auc"}, None, {}, "no metric of GeneratorEvaluator"),
        ({"metric_for_best_model": "samples/bleu"}, None, {}, "metric_for_best_model.*bleu="),
        ({"metric_for_best_model": "samples/unsafe_rate"}, None, {}, "metric_for_best_model.*safety_gate="),
        ({"metric_for_best_model": "samples/self-bleu"}, None, {}, "metric_for_best_model.*samples/self_bleu"),
        ({"metric_for_best_model": "samples/real_nll"}, None, {}, "metric_for_best_model"),
        ({}, {"text": ["dog"] * 20 + texts(12)}, {}, "32 held_out texts, cut at 8 tokens, 13 differ"),
        (
            {},
            {"text": [f"dog {text}" for text in texts(32)]},
            {"max_completion_length": 1},
            "cut at 1 tokens, 1 differ.*max_completion_length",
        ),
        ({}, {"prompt": ["<s>"] * 32}, {}, "held_out.*`completion`"),
        ({}, {"text": texts(32)}, {"bleu": True}, "bleu"),
    ],
)
def test_evaluator_refuses_at_construction(make_evaluated, held_out, config, data, arguments, match):
    evaluator = small(held_out if data is None else Dataset.from_dict(data), **arguments)
    with pytest.raises(ValueError, match=match):
        make_evaluated(evaluator, config=config)


@pytest.mark.parametrize("missing", ["sklearn", "scipy"])
def test_evaluator_names_the_extra_that_is_missing(held_out, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"hf-mgan\[evaluation\]"):
        small(held_out)


def test_evaluator_called_before_prepare_is_refused(held_out, generator):
    with pytest.raises(RuntimeError, match="prepare"):
        small(held_out)(generator)


def test_evaluator_is_a_plain_callable(held_out, make_config, generator, tokenizer):
    """Without a trainer: the same keys, without `eval_`."""
    evaluator = small(held_out)
    evaluator.prepare(tokenizer, make_config(eval_strategy="steps", eval_steps=1))
    metrics = evaluator(generator)
    assert set(metrics) == {f"samples/{name}" for name in ALWAYS} | {f"held_out/{name}" for name in HELD_OUT}
    assert evaluator.primary_metric in metrics
    assert not evaluator.greater_is_better


def test_evaluator_refuses_a_processor_of_more_than_text(make_evaluated, held_out):
    trainer = make_evaluated(small(held_out))
    with pytest.raises(TypeError, match="prompts of text alone, and this generator has a object"):
        small(held_out).prepare(object(), trainer.args)


def test_evaluator_beside_text_of_others_is_refused(make_evaluated, held_out):
    with pytest.raises(ValueError, match="tools"):
        make_evaluated(small(held_out), tools=[max])


def test_evaluator_shares_prompts_among_processes(held_out, make_config, generator, tokenizer, monkeypatch):
    """33 prompts: the first process has those at even places, the second those at odd ones and the first one again.

    Each draws from its own seed, the samples return to the order of their prompts, and one process computes.
    """
    computed, drawn = [], {0: [], 1: []}

    def recorded(texts, real, **kwargs):
        computed.append(list(texts))
        return text_metrics(texts, real, **kwargs)

    evaluator = GeneratorEvaluator(with_prompts(33), num_samples=33)
    evaluator.prepare(tokenizer, make_config(eval_strategy="steps", eval_steps=1))
    monkeypatch.setattr(evaluator_module, "text_metrics", recorded)
    for rank in (0, 1, 0):  # the first time round nobody knows yet what the second process draws
        state = SimpleNamespace(process_index=rank, num_processes=2, is_main_process=rank == 0)
        monkeypatch.setattr(evaluator_module, "PartialState", lambda state=state: state)

        def gathered(own, rank=rank):
            drawn[rank] = own
            return [*drawn[0], *(drawn[1] or own)]

        monkeypatch.setattr(evaluator_module, "gather_object", gathered)
        monkeypatch.setattr(evaluator_module, "broadcast_object_list", lambda objects: objects)
        metrics = evaluator(generator)
        assert (metrics == {}) == (rank == 1)
    prompts = evaluator._prepared.prompt_ids
    even = sample(generator, tokenizer, prompts[::2], 8, seed=0).texts
    odd = sample(generator, tokenizer, [*prompts[1::2], prompts[0]], 8, seed=1).texts
    assert computed[-1] == [text.lstrip() for pair in zip(even, odd, strict=True) for text in pair][:33]
    assert len(computed) == 3  # the first process, of samples twice and of the real texts once


DISTRIBUTED = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from datasets import Dataset
from tests import conftest
from tests.evaluation.test_evaluator import says_dog, with_prompts
from transformers import EarlyStoppingCallback
from hf_mgan import AdversarialConfig, AdversarialTrainer, GeneratorEvaluator
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
    evaluator=GeneratorEvaluator(with_prompts(33), num_samples=33),
    callbacks=[EarlyStoppingCallback(2)],
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


@pytest.mark.slow
def test_evaluator_on_two_processes(tmp_path, generator, tokenizer, classifier, pair_tokenizer):
    save_models(tmp_path, (generator, tokenizer), (classifier, pair_tokenizer))
    run_on_two_processes(DISTRIBUTED, tmp_path)
    first, second = (json.loads((tmp_path / f"seen_{rank}.json").read_text()) for rank in (0, 1))
    rows = with_prompts(33)
    order = random.Random(0).sample(range(33), 33)
    prompts, references = ([rows[place][name] for place in order] for name in ("prompt", "completion"))
    # 33 prompts: the first process has those at even places, the second those at odd ones and the first prompt again.
    even = sample(generator, tokenizer, prompts[::2], 8, seed=0).texts
    odd = sample(generator, tokenizer, [*prompts[1::2], prompts[0]], 8, seed=1).texts
    drawn = [text for pair in zip(even, odd, strict=True) for text in pair][:33]
    path = inspected(TextPath(tokenizer, 8), rows)
    real = path.as_completions(prompts, references)
    drawn = with_boundary(drawn, path.boundary)
    assert first["measured"] == [[drawn, real], [real, real], [drawn, real], [drawn, real]]
    assert second["measured"] == []
    assert len(first["evaluations"]) == 3
    assert set(metrics_of(first["evaluations"][0])) == ALWAYS | {"unsafe_rate"}
    assert second["evaluations"] == first["evaluations"]
    assert first["step"] == second["step"] == 3
    assert first["best"] == second["best"] == str(tmp_path / "out" / "checkpoint-1")
    assert first["evaluations"][0]["eval_samples/unsafe_rate"] == sum(says_dog(drawn)) / 33
