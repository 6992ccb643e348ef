import pytest
import torch
from transformers.trainer_callback import TrainerCallback

from hf_mgan.training.update_gating import UpdateGating

from ..test_trainer import moved, weights


def test_each_player_rests_on_its_own_side():
    balance = UpdateGating(ceiling=0.8, floor=0.55)
    assert not balance.discriminator_rests
    assert not balance.generator_rests
    for accuracy, discriminator_rests, generator_rests in (
        (0.8, False, False),
        (0.81, True, False),
        (0.54, False, True),
    ):
        balance.accuracy = accuracy
        assert balance.discriminator_rests == discriminator_rests
        assert balance.generator_rests == generator_rests


def test_without_limits_nobody_rests_and_nothing_is_logged():
    balance = UpdateGating()
    for accuracy in (0.0, 1.0):
        balance.accuracy = accuracy
        assert not balance.discriminator_rests
        assert not balance.generator_rests
    assert balance.figures(discriminator_rested=False) == {}


class Moves(TrainerCallback):
    """Notes after each step which of the players moved in it."""

    def __init__(self, trainer):
        self.trainer, self.moved = trainer, []
        self.before = weights(trainer.model), weights(trainer.discriminator.model)

    def on_step_end(self, args, state, control, **kwargs):
        players = self.trainer.model, self.trainer.discriminator.model
        self.moved.append(
            tuple(bool(moved(before, player)) for before, player in zip(self.before, players, strict=True))
        )
        self.before = tuple(weights(player) for player in players)


def test_a_discriminator_above_the_ceiling_rests_for_a_batch_and_then_goes_on(make_trainer, make_config, monkeypatch):
    trainer = make_trainer(make_config(discriminator_accuracy_ceiling=0.7, max_steps=4))
    accuracies = iter([0.9, 0.6, 0.6, 0.9])
    means = trainer._turn._means

    def rigged(figures):
        out = means(figures)
        return {**out, "discriminator/accuracy": next(accuracies)} if "discriminator/accuracy" in out else out

    monkeypatch.setattr(trainer._turn, "_means", rigged)
    moves = Moves(trainer)
    trainer.add_callback(moves)
    trainer.train()
    assert moves.moved == [(True, True), (True, False), (True, True), (True, True)]
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["discriminator/skipped"] for entry in logged] == [0, 1, 0, 0]
    assert "generator/skipped" not in logged[0]
    assert "discriminator/grad_norm" not in logged[1]
    assert trainer.discriminator.num_updates == 3


def test_a_generator_below_the_floor_rests_and_the_discriminator_goes_on(make_trainer, make_config):
    """The accuracy is never 1 with an untrained discriminator, so a floor of 0.999 is never reached."""
    trainer = make_trainer(
        make_config(discriminator_accuracy_floor=0.999, discriminator_learning_rate=1e-6, max_steps=3)
    )
    moves = Moves(trainer)
    trainer.add_callback(moves)
    trainer.train()
    assert moves.moved == [(False, True)] * 3
    assert [entry["generator/skipped"] for entry in trainer.state.log_history if "loss" in entry] == [1, 1, 1]


def test_a_discriminator_does_not_rest_while_it_warms_up(make_trainer, make_config, monkeypatch):
    """Its completions do not change then, so one above the ceiling would rest for ever."""
    trainer = make_trainer(make_config(discriminator_accuracy_ceiling=0.7, discriminator_warmup_steps=3, max_steps=1))
    means = trainer._turn._means

    def rigged(figures):
        out = means(figures)
        return {**out, "discriminator/accuracy": 0.9} if "discriminator/accuracy" in out else out

    monkeypatch.setattr(trainer._turn, "_means", rigged)
    trainer.train()
    assert trainer.discriminator.num_updates == 3  # the one after the warm-up rests


def test_a_resting_generator_keeps_the_moments_of_its_optimizer():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.1)
    weight.grad = torch.ones(2)
    optimizer.step()
    before, state = weight.detach().clone(), {k: v.clone() for k, v in optimizer.state[weight].items()}
    balance = UpdateGating(floor=0.6)
    for accuracy, rests in ((0.5, True), (0.7, False)):
        balance.accuracy = accuracy
        weight.grad = torch.ones(2)
        balance.on_pre_optimizer_step(None, None, None, optimizer=optimizer)
        optimizer.step()
        assert torch.equal(weight, before) == rests
        assert all(torch.equal(optimizer.state[weight][k], v) for k, v in state.items()) == rests


def test_a_target_accuracy_ends_the_warm_up_early_and_resuming_does_not_repeat_it(make_trainer, make_config, tmp_path):
    settings = {"discriminator_warmup_steps": 60, "discriminator_warmup_accuracy": 0.8, "max_steps": 2}
    trainer = make_trainer(make_config(**settings, save_strategy="steps", save_steps=1))
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "discriminator/warmup_step" in entry]
    assert logged[-1]["discriminator/accuracy"] >= 0.8
    assert all(entry["discriminator/accuracy"] < 0.8 for entry in logged[:-1])
    used = logged[-1]["discriminator/warmup_step"]
    assert 1 < used < 60
    assert trainer.discriminator.num_updates == used + 2
    resumed = make_trainer(make_config(**settings))
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-1"))
    assert resumed.discriminator.num_updates == used + 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discriminator_accuracy_ceiling": 0.5}, "discriminator_accuracy_ceiling must be an accuracy above"),
        ({"discriminator_accuracy_floor": 1.0}, "discriminator_accuracy_floor must be at least 0 and less than 1"),
        (
            {"discriminator_accuracy_floor": 0.8, "discriminator_accuracy_ceiling": 0.7},
            "both players would rest, got 0.8 and 0.7",
        ),
        ({"discriminator_warmup_accuracy": 0.9}, "set discriminator_warmup_steps"),
        ({"discriminator_warmup_accuracy": 1.1, "discriminator_warmup_steps": 9}, "in \\(0.5, 1\\], got 1.1"),
    ],
)
def test_limits_that_cannot_be_are_refused(make_config, settings, message):
    with pytest.raises(ValueError, match=message):
        make_config(**settings)
