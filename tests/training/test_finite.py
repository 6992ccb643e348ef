"""Weights that are not finite are not saved, and older checkpoints stay."""

import pytest
import torch
from torch import nn

from hf_mgan.training.finite import check_finite, check_optimizer_finite, check_rewards_finite
from hf_mgan.training.reward import Round


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weight_that_is_not_finite_is_named(value):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    check_finite("generator", model)
    with torch.no_grad():
        model[1].bias[1] = value
    with pytest.raises(FloatingPointError, match=r"1 of 4 weights of the generator .* the first of them 1\.bias"):
        check_finite("generator", model)
    model[1].bias.requires_grad = False  # as it was loaded
    check_finite("generator", model)


@pytest.mark.parametrize("which", ["generator", "discriminator"])
def test_checkpoint_of_weights_that_are_not_finite_is_none(make_trainer, make_config, tmp_path, which):
    """With one checkpoint kept, the last good one is not removed for one that no run can go on from."""
    config = make_config(max_steps=4, save_strategy="steps", save_steps=1, save_total_limit=1)
    trainer = make_trainer(config)
    step = trainer.training_step

    def training_step(*args, **kwargs):
        loss = step(*args, **kwargs)
        if trainer.state.global_step == 2:
            model = trainer.model if which == "generator" else trainer.discriminator.model
            with torch.no_grad():
                next(one for one in model.parameters() if one.requires_grad).fill_(float("nan"))
        return loss

    trainer.training_step = training_step
    with pytest.raises(FloatingPointError, match=f"of the {which} are not finite"):
        trainer.train()
    assert [folder.name for folder in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-2"]
    resumed = make_trainer(config)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 4


def test_optimizer_state_that_is_not_finite_is_named():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    check_optimizer_finite("discriminator", optimizer)  # it has no state yet
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    check_optimizer_finite("discriminator", optimizer)
    optimizer.state[model.bias]["exp_avg_sq"][0] = float("inf")
    with pytest.raises(
        FloatingPointError, match=r"1 of 6 tensors of the optimizer of the discriminator .*exp_avg_sq of"
    ):
        check_optimizer_finite("discriminator", optimizer)


def test_reward_that_is_not_finite_is_named():
    """None, which TRL makes nan, says that a reward does not apply; the discriminator's always does."""
    nan, inf = float("nan"), float("inf")
    names = ["correct", "discriminator"]
    check_rewards_finite(torch.tensor([[nan, 1.0], [2.0, 3.0]]), names, "discriminator")
    with pytest.raises(FloatingPointError, match=r"'correct' returned -inf for completion 1"):
        check_rewards_finite(torch.tensor([[nan, 1.0], [-inf, 3.0]]), names, "discriminator")
    with pytest.raises(FloatingPointError, match=r"'discriminator' returned nan for completion 0"):
        check_rewards_finite(torch.tensor([[nan, nan], [1.0, 3.0]]), names, "discriminator")


def test_no_step_from_a_gradient_that_is_not_finite(make_trainer, make_config):
    trainer = make_trainer(make_config(max_steps=2, max_grad_norm=0.0))
    parameter = next(trainer.model.parameters())
    parameter.register_hook(lambda gradient: torch.full_like(gradient, float("nan")))
    before = parameter.detach().clone()
    with pytest.raises(FloatingPointError, match="norm of the generator's gradient is nan at step 0"):
        trainer.train()
    assert torch.equal(parameter, before)


def test_no_generation_from_weights_that_are_not_finite(make_trainer):
    trainer = make_trainer()
    with torch.no_grad():
        next(trainer.model.parameters())[0] = float("inf")
    with pytest.raises(FloatingPointError, match="weights of the generator are not finite"):
        trainer.train()


def test_reward_of_a_discriminator_that_is_nan_is_no_zero(make_trainer, make_config, classifier):
    """TRL adds rewards up without those that are nan, which where the discriminator skips its update leaves 0."""
    trainer = make_trainer(make_config(discriminator_update_gating={"ceiling": 0.6}))
    trainer._reward.round = Round(accuracy=1.0)
    with torch.no_grad():
        classifier.classifier.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="'discriminator' returned nan"):
        trainer.train()
