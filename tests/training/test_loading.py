"""What is refused of the discriminator while the trainer is made, and which of its settings arrive."""

import pytest
import torch
from peft import LoraConfig, PeftModel
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification, BertModel, BitsAndBytesConfig, PreTrainedModel

from hf_mgan.discriminator import with_adapters

from ..conftest import bert_classifier


LORA = LoraConfig(r=2, target_modules=["query", "value"])
NO_ADAPTERS = "discriminator_peft_config"
BITS = {
    "4-bit": {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.float32},
    "8-bit": {"load_in_8bit": True},
}


@pytest.fixture
def folder(pair_tokenizer, tmp_path):
    model = bert_classifier()
    model.config.hidden_size = 64  # bitsandbytes quantises blocks of 64 weights
    torch.manual_seed(0)
    type(model)(model.config).save_pretrained(tmp_path / "d")
    pair_tokenizer.save_pretrained(tmp_path / "d")
    return tmp_path / "d"


def loaded(folder, bits, **settings):
    pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")
    return AutoModelForSequenceClassification.from_pretrained(
        folder, quantization_config=BitsAndBytesConfig(**BITS[bits], **settings)
    )


@pytest.mark.parametrize("bits", list(BITS))
def test_quantised_discriminator_needs_adapters(make_trainer, folder, bits, monkeypatch):
    def load(*_, **__):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", load)
    with pytest.raises(ValueError, match=NO_ADAPTERS):
        make_trainer(discriminator=str(folder), discriminator_quantization_config=BitsAndBytesConfig(**BITS[bits]))


@pytest.mark.parametrize("bits", list(BITS))
def test_loaded_quantised_discriminator_needs_adapters(make_trainer, folder, bits):
    with pytest.raises(ValueError, match=NO_ADAPTERS):
        make_trainer(discriminator=loaded(folder, bits))


@pytest.mark.parametrize("bits", list(BITS))
def test_quantised_head_is_refused(make_trainer, folder, bits):
    """transformers quantises a last layer that has a bias, and PEFT's own words for it name no way out."""
    with pytest.raises(
        ValueError, match=r"head of the discriminator \(classifier\) is quantised.*skip_modules=\['classifier'\]"
    ):
        make_trainer(discriminator=loaded(folder, bits), discriminator_peft_config=LORA)


@pytest.mark.parametrize("bits", list(BITS))
def test_loaded_quantised_discriminator_trains_adapters(make_trainer, folder, bits):
    model = loaded(folder, bits, llm_int8_skip_modules=["classifier", "pooler"])
    trainer = make_trainer(discriminator=model, discriminator_peft_config=LORA)
    adapters = {n: p.detach().clone() for n, p in trainer.discriminator.model.named_parameters() if "lora_B" in n}
    trainer.train()
    now = dict(trainer.discriminator.model.named_parameters())
    assert adapters
    assert not any(torch.equal(value, now[name]) for name, value in adapters.items())


@pytest.mark.parametrize("key", ["fresh_head", "revision", "attn_implementation"])
def test_loaded_discriminator_refuses_model_init_kwargs(make_trainer, make_config, key):
    value = True if key == "fresh_head" else "eager"
    with pytest.raises(ValueError, match=f"{key} in discriminator_model_init_kwargs"):
        make_trainer(make_config(discriminator_model_init_kwargs={key: value}))


def test_loaded_discriminator_refuses_quantization_config(make_trainer):
    with pytest.raises(ValueError, match="discriminator_quantization_config"):
        make_trainer(discriminator_quantization_config=BitsAndBytesConfig(load_in_4bit=True))


def test_wrong_type_of_discriminator_is_refused(make_trainer):
    with pytest.raises(TypeError, match=r"discriminator must be .* got int"):
        make_trainer(discriminator=7)


def test_discriminator_from_a_config_needs_its_tokenizer(make_trainer):
    with pytest.raises(ValueError, match=r"was made from a configuration.*give discriminator_processing_class="):
        make_trainer(discriminator_processing_class=None)


@pytest.mark.parametrize("as_path", [True, False])
def test_discriminator_from_a_path(make_trainer, folder, as_path):
    given = folder if as_path else str(folder)
    make_trainer(discriminator=given, discriminator_processing_class=None).train()


def test_adapters_on_top_of_adapters_are_refused(make_trainer):
    with pytest.raises(ValueError, match="discriminator_peft_config"):
        make_trainer(discriminator=with_adapters(bert_classifier(), LORA), discriminator_peft_config=LORA)


def test_frozen_discriminator_is_refused(make_trainer, classifier, pair_tokenizer, tmp_path):
    with_adapters(classifier, LORA).save_pretrained(tmp_path / "adapters")
    for_inference = PeftModel.from_pretrained(bert_classifier(), tmp_path / "adapters")
    with pytest.raises(ValueError, match="is_trainable=True"):
        make_trainer(discriminator=for_inference)


def test_peft_classifier_as_instance_and_as_folder(make_trainer, folder, tmp_path):
    existing = with_adapters(AutoModelForSequenceClassification.from_pretrained(folder), LORA)
    existing.save_pretrained(tmp_path / "adapters")
    for given in (existing, str(tmp_path / "adapters")):
        trainer = make_trainer(discriminator=given)
        trainer.train()
        trainer.save_model(str(tmp_path / "saved"))
        again = PeftModel.from_pretrained(
            AutoModelForSequenceClassification.from_pretrained(folder), tmp_path / "saved" / "discriminator"
        ).eval()
        encoded = trainer.discriminator.encode(["the dog"], ["runs"])
        with torch.no_grad():
            assert_close(again(**encoded).logits[:, 0], trainer.discriminator.score(["the dog"], ["runs"]))


def test_settings_of_the_discriminator_arrive(make_trainer, make_config, pair_tokenizer, tmp_path):
    model = bert_classifier(num_labels=3)
    model.save_pretrained(tmp_path / "three")
    fresh = make_trainer(
        make_config(discriminator_model_init_kwargs={"fresh_head": True, "gradient_checkpointing": True}),
        discriminator=str(tmp_path / "three"),
    )
    assert fresh.discriminator.model.config.num_labels == 1
    calls = []
    fresh.discriminator.model.bert.encoder.layer[0].attention.register_forward_hook(lambda *_: calls.append(1))
    fresh.train()
    assert len(calls) == 2 * 4  # a step runs the layer forward, and once more in the backward pass
    assert make_trainer(make_config(fp16=True, bf16=False)).discriminator.fp16
    assert make_trainer(make_config(bf16=True)).discriminator.bf16
    assert not make_trainer().discriminator.fp16


def test_model_init_kwargs_reach_from_pretrained(make_trainer, make_config, folder):
    kwargs = {"attn_implementation": "eager", "revision": "main"}
    model = make_trainer(
        make_config(discriminator_model_init_kwargs=kwargs), discriminator=str(folder)
    ).discriminator.model
    assert model.config._attn_implementation == "eager"
    assert make_trainer(discriminator=str(folder)).discriminator.model.config._attn_implementation == "sdpa"


def test_max_grad_norm_clips_the_discriminator(make_trainer, make_config):
    assert make_trainer().discriminator.max_grad_norm == 1.0
    config = make_config(discriminator_optim_kwargs={"max_grad_norm": 0.25}, max_grad_norm=7.0)
    assert make_trainer(config).discriminator.max_grad_norm == 0.25


def test_encoder_gets_a_fresh_head_with_one_label(make_trainer, pair_tokenizer, tmp_path):
    BertModel(bert_classifier().config).save_pretrained(tmp_path / "encoder")
    trainer = make_trainer(discriminator=str(tmp_path / "encoder"))
    assert trainer.discriminator.model.config.num_labels == 1
    trainer.train()


def test_cut_texts_are_warned_of_once(make_trainer, make_config):
    trainer = make_trainer(make_config(discriminator_max_length=4, max_completion_length=6))
    with pytest.warns(UserWarning, match=r"texts \(\d+%\) did not fit into the discriminator's 4 tokens") as caught:
        trainer.train()
    assert len([warning for warning in caught if "did not fit" in str(warning.message)]) == 1
