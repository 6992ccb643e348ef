import dataclasses

import pytest
import torch
from transformers.trainer_callback import TrainerCallback

from hf_mgan.discriminator import DiscriminatorOutput
from hf_mgan.training.update_gating import SkippedUpdates, UpdateGating

from ..test_trainer import moved, weights


@pytest.mark.parametrize(
    ("accuracy", "discriminator_skips", "generator_skips"),
    [(None, False, False), (0.55, False, False), (0.8, False, False), (0.81, True, False), (0.54, False, True)],
)
def test_gating_skips_beyond_its_limits_alone(accuracy, discriminator_skips, generator_skips):
    gating = UpdateGating(ceiling=0.8, floor=0.55)
    assert gating.discriminator_skips(accuracy) == discriminator_skips
    assert gating.generator_skips(accuracy) == generator_skips
    assert gating.metrics(True, accuracy) == {"discriminator/skipped": 1.0, "generator/skipped": generator_skips}
    assert gating.metrics(False, accuracy)["discriminator/skipped"] == 0.0


def test_gating_without_limits_skips_nothing():
    gating = UpdateGating()
    for accuracy in (0.0, 1.0):
        assert not gating.discriminator_skips(accuracy)
        assert not gating.generator_skips(accuracy)
        assert gating.metrics(discriminator_skipped=False, accuracy=accuracy) == {}


def test_gating_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        UpdateGating().ceiling = 0.9


class Moves(TrainerCallback):
    """Notes after each step which of the models moved in it."""

    def __init__(self, trainer):
        self.trainer, self.moved = trainer, []
        self.before = weights(trainer.model), weights(trainer.discriminator.model)

    def on_step_end(self, args, state, control, **kwargs):
        models = self.trainer.model, self.trainer.discriminator.model
        self.moved.append(tuple(bool(moved(before, model)) for before, model in zip(self.before, models, strict=True)))
        self.before = tuple(weights(model) for model in models)


def with_accuracies(monkeypatch, *accuracies):
    """Let each round see the next of these accuracies."""
    rest = iter(accuracies)
    rounds = []  # the outputs that stand for a round: one for each call of the reward

    def rigged(output):
        if not any(output is known for known, _ in rounds):
            rounds.append((output, torch.tensor(next(rest))))
        return next(value for known, value in rounds if known is output)

    monkeypatch.setattr(DiscriminatorOutput, "accuracy", rigged)


def test_discriminator_above_the_ceiling_skips_one_batch(make_trainer, make_config, monkeypatch):
    trainer = make_trainer(make_config(discriminator_update_gating={"ceiling": 0.7}, max_steps=4))
    with_accuracies(monkeypatch, 0.9, 0.6, 0.6, 0.9)
    moves = Moves(trainer)
    trainer.add_callback(moves)
    trainer.train()
    assert moves.moved == [(True, True), (True, False), (True, True), (True, True)]
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["discriminator/skipped"] for entry in logged] == [0, 1, 0, 0]
    assert [entry["discriminator/accuracy"] for entry in logged] == pytest.approx([0.9, 0.6, 0.6, 0.9])
    assert "generator/skipped" not in logged[0]
    assert "discriminator/grad_norm" not in logged[1]
    assert trainer.discriminator.num_updates == 3


def test_generator_below_the_floor_skips_its_update(make_trainer, make_config):
    """The accuracy is never 1 with an untrained discriminator, so a floor of 0.999 is never reached."""
    trainer = make_trainer(
        make_config(discriminator_update_gating={"floor": 0.999}, discriminator_learning_rate=1e-6, max_steps=3)
    )
    moves = Moves(trainer)
    trainer.add_callback(moves)
    trainer.train()
    assert moves.moved == [(False, True)] * 3
    assert [entry["generator/skipped"] for entry in trainer.state.log_history if "loss" in entry] == [1, 1, 1]


def test_discriminator_skips_nothing_while_it_warms_up(make_trainer, make_config, monkeypatch):
    """Its completions do not change then, so one above the ceiling would skip its updates for ever."""
    gating = {"ceiling": 0.7}
    trainer = make_trainer(make_config(discriminator_update_gating=gating, discriminator_warmup_steps=3, max_steps=1))
    with_accuracies(monkeypatch, *[0.9] * 4)
    trainer.train()
    assert trainer.discriminator.num_updates == 3  # the one after the warm-up is skipped


def test_evaluation_leaves_the_accuracy_of_training_alone(make_trainer, make_config, dataset, monkeypatch):
    """Which updates are skipped hangs on training batches: an evaluation between two of them changes nothing."""
    gating = {"ceiling": 0.7}
    config = make_config(
        discriminator_update_gating=gating, max_steps=2, eval_strategy="steps", eval_steps=1,
        per_device_eval_batch_size=4,
    )  # fmt: skip
    trainer = make_trainer(config, eval_dataset=dataset.select([0]))
    with_accuracies(monkeypatch, 0.9, 0.1, 0.9, 0.1)  # of training and of the evaluation behind it, in turns
    trainer.train()
    logged = [entry["discriminator/skipped"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged == [0, 1]


def test_skipped_update_keeps_weights_and_moments():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.1)
    weight.grad = torch.ones(2)
    optimizer.step()
    before, state = weight.detach().clone(), {k: v.clone() for k, v in optimizer.state[weight].items()}
    for skips in (True, False):
        weight.grad = torch.ones(2)
        SkippedUpdates(lambda skips=skips: skips).on_pre_optimizer_step(None, None, None, optimizer=optimizer)
        optimizer.step()
        assert torch.equal(weight, before) == skips
        assert all(torch.equal(optimizer.state[weight][k], v) for k, v in state.items()) == skips
