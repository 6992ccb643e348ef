"""Runs that go on: exactly where they were, from what fits, and both models together."""

import copy
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import TrainerCallback

from ..conftest import causal_generator, texts


HALF_USED = {"steps_per_generation": 4, "gradient_accumulation_steps": 2, "num_generations": 2, "logging_steps": 3}
SAVING = {"save_strategy": "steps", "save_steps": 1}


def states(trainer):
    models = {"G": trainer.model, "D": trainer.discriminator.model}
    return {f"{name}.{at}": one.clone() for name, model in models.items() for at, one in model.state_dict().items()}


def log_of(trainer):
    entries = [entry for entry in trainer.state.log_history if "train_runtime" not in entry]
    return [{name: value for name, value in entry.items() if name != "step_time"} for entry in entries]


def assert_same(whole, resumed):
    theirs = states(resumed)
    assert [name for name, value in states(whole).items() if not torch.equal(value, theirs[name])] == []
    assert log_of(resumed) == log_of(whole)


@pytest.fixture
def fresh(make_trainer, make_config, generator, classifier):
    """Make trainers that start alike."""

    def make(callbacks=None, arguments=None, **settings):
        models = {"model": copy.deepcopy(generator), "discriminator": copy.deepcopy(classifier)}
        return make_trainer(make_config(**settings), callbacks=callbacks, **{**models, **(arguments or {})})

    return make


def test_run_goes_on_within_batch_and_logging_window(fresh, tmp_path):
    """Step 5 is in the middle of a generation batch of two steps, and of a window of three."""
    settings = {**HALF_USED, "max_steps": 7, "log_completions": True}
    whole = fresh(**settings, **SAVING)
    whole.train()
    checkpoint = tmp_path / "out" / "checkpoint-5"
    progress = torch.load(checkpoint / "discriminator" / "progress_0.pt", weights_only=True)
    assert progress["generation_batch"]
    assert progress["metrics"]["train"]
    resumed = fresh(**settings)
    resumed.train(resume_from_checkpoint=checkpoint)
    assert_same(whole, resumed)
    assert list(resumed._logs["completion"]) == list(whole._logs["completion"])
    # The mean loss of the run is that of the two steps since.
    of_first_three, of_all = 3 * log_of(whole)[0]["loss"], 7 * whole.state.log_history[-1]["train_loss"]
    since = (of_all - of_first_three - progress["loss"].item()) / 2
    assert resumed.state.log_history[-1]["train_loss"] == pytest.approx(since, abs=1e-5)


class StopInWarmUp(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        if (logs or {}).get("discriminator/warmup_step") == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def test_run_stopped_in_its_warm_up_goes_on_there(fresh, tmp_path):
    settings = {"max_steps": 2, "discriminator_warmup_steps": 5, "min_prompt_tokens": 1, "max_prompt_tokens": 2}
    whole = fresh(**settings)
    whole.train()
    with pytest.raises(SystemExit):
        fresh(**settings, callbacks=[StopInWarmUp()]).train()
    resumed = fresh(**settings)
    assert json.loads((tmp_path / "out" / "checkpoint-0" / "trainer_state.json").read_text())["global_step"] == 0
    resumed.train(resume_from_checkpoint=True)
    assert_same(whole, resumed)


def test_run_goes_on_from_the_end_of_its_warm_up(fresh, tmp_path):
    settings = {"max_steps": 2, "discriminator_warmup_steps": 4}
    whole = fresh(**settings, save_strategy="steps", save_steps=4)
    whole.train()
    assert {path.name for path in (tmp_path / "out").glob("checkpoint-*")} == {"checkpoint-0", "checkpoint-2"}
    resumed = fresh(**settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-0"))
    assert_same(whole, resumed)


class Window(TrainerCallback):
    def __init__(self):
        self.trainer, self.losses = None, []

    def on_step_end(self, args, state, control, **kwargs):
        self.losses.append(len(self.trainer._metrics["train"]["discriminator/loss"]))


def test_no_metric_of_the_warm_up_is_one_of_training(fresh, tmp_path):
    """The fourth update of the warm-up comes after the last entry of its log."""
    settings = {"max_steps": 2, "discriminator_warmup_steps": 4, "logging_steps": 3}
    for resumed_from in (None, True):
        window = Window()
        window.trainer = fresh([window], **settings, save_strategy="steps", save_steps=4)
        window.trainer.train(resume_from_checkpoint=resumed_from)
        assert window.losses == [1, 2]
        shutil.rmtree(tmp_path / "out" / "checkpoint-2")


class StopAtEnd(TrainerCallback):
    def on_train_end(self, args, state, control, **kwargs):
        signal.raise_signal(signal.SIGINT)


def test_signal_after_the_last_step_acts_at_once(fresh, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fresh([StopAtEnd()], max_steps=1).train()
    finally:
        signal.signal(signal.SIGINT, before)


def test_finished_run_takes_no_further_step(fresh, tmp_path):
    settings = {"max_steps": 2, **SAVING}
    whole = fresh(**settings)
    whole.train()
    for _ in range(2):
        again = fresh(**settings)
        assert again.train(resume_from_checkpoint=True).global_step == 2
        assert_same(whole, again)


def test_half_written_checkpoint_is_passed_over(fresh, tmp_path):
    whole = fresh(max_steps=3, **SAVING)
    whole.train()
    (tmp_path / "out" / "checkpoint-3" / "optimizer.pt").unlink()
    resumed = fresh(max_steps=3)
    with pytest.warns(UserWarning, match=r"checkpoint-3.optimizer\.pt does not exist.*goes on from .*checkpoint-2"):
        resumed.train(resume_from_checkpoint=True)
    assert_same(whole, resumed)
    with pytest.raises(ValueError, match=r"optimizer\.pt does not exist.*resume_from_checkpoint=True"):
        fresh(max_steps=3).train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))


class Scored(TrainerCallback):
    """Adds a metric to evaluations that is best at step 2."""

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        metrics["eval_score"] = float(state.global_step == 2)


@pytest.mark.parametrize("adapters", [False, True], ids=["whole", "lora"])
def test_best_models_are_of_one_step(fresh, tmp_path, dataset, adapters):
    lora = {"peft_config": LoraConfig(r=2, target_modules=["c_attn"]), "discriminator_peft_config": LoraConfig(r=2)}
    trainer = fresh(
        [Scored()],
        {"eval_dataset": dataset.select(range(4)), **(lora if adapters else {})},
        **SAVING,
        **{"max_steps": 3, "eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True},
        **{"metric_for_best_model": "eval_score", "greater_is_better": True},
    )
    trainer.train()
    best = tmp_path / "out" / "checkpoint-2"
    assert trainer.state.best_model_checkpoint == str(best)
    saved = json.loads((best / "trainer_state.json").read_text())
    assert saved["best_model_checkpoint"] == str(best)
    trainer.save_model(str(tmp_path / "result"))
    name = "adapter_model.safetensors" if adapters else "model.safetensors"
    for ours, theirs in ((".", "."), ("discriminator", "discriminator/model")):
        kept, best_one = load_file(tmp_path / "result" / ours / name), load_file(best / theirs / name)
        assert all(torch.equal(value, kept[at]) for at, value in best_one.items())
        last = load_file(tmp_path / "out" / "checkpoint-3" / theirs / name)
        assert not all(torch.equal(value, kept[at]) for at, value in last.items())


@pytest.fixture
def checkpoint(fresh, tmp_path):
    """A checkpoint of a run of one step, in the middle of a generation batch."""
    fresh(max_steps=1, discriminator_replay_fraction=0.25, **HALF_USED, **SAVING).train()
    return tmp_path / "out" / "checkpoint-1"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"discriminator_loss": "hinge"}, "discriminator_loss was 'bce' and is 'hinge'\n"),
        ({"learning_rate": 0.5}, "learning_rate was 0.01 and is 0.5 (that of the checkpoint goes on"),
        ({"per_device_train_batch_size": 2}, "the next step generates a new batch"),
        ({"temperature": 0.5}, "temperature was 1.0 and is 0.5"),
    ],
)
def test_changed_settings_are_named(fresh, checkpoint, settings, told):
    common = {"max_steps": 2, "discriminator_replay_fraction": 0.25, **HALF_USED}
    resumed = fresh(**{**common, **settings})
    with pytest.warns(UserWarning, match="was saved by a run that differs") as caught:
        resumed.train(resume_from_checkpoint=str(checkpoint))
    assert any(told in str(one.message) for one in caught)
    assert resumed.state.global_step == 2
    # The rest of the generation batch, which the discriminator has learnt from, serves the second step where it can.
    assert resumed.discriminator.num_updates == (2 if "per_device_train_batch_size" in settings else 1)
    assert resumed.optimizer.param_groups[0]["initial_lr"] == 0.01


def test_same_settings_raise_no_warning(fresh, checkpoint, recwarn):
    fresh(max_steps=1, discriminator_replay_fraction=0.25, **HALF_USED, logging_strategy="no").train(
        resume_from_checkpoint=str(checkpoint)
    )
    assert not [one for one in recwarn if "differs" in str(one.message)]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"optim": "sgd"}, "optim is 'sgd', and .* was saved with 'adamw_torch"),
        ({"discriminator_optim_kwargs": {"optim": "adafactor"}}, "optim in discriminator_optim_kwargs is 'adafactor'"),
    ],
)
def test_other_optimizer_is_refused(fresh, checkpoint, settings, told):
    with pytest.raises(ValueError, match=told):
        fresh(max_steps=2, **HALF_USED, **settings).train(resume_from_checkpoint=str(checkpoint))


def test_other_training_set_is_named(fresh, checkpoint):
    resumed = fresh(
        arguments={"train_dataset": Dataset.from_dict({"text": texts(32)})},
        **{"max_steps": 2, "discriminator_replay_fraction": 0.25, **HALF_USED},
    )
    with pytest.warns(UserWarning, match="had 64 rows and has 32"):
        resumed.train(resume_from_checkpoint=str(checkpoint))


def test_weights_of_another_generator_are_refused(fresh, checkpoint):
    other = causal_generator()
    other.config.n_layer += 1
    with pytest.raises(
        ValueError, match=r"model\.safetensors does not hold the weights of this generator: \d+ missing"
    ):
        fresh(arguments={"model": type(other)(other.config)}, **HALF_USED).train(
            resume_from_checkpoint=str(checkpoint)
        )
    with pytest.raises(ValueError, match="holds no adapters of a generator"):
        fresh(arguments={"peft_config": LoraConfig(r=2, target_modules=["c_attn"])}, **HALF_USED).train(
            resume_from_checkpoint=str(checkpoint)
        )


def test_state_of_another_step_is_refused(fresh, checkpoint):
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    (checkpoint / "trainer_state.json").write_text(json.dumps({**state, "global_step": 2}, indent=2))
    relist(checkpoint, "trainer_state.json")
    with pytest.raises(ValueError, match="is of step 2, and the state of the discriminator beside it of step 1"):
        fresh(**HALF_USED).train(resume_from_checkpoint=str(checkpoint))


def relist(checkpoint: Path, name: str) -> None:
    listed = checkpoint / "discriminator" / "files.json"
    sizes = json.loads(listed.read_text())
    listed.write_text(json.dumps({**sizes, name: (checkpoint / name).stat().st_size}))


def test_other_adapters_are_refused(fresh, tmp_path):
    def lora(**changes):
        return {name: LoraConfig(r=2, **changes) for name in ("peft_config", "discriminator_peft_config")}

    fresh(arguments=lora(), max_steps=1, **SAVING).train()
    checkpoint = tmp_path / "out" / "checkpoint-1"
    fresh(arguments=lora(), max_steps=1).train(resume_from_checkpoint=str(checkpoint))
    with pytest.raises(ValueError, match=r"checkpoint-1.adapter_config\.json has other .*lora_alpha was 8 and is 4"):
        fresh(arguments=lora(lora_alpha=4)).train(resume_from_checkpoint=str(checkpoint))
    only_hers = {"peft_config": LoraConfig(r=2), "discriminator_peft_config": LoraConfig(r=4)}
    with pytest.raises(ValueError, match=r"model.adapter_model\.safetensors does not hold .*of another shape"):
        fresh(arguments=only_hers).train(resume_from_checkpoint=str(checkpoint))
    (checkpoint / "adapter_config.json").write_text('{"another": 1}')
    relist(checkpoint, "adapter_config.json")
    with pytest.raises(ValueError, match=r"adapter_config\.json does not say what the adapters of the generator are"):
        fresh(arguments=lora()).train(resume_from_checkpoint=str(checkpoint))
