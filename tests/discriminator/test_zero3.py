import pytest
from transformers.integrations import deepspeed

from hf_mgan import Discriminator
from hf_mgan.safety.loading import load_trained_classifier

from ..conftest import bert_classifier, texts
from .test_discriminator import COMPLETIONS, PROMPTS, parameters, with_optimizer


class Sharded:
    def is_zero3(self):
        return True


def test_discriminator_is_loaded_whole_under_zero3(pair_tokenizer, tmp_path, monkeypatch):
    one = with_optimizer(Discriminator(bert_classifier(), pair_tokenizer), tmp_path / "args")
    one.save_pretrained(tmp_path / "model")
    one.save_state(tmp_path / "state")
    monkeypatch.setattr(deepspeed, "_hf_deepspeed_config_weak_ref", Sharded)  # called, it gives a configuration
    assert deepspeed.is_deepspeed_zero3_enabled()
    loaded = with_optimizer(Discriminator.from_pretrained(tmp_path / "model"), tmp_path / "args")
    loaded.load_state(tmp_path / "state", tmp_path / "model")
    assert [p.shape for p in parameters(loaded)] == [p.shape for p in parameters(one)]
    loaded.update(PROMPTS, COMPLETIONS, texts(4))
    assert deepspeed.is_deepspeed_zero3_enabled()  # for the generator, all is as it was
    with pytest.raises(OSError, match="nowhere"):
        Discriminator.from_pretrained(tmp_path / "nowhere", processing_class=pair_tokenizer)
    assert deepspeed.is_deepspeed_zero3_enabled()


def test_safety_gate_is_loaded_whole_under_zero3(tmp_path, monkeypatch):
    one = bert_classifier()
    one.save_pretrained(tmp_path)
    monkeypatch.setattr(deepspeed, "_hf_deepspeed_config_weak_ref", Sharded)
    loaded = load_trained_classifier(str(tmp_path))
    assert [p.shape for p in loaded.parameters()] == [p.shape for p in one.parameters()]
    assert deepspeed.is_deepspeed_zero3_enabled()
