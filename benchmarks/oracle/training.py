"""What both parts of `benchmarks.oracle` share: maximum likelihood with early stopping, then adversarial training."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

from hf_mgan import AdversarialTrainer
from hf_mgan.demo.models import TRAINING, train_encoder
from hf_mgan.demo.parts import adversarial_config
from hf_mgan.demo.run import DemoArguments
from hf_mgan.metrics import auc

from ..sweep.stopwatch import Stopwatch


EVALUATIONS = 10  # of a run of maximum likelihood, at equal distances
LAST_STEPS = 5


class Fit(NamedTuple):
    """A run of maximum likelihood.

    Args:
        steps (`int`): Its steps, over which the learning rate falls to 0.
        curve (`list[tuple[int, float]]`): Step and negative log-likelihood of held-out texts, in nats per token.
    """

    steps: int
    curve: list[tuple[int, float]]

    @property
    def best(self) -> tuple[float, int]:
        """Return the least negative log-likelihood, and its step."""
        return min((nll, step) for step, nll in self.curve)


def fit(
    make_model: Callable[[], PreTrainedModel],
    texts: Sequence[list[int]],
    held_out: Sequence[list[int]],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    schedules: Sequence[int],
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
) -> tuple[PreTrainedModel, list[Fit]]:
    """Train a generator by maximum likelihood, and keep the one that finds held-out texts likeliest.

    Few texts are soon learnt by heart, and so there are schedules of several lengths, each stopped where the held-out
    texts are likeliest: a rival that is trained for too long would be easy to beat.

    Args:
        make_model (`Callable`): Makes the model that a schedule starts with.
        texts (`Sequence[list[int]]`): Tokens to learn from, each with the token that generation starts from.
        held_out (`Sequence[list[int]]`): Others in the same form.
        tokenizer (`PreTrainedTokenizerBase`): The generator's.
        folder (`Path`): Where the best model and the tokenizer are saved, as a Hub folder.
        schedules (`Sequence[int]`): Steps of each schedule.
        batch_size (`int`): Texts per step.
        learning_rate (`float`): The highest.
        weight_decay (`float`): Of all matrices, the embeddings included.
        seed (`int`): Seed of the weights and of the order.

    Returns:
        `tuple[PreTrainedModel, list[Fit]]`: The best model, and what became of each schedule.
    """
    fits: list[Fit] = []
    best = None
    for steps in schedules:
        torch.manual_seed(seed)
        every = max(steps // EVALUATIONS, 1)
        arguments = SFTConfig(
            str(folder / f"steps_{steps}"),
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            per_device_eval_batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup_steps=min(50, steps // 10),
            gradient_checkpointing=False,
            seed=seed,
            eval_strategy="steps",
            eval_steps=every,
            save_steps=every,
            save_only_model=True,
            save_total_limit=1,
            load_best_model_at_end=True,
            **TRAINING | {"save_strategy": "steps"},
        )
        trainer = SFTTrainer(
            make_model(),
            arguments,
            train_dataset=Dataset.from_dict({"input_ids": list(texts)}),
            eval_dataset=Dataset.from_dict({"input_ids": list(held_out)}),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
        fits.append(Fit(steps, [(entry["step"], entry["eval_loss"]) for entry in evaluations]))
        if fits[-1].best[0] <= min(one.best[0] for one in fits):
            best = trainer
    assert best is not None
    best.save_model(str(folder))
    return best.model, fits


def train_adversarially(
    generator: Path,
    folder: Path,
    texts: list[str],
    encoder_tokenizer: PreTrainedTokenizerBase,
    sizes: DemoArguments,
    stopwatch: Stopwatch,
    *,
    seed: int,
    rank: int,
    max_tokens: int,
    learning_rate: float | None = None,
    after_warmup: Callable[[AdversarialTrainer], None] | None = None,
) -> AdversarialTrainer:
    """Train with the demo's settings, against an encoder that is trained on masked words first.

    A second run in the same folder has the same encoder.

    Args:
        generator (`Path`): Folder of the generator.
        folder (`Path`): For the encoder and the trainer.
        texts (`list[str]`): Real texts, for both models.
        encoder_tokenizer (`PreTrainedTokenizerBase`): The discriminator's.
        sizes ([`DemoArguments`]): Steps of the encoder, of its warm-up as discriminator and of training, and texts
            per step.
        stopwatch ([`~sweep.stopwatch.Stopwatch`]): Gets the durations.
        seed (`int`): The seed.
        rank (`int`): Rank of the adapters on all linear layers; the width of the generator, as in the demo.
        max_tokens (`int`): Tokens at which a completion is cut.
        learning_rate (`float`, *optional*): Of the generator; the demo's by default.
        after_warmup (`Callable`, *optional*): Called with the trainer when the discriminator has warmed up and the
            generator has not moved: after the first step, whose learning rate is 0.

    Returns:
        [`AdversarialTrainer`]: After training.
    """
    if not (folder / "encoder").exists():
        with stopwatch.part("encoder"):
            train_encoder(
                texts,
                encoder_tokenizer,
                folder / "encoder",
                sizes.encoder_steps,
                sizes.batch_size,
                seed,
                TrainerCallback(),
            )
    config = adversarial_config(sizes, folder / "training", seed)
    with stopwatch.part("adversarial"):
        trainer = AdversarialTrainer(
            model=str(generator),
            discriminator=str(folder / "encoder"),
            # TRL fills in one of these two from the other, and refuses both.
            args=replace(
                config,
                generation_batch_size=None,
                max_completion_length=max_tokens,
                learning_rate=learning_rate or config.learning_rate,
            ),
            train_dataset=Dataset.from_dict({"text": texts}),
            peft_config=adapters(rank),
        )
        trainer.remove_callback(PrinterCallback)
        if after_warmup is not None:
            trainer.add_callback(AfterFirstStep(partial(after_warmup, trainer)))
        trainer.train()
    return trainer


class AfterFirstStep(TrainerCallback):
    """Calls a function when the first step is done.

    Args:
        call (`Callable`): The function.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Call the function if this was the first step."""
        if state.global_step == 1:
            self.call()


def discriminator_aucs(
    trainer: AdversarialTrainer, learnt: list[str], held_out: list[str], generated: list[str]
) -> dict[str, float]:
    """Return what a discriminator has learnt, and what of it holds for texts that it has not seen.

    Args:
        trainer ([`AdversarialTrainer`]): Its trainer.
        learnt (`list[str]`): Real texts that it was trained on.
        held_out (`list[str]`): Others.
        generated (`list[str]`): Texts of the generator that it has not seen.

    Returns:
        `dict[str, float]`: Its area under the ROC curve against the generated texts, `auc_learnt` and `auc_held_out`:
        1 where every real text gets the higher score, 0.5 where scores say nothing.
    """
    of_learnt, of_held_out, of_generated = (
        trainer.discriminator.score([""] * len(texts), texts) for texts in (learnt, held_out, generated)
    )
    return {"auc_learnt": auc(of_learnt, of_generated), "auc_held_out": auc(of_held_out, of_generated)}


def adapters(rank: int) -> LoraConfig:
    """Return the demo's adapters for a generator of another width: every linear layer; the embeddings stay."""
    return LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear", task_type="CAUSAL_LM")


def described(fits: list[Fit]) -> list[dict[str, Any]]:
    """Return the runs of maximum likelihood as plain values."""
    return [{"steps": one.steps, "best": one.best, "curve": one.curve} for one in fits]


def last_steps(log_history: list[dict[str, float]]) -> dict[str, float]:
    """Return D(x), D(G(s)) and V(D, G) as means over the last steps of training."""
    logged = [entry for entry in log_history if "loss" in entry][-LAST_STEPS:]
    return {
        name: sum(entry[f"discriminator/{name}"] for entry in logged) / len(logged)
        for name in ("real_prob", "fake_prob", "value")
    }
