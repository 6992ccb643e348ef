"""`hf-mgan train` from its arguments to the saved players; `hf-mgan demo` has tests of its own."""

import json
import shutil
import sys

import pytest
import torch
import yaml
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForSequenceClassification

from hf_mgan.cli import main as cli
from hf_mgan.metrics import self_bleu
from hf_mgan.watchdog.callback import Watchdog

from ..conftest import bert_classifier, texts


@pytest.fixture
def workplace(tmp_path, monkeypatch, generator, tokenizer, classifier, pair_tokenizer):
    """A folder to stand in: two saved players, `train.jsonl`, and a module of reward functions."""
    for name, model, its_tokenizer in (
        ("generator", generator, tokenizer),
        ("discriminator", classifier, pair_tokenizer),
    ):
        model.save_pretrained(tmp_path / name)
        its_tokenizer.save_pretrained(tmp_path / name)
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(32)))
    (tmp_path / "my_rewards.py").write_text(
        "def number_of_words(completions, **_):\n    return [float(len(text.split())) for text in completions]\n\n"
        "def share_of_dogs(completions):\n"
        "    return [text.split().count('dog') / max(len(text.split()), 1) for text in completions]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the command adds the folder it stands in
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path


SETTINGS = {
    "model_name_or_path": "generator",
    "discriminator_name_or_path": "discriminator",
    "dataset_name": "train.jsonl",
    "output_dir": "out",
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "num_generations": 4,
    "max_completion_length": 8,
    "use_peft": True,
    "lora_r": 2,
    "lora_target_modules": ["all-linear"],
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
}


def flags(**changes):
    """Return SETTINGS as a shell would hand them over; a setting of `None` is left out."""
    settings = {name: value for name, value in {**SETTINGS, **changes}.items() if value is not None}
    parts = [[f"--{name}", *(value if isinstance(value, list) else [value])] for name, value in settings.items()]
    return ["train", *(str(part) for part_list in parts for part in part_list)]


@pytest.fixture
def trained(monkeypatch):
    """Return the trainers of the games that `main` has played."""
    trainers = []
    train = cli.train
    monkeypatch.setattr(cli, "train", lambda *args: trainers.append(train(*args)))
    return trainers


def assert_both_players_are_saved(folder):
    adapters = AutoPeftModelForCausalLM.from_pretrained(folder).state_dict()
    assert any(value.abs().sum() > 0 for name, value in adapters.items() if "lora_B" in name)
    AutoModelForSequenceClassification.from_pretrained(folder / "discriminator")
    assert "discriminator" in (folder / "README.md").read_text()


def test_flags_play_a_game_and_save_both_players(workplace, trained, capsys):
    cli.main(flags(discriminator_loss="relativistic_average", discriminator_warmup_steps=1))
    (trainer,) = trained
    assert trainer.args.discriminator_loss == "relativistic_average"
    assert trainer.state.global_step == 2
    assert trainer.discriminator.num_updates == 3  # one alone, two in the game
    assert_both_players_are_saved(workplace / "out")
    assert "The generator is in out, the discriminator in out/discriminator." in capsys.readouterr().out


def test_a_yaml_file_says_the_same_and_flags_go_before_it(workplace, trained):
    (workplace / "game.yaml").write_text(yaml.safe_dump({**SETTINGS, "discriminator_reward": "logit", "seed": 5}))
    cli.main(["train", "--config", "game.yaml", "--seed", "6"])
    (trainer,) = trained
    assert (trainer.args.discriminator_reward, trainer.args.max_steps, trainer.args.seed) == ("logit", 2, 6)
    assert_both_players_are_saved(workplace / "out")


def test_a_mixture_of_datasets_in_a_yaml_file_is_played_on(workplace, trained):
    (workplace / "more").mkdir()
    (workplace / "more" / "train.jsonl").write_text(json.dumps({"text": "one two three"}) + "\n")
    (workplace / "first").mkdir()
    (workplace / "train.jsonl").rename(workplace / "first" / "train.jsonl")
    mixture = {"datasets": [{"path": "first"}, {"path": "more"}], "dataset_name": None}
    settings = {name: value for name, value in {**SETTINGS, **mixture}.items() if value is not None}
    (workplace / "game.yaml").write_text(yaml.safe_dump(settings))
    cli.main(["train", "--config", "game.yaml"])
    assert len(trained[0].train_dataset) == 33


def test_a_warm_start_comes_before_the_game_and_its_adapters_go_on(workplace, trained, monkeypatch):
    warm_starts = []
    warm_start = cli._warm_start

    def watched(*args):
        model = warm_start(*args)
        weights = {name: value.detach().clone() for name, value in model.named_parameters() if "lora_" in name}
        warm_starts.append((model, weights))
        return model

    monkeypatch.setattr(cli, "_warm_start", watched)
    cli.main(flags(warm_start_steps=2, warm_start_learning_rate=1e-2))
    ((model, weights),) = warm_starts
    assert trained[0].model is model
    assert any(value.abs().sum() > 0 for name, value in weights.items() if "lora_B" in name)
    moved = {name for name, value in model.named_parameters() if name in weights and not value.equal(weights[name])}
    assert moved == set(weights)
    assert_both_players_are_saved(workplace / "out")
    saved = AutoPeftModelForCausalLM.from_pretrained(workplace / "out").state_dict()
    assert all(saved[name].equal(value) for name, value in model.state_dict().items() if "lora_" in name)


def test_a_reward_function_of_the_users_module_is_paid_beside_the_discriminator(workplace, trained):
    cli.main(flags(reward_funcs=["my_rewards.number_of_words"], reward_weights=[0.5]))
    log = trained[0].state.log_history[0]
    assert trained[0].reward_weights.tolist() == [0.5, 1.0]
    # Completions of at most 8 tokens are at most 8 words.
    assert 0 < log["rewards/number_of_words/mean"] <= 8
    assert "rewards/discriminator/mean" in log


def unsafe_rates(trainer):
    return [entry["safety/unsafe_rate"] for entry in trainer.state.log_history if "loss" in entry]


def test_a_function_of_the_users_module_is_the_safety_gate(workplace, trained):
    cli.main(
        flags(
            safety_gate_name_or_path="my_rewards.share_of_dogs",
            safety_gate_threshold=0.01,
            per_device_train_batch_size=32,
            max_steps=1,
        )
    )
    (trainer,) = trained
    completions, advantages = list(trainer._logs["completion"]), list(trainer._logs["advantages"])
    # At a threshold of 0.5 hardly any of them would be unsafe: one word in 20 is a dog.
    unsafe = ["dog" in text.split() for text in completions]
    assert 0 < sum(unsafe) < 32
    assert unsafe_rates(trainer) == [sum(unsafe) / 32]
    for start in range(0, 32, 4):
        sides = {True: [], False: []}
        for value, judged in zip(advantages[start : start + 4], unsafe[start : start + 4], strict=True):
            sides[judged].append(value)
        assert not sides[True] or not sides[False] or max(sides[True]) < min(sides[False])


def test_a_saved_classifier_is_the_safety_gate_with_the_label_and_threshold_of_the_flags(
    workplace, trained, pair_tokenizer
):
    judge = bert_classifier(num_labels=2, seed=3)
    judge.config.id2label, judge.config.label2id = {0: "safe", 1: "unsafe"}, {"safe": 0, "unsafe": 1}
    judge.save_pretrained(workplace / "judge")
    pair_tokenizer.save_pretrained(workplace / "judge")
    cli.main(
        flags(safety_gate_name_or_path="judge", safety_gate_label="unsafe", safety_gate_threshold=0.3, max_steps=1)
    )
    (trainer,) = trained
    completions = list(trainer._logs["completion"])
    encoded = pair_tokenizer(completions, padding=True, return_tensors="pt")
    with torch.no_grad():
        probs = judge.eval()(**encoded).logits.softmax(1)[:, 1]
    assert unsafe_rates(trainer) == [(probs >= 0.3).float().mean().item()]
    gate = trainer._safety_gate
    assert (gate.label, gate.threshold) == (1, 0.3)


def test_training_ends_when_the_measure_of_the_flags_no_longer_improves(workplace, trained):
    """At a learning rate of 0 no evaluation after the first is better: the second and third are not."""
    (workplace / "data").mkdir()
    for split in ("train", "test"):
        shutil.copy(workplace / "train.jsonl", workplace / "data" / f"{split}.jsonl")
    evaluated = {
        "dataset_name": "data",
        "eval_strategy": "steps",
        "eval_steps": 1,
        "per_device_eval_batch_size": 32,
        "learning_rate": 0.0,
        "max_steps": 5,
    }
    stops = {
        "early_stopping_metric": "generator/real_nll",
        "early_stopping_patience": 2,
        "early_stopping_greater_is_better": False,
    }
    cli.main(flags(**evaluated, **stops))
    (trainer,) = trained
    assert trainer.state.global_step == 3
    (watchdog,) = (each for each in trainer.callback_handler.callbacks if isinstance(each, Watchdog))
    assert watchdog.greater_is_better is False
    assert [alarm.name for alarm in watchdog.alarms] == ["early_stopping"]


def test_a_fresh_head_is_put_on_a_classifier_of_something_else(workplace, trained, pair_tokenizer):
    bert_classifier(num_labels=3).save_pretrained(workplace / "topics")
    pair_tokenizer.save_pretrained(workplace / "topics")
    cli.main(flags(discriminator_name_or_path="topics", discriminator_fresh_head=True, max_steps=1))
    assert trained[0].discriminator.model.config.num_labels == 1
    assert_both_players_are_saved(workplace / "out")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("discriminator_name_or_path", "no discriminator: give --discriminator_name_or_path"),
        ("dataset_name", "no data: give --dataset_name"),
        ("model_name_or_path", "no generator: give --model_name_or_path"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_loaded(workplace, monkeypatch, missing, message):
    def loaded(*_, **__):
        raise AssertionError("a model was loaded first")

    monkeypatch.setattr(cli, "AdversarialTrainer", loaded)
    monkeypatch.setattr(cli, "SFTTrainer", loaded)
    with pytest.raises(ValueError, match=message):
        cli.main(flags(**{missing: None, "warm_start_steps": 1}))


GATE = {"safety_gate_name_or_path": "my_rewards.share_of_dogs"}
STOPS = {
    "dataset_name": "with_test_split",
    "eval_strategy": "steps",
    "early_stopping_metric": "generator/real_nll",
    "early_stopping_greater_is_better": False,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset_train_split": "training", "dataset_name": "folder"}, r"splits \['train'\] and no 'training'"),
        ({"eval_strategy": "steps"}, r"splits \['train'\] and no 'test'"),
        (
            {"reward_funcs": ["my_rewards.number_of_letters"]},
            "no function 'number_of_letters' in a",
        ),
        ({"reward_funcs": ["your_rewards.number_of_words"]}, "in a module 'your_rewards'"),
        ({"discriminator_density_offset": True}, "needs new adapters, and those of a warm start are trained"),
        ({"discriminator_name_or_path": "two_labels"}, "say which of them means real"),
        (
            {"reward_funcs": ["my_rewards.number_of_words"], "reward_weights": [1.0, 2.0]},
            r"Number of reward weights \(2\) must match number of reward functions \(1\)",
        ),
        ({"load_best_model_at_end": True, "save_strategy": "no"}, "'loss' cannot tell which generator is better"),
        ({"load_in_4bit": True, "use_peft": None}, "A generator in 4 or 8 bits cannot be trained as it is"),
        ({"load_in_4bit": True, "use_vllm": True}, "A generator in 4 or 8 bits cannot generate with vLLM"),
        ({"safety_gate_name_or_path": "two_labels"}, "say which of them means unsafe"),
        ({"safety_gate_name_or_path": "two_labels", "safety_gate_label": "toxic"}, "label is 'toxic', and"),
        ({"safety_gate_name_or_path": "my_rewards.share_of_cats"}, "safety_gate_name_or_path names 'my_rewards.share"),
        ({**GATE, "safety_gate_threshold": 1.5}, r"in \(0, 1\], got 1.5"),
        ({**GATE, "safety_gate_label": "toxic"}, "label belongs to a sequence classifier"),
        ({**GATE, "multi_objective_aggregation": "normalize_then_sum"}, "can outweigh the safety gate"),
        ({**GATE, "discriminator_credit": "token", "scale_rewards": "none"}, "safety_gate ranks whole completions"),
        ({"safety_gate_label": "toxic"}, "safety_gate_label='toxic' has no effect without safety_gate_name_or_path"),
        ({"safety_gate_threshold": 0.4}, "safety_gate_threshold=0.4 has no effect without safety_gate_name_or_path"),
        ({"early_stopping_patience": 2}, "early_stopping_patience=2 has no effect without early_stopping_metric"),
        ({"early_stopping_greater_is_better": False}, "greater_is_better=False has no effect without early_stopping"),
        ({**STOPS, "eval_strategy": "no"}, "metric of evaluations, and there are none: set --eval_strategy"),
        ({**STOPS, "early_stopping_greater_is_better": None}, "whether it is to rise .* got 'generator/real_nll' and"),
        ({**STOPS, "early_stopping_patience": 0}, "early_stopping_patience must be at least 1, got 0"),
        ({**STOPS, "early_stopping_metric": "discriminator/accuracy"}, "cannot tell which generator is better"),
    ],
)
def test_what_is_wrong_is_said_before_a_warm_start(workplace, monkeypatch, pair_tokenizer, changes, message):
    def started(*_, **__):
        raise AssertionError("the warm start came first")

    monkeypatch.setattr(cli, "_warm_start", started)
    for name in ("folder/train", "with_test_split/train", "with_test_split/test"):
        (workplace / name).parent.mkdir(exist_ok=True)
        shutil.copy(workplace / "train.jsonl", workplace / f"{name}.jsonl")
    bert_classifier(num_labels=2).save_pretrained(workplace / "two_labels")
    pair_tokenizer.save_pretrained(workplace / "two_labels")
    with pytest.raises(ValueError, match=message):
        cli.main(flags(warm_start_steps=1, **changes))


def test_a_resumed_run_does_not_warm_start_again(workplace, trained, monkeypatch):
    settings = {"warm_start_steps": 1, "save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant"}
    cli.main(flags(**settings, max_steps=1))

    def started(*_, **__):
        raise AssertionError("it warm-started again")

    monkeypatch.setattr(cli, "_warm_start", started)
    cli.main(flags(**settings, resume_from_checkpoint="out/checkpoint-1"))
    assert trained[1].state.global_step == 2
    weights = AutoPeftModelForCausalLM.from_pretrained(workplace / "out" / "checkpoint-1").state_dict()
    after = trained[1].model.state_dict()
    # One step of 1e-5 on top of what the warm start, at 2e-4, had left.
    moves = [(after[name] - value).abs().max().item() for name, value in weights.items() if "lora_" in name]
    assert 0 < max(moves) < 1e-4


def test_a_dataset_and_a_mixture_at_once_are_refused(workplace):
    settings = {**SETTINGS, "datasets": [{"path": "."}]}
    (workplace / "game.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(ValueError, match="either dataset_name or a mixture"):
        cli.main(["train", "--config", "game.yaml"])


def test_an_unknown_flag_is_refused_by_name(workplace, trained):
    with pytest.raises(ValueError, match="discriminator_lose"):
        cli.main([*flags(), "--discriminator_lose", "bce"])
    assert trained == []


def test_an_unknown_key_in_a_yaml_file_is_refused_by_name(workplace, trained):
    (workplace / "game.yaml").write_text(yaml.safe_dump({**SETTINGS, "discriminator_lose": "bce"}))
    with pytest.raises(ValueError, match="discriminator_lose"):
        cli.main(["train", "--config", "game.yaml"])
    assert trained == []


def test_an_unknown_value_is_refused_with_the_choices(workplace, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(flags(discriminator_loss="bec"))
    assert stopped.value.code == 2
    assert "bradley_terry" in capsys.readouterr().err.split("choose from")[1]


def test_an_unknown_command_ends_with_status_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["trian"])
    assert stopped.value.code == 2
    assert "invalid choice: 'trian'" in capsys.readouterr().err


# Samples that are measured in training.

SAMPLES = {"dataset_name": "with_test_split", "eval_strategy": "steps", "eval_steps": 1, "evaluation_samples": 24}


@pytest.fixture
def with_test_split(workplace):
    (workplace / "with_test_split").mkdir()
    shutil.copy(workplace / "train.jsonl", workplace / "with_test_split" / "train.jsonl")
    rows = [json.dumps({"text": text}) + "\n" for text in texts(24, seed=7)]
    (workplace / "with_test_split" / "test.jsonl").write_text("".join(rows))


def test_samples_are_measured_against_the_test_split_and_can_stop_the_game(workplace, with_test_split, trained):
    """A generator that does not move writes the same samples: one evaluation is the best, one more is not."""
    stops = {
        "early_stopping_metric": "samples/c2st_auc",
        "early_stopping_patience": 1,
        "early_stopping_greater_is_better": False,
    }
    cli.main(flags(**SAMPLES, **stops, **GATE, evaluation_encoder="discriminator", learning_rate=0.0, max_steps=4))
    (trainer,) = trained
    assert trainer.state.global_step == 2
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(evaluations) == 2
    assert {f"eval_samples/{name}" for name in ("c2st_auc", "mauve", "frechet", "unsafe_rate")} <= set(evaluations[0])
    held_out = [text.split() for text in texts(24, seed=7)]
    assert evaluations[0]["eval_held_out/self_bleu"] == pytest.approx(self_bleu(held_out, 4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"eval_strategy": None, "eval_steps": None},
            "drawn at every evaluation, and there are none: set --eval_strategy",
        ),
        ({"evaluation_samples": None, "evaluation_encoder": "x"}, "evaluation_encoder='x' has no effect without eval"),
        ({"evaluation_samples": 25}, "compares 25 samples with as many held-out real texts, and there are 24"),
        ({"evaluation_samples": 8}, "num_samples must be at least 16, got 8"),
        (
            {"load_best_model_at_end": True, "save_strategy": "best", "metric_for_best_model": "samples/c2st_auc"},
            "set greater_is_better=False",
        ),
    ],
)
def test_samples_that_could_not_be_measured_are_refused_before_a_warm_start(
    workplace, with_test_split, monkeypatch, changes, message
):
    def started(*_, **__):
        raise AssertionError("the warm start came first")

    monkeypatch.setattr(cli, "_warm_start", started)
    with pytest.raises(ValueError, match=message):
        cli.main(flags(warm_start_steps=1, **{**SAMPLES, **changes}))
