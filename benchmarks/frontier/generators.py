"""The generators of `benchmarks.frontier`: supervised, distilled from accepted texts, and adversarial.

In: a start and texts. Out: a folder with adapters and tokenizer, and what training said.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, EarlyStoppingCallback
from trl import SFTConfig, SFTTrainer

from hf_mgan import AdversarialConfig, AdversarialTrainer, Watchdog, prepare_dataset


BATCH_SIZE = 32
EVALUATIONS = 3  # of supervised training, per epoch
PATIENCE = 2  # evaluations of it without a lower loss
LEARNING_RATE = 2e-4
QUIET: dict[str, Any] = {"report_to": "none", "bf16": False, "use_cpu": not torch.cuda.is_available()}


def supervise(
    start: str | Path, folder: Path, texts: Dataset, validation: Dataset, epochs: int, learning_rate: float
) -> dict[str, Any]:
    """Fine-tune with adapters until the held-out loss no longer falls, and save the best of it.

    Args:
        start (`str` or `Path`): A model on the Hub or in a folder; adapters in a folder are trained further.
        folder (`Path`): Where the generator is saved. A run that was killed goes on where it was.
        texts (`Dataset`): Column `text`.
        validation (`Dataset`): The same, for the held-out loss.
        epochs (`int`): At most.
        learning_rate (`float`): The greatest; it falls linearly to 0.

    Returns:
        `dict`: Number of texts, the best step and the held-out losses.
    """
    work = folder.with_name(folder.name + "_training")
    tokenizer = AutoTokenizer.from_pretrained(start, padding_side="left")
    trainer = SFTTrainer(
        _with_adapters(start),
        args=SFTConfig(
            str(work),
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
            save_strategy="steps",
            save_steps=1 / (EVALUATIONS * epochs),
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model="eval_loss",
            seed=0,
            **QUIET,
        ),
        train_dataset=prepare_dataset(texts, tokenizer),
        eval_dataset=prepare_dataset(validation, tokenizer),
        processing_class=tokenizer,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=PATIENCE)],
    )
    trainer.train(resume_from_checkpoint=any(work.glob("checkpoint-*")))
    trainer.save_model(str(folder))
    shutil.rmtree(work)
    losses = [[entry["step"], entry["eval_loss"]] for entry in trainer.state.log_history if "eval_loss" in entry]
    return {"texts": len(texts), "steps": trainer.state.best_global_step, "held_out_losses": losses}


def train_adversarially(
    start: Path, discriminator: Path, folder: Path, texts: Dataset, seed: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Train adversarially, with the settings that keep SmolLM2's length on real text (`benchmarks.real_text`).

    Args:
        start (`Path`): Adapters of the supervised generator.
        discriminator (`Path`): One that has learnt against this generator already, so that it needs no warm-up.
        folder (`Path`): Where the generator is saved. A run that was killed goes on where it was.
        texts (`Dataset`): Column `text`.
        seed (`int`): Seed.
        arguments (`argparse.Namespace`): The command line.

    Returns:
        `dict`: Steps, texts generated and the watchdog's alarms.
    """
    work = folder.with_name(folder.name + "_training")
    watchdog = Watchdog()
    trainer = AdversarialTrainer(
        model=_with_adapters(start),
        args=AdversarialConfig(
            str(work),
            max_steps=arguments.steps,
            per_device_train_batch_size=arguments.adversarial_batch_size,
            num_generations=arguments.adversarial_batch_size,
            max_completion_length=arguments.max_completion_length,
            top_k=0,
            learning_rate=LEARNING_RATE,
            scale_rewards="none",
            loss_type="dr_grpo",
            real_text_coef=0.1,
            discriminator_warmup_steps=0,
            discriminator_replay_fraction=0.25,
            gradient_checkpointing=False,
            save_steps=10,
            save_total_limit=1,
            logging_steps=1,
            seed=seed,
            **QUIET,
        ),
        train_dataset=texts,
        processing_class=AutoTokenizer.from_pretrained(start, padding_side="left"),
        discriminator=str(discriminator),
        callbacks=[watchdog],
    )
    trainer.train(resume_from_checkpoint=any(work.glob("checkpoint-*")))
    trainer.save_model(str(folder))
    shutil.rmtree(work)
    steps = trainer.state.global_step
    return {
        "steps": steps,
        "texts": steps * arguments.adversarial_batch_size,
        "alarms": sorted({alarm.name for alarm in watchdog.alarms}),
    }


def _with_adapters(start: str | Path) -> Any:
    """Load a model with new adapters, or one with its own to train further."""
    if (Path(start) / "adapter_config.json").exists():
        return AutoPeftModelForCausalLM.from_pretrained(start, dtype=torch.float32, is_trainable=True)
    adapters = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32), adapters)
