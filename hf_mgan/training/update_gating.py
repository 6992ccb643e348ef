"""Update gating: a model that is too far ahead skips its update.

In: the discriminator's accuracy on each generation batch. Out: whether it learns from the next one, and whether the
generator learns from this one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import TrainerCallback


@dataclass(frozen=True)
class UpdateGating:
    """The discriminator skips updates above a ceiling of accuracy, the generator below a floor.

    A discriminator that is always right gives all completions the same reward; one near chance gives noise. The
    discriminator's decision follows from the batch before, so that no forward pass is needed for it; the generator's
    from the batch itself, whose rewards it would have learnt from.

    Attributes:
        ceiling (`float`, *optional*): Accuracy above which the discriminator skips its update; never by default.
        floor (`float`, *optional*): Accuracy below which the generator skips its update; never by default.
    """

    ceiling: float | None = None
    floor: float | None = None

    def discriminator_skips(self, accuracy: float | None) -> bool:
        """Whether the discriminator does not learn from the batch after one with this accuracy."""
        return self.ceiling is not None and accuracy is not None and accuracy > self.ceiling

    def generator_skips(self, accuracy: float | None) -> bool:
        """Whether the generator does not learn from a batch with this accuracy."""
        return self.floor is not None and accuracy is not None and accuracy < self.floor

    def metrics(self, discriminator_skipped: bool, accuracy: float | None) -> dict[str, float]:
        """Return what was decided for a batch, 0 or 1 for each model that can skip its update."""
        metrics = {}
        if self.ceiling is not None:
            metrics["discriminator/skipped"] = float(discriminator_skipped)
        if self.floor is not None:
            metrics["generator/skipped"] = float(self.generator_skips(accuracy))
        return metrics


class SkippedUpdates(TrainerCallback):
    """Takes the gradients away from a generator that skips its update: optimizers pass over parameters without one.

    Weights and moments stay as they are; the learning rate schedule goes on.

    Args:
        skips (`Callable`): Says whether the generator skips the update that is due.
    """

    def __init__(self, skips: Callable[[], bool]) -> None:
        self._skips = skips

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: torch.optim.Optimizer | None = None,
        **kwargs: Any,
    ) -> None:
        """Take the gradients away if the update is to be skipped."""
        if optimizer is not None and self._skips():
            optimizer.zero_grad(set_to_none=True)
