"""Weights that are not finite are not saved, and older checkpoints stay."""

import pytest
import torch
from torch import nn

from hf_mgan.training.finite import check_finite


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
