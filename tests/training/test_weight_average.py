import copy

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers.trainer_callback import TrainerCallback

from ..test_trainer import moved, weights


ADAPTERS = {"peft_config": LoraConfig(r=2, target_modules=["c_attn"])}


class Path(TrainerCallback):
    """Notes the generator's trained weights at the start and after each step."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.points = [trained(kwargs["model"])]

    def on_step_end(self, args, state, control, **kwargs):
        self.points.append(trained(kwargs["model"]))


def trained(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def average(points, decay):
    mean = dict(points[0])
    for point in points[1:]:
        mean = {name: decay * mean[name] + (1 - decay) * point[name] for name in mean}
    return mean


def test_after_training_the_model_holds_the_average_of_its_path(make_trainer, make_config):
    trainer = make_trainer(make_config(ema_decay=0.7), **ADAPTERS)
    path = Path()
    trainer.add_callback(path)
    trainer.train()
    assert len(path.points) == 5
    for name, value in average(path.points, 0.7).items():
        assert_close(dict(trainer.model.named_parameters())[name].detach(), value)
        assert not torch.equal(path.points[-1][name], value)


def test_the_average_changes_nothing_about_the_training_itself(make_trainer, make_config, generator, classifier):
    paths = []
    for decay in (None, 0.5):
        trainer = make_trainer(
            make_config(ema_decay=decay), model=copy.deepcopy(generator), discriminator=copy.deepcopy(classifier)
        )
        paths.append(Path())
        trainer.add_callback(paths[-1])
        trainer.train()
    for plain, averaged in zip(paths[0].points, paths[1].points, strict=True):
        assert all(torch.equal(plain[name], averaged[name]) for name in plain)


def test_evaluation_sees_the_average_and_training_goes_on_with_the_weights(make_trainer, make_config, dataset):
    config = make_config(ema_decay=0.7, eval_strategy="steps", eval_steps=2, per_device_eval_batch_size=4)
    trainer = make_trainer(config, eval_dataset=dataset.select(range(4)), **ADAPTERS)
    path, seen = Path(), []
    trainer.add_callback(path)
    step = trainer.prediction_step

    def watched(model, *args, **kwargs):
        seen.append(trained(trainer.model))
        return step(model, *args, **kwargs)

    trainer.prediction_step = watched
    trainer.train()
    assert len(seen) >= 2
    first = average(path.points[:3], 0.7)
    assert all(torch.allclose(seen[0][name], first[name]) for name in first)
    # The path is that of a run that is not evaluated with other weights: from its end on a step goes from the weights.
    assert not any(torch.equal(path.points[2][name], first[name]) for name in first)


def test_a_checkpoint_holds_the_average_and_a_resumed_run_equals_the_whole_one(
    make_trainer, make_config, generator, classifier, tmp_path
):
    def fresh():
        return make_trainer(
            make_config(ema_decay=0.7, save_strategy="steps", save_steps=2),
            model=copy.deepcopy(generator),
            discriminator=copy.deepcopy(classifier),
            **ADAPTERS,
        )

    whole, path = fresh(), Path()
    whole.add_callback(path)
    whole.train()
    checkpoint = tmp_path / "out" / "checkpoint-2"
    whole.model.load_adapter(checkpoint, "saved")
    saved = {
        name.replace(".saved.", ".default."): p for name, p in whole.model.named_parameters() if ".saved." in name
    }
    for name, value in average(path.points[:3], 0.7).items():
        assert_close(saved[name].detach(), value)
    whole.model.delete_adapter("saved")
    resumed = fresh()
    resumed.train(resume_from_checkpoint=str(checkpoint))
    expected = weights(whole.model)
    for name, value in weights(resumed.model).items():
        assert torch.equal(value, expected[name]), name


def test_save_model_during_training_saves_the_average(make_trainer, make_config, tmp_path):
    trainer = make_trainer(make_config(ema_decay=0.7, max_steps=2), **ADAPTERS)
    path = Path()

    class Saves(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            trainer.save_model(str(tmp_path / f"at_{state.global_step}"))

    trainer.add_callback(path)
    trainer.add_callback(Saves())
    trainer.train()
    saved = load_file(tmp_path / "at_1" / "adapter_model.safetensors")
    expected = average(path.points[:2], 0.7)
    for name, value in expected.items():
        assert_close(saved[name.replace(".default", "")], value)


def test_the_best_checkpoint_is_not_averaged_again(make_trainer, make_config, dataset, tmp_path):
    config = make_config(
        ema_decay=0.7,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_generator/real_nll",
        greater_is_better=False,
        per_device_eval_batch_size=4,
        learning_rate=0.5,
    )
    trainer = make_trainer(config, eval_dataset=dataset.select(range(4)), **ADAPTERS)
    trainer.train()
    assert trainer.state.best_model_checkpoint is not None
    before = trained(trainer.model)
    trainer.model.load_adapter(trainer.state.best_model_checkpoint, "best")
    for name, p in trainer.model.named_parameters():
        if ".best." in name:
            assert torch.equal(before[name.replace(".best.", ".default.")], p)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ema_decay": 1.0}, "between 0 and 1, got 1.0"),
        ({"ema_decay": 0.0}, "between 0 and 1, got 0.0"),
        ({"ema_decay": 0.9, "use_vllm": True}, "use_vllm keeps weights elsewhere"),
    ],
)
def test_averages_that_cannot_be_kept_are_refused(make_config, settings, message):
    with pytest.raises(ValueError, match=message):
        make_config(**settings)


def test_a_whole_model_can_be_averaged_too(make_trainer, make_config):
    trainer = make_trainer(make_config(ema_decay=0.5, max_steps=2))
    before = weights(trainer.model)
    trainer.train()
    assert moved(before, trainer.model)
    assert trainer._average.average == {}
