"""What [`AdversarialConfig`] refuses at construction, before anything is loaded, and where its settings go."""

import dataclasses
import json

import pytest
from transformers import training_args
from transformers.training_args import OptimizerNames
from trl import TrlParser

from hf_mgan import AdversarialConfig
from hf_mgan import config as config_module
from hf_mgan.config_checks import DICT_SETTINGS
from hf_mgan.discriminator import Regularization


NAN = float("nan")
DICTS = {name: tuple(setting.keys) for name, setting in DICT_SETTINGS.items()}
# A value of each key, none of them its default.
VALUES = {
    "discriminator_optim_kwargs": {
        "optim": "sgd",
        "optim_args": "momentum=0.5",
        "weight_decay": 0.1,
        "max_grad_norm": 0.5,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr": 1e-6},
        "warmup_steps": 7,
        "adam_beta1": 0.5,
        "adam_beta2": 0.9,
        "adam_epsilon": 1e-6,
    },
    "discriminator_model_init_kwargs": {
        "fresh_head": True,
        "gradient_checkpointing": True,
        "revision": "v2",
        "attn_implementation": "eager",
        "prefixes": True,
    },
    "discriminator_regularization": {"label_smoothing": 0.1, "logit_penalty": 0.2, "token_dropout": 0.3},
    "discriminator_update_gating": {"ceiling": 0.9, "floor": 0.55},
}
# Without which the value of a key makes no optimizer or schedule.
PARTNERS: dict[str, dict] = {
    "optim_args": {"optim": "sgd"},
    "lr_scheduler_type": {"lr_scheduler_kwargs": {"min_lr": 1e-6}},
}
FLAT = {
    "discriminator_loss": "hinge",
    "discriminator_reward": "logit",
    "discriminator_weight": 2.0,
    "discriminator_learning_rate": 3e-4,
    "discriminator_steps": 2,
    "discriminator_warmup_steps": 9,
    "discriminator_final_steps": 5,
    "discriminator_max_length": 64,
    "discriminator_batch_size": 8,
    "discriminator_label": "human",
    "discriminator_replay_fraction": 0.25,
    "real_text_coef": 0.05,
    "unit": "character",
    "min_prompt_tokens": 1,
    "max_prompt_tokens": 3,
    "max_text_tokens": 64,
    "dataset_num_proc": 1,
    "source_lang": "en",
    "target_lang": "de",
    "translation_template": "{source} =",
}


def test_settings_are_all_named_here():
    ours = {field.name for field in dataclasses.fields(AdversarialConfig)}
    theirs = {field.name for field in dataclasses.fields(AdversarialConfig.__mro__[1])}
    assert ours - theirs == set(FLAT) | set(DICTS)
    assert {name: set(values) for name, values in VALUES.items()} == {name: set(keys) for name, keys in DICTS.items()}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("discriminator_loss", "gan"),
        ("discriminator_reward", "d"),
        ("unit", "syllable"),
        ("discriminator_steps", 0),
        ("discriminator_warmup_steps", -1),
        ("discriminator_final_steps", -1),
        ("discriminator_learning_rate", -1e-5),
        ("discriminator_learning_rate", NAN),
        ("discriminator_replay_fraction", 1.0),
        ("discriminator_replay_fraction", -0.1),
        ("discriminator_replay_fraction", NAN),
        ("real_text_coef", -0.1),
        ("real_text_coef", NAN),
    ],
)
def test_setting_out_of_range_is_refused(make_config, name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*got '?{value}"):
        make_config(**{name: value})


def test_prompt_tokens_out_of_order_are_refused(make_config):
    with pytest.raises(ValueError, match=r"min_prompt_tokens to max_prompt_tokens .* got 3 and 2"):
        make_config(min_prompt_tokens=3, max_prompt_tokens=2)


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("discriminator_regularization", "label_smoothing", 0.5),
        ("discriminator_regularization", "label_smoothing", -0.1),
        ("discriminator_regularization", "logit_penalty", -1.0),
        ("discriminator_regularization", "logit_penalty", NAN),
        ("discriminator_regularization", "token_dropout", 1.0),
        ("discriminator_regularization", "token_dropout", -0.1),
        ("discriminator_optim_kwargs", "max_grad_norm", 0.0),
        ("discriminator_optim_kwargs", "max_grad_norm", NAN),
        ("discriminator_optim_kwargs", "weight_decay", -0.1),
        ("discriminator_update_gating", "ceiling", 0.5),
        ("discriminator_update_gating", "ceiling", 1.1),
        ("discriminator_update_gating", "floor", 1.0),
        ("discriminator_update_gating", "floor", -0.1),
    ],
)
def test_key_out_of_range_is_refused(make_config, setting, key, value):
    with pytest.raises(ValueError, match=rf"{key} in {setting} must be .*got {value}"):
        make_config(**{setting: {key: value}})


def test_floor_above_the_ceiling_is_refused(make_config):
    make_config(discriminator_update_gating={"ceiling": 0.8, "floor": 0.7})
    with pytest.raises(ValueError, match=r"floor in discriminator_update_gating .* got 0.8 and 0.7"):
        make_config(discriminator_update_gating={"ceiling": 0.7, "floor": 0.8})


@pytest.mark.parametrize(("key", "value"), [("optim", "adamm"), ("lr_scheduler_type", "lineer")])
def test_unknown_optimizer_or_schedule_is_refused(make_config, key, value):
    with pytest.raises(ValueError, match=value):
        make_config(discriminator_optim_kwargs={key: value})


@pytest.mark.parametrize("setting", list(DICTS))
def test_unknown_key_is_refused(make_config, setting):
    """The message names the setting, the key and all that it takes."""
    with pytest.raises(ValueError, match=rf"{setting} has the keys unheard_of, .*: {', '.join(DICTS[setting])}\."):
        make_config(**{setting: {"unheard_of": 1}})


@pytest.mark.parametrize("setting", list(DICTS))
@pytest.mark.parametrize("value", [0.1, "0.1", "adamw_torch", [("ceiling", 0.9)]])
def test_what_is_no_dict_is_refused(make_config, setting, value):
    with pytest.raises(TypeError, match=f"{setting} must be a dict"):
        make_config(**{setting: value})


@pytest.mark.parametrize("setting", list(DICTS))
def test_empty_dict_is_the_default(make_config, setting):
    assert getattr(make_config(), setting) is None
    make_config(**{setting: {}})


def test_wasserstein_needs_a_logit_penalty(make_config):
    for others in ({}, {"discriminator_regularization": {"token_dropout": 0.1}}):
        with pytest.raises(ValueError, match=r"discriminator_regularization=\{'logit_penalty'"):
            make_config(discriminator_loss="wasserstein", **others)
    make_config(discriminator_loss="wasserstein", discriminator_regularization={"logit_penalty": 0.1})


@pytest.mark.parametrize("loss", ["bradley_terry", "relativistic_average", "hinge", "wasserstein"])
def test_label_smoothing_needs_targets(make_config, loss):
    settings = {"logit_penalty": 0.1, "label_smoothing": 0.1}
    with pytest.raises(ValueError, match=f"label_smoothing .* discriminator_loss='{loss}'"):
        make_config(discriminator_loss=loss, discriminator_regularization=settings)
    for other in ("bce", "least_squares"):
        make_config(discriminator_loss=other, discriminator_regularization=settings)


def test_fresh_head_and_label_are_refused_together(make_config):
    make_config(discriminator_model_init_kwargs={"fresh_head": False}, discriminator_label="POSITIVE")
    with pytest.raises(ValueError, match=r"discriminator_label .* fresh_head"):
        make_config(discriminator_model_init_kwargs={"fresh_head": True}, discriminator_label="POSITIVE")


@pytest.mark.parametrize("optimizer", ["paged_adamw_8bit", "adamw_8bit", "lion_8bit"])
def test_optimizer_of_bitsandbytes_without_it_is_refused(make_config, monkeypatch, optimizer):
    monkeypatch.setattr(config_module, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(ImportError, match=rf"optim='{optimizer}'.*hf-mgan\[quantization\]"):
        make_config(discriminator_optim_kwargs={"optim": optimizer})
    make_config(discriminator_optim_kwargs={"optim": "adamw_torch_fused"})


@pytest.mark.parametrize("key", VALUES["discriminator_regularization"])
def test_regularization_holds_the_value_of_its_key(make_config, key):
    assert set(VALUES["discriminator_regularization"]) == {one.name for one in dataclasses.fields(Regularization)}
    value = VALUES["discriminator_regularization"][key]
    config = make_config(discriminator_regularization={key: value})
    assert config.regularization() == dataclasses.replace(Regularization(), **{key: value})


@pytest.mark.parametrize("key", DICTS["discriminator_optim_kwargs"])
def test_optim_kwargs_reach_the_discriminator_alone(make_config, key):
    value = VALUES["discriminator_optim_kwargs"][key]
    before = make_config()
    config = make_config(discriminator_optim_kwargs={**PARTNERS.get(key, {}), key: value})
    theirs = config.discriminator_training_args()
    assert getattr(theirs, key) == value
    assert getattr(before.discriminator_training_args(), key) != value
    assert getattr(config, key) == getattr(before, key)  # the generator's is as it was


def test_optim_kwargs_default_apart_from_the_generators(make_config):
    """The generator's weight decay, clipping and schedule are its own; the moments of Adam are those of both."""
    config = make_config(
        weight_decay=0.3,
        max_grad_norm=7.0,
        warmup_steps=5,
        optim="sgd",
        adam_beta1=0.5,
        lr_scheduler_type="cosine",
        learning_rate=1e-3,
    )
    theirs = config.discriminator_training_args()
    assert (theirs.weight_decay, theirs.max_grad_norm, theirs.warmup_steps) == (0.0, 1.0, 0)
    assert theirs.optim == OptimizerNames.ADAMW_TORCH
    assert theirs.lr_scheduler_type == "constant"
    assert theirs.learning_rate == config.discriminator_learning_rate != config.learning_rate
    assert theirs.adam_beta1 == 0.5


def test_warm_up_is_on_by_default(tmp_path):
    config = AdversarialConfig(str(tmp_path), report_to="none", use_cpu=True, bf16=False)
    assert config.discriminator_warmup_steps > 0


def parsed(tmp_path, *flags):
    given = ["--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false"]
    (config,) = TrlParser((AdversarialConfig,)).parse_args_and_config([*given, *flags], fail_with_unknown_args=True)
    return config


def test_flat_settings_from_the_command_line(tmp_path):
    config = parsed(tmp_path, *(part for name, value in FLAT.items() for part in (f"--{name}", str(value))))
    assert {name: getattr(config, name) for name in FLAT} == FLAT


def test_dict_settings_from_the_command_line(tmp_path):
    flags = [part for name, value in VALUES.items() for part in (f"--{name}", json.dumps(value))]
    config = parsed(tmp_path, *flags)
    assert {name: getattr(config, name) for name in VALUES} == VALUES
    assert config.update_gating() == VALUES["discriminator_update_gating"]
    assert config.model_init("revision") == "v2"


def test_dict_settings_from_yaml(tmp_path):
    lines = ["discriminator_update_gating:", "  ceiling: 0.9", "  floor: 0.55"]
    lines += ["discriminator_optim_kwargs:", "  optim: sgd", "  lr_scheduler_kwargs:", "    min_lr: 0.001"]
    (tmp_path / "config.yaml").write_text("\n".join(lines) + "\n")
    config = parsed(tmp_path, "--config", str(tmp_path / "config.yaml"))
    assert config.discriminator_update_gating == {"ceiling": 0.9, "floor": 0.55}
    assert config.discriminator_optim_kwargs == {"optim": "sgd", "lr_scheduler_kwargs": {"min_lr": 0.001}}


@pytest.mark.parametrize("setting", list(DICTS))
def test_unknown_key_from_the_command_line_is_refused(tmp_path, setting):
    with pytest.raises(ValueError, match=f"{setting} has the keys unheard_of"):
        parsed(tmp_path, f"--{setting}", '{"unheard_of": 1}')


@pytest.mark.parametrize(
    ("device", "given", "expected"),
    [
        ("gpu", {}, True),
        ("cpu", {}, False),
        ("gpu", {"use_cpu": True}, False),
        ("gpu", {"fp16": True}, False),
        ("gpu", {"bf16": False}, False),
        ("gpu", {"bf16": True}, True),
        ("cpu", {"bf16": True, "use_cpu": True}, True),  # what is asked for is what is done
    ],
)
def test_bf16_is_on_where_the_device_has_it(monkeypatch, tmp_path, device, given, expected):
    for module in (config_module, training_args):
        monkeypatch.setattr(module, "is_torch_bf16_gpu_available", lambda: device == "gpu")
    assert AdversarialConfig(str(tmp_path), **given).bf16 is expected


def test_bf16_is_off_where_accelerate_takes_the_cpu(monkeypatch, tmp_path):
    monkeypatch.setattr(config_module, "is_torch_bf16_gpu_available", lambda: True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert AdversarialConfig(str(tmp_path)).bf16 is False


def test_bf16_that_is_asked_for_is_checked(monkeypatch, tmp_path):
    monkeypatch.setattr(training_args, "is_torch_bf16_gpu_available", lambda: False)
    with pytest.raises(ValueError, match="bf16"):
        AdversarialConfig(str(tmp_path), bf16=True)
