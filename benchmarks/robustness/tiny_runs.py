"""A tiny adversarial run on a CPU, the same wherever it is made: what the checks of robustness train.

In: a folder for the models, and settings. Out: a trainer of an untrained GPT-2 and an untrained BERT of two layers.
"""

import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import BitsAndBytesConfig, TrainerCallback

from hf_mgan import AdversarialConfig, AdversarialTrainer

from ..hardware.tiny_models import DISCRIMINATORS, GENERATORS, save_model, texts


KINDS = ("full", "LoRA", "4-bit + LoRA")
# Measured in seconds, so that no two runs log the same.
TIMES = ("step_time", "_runtime", "_per_second", "total_flos")


def save_models(folder: Path) -> None:
    """Save generator and discriminator as `g` and `d` within a folder, unless they are there."""
    for name, family, labels in (("g", GENERATORS["GPT-2"], None), ("d", DISCRIMINATORS["BERT"], 1)):
        if not (folder / name / "config.json").exists():
            save_model(family, folder / name, labels)


def make_trainer(
    models: Path,
    output_dir: Path,
    kind: str = "full",
    callbacks: list[TrainerCallback] | None = None,
    arguments: dict[str, Any] | None = None,
    **settings: Any,
) -> AdversarialTrainer:
    """Make a trainer.

    Args:
        models (`Path`): Where [`save_models`] wrote to.
        output_dir (`Path`): The run's.
        kind (`str`, *optional*, defaults to `"full"`): One of [`KINDS`]: how both models are trained.
        callbacks (`list[TrainerCallback]`, *optional*): The trainer's.
        arguments (`dict[str, Any]`, *optional*): Further arguments of the trainer.
        **settings: Those of [`AdversarialConfig`] that are to be other ones.
    """
    chosen: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": 8,
        "learning_rate": 1e-3,
        "discriminator_learning_rate": 1e-3,
        "discriminator_warmup_steps": 0,
        "logging_steps": 1,
        "save_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        **settings,
    }
    arguments = {**(arguments or {})}
    if kind != "full":
        arguments |= {
            "peft_config": LoraConfig(r=2, target_modules="all-linear"),
            "discriminator_peft_config": LoraConfig(r=2, target_modules=["query", "value"]),
        }
    if kind == "4-bit + LoRA":
        nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
        arguments |= {"quantization_config": nf4, "discriminator_quantization_config": nf4}
    arguments = {"model": str(models / "g"), "discriminator": str(models / "d"), **arguments}
    return AdversarialTrainer(
        args=AdversarialConfig(str(output_dir), **chosen),
        train_dataset=training_set(),
        callbacks=callbacks,
        **arguments,
    )


def training_set() -> Dataset:
    """Return 32 texts."""
    return Dataset.from_dict({"text": texts(32, 0)})


def weights(trainer: AdversarialTrainer) -> dict[str, torch.Tensor]:
    """Return the weights of both models by name."""
    models = (("generator", trainer.model), ("discriminator", trainer.discriminator.model))
    return {f"{name}.{at}": one.detach().clone() for name, model in models for at, one in model.state_dict().items()}


def log_of(trainer: AdversarialTrainer) -> list[dict[str, Any]]:
    """Return the entries of the log, without what is measured in seconds and without the summary of the run."""
    entries = [entry for entry in trainer.state.log_history if "train_runtime" not in entry]
    return [{key: one for key, one in entry.items() if not key.endswith(TIMES)} for entry in entries]


def since(start: float) -> float:
    """Return the seconds since a moment of `time.perf_counter`."""
    return round(time.perf_counter() - start, 2)
