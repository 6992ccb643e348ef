"""What is refused while the trainer is made, before any weights are loaded."""

import pytest
import torch
import transformers
from datasets import Dataset
from peft import AdaptionPromptConfig, LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, EarlyStoppingCallback, GPT2LMHeadModel
from trl import GRPOConfig

from hf_mgan import GeneratorEvaluator, SafetyGate
from hf_mgan.training import build as build_module
from hf_mgan.training import generation as generation_module
from hf_mgan.training.build import checked_args


BITS = {
    "4-bit": BitsAndBytesConfig(load_in_4bit=True),
    "8-bit": BitsAndBytesConfig(load_in_8bit=True),
}
NO_ADAPTERS = r"generator in 4 or 8 bits.*peft_config"


@pytest.fixture
def nothing_loads(monkeypatch):
    """Fail the test if weights are loaded before the refusal."""

    def load(*_, **__):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", load)
    monkeypatch.setattr(build_module, "load_discriminator", load)


@pytest.mark.parametrize("bits", list(BITS))
@pytest.mark.parametrize("where", ["argument", "model_init_kwargs", "a dict among model_init_kwargs"])
def test_quantised_generator_needs_adapters(make_trainer, make_config, nothing_loads, bits, where):
    config = BITS[bits]
    if where == "argument":
        settings, arguments = {}, {"quantization_config": config}
    else:
        given = config.to_dict() if "dict" in where else config
        settings, arguments = {"model_init_kwargs": {"quantization_config": given}}, {}
    with pytest.raises(ValueError, match=NO_ADAPTERS):
        make_trainer(make_config(**settings), model="someone/generator", **arguments)


def test_generator_saved_quantised_needs_adapters(make_trainer, make_config, generator, nothing_loads, tmp_path):
    generator.config.quantization_config = BITS["4-bit"].to_dict()
    generator.config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=NO_ADAPTERS):
        make_trainer(model=str(tmp_path))


@pytest.mark.parametrize("bits", list(BITS))
def test_loaded_quantised_generator_needs_adapters(make_trainer, generator, tmp_path, bits):
    pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")
    generator.config.n_embd = 64
    type(generator)(generator.config).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=BITS[bits])
    with pytest.raises(ValueError, match=NO_ADAPTERS):
        make_trainer(model=loaded)


@pytest.mark.parametrize("bits", list(BITS))
def test_quantised_generator_refuses_vllm(make_trainer, make_config, nothing_loads, bits):
    with pytest.raises(ValueError, match="use_vllm=False"):
        make_trainer(
            make_config(use_vllm=True),
            model="someone/generator",
            quantization_config=BITS[bits],
            peft_config=LoraConfig(),
        )


@pytest.fixture
def has_vllm(monkeypatch):
    monkeypatch.setattr(generation_module, "is_vllm_available", lambda: True)


def test_vllm_that_is_not_installed(make_trainer, make_config, nothing_loads, monkeypatch):
    monkeypatch.setattr(generation_module, "is_vllm_available", lambda: False)
    with pytest.raises(ImportError, match=r"use_vllm=True needs vLLM.*trl\[vllm\]"):
        make_trainer(make_config(use_vllm=True))


UNMERGED = {
    "PROMPT_TUNING": PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
    "PREFIX_TUNING": PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
    "ADAPTION_PROMPT": AdaptionPromptConfig(adapter_len=2, adapter_layers=1, task_type="CAUSAL_LM"),
    "trainable_token_indices": LoraConfig(trainable_token_indices=[3], target_modules=["c_attn"]),
}


@pytest.mark.parametrize("kind", list(UNMERGED))
def test_vllm_refuses_adapters_that_are_not_merged(make_trainer, make_config, nothing_loads, has_vllm, kind):
    with pytest.raises(ValueError, match=rf"{kind}.*cannot generate with vLLM.*use_vllm=False"):
        make_trainer(make_config(use_vllm=True), peft_config=UNMERGED[kind])


@pytest.mark.parametrize("where", ["loaded", "folder"])
def test_vllm_refuses_given_virtual_tokens(
    make_trainer, make_config, generator, nothing_loads, has_vllm, tmp_path, where
):
    generator.config.save_pretrained(tmp_path / "base")
    generator.name_or_path = str(tmp_path / "base")
    model = get_peft_model(generator, UNMERGED["PROMPT_TUNING"])
    if where == "folder":
        model.save_pretrained(tmp_path / "adapters")
        model = str(tmp_path / "adapters")
    with pytest.raises(ValueError, match=r"PROMPT_TUNING.*cannot generate with vLLM"):
        make_trainer(make_config(use_vllm=True), model=model)


def test_loaded_generator_ignores_quantization_config(make_trainer, generator):
    """TRL warns that it ignores `quantization_config` beside a model that is loaded."""
    assert isinstance(make_trainer(model=generator, quantization_config=BITS["4-bit"]).model, GPT2LMHeadModel)


TALK = [{"role": "user", "content": "the dog"}]
ANSWER = [{"role": "assistant", "content": "runs ."}]
CONVERSATIONS = {
    "messages": {"messages": [TALK + ANSWER] * 8},
    "prompt and completion": {"prompt": [TALK] * 8, "completion": [ANSWER] * 8},
}


@pytest.mark.parametrize("form", list(CONVERSATIONS))
@pytest.mark.parametrize("split", ["train", "streamed", "evaluation", "one of several evaluations"])
def test_conversations_need_a_chat_template(make_trainer, nothing_loads, dataset, form, split):
    talk = Dataset.from_dict(CONVERSATIONS[form])
    arguments = {
        "train": {"train_dataset": talk},
        "streamed": {"train_dataset": talk.to_iterable_dataset(), "real_dataset": dataset},
        "evaluation": {"eval_dataset": talk},
        "one of several evaluations": {"eval_dataset": {"plain": dataset, "talk": talk}},
    }[split]
    with pytest.raises(ValueError, match=r"tokenizer\.chat_template"):
        make_trainer(**arguments)


def test_rollout_func_needs_no_chat_template(make_trainer):
    trainer = make_trainer(
        train_dataset=Dataset.from_dict(CONVERSATIONS["messages"]), rollout_func=lambda prompts, trainer: {}
    )
    assert trainer.processing_class.chat_template is None


@pytest.mark.parametrize("form", list(CONVERSATIONS))
def test_discriminator_needs_no_chat_template(make_trainer, tokenizer, form):
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}"
    trainer = make_trainer(train_dataset=Dataset.from_dict(CONVERSATIONS[form]), processing_class=tokenizer)
    assert trainer.discriminator.processing_class.chat_template is None
    seen = []
    update = trainer.discriminator.update
    trainer.discriminator.update = lambda *args, **kwargs: seen.append(args) or update(*args, **kwargs)
    trainer.train()
    prompts, _, references, real_prompts = seen[0]
    assert set(prompts) == set(real_prompts) == {"the dog"}  # plain text, no role and no template
    assert set(references) == {"runs ."}
    assert torch.isfinite(torch.tensor(trainer.state.log_history[0]["discriminator/loss"]))


def length_reward(completions, **kwargs):
    return [float(len(completion)) for completion in completions]


def test_missing_discriminator_is_refused(make_trainer, nothing_loads):
    with pytest.raises(ValueError, match="discriminator="):
        make_trainer(discriminator=None)


def test_args_of_another_trainer_are_refused(make_trainer, nothing_loads, tmp_path):
    with pytest.raises(TypeError, match="AdversarialConfig, got GRPOConfig"):
        make_trainer(GRPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none"))


def test_args_default_to_a_folder_named_after_the_model(monkeypatch):
    monkeypatch.setattr(build_module, "AdversarialConfig", lambda output_dir: output_dir)
    assert checked_args(None, "someone/generator/") == "generator-GAN"


@pytest.mark.parametrize("name", ["reward_weights", "reward_processing_classes"])
def test_unequal_reward_lists_are_refused(make_trainer, make_config, nothing_loads, tokenizer, name):
    """The discriminator's own weight is no part of the user's list."""
    weights = {"reward_weights": [1.0, 2.0]} if name == "reward_weights" else {}
    arguments = {name: [tokenizer, tokenizer]} if name != "reward_weights" else {}
    with pytest.raises(ValueError, match=rf"Number of {name.replace('_', ' ')} \(2\) must match .* \(1\)"):
        make_trainer(make_config(**weights), reward_funcs=length_reward, **arguments)


def test_rewards_given_stand_before_the_discriminators(make_trainer, make_config, tokenizer):
    """Further rewards without weights weigh 1 each; the gate's verdicts come last."""
    trainer = make_trainer(
        make_config(discriminator_weight=2.0),
        reward_funcs=[length_reward],
        safety_gate=lambda completions: [False] * len(completions),
    )
    assert trainer.reward_func_names == ["length_reward", "discriminator", "safety_gate"]
    assert trainer.reward_weights.tolist() == [1.0, 2.0, 1.0]
    assert trainer.args.reward_weights is None
    assert len(trainer.reward_processing_classes) == 3


@pytest.mark.parametrize("name", ["discriminator", "safety_gate"])
def test_reward_of_a_taken_name_is_refused(make_trainer, name):
    def reward(**kwargs):
        return [0.0]

    reward.__name__ = name
    with pytest.raises(ValueError, match=f"A reward function is called '{name}'"):
        make_trainer(reward_funcs=reward, safety_gate=lambda completions: [False] * len(completions))


def test_safety_gate_refuses_the_discriminator_itself(make_trainer, nothing_loads, classifier, pair_tokenizer):
    gate = SafetyGate(classifier, label=0, processing_class=pair_tokenizer)
    with pytest.raises(ValueError, match="safety gate and as discriminator"):
        make_trainer(discriminator=classifier, safety_gate=gate)


@pytest.mark.parametrize("name", ["tools", "rollout_func", "environment_factory"])
def test_evaluator_refuses_text_of_others(make_trainer, make_config, nothing_loads, name):
    """What puts its own text into completions is nothing that an evaluator's samples could have."""
    given = {"tools": [length_reward]}.get(name, length_reward)
    evaluator = GeneratorEvaluator(Dataset.from_dict({"text": [f"text {number}" for number in range(32)]}), 32)
    with pytest.raises(ValueError, match=rf"evaluator.*{name}"):
        make_trainer(make_config(eval_strategy="steps", eval_steps=2), evaluator=evaluator, **{name: given})


def test_missing_references_are_refused(make_trainer, nothing_loads):
    with pytest.raises(ValueError, match="`completion` column"):
        make_trainer(train_dataset=Dataset.from_dict({"prompt": ["a"] * 8}))


def test_real_text_coef_needs_plain_text(make_trainer, make_config, nothing_loads):
    with pytest.raises(ValueError, match="real_text_coef"):
        make_trainer(make_config(real_text_coef=0.1), environment_factory=object)


def test_best_model_is_checked_before_anything_loads(make_trainer, make_config, nothing_loads):
    stopping = [EarlyStoppingCallback()]
    with pytest.raises(ValueError, match="metric_for_best_model"):
        make_trainer(make_config(eval_strategy="steps", eval_steps=1), callbacks=stopping)
