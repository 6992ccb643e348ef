"""A run on quantised models goes on from a checkpoint in the precision, and bit for bit in the state, that it had."""

import pytest
import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig

from hf_mgan import AdversarialTrainer
from hf_mgan.training.checkpoint import dtypes_kept


def adapters(trainer):
    models = {"G": trainer.model, "D": trainer.discriminator.model}
    return {
        f"{letter}.{name}": parameter.detach().clone()
        for letter, model in models.items()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@pytest.mark.parametrize(
    "dora", [pytest.param(False, id="lora"), pytest.param(True, id="dora", marks=pytest.mark.slow)]
)
def test_resumed_quantised_run_is_bitwise_identical(
    tmp_path, generator, tokenizer, classifier, pair_tokenizer, dataset, make_config, dora
):
    pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")
    generator.config.n_embd = classifier.config.hidden_size = 64
    generator, classifier = type(generator)(generator.config), type(classifier)(classifier.config)
    for name, model, own in (("g", generator, tokenizer), ("d", classifier, pair_tokenizer)):
        model.save_pretrained(tmp_path / name)
        own.save_pretrained(tmp_path / name)
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)

    def fresh():
        return AdversarialTrainer(
            str(tmp_path / "g"),
            discriminator=str(tmp_path / "d"),
            args=make_config(max_steps=4, save_strategy="steps", save_steps=2),
            train_dataset=dataset,
            quantization_config=nf4,
            peft_config=LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, use_dora=dora),
            discriminator_quantization_config=nf4,
            discriminator_peft_config=LoraConfig(r=2, target_modules=["query", "value"]),
        )

    whole = fresh()
    at_start = adapters(whole)
    # TRL's choice for the generator, which the vector of magnitudes is too fine for.
    assert {value.dtype for name, value in at_start.items() if name.startswith("G.") and "magnitude" not in name} == {
        torch.bfloat16
    }
    whole.train()
    resumed = fresh()
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    expected, got = adapters(whole), adapters(resumed)
    assert {name: value.dtype for name, value in got.items()} == {n: v.dtype for n, v in at_start.items()}
    for name, value in expected.items():
        assert torch.equal(value, got[name]), name
        assert not torch.equal(value, at_start[name]), name


def test_dtypes_kept_restores_dtypes():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2, dtype=torch.bfloat16), torch.nn.Linear(2, 2))
    parameters = list(model.parameters())
    with dtypes_kept(model):
        parameters[0].data = torch.full((2, 2), 1.5)
        model.add_module("new", torch.nn.Linear(2, 2, dtype=torch.float64))
    assert [parameter.dtype for parameter in parameters] == [torch.bfloat16] * 2 + [torch.float32] * 2
    assert model[0].weight.tolist() == [[1.5, 1.5], [1.5, 1.5]]
    assert model.new.weight.dtype == torch.float64
