"""What is refused of the generator while the trainer is made, with the reason and what to do."""

import pytest
import torch
import transformers
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPT2LMHeadModel

from hf_mgan import trainer as trainer_module

from ..conftest import texts


BITS = {
    "4-bit": BitsAndBytesConfig(load_in_4bit=True),
    "8-bit": BitsAndBytesConfig(load_in_8bit=True),
}
NO_ADAPTERS = r"generator in 4 or 8 bits cannot be trained as it is.*take no gradient.*peft_config.*LoraConfig"
NO_VLLM = r"cannot generate with vLLM.*merges the adapters into the weights.*use_vllm=False"


@pytest.fixture
def nothing_loads(monkeypatch):
    """Fail the test if weights are loaded before the refusal."""

    def load(*_, **__):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", load)
    monkeypatch.setattr(trainer_module, "load_discriminator", load)


@pytest.mark.parametrize("bits", list(BITS))
@pytest.mark.parametrize("where", ["argument", "model_init_kwargs", "a dict among model_init_kwargs"])
def test_a_quantised_generator_without_adapters_is_refused_before_anything_loads(
    make_trainer, make_config, nothing_loads, bits, where
):
    config = BITS[bits]
    if where == "argument":
        settings, arguments = {}, {"quantization_config": config}
    else:
        given = config.to_dict() if "dict" in where else config
        settings, arguments = {"model_init_kwargs": {"quantization_config": given}}, {}
    with pytest.raises(ValueError, match=NO_ADAPTERS):
        make_trainer(make_config(**settings), model="someone/generator", **arguments)


def test_a_generator_saved_in_few_bits_is_refused_without_adapters(
    make_trainer, make_config, generator, nothing_loads, tmp_path
):
    generator.config.quantization_config = BITS["4-bit"].to_dict()
    generator.config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=NO_ADAPTERS):
        make_trainer(model=str(tmp_path))


@pytest.mark.parametrize("bits", list(BITS))
def test_a_loaded_quantised_generator_without_adapters_is_refused(make_trainer, generator, tmp_path, bits):
    pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")
    generator.config.n_embd = 64
    type(generator)(generator.config).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=BITS[bits])
    with pytest.raises(ValueError, match=NO_ADAPTERS):
        make_trainer(model=loaded)


@pytest.mark.parametrize("bits", list(BITS))
def test_a_quantised_generator_with_vllm_is_refused_with_the_reason(make_trainer, make_config, nothing_loads, bits):
    with pytest.raises(ValueError, match=NO_VLLM):
        make_trainer(
            make_config(use_vllm=True),
            model="someone/generator",
            quantization_config=BITS[bits],
            peft_config=LoraConfig(),
        )


def test_a_generator_in_full_precision_is_not_refused_for_a_config_that_trl_ignores(make_trainer, generator):
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
def test_conversations_without_the_generators_chat_template_are_refused_before_anything_loads(
    make_trainer, nothing_loads, dataset, form, split
):
    talk = Dataset.from_dict(CONVERSATIONS[form])
    arguments = {
        "train": {"train_dataset": talk},
        "streamed": {"train_dataset": talk.to_iterable_dataset(), "real_dataset": dataset},
        "evaluation": {"eval_dataset": talk},
        "one of several evaluations": {"eval_dataset": {"plain": dataset, "talk": talk}},
    }[split]
    with pytest.raises(ValueError, match=r"conversations.*no chat template.*Set tokenizer.chat_template.*plain text"):
        make_trainer(**arguments)


def test_prompts_that_a_rollout_function_renders_need_no_chat_template(make_trainer):
    trainer = make_trainer(
        train_dataset=Dataset.from_dict(CONVERSATIONS["messages"]), rollout_func=lambda prompts, trainer: {}
    )
    assert trainer.processing_class.chat_template is None


@pytest.mark.parametrize("form", list(CONVERSATIONS))
def test_the_discriminators_tokenizer_needs_no_chat_template(make_trainer, tokenizer, form):
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


@pytest.mark.parametrize(
    "arguments", [{}, {"peft_config": LoraConfig(), "real_dataset": Dataset.from_dict({"text": texts(4)})}]
)
def test_the_density_offset_without_adapters_or_without_prompts_is_refused(
    make_trainer, make_config, nothing_loads, arguments
):
    with pytest.raises(ValueError, match=r"discriminator_density_offset.*give peft_config=.*no real_dataset="):
        make_trainer(make_config(discriminator_density_offset=True), **arguments)
