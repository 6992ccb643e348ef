"""What [`AdversarialConfig`] refuses at construction, before anything is loaded, and where its settings go."""

import dataclasses

import pytest
from trl import TrlParser

from hf_mgan import AdversarialConfig
from hf_mgan.discriminator import Regularization


NAN = float("nan")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discriminator_label_smoothing": 0.5}, "discriminator_label_smoothing must be .* less than 0.5, got 0.5"),
        ({"discriminator_label_smoothing": -0.1}, "discriminator_label_smoothing must be at least 0"),
        ({"discriminator_logit_penalty": -1.0}, "discriminator_logit_penalty must be at least 0 .* got -1.0"),
        ({"discriminator_gradient_penalty": NAN}, "discriminator_gradient_penalty must be at least 0 .* got nan"),
        ({"discriminator_gradient_penalty_type": "r1"}, r"must be one of \['exact', 'noise'\], got 'r1'"),
        ({"discriminator_gradient_penalty_noise": 0.0}, "discriminator_gradient_penalty_noise must be greater than 0"),
        ({"discriminator_token_dropout": 1.0}, "discriminator_token_dropout must be .* less than 1.0, got 1.0"),
        ({"discriminator_replay_fraction": 1.0}, "discriminator_replay_fraction must be .* less than 1, got 1.0"),
        ({"discriminator_replay_fraction": -0.1}, "discriminator_replay_fraction must be at least 0"),
        ({"discriminator_replay_size": 0}, "discriminator_replay_size must be at least 1, got 0"),
        ({"real_text_coef": -0.1}, "real_text_coef must be at least 0, got -0.1"),
    ],
)
def test_stabilisers_out_of_range_are_refused(make_config, settings, message):
    with pytest.raises(ValueError, match=message):
        make_config(**settings)


@pytest.mark.parametrize("penalty", ["discriminator_gradient_penalty", "discriminator_logit_penalty"])
def test_the_wasserstein_loss_is_refused_without_a_penalty(make_config, penalty):
    with pytest.raises(ValueError, match="set discriminator_gradient_penalty or discriminator_logit_penalty"):
        make_config(discriminator_loss="wasserstein")
    with pytest.raises(ValueError, match="falls without end as the logits grow"):
        make_config(discriminator_loss="wasserstein", discriminator_token_dropout=0.1)
    make_config(discriminator_loss="wasserstein", **{penalty: 0.1})


@pytest.mark.parametrize("loss", ["bradley_terry", "relativistic_average", "hinge", "wasserstein"])
def test_a_loss_without_targets_has_no_labels_to_smooth(make_config, loss):
    settings = {"discriminator_logit_penalty": 0.1, "discriminator_label_smoothing": 0.1}
    with pytest.raises(ValueError, match=f"'{loss}' has no targets: leave it out, or use one of"):
        make_config(discriminator_loss=loss, **settings)
    for other in ("bce", "least_squares"):
        make_config(discriminator_loss=other, **settings)


def test_replay_and_the_density_offset_exclude_each_other(make_config):
    make_config(discriminator_density_offset=True)
    with pytest.raises(ValueError, match="leave out either it or discriminator_density_offset"):
        make_config(discriminator_density_offset=True, discriminator_replay_fraction=0.1)


SETTINGS = {
    "label_smoothing": 0.1,
    "logit_penalty": 0.2,
    "gradient_penalty": 0.3,
    "gradient_penalty_type": "exact",
    "gradient_penalty_noise": 0.4,
    "token_dropout": 0.5,
}


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_of_the_regularisation_is_that_of_its_name(make_config, name):
    assert set(SETTINGS) == {field.name for field in dataclasses.fields(Regularization)}
    config = make_config(**{f"discriminator_{name}": SETTINGS[name]})
    assert config.discriminator_regularization() == dataclasses.replace(Regularization(), **{name: SETTINGS[name]})


def test_every_stabiliser_can_be_set_from_the_shell(tmp_path):
    settings = {
        **{f"discriminator_{name}": value for name, value in SETTINGS.items()},
        "discriminator_replay_fraction": 0.25,
        "discriminator_replay_size": 100,
        "discriminator_length_neutral": True,
        "discriminator_warmup_steps": 9,
        "discriminator_warmup_accuracy": 0.7,
        "discriminator_accuracy_ceiling": 0.9,
        "discriminator_accuracy_floor": 0.55,
        "real_text_coef": 0.05,
        "ema_decay": 0.99,
    }
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    given = ["--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false"]
    (config,) = TrlParser((AdversarialConfig,)).parse_args_and_config([*given, *flags], fail_with_unknown_args=True)
    assert {name: getattr(config, name) for name in settings} == settings
