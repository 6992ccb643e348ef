import os
import shutil

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import BitsAndBytesConfig, GPT2LMHeadModel

from hf_mgan.evaluation.models import fingerprint, load_generator, load_tokenizer, named_models

from .conftest import new_generator, new_tokenizer, save


IDS = torch.tensor([[1, 8, 9, 10]])


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def test_load_generator_from_a_folder(folders):
    model, tokenizer = load_generator(folders["start"])
    assert isinstance(model, GPT2LMHeadModel)
    assert not model.training
    assert logits(model).equal(logits(new_generator()))
    assert tokenizer("<s> dog")["input_ids"] == [1, 8]


def test_load_generator_adapters_bring_their_base(folders):
    model, tokenizer = load_generator(folders["tuned"])
    assert isinstance(model, PeftModel)
    assert not model.training
    assert logits(model).equal(logits(AutoPeftModelForCausalLM.from_pretrained(folders["tuned"])))
    assert not logits(model).allclose(logits(new_generator()), atol=0.1)
    assert tokenizer("<s> dog")["input_ids"] == [1, 8]


def test_load_generator_adapters_with_a_tokenizer(folders, tmp_path):
    shutil.copytree(folders["tuned"], tmp_path / "tuned")
    tokenizer = new_tokenizer()
    tokenizer.eos_token = "."
    tokenizer.save_pretrained(tmp_path / "tuned")
    assert load_tokenizer(str(tmp_path / "tuned")).eos_token == "."
    assert load_tokenizer(folders["tuned"]).eos_token == "</s>"


def test_load_generator_leaves_a_loaded_model_as_it_is(folders):
    model = GPT2LMHeadModel.from_pretrained(folders["start"]).train()
    same, tokenizer = load_generator(model)
    assert same is model
    assert model.training
    assert tokenizer("<s> dog")["input_ids"] == [1, 8]
    given = new_tokenizer()
    assert load_generator(new_generator(), given)[1] is given
    assert load_generator(folders["start"], given)[1] is given


def test_load_generator_dtype(folders, tmp_path):
    save(new_generator().bfloat16(), tmp_path / "half")
    assert load_generator(str(tmp_path / "half"))[0].dtype == torch.bfloat16
    assert load_generator(str(tmp_path / "half"), dtype="float32")[0].dtype == torch.float32
    assert load_generator(folders["start"])[0].dtype == torch.float32


def test_load_generator_leaves_a_quantised_model_in_place(folders, tmp_path, monkeypatch):
    pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")
    config = BitsAndBytesConfig(load_in_8bit=True)
    save(GPT2LMHeadModel.from_pretrained(folders["start"], quantization_config=config), tmp_path / "int8")
    moved = []
    monkeypatch.setattr(GPT2LMHeadModel, "to", lambda self, *args: moved.append(args))
    model, _ = load_generator(str(tmp_path / "int8"))
    assert model.is_quantized
    assert not moved  # bitsandbytes' layers refuse some moves
    load_generator(folders["start"])
    assert len(moved) == 1


def test_load_tokenizer_of_a_model_from_nowhere_is_refused():
    with pytest.raises(ValueError, match="needs its tokenizer beside it"):
        load_generator(new_generator())


def test_named_models_by_path_or_by_name():
    model = new_generator()
    assert named_models("org/gpt") == {"gpt": "org/gpt"}
    assert named_models("runs/out/") == {"out": "runs/out/"}
    assert named_models(["org/gpt", "gan=runs/out"]) == {"gpt": "org/gpt", "gan": "runs/out"}
    assert list(named_models(["b=one", "a=two"])) == ["b", "a"]
    assert named_models("lr=runs/lr=0.1") == {"lr": "runs/lr=0.1"}
    assert named_models(model) == {"model": model}
    assert named_models({"before": "org/gpt", "after": model}) == {"before": "org/gpt", "after": model}


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], "no model to evaluate"),
        ({}, "no model to evaluate"),
        (["a/gpt", "b/gpt"], "Several models are called 'gpt'"),
        (["x=a", "x=b"], "Several models are called 'x'"),
        (["real=a"], "cannot be called 'real'"),
        (["runs/lr=0.1/out"], "cannot be called 'runs/lr'"),
        (["=a"], "cannot be called ''"),
        ({"two words": "a"}, "cannot be called 'two words'"),
        (".", "cannot be called ''"),
    ],
)
def test_named_models_refuse_names_unfit_for_files(models, message):
    with pytest.raises(ValueError, match=message):
        named_models(models)


def test_fingerprint_of_a_folder_is_of_its_content(folders, tmp_path):
    shutil.copytree(folders["start"], tmp_path / "copy")
    for path in (tmp_path / "copy").iterdir():
        os.utime(path, (1, 1))
    assert fingerprint(str(tmp_path / "copy")) == fingerprint(folders["start"])
    (tmp_path / "copy" / "README.md").write_text("what it is")
    assert fingerprint(str(tmp_path / "copy")) == fingerprint(folders["start"])
    assert fingerprint(folders["tuned"]) != fingerprint(folders["start"])


@pytest.mark.parametrize("place", [0, -1])
def test_fingerprint_changes_with_the_weights(folders, tmp_path, monkeypatch, place):
    """A file of more than twice the sampled bytes is known by its two ends."""
    monkeypatch.setattr("hf_mgan.evaluation.models.SAMPLED", 1000)
    shutil.copytree(folders["start"], tmp_path / "copy")
    path = tmp_path / "copy" / "model.safetensors"
    content = bytearray(path.read_bytes())
    assert len(content) > 2000
    before = fingerprint(str(tmp_path / "copy"))
    content[place] ^= 1
    path.write_bytes(bytes(content))
    assert fingerprint(str(tmp_path / "copy")) != before


def test_fingerprint_of_a_loaded_model_and_of_an_id():
    model = new_generator()
    assert fingerprint(model) == fingerprint(new_generator())
    assert fingerprint(model) != fingerprint(new_generator(seed=1))
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight[0, 0] += 0.01
    assert fingerprint(model) != fingerprint(new_generator())
    assert fingerprint("org/gpt") == "org/gpt"
