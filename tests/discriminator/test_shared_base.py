import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    AutoPeftModelForSequenceClassification,
    LoraConfig,
    get_peft_model,
)
from transformers import (
    BitsAndBytesConfig,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from hf_mgan import Discriminator
from hf_mgan.discriminator.shared_base import classifier_on


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=32, n_embd=64, n_layer=2, n_head=2, n_positions=32, pad_token_id=0, initializer_range=0.3
        )
    ).eval()


def llama():
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            pad_token_id=0,
            initializer_range=0.3,
        )
    ).eval()


IDS = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])
GPT2_LORA = {"target_modules": ["c_attn"], "fan_in_fan_out": True}
LLAMA_LORA = {"target_modules": "all-linear"}


@pytest.mark.parametrize("make", [gpt2, llama])
def test_classifier_on_shares_weights_and_adds_a_head(make):
    generator = make()
    classifier = classifier_on(generator).eval()
    own = {id(parameter) for parameter in generator.parameters()}
    assert [name for name, parameter in classifier.named_parameters() if id(parameter) not in own] == ["score.weight"]
    assert classifier.score.weight.abs().sum() > 0
    assert classifier.config.num_labels == 1
    assert generator.config.num_labels == 2  # transformers' default, untouched


def test_classifier_on_equals_an_ordinary_classifier():
    generator = gpt2()
    classifier = classifier_on(generator).eval()
    ordinary = GPT2ForSequenceClassification(classifier.config).eval()
    ordinary.load_state_dict(classifier.state_dict())
    torch.testing.assert_close(classifier(IDS).logits, ordinary(IDS).logits, rtol=0, atol=0)


@pytest.mark.parametrize(("make", "lora"), [(gpt2, GPT2_LORA), (llama, LLAMA_LORA)])
def test_adapters_of_one_model_leave_the_other_alone(make, lora):
    generator = make()
    classifier = get_peft_model(classifier_on(generator), LoraConfig(task_type="SEQ_CLS", **lora)).eval()
    generator = get_peft_model(generator, LoraConfig(task_type="CAUSAL_LM", **lora)).eval()
    logits, scores = generator(IDS).logits, classifier(IDS).logits
    for name, parameter in classifier.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    assert torch.equal(generator(IDS).logits, logits)
    moved = classifier(IDS).logits
    assert not torch.allclose(moved, scores)
    for name, parameter in generator.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    assert not torch.allclose(generator(IDS).logits, logits)
    with generator.disable_adapter():
        torch.testing.assert_close(generator(IDS).logits, logits, rtol=0, atol=0)
        assert torch.equal(classifier(IDS).logits, moved)


def test_dropout_is_each_models_own():
    generator = gpt2()
    classifier = classifier_on(generator).eval()
    generator.train()
    assert not any(module.training for module in classifier.modules() if isinstance(module, torch.nn.Dropout))
    assert torch.equal(classifier(IDS).logits, classifier(IDS).logits)


def test_quantised_base_is_held_once(tmp_path):
    pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")
    llama().save_pretrained(tmp_path)
    quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    generator = LlamaForCausalLM.from_pretrained(tmp_path, quantization_config=quantised, dtype=torch.float32)
    classifier = get_peft_model(classifier_on(generator), LoraConfig(task_type="SEQ_CLS", **LLAMA_LORA))
    own = {id(parameter) for parameter in generator.parameters()}
    packed = [parameter for parameter in classifier.parameters() if parameter.dtype == torch.uint8]
    assert len(packed) == 14  # 7 linear layers in each of 2 blocks
    assert all(id(parameter) in own for parameter in packed)
    classifier(IDS).logits.sum().backward()
    gradients = [name for name, parameter in classifier.named_parameters() if parameter.grad is not None]
    assert gradients
    assert all("lora_" in name or "modules_to_save" in name for name in gradients)


def test_bfloat16_base_takes_a_float32_head():
    classifier = classifier_on(llama().bfloat16()).eval()
    assert classifier.score.weight.dtype == torch.float32
    assert classifier(IDS).logits.dtype == torch.float32


def test_architecture_without_a_classifier_is_refused():
    with pytest.raises(ValueError, match="no sequence classifier for mamba"):
        classifier_on(MambaForCausalLM(MambaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1)))


def lora():
    return LoraConfig(r=2, **GPT2_LORA)


def test_trainer_on_a_shared_base_trains_two_adapters(make_trainer, make_config, generator, tokenizer, tmp_path):
    generator.save_pretrained(tmp_path / "base")
    base = GPT2LMHeadModel.from_pretrained(tmp_path / "base")
    trainer = make_trainer(
        make_config(max_steps=2, beta=0.1),
        model=base,
        discriminator=base,
        discriminator_processing_class=None,
        peft_config=lora(),
        discriminator_peft_config=lora(),
    )
    models = trainer.model, trainer.discriminator.model
    total = {id(parameter): parameter.numel() for model in models for parameter in model.parameters()}
    alone = {id(parameter): parameter.numel() for parameter in trainer.model.parameters()}
    own = {name: parameter for name, parameter in models[1].named_parameters() if "lora_" in name or "score" in name}
    assert sum(total.values()) == sum(alone.values()) + sum(parameter.numel() for parameter in own.values())
    before = [{name: p.detach().clone() for name, p in model.named_parameters()} for model in models]
    trainer.train()
    for states, model in zip(before, models, strict=True):
        moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, states[name])}
        assert moved == {name for name in states if "lora_" in name or "score.modules_to_save" in name}

    trainer.save_model()
    scores = trainer.discriminator.score([""], ["a dog runs"])
    folder = tmp_path / "out"
    reloaded = AutoPeftModelForSequenceClassification.from_pretrained(
        folder / "discriminator", num_labels=1, pad_token_id=tokenizer.pad_token_id
    )
    again = Discriminator(reloaded, tokenizer).score([""], ["a dog runs"])
    torch.testing.assert_close(again, scores)
    AutoPeftModelForCausalLM.from_pretrained(folder)


def test_shared_base_needs_adapters_of_both_models(make_trainer, generator):
    for adapters in (
        {},
        {"peft_config": lora()},
        {"discriminator_peft_config": lora()},
    ):
        with pytest.raises(ValueError, match=r"peft_config= and discriminator_peft_config="):
            make_trainer(model=generator, discriminator=generator, **adapters)


def test_trainer_on_a_quantised_shared_base(make_trainer, make_config, tmp_path, tokenizer):
    pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")
    llama().save_pretrained(tmp_path / "base")
    quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base", quantization_config=quantised, dtype=torch.float32)
    trainer = make_trainer(
        make_config(max_steps=2),
        model=base,
        discriminator=base,
        discriminator_processing_class=None,
        peft_config=LoraConfig(r=2, **LLAMA_LORA),
        discriminator_peft_config=LoraConfig(r=2, **LLAMA_LORA),
    )
    models = trainer.model, trainer.discriminator.model
    packed = [{id(p) for p in model.parameters() if p.dtype == torch.uint8} for model in models]
    assert packed[0] == packed[1] != set()
    before = [{name: p.detach().clone() for name, p in model.named_parameters()} for model in models]
    trainer.train()
    for states, model in zip(before, models, strict=True):
        moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, states[name])}
        assert moved == {name for name in states if "lora_" in name or "score.modules_to_save" in name}
