"""The matrix of architectures and precisions: a cell of every family here, all of them where slow tests run."""

import dataclasses

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from benchmarks.hardware.architectures import (
    all_cells,
    make_trainer,
    page,
    quantization,
    save_counterparts,
    train_cell,
)
from benchmarks.hardware.tiny_models import DISCRIMINATORS, GENERATORS, rows, save_model
from hf_mgan import Discriminator
from hf_mgan.discriminator import prepare_quantised_training


pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")
CELLS = all_cells()
# transformers replaces linear layers of torch's own class alone, and Falcon's are of a class derived from it.
REFUSED = {f"generator / Falcon / {bits}-bit + LoRA" for bits in (4, 8)}
LORA = LoraConfig(r=2, target_modules="all-linear")


@pytest.fixture(scope="module")
def counterparts(tmp_path_factory):
    return save_counterparts(tmp_path_factory.mktemp("counterparts"))


@pytest.mark.parametrize("family", GENERATORS)
def test_generator_of_every_family_trains_with_adapters(family, counterparts, tmp_path):
    train_cell(CELLS[f"generator / {family} / LoRA"], counterparts, tmp_path)


@pytest.mark.parametrize("family", DISCRIMINATORS)
def test_discriminator_of_every_family_trains_with_adapters(family, counterparts, tmp_path):
    train_cell(CELLS[f"discriminator / {family} / LoRA / 1"], counterparts, tmp_path)


@pytest.mark.parametrize(
    "cell",
    [
        "generator / Llama / 4-bit + LoRA",
        "generator / OPT / 8-bit + LoRA",
        "discriminator / DistilBERT / 4-bit + LoRA / 2",
        "discriminator / ModernBERT / 8-bit + LoRA / 3",
    ],
)
def test_quantised_models_train_and_load(cell, counterparts, tmp_path):
    train_cell(CELLS[cell], counterparts, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("cell", [name for name in CELLS if name not in REFUSED])
def test_every_cell_of_the_matrix(cell, counterparts, tmp_path):
    train_cell(CELLS[cell], counterparts, tmp_path)


@pytest.mark.parametrize("cell", sorted(REFUSED))
def test_family_that_cannot_be_quantised_is_refused(cell, counterparts, tmp_path):
    with pytest.raises(ValueError, match=r"FalconForCausalLM has no layer that transformers quantises.*leave out"):
        train_cell(CELLS[cell], counterparts, tmp_path)


def test_pooler_that_the_checkpoint_lacks_is_trained(tmp_path):
    folder = save_model(DISCRIMINATORS["BERT"], tmp_path / "masked", 1)
    model = Discriminator.from_pretrained(folder, peft_config=LORA, quantization_config=quantization("4-bit + LoRA"))
    trained = {name for name, parameter in model.model.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if "bert.pooler.dense.modules_to_save" in name}
    assert not any("bert.pooler.dense.lora_" in name for name in trained)


@pytest.mark.parametrize("skipped", [None, ["key"]])
def test_quantisation_leaves_the_head_out(tmp_path, skipped):
    folder = save_model(GENERATORS["OPT"], tmp_path / "opt", 2)
    config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped and ["k_proj"])
    model = Discriminator.from_pretrained(folder, peft_config=LORA, quantization_config=config, label=1).model
    kinds = {name: type(module).__name__ for name, module in model.get_base_model().named_modules()}
    assert kinds["score"] == "ModulesToSaveWrapper"
    # Its name ends like that of the head of other families.
    assert kinds["model.decoder.layers.0.self_attn.out_proj.base_layer"] == "Linear8bitLt"
    assert kinds["model.decoder.layers.0.self_attn.k_proj.base_layer"] == ("Linear" if skipped else "Linear8bitLt")
    assert config.llm_int8_skip_modules == (skipped and ["k_proj"])  # what was given is left as it was


def test_4_bit_base_passes_its_gradient_on(tmp_path):
    folder = save_model(DISCRIMINATORS["Llama"], tmp_path / "llama", 2)
    adapters = LoraConfig(r=2, target_modules=["q_proj"])
    four_bits = Discriminator.from_pretrained(
        folder, peft_config=adapters, quantization_config=quantization("4-bit + LoRA"), label=1
    )
    four_bits.score([""], ["the dog"])  # bitsandbytes would pack its weights
    dequantised = four_bits.model.get_base_model().model.layers[0].self_attn.o_proj
    inputs = torch.randn(3, 64, requires_grad=True)
    dequantised(inputs).sum().backward()
    import bitsandbytes.functional as F

    weights = F.dequantize_4bit(dequantised.weight.data, dequantised.weight.quant_state)  # Shape (64, 64)
    assert_close(inputs.grad, weights.sum(0).expand(3, 64))


def test_packed_model_is_refused(tmp_path):
    folder = save_model(GENERATORS["Llama"], tmp_path / "llama", None)
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=quantization("4-bit + LoRA"))
    model.model.layers[0].mlp.up_proj.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(ValueError, match=r"packed its 4-bit weights.*Load it again"):
        prepare_quantised_training(get_peft_model(model, LoraConfig(r=2, target_modules="all-linear")))


def test_layers_that_bitsandbytes_gets_wrong_are_refused(tmp_path):
    family = DISCRIMINATORS["DistilBERT"]
    family = dataclasses.replace(family, settings={**family.settings, "hidden_dim": 144})
    folder = save_model(family, tmp_path / "narrow", 1)
    config = quantization("4-bit + LoRA")
    with pytest.raises(ValueError, match=r"no multiple of 64 wide.*llm_int8_skip_modules=\['lin2'\]"):
        Discriminator.from_pretrained(folder, peft_config=LORA, quantization_config=config)
    Discriminator.from_pretrained(folder, peft_config=LORA, quantization_config=quantization("4-bit + LoRA", ["lin2"]))


def test_model_card_loads_adapters_with_several_labels(counterparts, tmp_path):
    trainer = make_trainer(
        counterparts[0],
        save_model(DISCRIMINATORS["GPT-2"], tmp_path / "model", 3),
        tmp_path / "out",
        rows("plain"),
        "fp32",
        label=2,
        discriminator_peft_config=LORA,
    )
    trainer.save_model()
    trainer.create_model_card()
    card = (tmp_path / "out" / "README.md").read_text()
    scope = {}
    exec(card.split("## The discriminator")[1].split("```python")[1].split("```")[0], scope)
    encoded = trainer.discriminator.encode(["", "a"], ["the dog", "cat"])
    with torch.no_grad():
        assert_close(scope["discriminator"].eval()(**encoded).logits, trainer.discriminator.model(**encoded).logits)


def test_page_says_what_became_of_every_cell():
    passed = {"ok": True, "reason": None, "difference": 0.0, "seconds": 1.0, "versions": {"torch": "1"}}
    cells = {name: {"cell": name, **passed} for name in CELLS}
    cells["generator / Phi / bf16"] |= {"ok": False, "reason": "ValueError: no"}
    del cells["discriminator / BERT / LoRA / 2"]
    written = page(list(cells.values()))
    assert "| Phi | ✓ | [1] | ✓ | ✓ | ✓ |" in written
    assert "1. ValueError: no\n" in written
    assert "| BERT | ✓ ✓ ✓ | ✓ ✓ ✓ | ✓ not run ✓ | ✓ ✓ ✓ | ✓ ✓ ✓ |" in written
