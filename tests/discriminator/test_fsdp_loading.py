"""Loading on a process that FSDP leaves without new weights: what is not sharded has to have them all the same."""

import pytest
from transformers import AutoModelForSequenceClassification, modeling_utils
from transformers.distributed import fsdp

from hf_mgan import Discriminator

from ..conftest import bert_classifier


@pytest.fixture
def second_process(monkeypatch):
    """The second process under `fsdp_cpu_ram_efficient_loading`, where transformers makes no weights."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    monkeypatch.setattr(fsdp, "_is_torch_distributed_initialized", lambda: True)
    monkeypatch.setattr(modeling_utils, "is_local_dist_rank_0", lambda: False)


def test_new_head_is_there_on_every_process(second_process, pair_tokenizer, tmp_path):
    bert_classifier().bert.save_pretrained(tmp_path)
    pair_tokenizer.save_pretrained(tmp_path)
    without = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1)
    assert without.classifier.weight.device.type == "meta"  # what is mended here
    loaded = Discriminator.from_pretrained(tmp_path)
    assert loaded.model.classifier.weight.std() > 0
    assert all(parameter.device.type == "cpu" for parameter in loaded.model.parameters())
    assert fsdp.is_fsdp_enabled()  # for the generator, all is as it was
