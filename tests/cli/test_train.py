"""`hf-mgan train` from its arguments to what the trainer is given, and whole runs to the saved models."""

import json
import sys

import datasets
import pytest
import torch
import yaml
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EarlyStoppingCallback,
)
from trl.scripts.utils import DatasetConfig, DatasetMixtureConfig

from hf_mgan import Discriminator
from hf_mgan.cli import main as main_module
from hf_mgan.cli import train as train_module
from hf_mgan.cli.main import run
from hf_mgan.cli.train import TrainArguments, datasets_on_hub
from hf_mgan.evaluation.models import load_generator
from hf_mgan.metrics import self_bleu

from ..conftest import bert_classifier, texts


SETTINGS = {
    "model_name_or_path": "generator",
    "discriminator_name_or_path": "discriminator",
    "dataset_name": "train.jsonl",
    "output_dir": "out",
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "num_generations": 4,
    "max_completion_length": 8,
    "discriminator_warmup_steps": 0,
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
GATE = {"safety_gate_name_or_path": "my_rewards.share_of_dogs"}
STOPS = {
    "dataset_name": "with_test_split",
    "eval_strategy": "steps",
    "early_stopping_patience": 2,
    "metric_for_best_model": "generator/real_nll",
    "greater_is_better": False,
}
SAMPLES = {"dataset_name": "with_test_split", "eval_strategy": "steps", "eval_steps": 1, "num_samples": 24}


def flags(**changes):
    """Return SETTINGS as a shell would hand them over; a setting of `None` is left out, a dict is JSON."""
    settings = {name: value for name, value in {**SETTINGS, **changes}.items() if value is not None}
    words = ["train"]
    for name, value in settings.items():
        words.append(f"--{name}")
        words += (
            [json.dumps(value)] if isinstance(value, dict) else map(str, value if isinstance(value, list) else [value])
        )
    return words


@pytest.fixture
def workplace(tmp_path, monkeypatch, generator, tokenizer, classifier, pair_tokenizer):
    """A folder to stand in: saved models, `train.jsonl`, folders of data, and a module of reward functions."""
    two_labels = bert_classifier(num_labels=2)
    two_labels.config.id2label, two_labels.config.label2id = {0: "machine", 1: "human"}, {"machine": 0, "human": 1}
    for name, model, its_tokenizer in (
        ("generator", generator, tokenizer),
        ("discriminator", classifier, pair_tokenizer),
        ("two_labels", two_labels, pair_tokenizer),
    ):
        model.save_pretrained(tmp_path / name)
        its_tokenizer.save_pretrained(tmp_path / name)
    for name, seed in (("train", 0), ("folder/train", 0), ("with_test_split/train", 0), ("with_test_split/test", 7)):
        rows = [json.dumps({"text": text}) + "\n" for text in texts(24 if seed else 32, seed)]
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.jsonl").write_text("".join(rows))
    (tmp_path / "my_rewards.py").write_text(
        "def number_of_words(completions, **_):\n    return [float(len(text.split())) for text in completions]\n\n"
        "def share_of_dogs(completions):\n"
        "    return [text.split().count('dog') / max(len(text.split()), 1) for text in completions]\n\n"
        "def discriminator(completions, **_):\n    return [0.0] * len(completions)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the command adds the folder it stands in
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


@pytest.fixture
def given(workplace, monkeypatch):
    """Return what `AdversarialTrainer` was given, call after call; it does not train, and saves nothing."""
    calls = []

    class Recorded:
        accelerator = type("Accelerator", (), {"print": staticmethod(print)})

        def __init__(self, **arguments):
            calls.append(arguments)

        def __setattr__(self, name, value):
            calls[-1][name] = value

        def train(self, **arguments):
            calls[-1] |= arguments

        def save_model(self, folder):
            calls[-1]["saved_to"] = folder

        def create_model_card(self): ...

    monkeypatch.setattr(train_module, "AdversarialTrainer", Recorded)
    return calls


@pytest.fixture
def trained(workplace, monkeypatch):
    """Return the trainers that `main` has trained with."""
    trainers = []
    train = main_module.train
    monkeypatch.setattr(main_module, "train", lambda *args: trainers.append(train(*args)))
    return trainers


@pytest.fixture
def no_warm_start(monkeypatch):
    """Fail where a warm start begins."""

    def started(*_, **__):
        raise AssertionError("the warm start came first")

    monkeypatch.setattr(train_module, "warm_started", started)


def assert_models_are_saved(folder):
    adapters = AutoPeftModelForCausalLM.from_pretrained(folder).state_dict()
    assert any(value.abs().sum() > 0 for name, value in adapters.items() if "lora_B" in name)
    AutoModelForSequenceClassification.from_pretrained(folder / "discriminator")
    assert "discriminator" in (folder / "README.md").read_text()


# What the trainer is given.


def test_flags_reach_the_trainer(given, capsys):
    run(flags(discriminator_loss="relativistic_average", discriminator_reward="logit"))
    (call,) = given
    assert (call["model"], call["discriminator"]) == ("generator", "discriminator")
    assert (call["args"].discriminator_loss, call["args"].discriminator_reward) == ("relativistic_average", "logit")
    assert call["train_dataset"]["text"] == texts(32)
    assert call["peft_config"].r == 2
    assert call["callbacks"] == call["reward_funcs"] == []
    assert [call[name] for name in ("eval_dataset", "evaluator", "safety_gate", "quantization_config")] == [None] * 4
    assert call["saved_to"] == "out"
    assert call["dataset_name"] is None  # a file of one's own is no dataset of the Hub
    assert "The generator is in out, the discriminator in out/discriminator." in capsys.readouterr().out


def test_yaml_file_says_the_same_and_flags_win(workplace, given):
    (workplace / "run.yaml").write_text(yaml.safe_dump({**SETTINGS, "discriminator_reward": "logit", "seed": 5}))
    run(["train", "--config", "run.yaml", "--seed", "6"])
    args = given[0]["args"]
    assert (args.discriminator_reward, args.max_steps, args.seed) == ("logit", 2, 6)


DICTS = {
    "discriminator_optim_kwargs": {"lr_scheduler_type": "linear", "weight_decay": 0.01},
    "discriminator_model_init_kwargs": {"fresh_head": True},
    "discriminator_regularization": {"logit_penalty": 0.1},
    "discriminator_update_gating": {"ceiling": 0.9, "floor": 0.6},
}


@pytest.mark.parametrize("source", ["flags", "file"])
def test_dict_settings_are_json_in_flags_and_mappings_in_yaml(workplace, given, source):
    (workplace / "run.yaml").write_text(yaml.safe_dump({**SETTINGS, **DICTS}))
    run(flags(**DICTS) if source == "flags" else ["train", "--config", "run.yaml"])
    args = given[0]["args"]
    assert {name: getattr(args, name) for name in DICTS} == DICTS
    optim = args.discriminator_training_args()
    assert (optim.weight_decay, optim.lr_scheduler_type, args.weight_decay) == (0.01, "linear", 0.0)


def test_mixture_of_datasets_in_a_yaml_file_is_trained_on(workplace, given):
    (workplace / "more").mkdir()
    (workplace / "more" / "train.jsonl").write_text(json.dumps({"text": "one two three"}) + "\n")
    settings = {**SETTINGS, "datasets": [{"path": "folder"}, {"path": "more"}]}
    del settings["dataset_name"]
    (workplace / "run.yaml").write_text(yaml.safe_dump(settings))
    run(["train", "--config", "run.yaml"])
    assert len(given[0]["train_dataset"]) == 33


def test_reward_function_of_the_users_module_is_imported(given):
    run(flags(reward_funcs=["my_rewards.number_of_words"], reward_weights=[0.5]))
    (function,) = given[0]["reward_funcs"]
    assert function(["the dog runs"]) == [3.0]
    assert given[0]["args"].reward_weights == [0.5]


def test_function_of_the_users_module_is_the_safety_gate(given):
    run(flags(**GATE, safety_gate_threshold=0.3))
    gate = given[0]["safety_gate"]
    # One dog in four words is below 0.3, one in three is above; at the default of 0.5 neither would be unsafe.
    assert gate.is_unsafe(["", ""], ["a dog runs .", "a dog runs"]).tolist() == [False, True]


def test_saved_classifier_is_the_safety_gate(given, pair_tokenizer):
    named = {"safety_gate_name_or_path": "two_labels", "safety_gate_label": "human", "safety_gate_threshold": 0.3}
    run(flags(**named))
    gate = given[0]["safety_gate"]
    assert (gate.label, gate.threshold) == (1, 0.3)
    with torch.no_grad():
        logits = bert_classifier(num_labels=2).eval()(**pair_tokenizer(texts(5), return_tensors="pt")).logits
    torch.testing.assert_close(gate.unsafe_probs([""] * 5, texts(5)), logits.softmax(1)[:, 1])


def test_early_stopping_patience_adds_the_callback(given):
    best = {"load_best_model_at_end": True, "save_strategy": "steps", "eval_steps": 1, "save_steps": 1}
    run(flags(**STOPS, **best))
    (callback,) = given[0]["callbacks"]
    assert isinstance(callback, EarlyStoppingCallback)
    assert callback.early_stopping_patience == 2
    args = given[0]["args"]
    assert (args.metric_for_best_model, args.greater_is_better) == ("generator/real_nll", False)
    assert args.load_best_model_at_end


def test_num_samples_make_the_evaluator(given):
    run(flags(**SAMPLES, encoder="discriminator", seed=4))
    call = given[0]
    evaluator = call["evaluator"]
    assert (evaluator.num_samples, evaluator.encoder, evaluator.seed) == (24, "discriminator", 4)
    assert evaluator.held_out["text"] == call["eval_dataset"]["text"] == texts(24, 7)


def test_resumed_run_has_no_warm_start(given, no_warm_start):
    run(flags(warm_start_steps=1, resume_from_checkpoint="out/checkpoint-1"))
    assert given[0]["model"] == "generator"
    assert given[0]["resume_from_checkpoint"] == "out/checkpoint-1"


def test_discriminator_gets_adapters_and_quantisation(given):
    lora = {"use_peft": True, "lora_r": 4, "lora_target_modules": ["query", "value"], "load_in_4bit": True}
    run(
        flags(
            **{f"discriminator_{name}": value for name, value in lora.items()}, discriminator_bnb_4bit_quant_type="fp4"
        )
    )
    adapters, quantisation = (given[0][f"discriminator_{name}_config"] for name in ("peft", "quantization"))
    assert (adapters.task_type, adapters.r, adapters.target_modules) == ("SEQ_CLS", 4, {"query", "value"})
    assert (quantisation.load_in_4bit, quantisation.bnb_4bit_quant_type) == (True, "fp4")
    assert quantisation.bnb_4bit_compute_dtype == torch.float32
    assert given[0]["quantization_config"] is None
    assert given[0]["peft_config"].task_type == "CAUSAL_LM"


def test_one_name_of_modules_is_a_name_and_no_pattern(given):
    one = {"lora_target_modules": ["c_attn"], "discriminator_lora_target_modules": ["query"]}
    run(flags(**one, discriminator_use_peft=True))
    assert given[0]["peft_config"].target_modules == {"c_attn"}
    assert given[0]["discriminator_peft_config"].target_modules == {"query"}
    run(flags())
    assert given[1]["peft_config"].target_modules == "all-linear"


def test_tokenizers_may_lie_elsewhere(workplace, given):
    for name in ("generator", "discriminator"):
        (workplace / f"{name}_tokenizer").mkdir()
        for file in (workplace / name).glob("token*"):
            file.rename(workplace / f"{name}_tokenizer" / file.name)
    run(
        flags(
            tokenizer_name_or_path="generator_tokenizer",
            discriminator_tokenizer_name_or_path="discriminator_tokenizer",
        )
    )
    call = given[0]
    assert call["processing_class"].bos_token == "<s>"
    assert call["processing_class"].padding_side == "left"
    assert call["discriminator_processing_class"].cls_token == "[CLS]"


def test_revision_of_the_discriminator(given):
    run(flags(discriminator_model_revision="v2", discriminator_model_init_kwargs={"fresh_head": True}))
    assert given[0]["args"].discriminator_model_init_kwargs == {"fresh_head": True, "revision": "v2"}
    run(flags(discriminator_model_revision="v2", discriminator_model_init_kwargs={"revision": "v2"}))
    with pytest.raises(ValueError, match=r"discriminator_model_revision is 'v2', and .* 'v1': give one"):
        run(flags(discriminator_model_revision="v2", discriminator_model_init_kwargs={"revision": "v1"}))


def test_held_out_file_beside_the_training_file(given):
    run(flags(eval_dataset_name="with_test_split/test.jsonl", eval_strategy="steps"))
    assert given[0]["train_dataset"]["text"] == texts(32)
    assert given[0]["eval_dataset"]["text"] == texts(24, 7)
    with pytest.raises(ValueError, match="both called 'train'"):
        run(flags(eval_dataset_name="with_test_split/test.jsonl", dataset_test_split="train"))


@pytest.mark.parametrize("streaming", [False, True])
def test_small_evaluation_beside_all_samples(given, streaming):
    """Each row of an evaluation is a batch of completions; samples are compared with the whole set."""
    run(flags(**SAMPLES, max_eval_samples=3, num_generations_eval=2, dataset_streaming=streaming))
    call = given[0]
    assert [row["text"] for row in call["eval_dataset"]] == texts(24, 7)[:3]
    assert len(list(call["evaluator"].held_out)) == 24
    assert call["args"].num_generations_eval == 2


def test_more_of_the_samples_of_evaluations(given):
    run(flags(**SAMPLES, copies=True, reverse_perplexity=True))
    evaluator = given[0]["evaluator"]
    assert evaluator.reverse_perplexity
    assert not evaluator.bleu
    assert evaluator.training["text"] == texts(32)


def test_real_texts_without_prompts(given):
    run(flags(real_dataset_name="folder"))
    assert given[0]["real_dataset"]["text"] == texts(32)
    run(flags(real_dataset_name="with_test_split/test.jsonl", dataset_streaming=True))
    assert [row["text"] for row in given[1]["real_dataset"]] == texts(24, 7)


def test_thresholds_of_the_watchdog(given):
    thresholds = {"length_tolerance": 0.5}
    run(flags(**GATE, watchdog_patience=5, watchdog_thresholds=thresholds, watchdog_unsafe_limit=0.1))
    (watchdog,) = given[0]["callbacks"]
    assert (watchdog.patience, watchdog.thresholds.length_tolerance, watchdog.unsafe_limit) == (5, 0.5, 0.1)


def test_margin_and_prompt_of_the_safety_gate(given):
    run(flags(safety_gate_name_or_path="discriminator", safety_gate_margin=3.0, safety_gate_with_prompt=True))
    assert (given[0]["safety_gate"].margin, given[0]["safety_gate"].with_prompt) == (3.0, True)


def test_unit_of_chinese_reaches_metrics_and_watchdog(given):
    run(flags(unit="character"))
    assert given[0]["args"].unit == "character"


# Whole runs.


def test_one_base_for_both_models(workplace, trained):
    base = {"share_base": True, "discriminator_name_or_path": None, "discriminator_use_peft": True}
    run(flags(**base, discriminator_lora_target_modules=["c_attn"], discriminator_lora_r=2))
    (trainer,) = trained
    own = trainer.model.get_base_model().transformer.wte.weight
    assert trainer.discriminator.model.get_base_model().transformer.wte.weight is own
    assert trainer.discriminator.num_updates == 2
    for folder in ("out", "out/discriminator"):
        assert (
            json.loads((workplace / folder / "adapter_config.json").read_text())["base_model_name_or_path"]
            == "generator"
        )


def test_train_saves_both_models(workplace, trained):
    run(flags(discriminator_warmup_steps=1))
    (trainer,) = trained
    assert trainer.state.global_step == 2
    assert trainer.discriminator.num_updates == 3  # one alone, two beside the generator
    assert_models_are_saved(workplace / "out")


def test_warm_start_comes_first_and_its_adapters_go_on(workplace, trained, monkeypatch):
    warm_starts = []
    warm_started = train_module.warm_started

    def watched(*args, **kwargs):
        model, tokenizer = warm_started(*args, **kwargs)
        weights = {name: value.detach().clone() for name, value in model.named_parameters() if "lora_" in name}
        warm_starts.append((model, weights))
        return model, tokenizer

    monkeypatch.setattr(train_module, "warm_started", watched)
    run(flags(warm_start_steps=2, warm_start_learning_rate=1e-2))
    ((model, weights),) = warm_starts
    assert trained[0].model is model
    assert trained[0].processing_class.padding_side == "left"
    assert any(value.abs().sum() > 0 for name, value in weights.items() if "lora_B" in name)
    moved = {name for name, value in model.named_parameters() if name in weights and not value.equal(weights[name])}
    assert moved == set(weights)
    assert_models_are_saved(workplace / "out")
    saved = AutoPeftModelForCausalLM.from_pretrained(workplace / "out").state_dict()
    assert all(saved[name].equal(value) for name, value in model.state_dict().items() if "lora_" in name)
    before = AutoPeftModelForCausalLM.from_pretrained("out/warm_start").state_dict()
    assert all(before[name].equal(value) for name, value in weights.items())


def test_warm_start_of_a_whole_model_is_saved_with_its_tokenizer(workplace, trained, capsys):
    run(flags(warm_start_steps=1, use_peft=None, lora_r=None, lora_target_modules=None, max_steps=1))
    states = [
        AutoModelForCausalLM.from_pretrained(name).state_dict() for name in ("generator", "out/warm_start", "out")
    ]
    start, warm, end = (state["transformer.h.0.attn.c_attn.weight"] for state in states)
    assert not start.equal(warm)
    assert not warm.equal(end)
    assert AutoTokenizer.from_pretrained("out/warm_start").decode([8]) == "dog"
    assert "The generator after the warm start is in out/warm_start." in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="bitsandbytes takes the GPU, whatever the trainer is told")
def test_models_trained_in_four_bits_are_loaded_in_four_bits(workplace, trained, generator, tokenizer):
    pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")
    generator.config.n_embd = 64  # bitsandbytes wants blocks of 64 weights
    type(generator)(generator.config).save_pretrained("wide")
    tokenizer.save_pretrained("wide")
    run(flags(model_name_or_path="wide", load_in_4bit=True, warm_start_steps=1, max_steps=1))
    for folder in ("out/warm_start", "out"):
        assert load_generator(folder)[0].is_loaded_in_4bit


@pytest.mark.slow  # what is handed to the trainer is tested above, and how it resumes in tests/training
def test_saved_adapters_are_warm_started_and_go_on(workplace, trained, generator, tokenizer):
    lora = LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained("generator"), lora).save_pretrained("adapters")
    before = load_file("adapters/adapter_model.safetensors")
    run(flags(model_name_or_path="adapters", use_peft=None, warm_start_steps=1, max_steps=1))
    assert all(not value.equal(before[name]) for name, value in load_file("out/adapter_model.safetensors").items())


def test_resumed_run_goes_on_from_its_warm_start(workplace, trained, request):
    settings = {"warm_start_steps": 1, "save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant"}
    run(flags(**settings, max_steps=1))
    request.getfixturevalue("no_warm_start")
    run(flags(**settings, resume_from_checkpoint="out/checkpoint-1"))
    assert trained[1].state.global_step == 2
    weights = AutoPeftModelForCausalLM.from_pretrained(workplace / "out" / "checkpoint-1").state_dict()
    after = trained[1].model.state_dict()
    # One step of 1e-5 on top of what the warm start, at 2e-4, had left.
    moves = [(after[name] - value).abs().max().item() for name, value in weights.items() if "lora_" in name]
    assert 0 < max(moves) < 1e-4


def test_samples_are_evaluated_and_can_stop_training(trained):
    """A generator that does not move writes the same samples: one evaluation is the best, one more is not."""
    stops = {**STOPS, "early_stopping_patience": 1, "metric_for_best_model": "samples/c2st_auc"}
    run(flags(**{**stops, **SAMPLES}, **GATE, encoder="discriminator", learning_rate=0.0, max_steps=4))
    (trainer,) = trained
    assert trainer.state.global_step == 2
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(evaluations) == 2
    assert {f"eval_samples/{name}" for name in ("c2st_auc", "mauve", "frechet", "unsafe_rate")} <= set(evaluations[0])
    held_out = [text.split() for text in texts(24, seed=7)]
    assert evaluations[0]["eval_held_out/self_bleu"] == pytest.approx(self_bleu(held_out, 4))


# What is refused, and when.


@pytest.mark.parametrize("missing", ["discriminator_name_or_path", "dataset_name", "model_name_or_path"])
def test_missing_argument_is_refused_before_anything_loads(workplace, monkeypatch, no_warm_start, missing):
    def loaded(*_, **__):
        raise AssertionError("a model was loaded first")

    monkeypatch.setattr(train_module, "AdversarialTrainer", loaded)
    with pytest.raises(ValueError, match=f"give --{missing}"):
        run(flags(**{missing: None, "warm_start_steps": 1}))


REFUSED = {
    "no train split": ({"dataset_train_split": "training", "dataset_name": "folder"}, "dataset_train_split"),
    "no test split": ({"eval_strategy": "steps"}, "dataset_test_split"),
    "no such function": ({"reward_funcs": ["my_rewards.number_of_letters"]}, "reward_funcs.*'number_of_letters'"),
    "no such reward": ({"reward_funcs": ["no/such-reward"]}, "reward_funcs names 'no/such-reward'.*cannot be loaded"),
    "no such generator": (
        {"model_name_or_path": "no/g"},
        "^model_name_or_path names 'no/g': there is no such folder",
    ),
    "no such D": ({"discriminator_name_or_path": "no/d"}, "^discriminator_name_or_path names 'no/d'"),
    "no such tokenizer": ({"tokenizer_name_or_path": "no/t"}, "^tokenizer_name_or_path names 'no/t'"),
    "no such gate": ({"safety_gate_name_or_path": "no/gate"}, "^safety_gate_name_or_path names 'no/gate'"),
    "no such encoder": ({**SAMPLES, "encoder": "no/e"}, "^encoder names 'no/e'"),
    "no such module": ({"reward_funcs": ["your_rewards.number_of_words"]}, "reward_funcs.*'your_rewards'"),
    "no label": ({"discriminator_name_or_path": "two_labels"}, "discriminator_label"),
    "weights": ({"reward_funcs": ["my_rewards.number_of_words"], "reward_weights": [1.0, 2.0]}, "reward weights"),
    "best by loss": ({"load_best_model_at_end": True, "save_strategy": "no"}, "metric_for_best_model='loss'"),
    "4-bit alone": (
        {"load_in_4bit": True, "use_peft": None, "lora_r": None, "lora_target_modules": None},
        "peft_config",
    ),
    "D in 4 bits alone": ({"discriminator_load_in_4bit": True}, "discriminator_peft_config"),
    "adapters' details alone": ({"use_peft": None, "lora_target_modules": None}, "lora_r=2 .* without use_peft"),
    "D's details alone": ({"discriminator_lora_r": 2}, "discriminator_lora_r=2 .* without discriminator_use_peft"),
    "kind of 4 bits alone": ({"bnb_4bit_quant_type": "fp4"}, "bnb_4bit_quant_type='fp4' .* without load_in_4bit"),
    "shared base and D": ({"share_base": True}, "discriminator_name_or_path='discriminator' .* share_base"),
    "shared base without adapters": (
        {"share_base": True, "discriminator_name_or_path": None},
        "--use_peft and --discriminator_use_peft",
    ),
    "shared base and warm start": (
        {"share_base": True, "discriminator_name_or_path": None, "discriminator_use_peft": True},
        "share_base there is no warm start",
    ),
    "small evaluation of none": ({"max_eval_samples": 3}, "max_eval_samples=3 .* --eval_strategy"),
    "unsafe limit without gate": ({"watchdog_unsafe_limit": 0.1}, "watchdog_unsafe_limit=0.1 .* safety_gate_name"),
    "threshold of nothing": ({"watchdog_thresholds": {"lenght": 1}}, "watchdog_thresholds has the keys lenght"),
    "patience of none": ({"watchdog_patience": 0}, "watchdog_patience .* got 0"),
    "copies without samples": ({"copies": True}, "copies=True .* num_samples"),
    "config of no real texts": ({"real_dataset_config": "en"}, "real_dataset_config='en' .* real_dataset_name"),
    "4-bit and vLLM": ({"load_in_4bit": True, "use_vllm": True}, "use_vllm"),
    "label of the gate": ({"safety_gate_name_or_path": "two_labels"}, "unsafe text with label"),
    "other label": ({"safety_gate_name_or_path": "two_labels", "safety_gate_label": "toxic"}, "label is 'toxic'"),
    "other gate": ({"safety_gate_name_or_path": "my_rewards.share_of_cats"}, "safety_gate_name_or_path"),
    "threshold": ({**GATE, "safety_gate_threshold": 1.5}, "threshold .* got 1.5"),
    "label of a function": ({**GATE, "safety_gate_label": "toxic"}, "label belongs"),
    "aggregation": ({**GATE, "multi_objective_aggregation": "normalize_then_sum"}, "multi_objective_aggregation"),
    "label without gate": ({"safety_gate_label": "toxic"}, "safety_gate_label='toxic' .* safety_gate_name_or_path"),
    "threshold without gate": ({"safety_gate_threshold": 0.4}, "safety_gate_threshold=0.4"),
    "stops without evaluation": ({**STOPS, "eval_strategy": "no"}, "early_stopping_patience=2 .* --eval_strategy"),
    "stops without metric": ({**STOPS, "metric_for_best_model": None}, "metric_for_best_model='loss'"),
    "stops at once": ({**STOPS, "early_stopping_patience": 0}, "early_stopping_patience .* got 0"),
    "stops by D": ({**STOPS, "metric_for_best_model": "discriminator/accuracy"}, "metric_for_best_model"),
    "samples without evaluation": ({**SAMPLES, "eval_strategy": "no"}, "num_samples=24 .* --eval_strategy"),
    "encoder without samples": ({"encoder": "x"}, "encoder='x' .* num_samples"),
    "few texts": ({**SAMPLES, "num_samples": 25}, "25 samples"),
    "few samples": ({**SAMPLES, "num_samples": 8}, "num_samples .* got 8"),
    "best read the wrong way": (
        {**SAMPLES, "save_strategy": "best", "metric_for_best_model": "samples/c2st_auc", "greater_is_better": True},
        "greater_is_better=False",
    ),
}


@pytest.mark.parametrize(("changes", "message"), list(REFUSED.values()), ids=list(REFUSED))
def test_train_refuses_before_a_warm_start(workplace, no_warm_start, changes, message):
    with pytest.raises(ValueError, match=message):
        run(flags(warm_start_steps=1, **changes))


# What only the whole trainer knows: it is TRL's, transformers' or the Hub's to refuse.
REFUSED_BY_OTHERS = {
    "no push": ({"push_to_hub": True, "hub_model_id": "me/model"}, Exception, "(?i)offline|connect|token|network"),
    "name of ours": ({"reward_funcs": ["my_rewards.discriminator"]}, ValueError, "called 'discriminator'"),
    "endless stream": ({"dataset_streaming": True, "max_steps": None}, ValueError, "max_steps"),
    "schedule": ({"lr_scheduler_type": "cosine_with_min_lr"}, ValueError, "min_lr"),
    "optimizer": ({"optim": "schedule_free_adamw"}, ImportError, "schedulefree"),
    "tracker": ({"report_to": "comet_ml"}, RuntimeError, "comet"),
}


@pytest.mark.parametrize(("changes", "kind", "message"), list(REFUSED_BY_OTHERS.values()), ids=list(REFUSED_BY_OTHERS))
def test_others_refuse_before_a_warm_start_too(workplace, no_warm_start, changes, kind, message):
    with pytest.raises(kind, match=message):
        run(flags(warm_start_steps=1, **changes))


@pytest.mark.parametrize("name", ["train.jsonl", ["train.jsonl", "*/test.jsonl"], "*.jsonl", "folder"])
@pytest.mark.parametrize("streaming", [False, True])
def test_files_stream_if_asked_to(given, name, streaming):
    run(flags(dataset_name=name, dataset_streaming=streaming, discriminator_loss="bradley_terry"))
    (call,) = given
    assert isinstance(call["train_dataset"], datasets.IterableDataset if streaming else datasets.Dataset)
    expected = [*texts(32), *(texts(24, 7) if isinstance(name, list) else [])]
    assert [row["text"] for row in call["train_dataset"]] == expected
    assert call["dataset_name"] is None  # files of one's own are no dataset of the Hub


def test_dataset_and_mixture_at_once_are_refused(workplace):
    (workplace / "run.yaml").write_text(yaml.safe_dump({**SETTINGS, "datasets": [{"path": "."}]}))
    with pytest.raises(ValueError, match="either dataset_name or a mixture"):
        run(["train", "--config", "run.yaml"])


def test_unknown_flag_is_refused_by_name(given):
    with pytest.raises(ValueError, match="discriminator_lose"):
        run([*flags(), "--discriminator_lose", "bce"])
    assert given == []


def test_unknown_key_in_a_yaml_file_is_refused_by_name(workplace, given):
    (workplace / "run.yaml").write_text(yaml.safe_dump({**SETTINGS, "discriminator_lose": "bce"}))
    with pytest.raises(ValueError, match="discriminator_lose"):
        run(["train", "--config", "run.yaml"])
    assert given == []


def test_unknown_key_of_a_dict_setting_is_refused_by_name(given):
    with pytest.raises(ValueError, match=r"discriminator_regularization .*label_smoothing"):
        run(flags(discriminator_regularization={"label_smothing": 0.1}))
    assert given == []


def test_unknown_value_is_refused_with_the_choices(workplace, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(flags(discriminator_loss="bec"))
    assert stopped.value.code == 2
    assert "bradley_terry" in capsys.readouterr().err.split("choose from")[1]


def test_unknown_command_ends_with_status_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        run(["trian"])
    assert stopped.value.code == 2
    assert "invalid choice: 'trian'" in capsys.readouterr().err


def test_train_discriminator_alone_and_generate_with_both(workplace, capsys):
    """The two commands for a generator that nobody trains."""
    rows = "".join(json.dumps({"text": text}) + "\n" for text in texts(48, 9))
    (workplace / "with_test_split" / "test.jsonl").write_text(rows)
    changes = {"max_steps": None, "num_train_epochs": 0, "discriminator_final_steps": 4}
    run(flags(dataset_name="with_test_split", use_peft=None, lora_r=None, lora_target_modules=None, **changes))
    calibration = json.loads((workplace / "out" / "discriminator" / "calibration.json").read_text())
    assert (calibration["max_new_tokens"], calibration["num_texts"]) == (8, 24)
    run(["generate", "--model", "out", "--num_texts", "3", "--output", "texts.jsonl"])
    lines = [json.loads(line) for line in (workplace / "texts.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    assert all(line["tokens"] <= 8 * line["tries"] for line in lines)  # as many tokens as it is calibrated for


def test_train_on_prefixes_and_generate_token_by_token(workplace):
    rows = "".join(json.dumps({"text": text}) + "\n" for text in texts(48, 9))
    (workplace / "with_test_split" / "test.jsonl").write_text(rows)
    changes = {"discriminator_name_or_path": "generator", "discriminator_model_init_kwargs": {"prefixes": True}}
    run(flags(dataset_name="with_test_split", discriminator_final_steps=3, **changes))
    assert json.loads((workplace / "out" / "discriminator" / "calibration.json").read_text())["prefixes"]
    run(["generate", "--model", "out", "--method", "token_rejection", "--num_texts", "3", "--output", "texts.jsonl"])
    assert len((workplace / "texts.jsonl").read_text().splitlines()) == 3
    assert Discriminator.from_pretrained("out/discriminator").prefixes is not None


def test_train_asks_for_held_out_texts_for_final_updates(workplace):
    with pytest.raises(ValueError, match=r"dataset_test_split .* calibrate the discriminator"):
        run(flags(discriminator_final_steps=4))


@pytest.mark.parametrize(
    ("name", "mixed", "on_hub"),
    [
        (["org/data"], [], ["org/data"]),
        (["texts.jsonl"], [], None),
        (["folder"], [], None),
        (None, ["org/data", "folder", "org/more"], ["org/data", "org/more"]),
    ],
)
def test_datasets_of_the_hub_are_named(workplace, name, mixed, on_hub):
    mixture = DatasetMixtureConfig(datasets=[DatasetConfig(path=path) for path in mixed])
    (workplace / "texts.jsonl").touch()
    assert datasets_on_hub(TrainArguments(dataset_name=name), mixture) == on_hub
