"""What a GPU changes: quantised models, half precision, devices, paged optimizers.

Every test runs on the CPU at tiny size as it does on a GPU, so that the code has run before a GPU is there; what
needs CUDA itself carries the mark `gpu`. `python -m pytest -m gpu` runs the latter.
"""

import math

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig
from torch.testing import assert_close
from transformers import BitsAndBytesConfig

from hf_mgan import AdversarialTrainer, Discriminator


bitsandbytes = pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
# bitsandbytes takes a GPU that it finds, whatever the trainer is told.
needs_no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="with a CUDA device the same runs there")
CPU = pytest.param("cpu", marks=needs_no_cuda)
CUDA = pytest.param("cuda", marks=[pytest.mark.gpu, needs_cuda])
QUANTISATIONS = {
    "nf4": BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    ),
    "fp4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4", bnb_4bit_compute_dtype=torch.bfloat16),
    "int8": BitsAndBytesConfig(load_in_8bit=True),
}
QUANTISED = {"nf4": torch.uint8, "fp4": torch.uint8, "int8": torch.int8}


@pytest.fixture
def folders(tmp_path, generator, tokenizer, classifier, pair_tokenizer):
    """Both models on disk, in sizes that quantise: in blocks of 64 weights, whole blocks in a row."""
    generator.config.n_embd = classifier.config.hidden_size = 64
    for name, model, own in (("g", generator, tokenizer), ("d", classifier, pair_tokenizer)):
        type(model)(model.config).save_pretrained(tmp_path / name)
        own.save_pretrained(tmp_path / name)
    return {"model": str(tmp_path / "g"), "discriminator": str(tmp_path / "d")}


ADAPTERS = {
    "peft_config": LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True),
    "discriminator_peft_config": LoraConfig(r=2, target_modules=["query", "value"]),
}


@pytest.fixture
def make_gpu_trainer(folders, dataset, make_config):
    def make(device, settings=None, **arguments):
        args = make_config(**{"max_steps": 2, "use_cpu": device == "cpu", "bf16": True, **(settings or {})})
        return AdversarialTrainer(**folders, args=args, train_dataset=dataset, **{**ADAPTERS, **arguments})

    return make


def both_models(trainer):
    return trainer.model, trainer.discriminator.model


def weights(model):
    """Copy what is not quantised: bitsandbytes packs quantised weights anew when they are first used on a CPU."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.is_floating_point()}


def moved(before, model):
    """Names of what is another number than before: a change of type, as of a quantised layer's bias, is none."""
    now = dict(model.named_parameters())
    return {name for name, value in before.items() if not torch.equal(value.to(now[name].dtype), now[name])}


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def train_and_check(trainer):
    """Train; what is trainable must have moved, in both models, and nothing else, by finite steps."""
    before = [weights(model) for model in both_models(trainer)]
    trainer.train()
    for states, model in zip(before, both_models(trainer), strict=True):
        assert 0 < len(trainable(model)) < len(states)
        assert moved(states, model) == trainable(model)
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(steps) == 2
    assert all(math.isfinite(entry[name]) for entry in steps for name in ("loss", "grad_norm", "discriminator/loss"))


@pytest.mark.parametrize("device", [CPU, CUDA])
@pytest.mark.parametrize("quantisation", QUANTISATIONS)
def test_quantised_models_train_and_load_again(quantisation, device, make_gpu_trainer, tmp_path):
    config = QUANTISATIONS[quantisation]
    trainer = make_gpu_trainer(device, quantization_config=config, discriminator_quantization_config=config)
    for model in both_models(trainer):
        assert QUANTISED[quantisation] in {parameter.dtype for parameter in model.parameters()}
    train_and_check(trainer)
    trainer.save_model()
    texts = ["a dog sees the cat", "the old king sleeps ."]
    scores = trainer.discriminator.score(["", ""], texts)
    loaded = Discriminator.from_pretrained(
        tmp_path / "out" / "discriminator", quantization_config=config, bf16=trainer.discriminator.bf16
    )
    assert_close(loaded.to(scores.device).score(["", ""], texts), scores, rtol=0, atol=1e-4)

    # Without accelerate's autocast, which a model that is loaded again does not have.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
    reloaded = AutoPeftModelForCausalLM.from_pretrained(
        tmp_path / "out", quantization_config=config, dtype=torch.float32
    ).eval()
    # TRL trains the adapters of a quantised model in bfloat16, PEFT loads them as float32.
    for name, parameter in reloaded.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(torch.bfloat16)
    # In evaluation mode bitsandbytes has a kernel of its own on some CPUs, which rounds otherwise.
    for module in reloaded.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.train()
    ids = torch.tensor([[1, 6, 7, 8, 9]], device=model.device)
    with torch.no_grad():
        logits = model(ids).logits
        assert_close(reloaded(ids).logits, logits, rtol=0, atol=1e-4)
        with reloaded.disable_adapter():
            assert (reloaded(ids).logits - logits).abs().max() > 0.01


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_generator_in_bfloat16_discriminator_in_float32(device, make_gpu_trainer):
    trainer = make_gpu_trainer(device, settings={"model_init_kwargs": {"dtype": "bfloat16"}})
    generator, discriminator = both_models(trainer)
    base = {parameter.dtype for name, parameter in generator.named_parameters() if "lora_" not in name}
    assert base == {torch.bfloat16}
    assert {parameter.dtype for parameter in discriminator.parameters()} == {torch.float32}
    train_and_check(trainer)
    assert trainer.discriminator.score(["a"], ["dog"]).dtype == torch.float32


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_models_and_logits_are_on_the_trainers_device(device, make_gpu_trainer):
    trainer = make_gpu_trainer(device)
    trainer.train()
    for model in both_models(trainer):
        assert {parameter.device.type for parameter in model.parameters()} == {device}
    assert trainer.discriminator.score(["a"], ["dog"]).device.type == device
    moments = {
        value.device.type
        for state in trainer.discriminator.optimizer.state.values()
        for name, value in state.items()
        if name.startswith("exp_avg")
    }
    assert moments == {device}


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_resumed_quantised_run_is_on_its_device(device, make_gpu_trainer, tmp_path):
    quantised = {
        "quantization_config": QUANTISATIONS["nf4"],
        "discriminator_quantization_config": QUANTISATIONS["nf4"],
    }
    settings = {"save_strategy": "steps", "save_steps": 1}
    make_gpu_trainer(device, settings, **quantised).train()
    trainer = make_gpu_trainer(device, settings, **quantised)
    before = [weights(model) for model in both_models(trainer)]
    trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-1"))
    assert trainer.state.global_step == trainer.discriminator.num_updates == 2
    for states, model in zip(before, both_models(trainer), strict=True):
        assert moved(states, model) == trainable(model)
        assert {parameter.device.type for parameter in model.parameters()} == {device}


@pytest.mark.parametrize("optimizer", ["paged_adamw_32bit", "paged_adamw_8bit"])
@pytest.mark.parametrize("device", [CUDA])
def test_models_train_with_a_paged_optimizer(optimizer, device, make_gpu_trainer):
    """On the GPU alone: pages are CUDA's."""
    trainer = make_gpu_trainer(device, {"optim": optimizer, "discriminator_optim_kwargs": {"optim": optimizer}})
    train_and_check(trainer)
    for its in (trainer.optimizer.optimizer, trainer.discriminator.optimizer):
        assert type(its).__module__.startswith("bitsandbytes")
        assert its.is_paged


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_models_train_with_an_8_bit_optimizer(device, make_gpu_trainer):
    trainer = make_gpu_trainer(device, {"optim": "adamw_8bit", "discriminator_optim_kwargs": {"optim": "adamw_8bit"}})
    train_and_check(trainer)
    for its in (trainer.optimizer.optimizer, trainer.discriminator.optimizer):
        assert type(its).__module__.startswith("bitsandbytes")
        assert not its.is_paged


@pytest.mark.parametrize("device", [CUDA])
def test_models_train_in_float16(device, make_gpu_trainer):
    """On the GPU alone: accelerate has no float16 on a CPU. The first steps may be skipped, until the scale fits."""
    trainer = make_gpu_trainer(device, {"fp16": True, "bf16": False, "max_steps": 16})
    before = [weights(model) for model in both_models(trainer)]
    trainer.train()
    for states, model in zip(before, both_models(trainer), strict=True):
        assert moved(states, model) == trainable(model)
        assert all(parameter.isfinite().all() for parameter in model.parameters())
