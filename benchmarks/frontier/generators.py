"""The generators of `benchmarks.frontier`: supervised, distilled from accepted texts, and adversarial.

In: a start and texts. Out: a folder with model and tokenizer, and what training said.
"""

import argparse
import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig

from hf_mgan import AdversarialConfig, AdversarialTrainer, Discriminator, Watchdog, prepare_dataset

from ..real_text import __main__ as real_text
from ..supervised import EvenSFTTrainer


BATCH_SIZE = 32
EVALUATIONS = 3  # of supervised training, per epoch
LEARNING_RATE = 2e-4  # of adversarial training; half of it where a supervised generator learns further
SUPERVISED_LEARNING_RATE = 1e-3  # of new adapters: on Austen's sentences 2e-4 and 2e-3 are worse (docs/frontier.md)
QUIET: dict[str, Any] = {"report_to": "none", "use_cpu": not torch.cuda.is_available()}


def supervise(
    start: str | Path,
    folder: Path,
    texts: Dataset,
    validation: Dataset,
    epochs: Sequence[int],
    learning_rates: Sequence[float],
    bf16: bool,
) -> dict[str, Any]:
    """Fine-tune with adapters, for each number of epochs at each learning rate, and save the best by held-out loss.

    The learning rate falls linearly to 0 over the epochs, so that each number of them is a training of its own.

    Args:
        start (`str` or `Path`): A model on the Hub or in a folder; adapters in a folder are trained further.
        folder (`Path`): Where the generator is saved.
        texts (`Dataset`): Column `text`.
        validation (`Dataset`): The same, for the held-out loss.
        epochs (`Sequence[int]`): Each number is a training.
        learning_rates (`Sequence[float]`): The greatest ones; each is a training for each number of epochs.
        bf16 (`bool`): Whether the frozen weights and the arithmetic are in bfloat16.

    Returns:
        `dict`: Number of texts and the trainings, the one of the least held-out loss first: epochs, learning rate, and
        pairs of step and held-out loss.
    """
    trainings = []
    for number, learning_rate in dict.fromkeys(itertools.product(epochs, learning_rates)):
        losses = _trained(start, folder, texts, validation, number, learning_rate, bf16)
        trainings.append({"epochs": number, "learning_rate": learning_rate, "held_out_losses": losses})
    trainings.sort(key=lambda training: training["held_out_losses"][-1][1])
    folders = [_of_training(folder, one["epochs"], one["learning_rate"]) for one in trainings]
    shutil.copytree(folders[0], folder, dirs_exist_ok=True)
    for one in folders:
        shutil.rmtree(one)
    return {"texts": len(texts), "trainings": trainings}


def _of_training(folder: Path, epochs: int, learning_rate: float) -> Path:
    return folder.with_name(f"{folder.name}_of_{epochs}_epochs_at_{learning_rate:g}")


def _trained(
    start: str | Path,
    folder: Path,
    texts: Dataset,
    validation: Dataset,
    epochs: int,
    learning_rate: float,
    bf16: bool,
) -> list[list[float]]:
    """Fine-tune for some epochs and return pairs of step and held-out loss, or those of a training that is done."""
    out = _of_training(folder, epochs, learning_rate)
    losses = out / "held_out_losses.json"
    if losses.exists():
        found: list[list[float]] = json.loads(losses.read_text())
        return found
    tokenizer = AutoTokenizer.from_pretrained(start, padding_side="left")
    set_seed(0)  # of new adapters too: a training is the same whichever were done before it
    trainer = EvenSFTTrainer(
        _with_adapters(start, bf16),
        args=SFTConfig(
            str(out),
            num_train_epochs=epochs,
            per_device_train_batch_size=BATCH_SIZE,
            per_device_eval_batch_size=2 * BATCH_SIZE,
            learning_rate=learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=10,
            max_length=64,
            train_sampling_strategy="group_by_length",  # less padding
            gradient_checkpointing=False,
            eval_strategy="steps",
            eval_steps=1 / (EVALUATIONS * epochs),
            save_strategy="no",
            seed=0,
            bf16=bf16,
            **QUIET,
        ),
        train_dataset=prepare_dataset(texts, tokenizer),
        eval_dataset=prepare_dataset(validation, tokenizer),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model()
    history = [[entry["step"], entry["eval_loss"]] for entry in trainer.state.log_history if "eval_loss" in entry]
    losses.write_text(json.dumps(history))
    return history


def train_small(folder: Path, source: str, max_texts: int, held_out: int) -> dict[str, Any]:
    """Train the small generator of `benchmarks.real_text` from random weights, and save it whole.

    Args:
        folder (`Path`): Where the generator is saved.
        source (`str`): The corpus: id on the Hub, folder or beginning of the names of its files.
        max_texts (`int`): Of each split.
        held_out (`int`): The last of those for training, which are not learnt.

    Returns:
        `dict`: As of `supervise`; it is one training.
    """
    sizes = f"--max_texts {max_texts} --further_held_out {held_out}".split()
    arguments = real_text.parsed_arguments(["--output", str(folder.with_name("small_training")), *sizes])
    run = real_text.Run(source, 0, arguments)
    run.do(["supervised"])
    shutil.copytree(run.folder / "supervised", folder, dirs_exist_ok=True)
    made = json.loads((run.folder / "supervised.json").read_text())
    *losses, _ = made["held_out_losses"]  # the last one is that of the weights that are kept, once more
    steps = made["steps"]
    history = [[steps * number // len(losses), loss] for number, loss in enumerate(losses, 1)]
    training = {"epochs": len(losses), "learning_rate": real_text.LEARNING_RATES[True], "held_out_losses": history}
    return {"texts": len(run.train), "trainings": [training]}


def train_adversarially(
    start: Path,
    discriminator: str | Path,
    folder: Path,
    texts: Dataset,
    seed: int,
    arguments: argparse.Namespace,
    reward: Callable[..., list[float]] | None = None,
    trainer_class: type[AdversarialTrainer] = AdversarialTrainer,
    **config: Any,
) -> dict[str, Any]:
    """Train adversarially, with the settings that keep SmolLM2's length on real text (`benchmarks.real_text`).

    Args:
        start (`Path`): Adapters of the supervised generator.
        discriminator (`str` or `Path`): One that has learnt against this generator already; a fresh one needs
            `discriminator_warmup_steps`.
        folder (`Path`): Where the generator is saved. A run that was killed goes on where it was.
        texts (`Dataset`): Column `text`.
        seed (`int`): Seed.
        arguments (`argparse.Namespace`): The command line.
        reward (`Callable`, *optional*): A reward beside the discriminator's, as TRL calls it.
        trainer_class (`type`): Of the trainer.
        **config: Arguments of [`AdversarialConfig`] that are to be other ones.

    Returns:
        `dict`: Steps, texts generated, and of each of the watchdog's alarms its name and first step.
    """
    work = folder.with_name(folder.name + "_training")
    watchdog = Watchdog()
    settings = {
        "max_steps": arguments.steps,
        "per_device_train_batch_size": arguments.adversarial_batch_size,
        "num_generations": arguments.adversarial_batch_size,
        "max_completion_length": arguments.max_completion_length,
        "top_k": 0,
        "learning_rate": LEARNING_RATE,
        "scale_rewards": "none",
        "loss_type": "dr_grpo",
        "real_text_coef": 0.1,
        "discriminator_warmup_steps": 0,
        "discriminator_replay_fraction": 0.25,
        "gradient_checkpointing": False,
        "save_steps": 10,
        "save_total_limit": 1,
        "logging_steps": 1,
        "seed": seed,
        "bf16": arguments.bf16,
        **QUIET,
        **config,
    }
    trainer = trainer_class(
        model=_with_adapters(start, arguments.bf16),
        reward_funcs=reward,
        args=AdversarialConfig(str(work), **settings),
        train_dataset=texts,
        processing_class=AutoTokenizer.from_pretrained(start, padding_side="left"),
        discriminator=str(discriminator),
        callbacks=[watchdog],
    )
    trainer.train(resume_from_checkpoint=any(work.glob("checkpoint-*")))
    trainer.save_model(str(folder))
    shutil.rmtree(work)
    steps = trainer.state.global_step
    alarms: dict[str, int] = {}
    for alarm in watchdog.alarms:
        alarms.setdefault(alarm.name, alarm.step)
    return {"steps": steps, "texts": steps * arguments.adversarial_batch_size, "alarms": alarms}


def load_merged(folder: Path, bf16: bool, device: torch.device) -> Any:
    """Load a generator to sample from, its adapters, if it has any, merged in float32."""
    if _has_adapters(folder):
        model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32).merge_and_unload()
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.to(device, precision(bf16)).eval()


def _has_adapters(start: str | Path) -> bool:
    return (Path(start) / "adapter_config.json").exists()


def load_discriminator(source: str | Path, arguments: argparse.Namespace, **kwargs: Any) -> Discriminator:
    """Load a discriminator with room for the texts, fresh or saved."""
    # Of short texts the plain attention is the faster one to train with on a CPU in bfloat16, by a factor of 1.8.
    given = {"max_length": 2 * arguments.max_completion_length, "attn_implementation": "eager", **kwargs}
    return Discriminator.from_pretrained(source, **given)


def precision(bf16: bool) -> torch.dtype:
    """Return the type of frozen weights."""
    return torch.bfloat16 if bf16 else torch.float32


def _with_adapters(start: str | Path, bf16: bool) -> Any:
    """Load a model with new adapters, or one with its own to train further; these are in float32."""
    # The texts are so short that on a CPU the plain attention is the fastest: a step takes three quarters of the time.
    given: dict[str, Any] = {"dtype": precision(bf16), "attn_implementation": "eager"}
    if _has_adapters(start):
        return AutoPeftModelForCausalLM.from_pretrained(start, **given, is_trainable=True)
    adapters = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(AutoModelForCausalLM.from_pretrained(start, **given), adapters)
