import pytest
import torch
from huggingface_hub.repocard import metadata_load
from peft import LoraConfig, get_peft_model
from transformers import BitsAndBytesConfig

from hf_mgan import AdversarialTrainer, Discriminator
from hf_mgan.discriminator import prepare_quantised_training
from hf_mgan.evaluation.models import load_generator
from hf_mgan.models import quantisation_of, save_quantisation, saved_quantisation
from hf_mgan.models.quantization import FILE

from .decoding.conftest import calibration
from .hub_server import metadata_faults


pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")


def nf4():
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def moved(before, model):
    now = dict(model.named_parameters())
    return {name for name, value in before.items() if not torch.equal(value, now[name])}


# On a machine with CUDA bitsandbytes takes the GPU, whatever the trainer is told; tests/test_gpu.py runs there.
@pytest.mark.skipif(torch.cuda.is_available(), reason="with a CUDA device the same runs there")
def test_quantised_models_train_and_load_again(
    tmp_path, generator, tokenizer, classifier, pair_tokenizer, dataset, make_config
):
    # bitsandbytes quantises blocks of 64 weights and wants whole blocks in a row.
    generator.config.n_embd = classifier.config.hidden_size = 64
    generator, classifier = type(generator)(generator.config), type(classifier)(classifier.config)
    for name, model, own in (("g", generator, tokenizer), ("d", classifier, pair_tokenizer)):
        model.save_pretrained(tmp_path / name)
        own.save_pretrained(tmp_path / name)
    trainer = AdversarialTrainer(
        str(tmp_path / "g"),
        discriminator=str(tmp_path / "d"),
        args=make_config(max_steps=2),
        train_dataset=dataset,
        quantization_config=nf4(),
        peft_config=LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True),
        discriminator_quantization_config=nf4(),
        discriminator_peft_config=LoraConfig(r=2, target_modules=["query", "value"]),
    )
    models = trainer.model, trainer.discriminator.model
    assert all(any(parameter.dtype == torch.uint8 for parameter in model.parameters()) for model in models)
    head = [parameter for name, parameter in models[1].named_parameters() if "classifier" in name]
    assert all(parameter.dtype == torch.float32 for parameter in head)
    before = [weights(model) for model in models]
    trainer.train()
    for states, model in zip(before, models, strict=True):
        trained = {name for name in states if "lora_" in name or "modules_to_save" in name}
        assert trained < set(states)
        assert moved(states, model) == trained
    trainer.save_model()
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
    assert (tmp_path / "out" / "discriminator" / "adapter_model.safetensors").exists()

    trainer.create_model_card()
    card = (tmp_path / "out" / "README.md").read_text()
    assert metadata_faults(card) == []
    assert card.count("its base in 4 bits") == 2  # that of each model
    assert metadata_load(tmp_path / "out" / "README.md")["library_name"] == "peft"
    scope = {}
    exec(card.split("## Quick start")[1].split("```python")[1].split("```")[0], scope)
    assert scope["generator"].is_loaded_in_4bit
    scope = {}
    exec(card.split("## The discriminator")[1].split("```python")[1].split("```")[0], scope)
    loaded = scope["discriminator"]
    prepare_quantised_training(loaded)
    encoded = trainer.discriminator.encode([""], ["the dog"])
    with torch.no_grad():
        expected = trainer.discriminator.model(**encoded).logits
        torch.testing.assert_close(loaded.eval()(**encoded).logits, expected)

    # Whatever loads the adapters has the base as it was in training, without being told.
    again, _ = load_generator(str(tmp_path / "out"))
    assert again.is_loaded_in_4bit
    was, is_now = weights(trainer.model), weights(again)
    assert all(value.float().equal(is_now[name].float()) for name, value in was.items())  # TRL trains in bfloat16
    assert not getattr(load_generator(str(tmp_path / "out"), dtype="float32")[0], "is_loaded_in_4bit", False)
    discriminator = Discriminator.from_pretrained(tmp_path / "out" / "discriminator")
    assert quantisation_of(discriminator.model) is not None
    torch.testing.assert_close(discriminator.score([""], ["the dog"]), trainer.discriminator.score([""], ["the dog"]))
    went_on = AdversarialTrainer(
        str(tmp_path / "out"),
        discriminator=str(tmp_path / "out" / "discriminator"),
        args=make_config(max_steps=2),
        train_dataset=dataset,
    )
    for was, is_now in ((trainer.model, went_on.model), (trainer.discriminator.model, went_on.discriminator.model)):
        assert quantisation_of(is_now).to_diff_dict() == quantisation_of(was).to_diff_dict()

    trainer.discriminator.calibration = calibration(max_new_tokens=8)
    trainer.save_model()
    trainer.create_model_card()
    card = (tmp_path / "out" / "README.md").read_text()
    code = card.split("### Sampling with both models")[1].split("```python")[1].split("```")[0]
    scope = {}
    exec(code.replace("Once upon a time", "the dog"), scope)
    torch.testing.assert_close(
        scope["discriminator"].score([""], ["the dog"]), trainer.discriminator.score([""], ["the dog"])
    )
    assert scope["generator"].is_loaded_in_4bit

    with pytest.raises(ValueError, match=r"use_vllm=False.*quantization_config\.json"):
        AdversarialTrainer(
            str(tmp_path / "out"),
            discriminator=str(tmp_path / "out" / "discriminator"),
            args=make_config(use_vllm=True),
            train_dataset=dataset,
        )


def test_quantisation_is_saved_beside_adapters_alone(tmp_path, generator):
    with_adapters = get_peft_model(generator, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    with_adapters.config.quantization_config = nf4()
    save_quantisation(with_adapters, tmp_path)
    assert saved_quantisation(str(tmp_path)).to_dict() == nf4().to_dict()
    save_quantisation(generator, tmp_path)  # a model of another precision is saved over it
    assert list(tmp_path.iterdir()) == []
    assert saved_quantisation(str(tmp_path)) is None


@pytest.mark.parametrize("content", ["{", "[1]", "{}", '{"load_in_4bit": "yes"}'])
def test_damaged_quantisation_is_refused_by_name(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ValueError, match=f"{FILE} says no quantisation"):
        saved_quantisation(str(tmp_path))
