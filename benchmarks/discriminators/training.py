"""One discriminator of `benchmarks.discriminators`: trained on a fixed number of texts, and tested on unseen ones.

In: texts of both sides and settings. Out: the scores of the test's texts, and how long it took to get there.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.trainer_utils import SchedulerType

from hf_mgan import AdversarialConfig
from hf_mgan.discriminator import Regularization, trainable_parameters
from hf_mgan.metrics import auc_interval

from ..frontier.generators import BATCH_SIZE, QUIET, load_discriminator


ENCODER, CAUSAL = "encoder", "causal"
LEARNING_RATE = 5e-5  # of the package
EVALUATIONS = 2  # per epoch
PATIENCE = 3  # evaluations in a row without a lower loss


@dataclass(frozen=True)
class Condition:
    """A discriminator.

    Args:
        kind (`str`): `"encoder"`, or `"causal"`: made of the generator as it was before.
        samples (`int`): Texts of each side that it learns from.
        label_smoothing (`float`, *optional*): Of the real labels.
        learning_rate (`float`, *optional*): The greatest.
    """

    kind: str
    samples: int
    label_smoothing: float = 0.0
    learning_rate: float = LEARNING_RATE

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.kind}_{self.samples}_{self.label_smoothing:g}_{self.learning_rate:g}"


def conditions(encoder_samples: Sequence[int], causal_samples: Sequence[int]) -> list[Condition]:
    """Return all of them: numbers of texts, and at the middle one of the encoder's other settings."""
    middle = encoder_samples[len(encoder_samples) // 2]
    return [
        *(Condition(ENCODER, samples) for samples in encoder_samples),
        Condition(ENCODER, middle, label_smoothing=0.1),
        *(Condition(ENCODER, middle, learning_rate=factor * LEARNING_RATE) for factor in (0.3, 3)),
        *(Condition(CAUSAL, samples) for samples in causal_samples),
    ]


@dataclass(frozen=True)
class Sides:
    """Real and generated texts, as many of each as there are."""

    real: list[str]
    generated: list[str]


def train(
    condition: Condition,
    learnt: Sides,
    stopping: Sides,
    tested: Sides,
    epochs: int,
    folder: Path,
    seed: int,
    device: torch.device,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Train a discriminator on texts, some epochs at most, and score those of the test with the best weights.

    The learning rate falls linearly to 0 over all epochs. The loss on the texts to stop by is computed twice per
    epoch; the weights of its least value are kept, and training stops when it has not fallen three times in a row.

    Args:
        condition ([`Condition`]): The discriminator.
        learnt ([`Sides`]): To learn from; as many as the condition says are taken.
        stopping ([`Sides`]): To stop by.
        tested ([`Sides`]): For the test.
        epochs (`int`): At most.
        folder (`Path`): For the trainer's settings; nothing is saved.
        seed (`int`): Of the order of the texts.
        device (`torch.device`): Where it is trained.
        arguments (`argparse.Namespace`): The command line.
    """
    source = arguments.discriminator if condition.kind == ENCODER else arguments.generator
    regularization = Regularization(label_smoothing=condition.label_smoothing)
    how: dict[str, Any] = {"bf16": arguments.bf16, "regularization": regularization}
    discriminator = load_discriminator(source, arguments, **how).to(device)
    order = torch.Generator().manual_seed(seed)
    count = min(condition.samples, len(learnt.real), len(learnt.generated))
    real, generated = (
        [texts[place] for place in torch.randperm(len(texts), generator=order)[:count]]
        for texts in (learnt.real, learnt.generated)
    )
    per_epoch = max(count // BATCH_SIZE, 1)
    updates = epochs * per_epoch
    config = AdversarialConfig(
        str(folder), discriminator_learning_rate=condition.learning_rate, bf16=arguments.bf16, **QUIET
    )
    settings = config.discriminator_training_args()
    settings.lr_scheduler_type = SchedulerType.LINEAR
    discriminator.create_optimizer(settings, updates)
    best, kept, failures, losses = float("inf"), [], 0, []
    for number in range(1, updates + 1):
        place = (number - 1) % per_epoch
        if place == 0:
            shuffled = [torch.randperm(count, generator=order).tolist() for _ in range(2)]
        rows = slice(place * BATCH_SIZE, (place + 1) * BATCH_SIZE)
        batch = [[texts[at] for at in places[rows]] for texts, places in zip((generated, real), shuffled, strict=True)]
        discriminator.update([""] * len(batch[0]), *batch, remember=False)
        if number % max(per_epoch // EVALUATIONS, 1) == 0 or number == updates:
            loss = discriminator.loss(*_logits(discriminator, stopping, arguments)).item()
            losses.append([number, loss])
            failures = 0 if loss < best else failures + 1
            if loss < best:
                best = loss
                kept = [one.detach().clone() for one in trainable_parameters(discriminator.model)]
            if failures == PATIENCE:
                break
    for parameter, value in zip(trainable_parameters(discriminator.model), kept, strict=True):
        parameter.data.copy_(value)
    scores = _logits(discriminator, tested, arguments)
    return {
        "kind": condition.kind,
        "samples": count,
        "label_smoothing": condition.label_smoothing,
        "learning_rate": condition.learning_rate,
        "updates": discriminator.num_updates,
        "epochs": discriminator.num_updates / per_epoch,
        "losses": losses,
        "auc": list(auc_interval(*scores)),
        "scores": [side.tolist() for side in scores],
    }


def _logits(discriminator: Any, sides: Sides, arguments: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Return the logits of real and of generated texts."""
    size = arguments.batch_size
    real, generated = (
        torch.cat(
            [discriminator.score([""] * len(texts[at : at + size]), texts[at : at + size]) for at in starts]
        ).cpu()
        for texts, starts in ((side, range(0, len(side), size)) for side in (sides.real, sides.generated))
    )
    return real, generated
