"""What is refused of the discriminator while the trainer is made, and which of its settings arrive."""

import pytest
import torch
from peft import LoraConfig, PeftModel
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification, BertModel, BitsAndBytesConfig, PreTrainedModel

from hf_mgan.discriminator import with_adapters

from ..conftest import bert_classifier


LORA = LoraConfig(r=2, target_modules=["query", "value"])
NO_ADAPTERS = r"quantised discriminator cannot be trained as it is.*no gradient.*discriminator_peft_config.*LoraConfig"
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
def test_quantisation_without_adapters_is_refused_before_anything_loads(make_trainer, folder, bits, monkeypatch):
    def load(*_, **__):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", load)
    with pytest.raises(ValueError, match=NO_ADAPTERS):
        make_trainer(discriminator=str(folder), discriminator_quantization_config=BitsAndBytesConfig(**BITS[bits]))


@pytest.mark.parametrize("bits", list(BITS))
def test_a_loaded_quantised_discriminator_without_adapters_is_refused(make_trainer, folder, bits):
    with pytest.raises(ValueError, match=NO_ADAPTERS):
        make_trainer(discriminator=loaded(folder, bits))


@pytest.mark.parametrize("bits", list(BITS))
def test_a_quantised_head_is_refused_with_what_to_skip(make_trainer, folder, bits):
    """transformers quantises a last layer that has a bias, and PEFT's own words for it name no way out."""
    with pytest.raises(
        ValueError, match=r"head of the discriminator \(classifier\) is quantised.*skip_modules=\['classifier'\]"
    ):
        make_trainer(discriminator=loaded(folder, bits), discriminator_peft_config=LORA)


@pytest.mark.parametrize("bits", list(BITS))
def test_a_loaded_quantised_discriminator_with_adapters_is_trained(make_trainer, folder, bits):
    model = loaded(folder, bits, llm_int8_skip_modules=["classifier", "pooler"])
    trainer = make_trainer(discriminator=model, discriminator_peft_config=LORA)
    adapters = {n: p.detach().clone() for n, p in trainer.discriminator.model.named_parameters() if "lora_B" in n}
    trainer.train()
    now = dict(trainer.discriminator.model.named_parameters())
    assert adapters
    assert not any(torch.equal(value, now[name]) for name, value in adapters.items())


def test_what_has_no_effect_on_a_loaded_discriminator_is_refused(make_trainer, make_config, classifier):
    with pytest.raises(ValueError, match=r"discriminator_quantization_config has no effect.*Give its id"):
        make_trainer(discriminator_quantization_config=BitsAndBytesConfig(load_in_4bit=True))
    with pytest.raises(ValueError, match=r"discriminator_fresh_head has no effect.*ignore_mismatched_sizes=True"):
        make_trainer(make_config(discriminator_fresh_head=True))


def test_a_frozen_discriminator_is_refused(make_trainer, classifier, pair_tokenizer, tmp_path):
    with_adapters(classifier, LORA).save_pretrained(tmp_path / "adapters")
    for_inference = PeftModel.from_pretrained(bert_classifier(), tmp_path / "adapters")
    with pytest.raises(ValueError, match=r"frozen, so it cannot learn: load its adapters with is_trainable=True"):
        make_trainer(discriminator=for_inference)


def test_an_existing_peft_classifier_plays_as_an_instance_and_as_a_folder(make_trainer, folder, tmp_path):
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


def test_a_fresh_head_and_a_label_contradict_each_other(make_config):
    with pytest.raises(ValueError, match=r"discriminator_label names.*discriminator_fresh_head replaces.*one of the"):
        make_config(discriminator_fresh_head=True, discriminator_label="POSITIVE")


def test_settings_of_the_discriminator_arrive(make_trainer, make_config, pair_tokenizer, tmp_path):
    model = bert_classifier(num_labels=3)
    model.save_pretrained(tmp_path / "three")
    fresh = make_trainer(
        make_config(discriminator_fresh_head=True, discriminator_gradient_checkpointing=True),
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


def test_an_encoder_gets_a_fresh_head_with_one_label(make_trainer, pair_tokenizer, tmp_path):
    BertModel(bert_classifier().config).save_pretrained(tmp_path / "encoder")
    trainer = make_trainer(discriminator=str(tmp_path / "encoder"))
    assert trainer.discriminator.model.config.num_labels == 1
    trainer.train()


def test_what_does_not_fit_the_discriminator_is_said_once_a_trainer(make_trainer, make_config):
    trainer = make_trainer(make_config(discriminator_max_length=4, max_completion_length=6))
    with pytest.warns(UserWarning, match=r"texts \(\d+%\) did not fit into the discriminator's 4 tokens") as caught:
        trainer.train()
    assert len([warning for warning in caught if "did not fit" in str(warning.message)]) == 1
