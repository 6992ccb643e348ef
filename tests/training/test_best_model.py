"""Which metrics may choose the best checkpoint or stop training, and which way round they are read."""

import pytest
from datasets import Dataset
from transformers import EarlyStoppingCallback

from hf_mgan.training.best_model import check_best_model, check_direction, check_metric_is_held_out

from ..conftest import texts


OF_TRAINING = [
    "discriminator/accuracy",
    "eval_discriminator/value",
    "rewards/discriminator/mean",
    "eval_reward",
    "reward_std",
    "frac_reward_zero_std",
    "loss",
    "eval_loss",
    "eval_stories_loss",
]
EVALUATED = {"eval_strategy": "steps", "eval_steps": 1}


@pytest.mark.parametrize("name", OF_TRAINING)
def test_metric_of_training_is_refused(name):
    with pytest.raises(ValueError, match=f"metric_for_best_model='{name}'"):
        check_metric_is_held_out(name)


@pytest.mark.parametrize(
    "name", ["eval_generator/real_nll", "bleu", "rewards/safety/mean", "eval_lossless", "eval_samples/c2st_auc"]
)
def test_held_out_metric_is_accepted(name):
    check_metric_is_held_out(name)


@pytest.mark.parametrize(("name", "greater"), [("eval_samples/c2st_auc", True), ("samples/mauve", False)])
@pytest.mark.parametrize("how", ["best", "load_best_model_at_end", "early stopping"])
def test_wrong_direction_is_refused(make_config, name, greater, how):
    message = f"'{name}' .*greater_is_better={not greater}"
    with pytest.raises(ValueError, match=message):
        check_direction(name, greater)
    check_direction(name, not greater)
    settings = {"metric_for_best_model": name, "greater_is_better": greater, **EVALUATED}
    callbacks = [EarlyStoppingCallback()] if how == "early stopping" else []
    if how == "best":
        settings["save_strategy"] = "best"
    elif how == "load_best_model_at_end":
        settings |= {"save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": True}
    with pytest.raises(ValueError, match=message):
        check_best_model(make_config(**settings), callbacks)
    check_best_model(make_config(**{**settings, "greater_is_better": not greater}), callbacks)


def test_metric_that_chooses_nothing_is_not_checked(make_config):
    check_best_model(make_config(metric_for_best_model="loss", **EVALUATED))


@pytest.mark.parametrize("name", ["samples/self_bleu", "c2st_auc", "held_out/c2st_auc", "samples/other"])
@pytest.mark.parametrize("greater", [True, False])
def test_direction_of_other_metrics_is_the_users(name, greater):
    check_direction(name, greater)


@pytest.mark.parametrize("callback", [EarlyStoppingCallback(early_stopping_patience=2), EarlyStoppingCallback])
def test_early_stopping_by_the_loss_is_refused(make_config, callback):
    """transformers takes the loss where no metric is named; a callback may be given as its class."""
    with pytest.raises(ValueError, match="metric_for_best_model='loss'"):
        check_best_model(make_config(**EVALUATED), [callback])


def test_best_model_by_the_loss_is_refused(make_config):
    saving = {"save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": True}
    with pytest.raises(ValueError, match="metric_for_best_model='loss'"):
        check_best_model(make_config(**EVALUATED, **saving))


def test_early_stopping_ends_a_run_that_no_longer_improves(make_trainer, make_config):
    """A generator that does not move has the same metric for ever: one evaluation is the best, two more are not."""
    args = make_config(
        learning_rate=0.0, max_steps=9, eval_strategy="steps", eval_steps=2, load_best_model_at_end=True,
        metric_for_best_model="generator/real_nll", greater_is_better=False, save_strategy="steps", save_steps=2,
    )  # fmt: skip
    held_out = Dataset.from_dict({"text": texts(4, seed=9)})
    stopping = EarlyStoppingCallback(early_stopping_patience=2)
    trainer = make_trainer(args, callbacks=[stopping], eval_dataset=held_out)
    trainer.train()
    assert trainer.state.global_step == 6
    assert trainer.state.best_global_step == 2
