"""The balance of the two players: the one that is too far ahead rests for a batch.

In: the discriminator's accuracy on each generation batch. Out: whether it learns from the next one, and whether the
generator's step is taken.
"""

from typing import Any

import torch
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import TrainerCallback


class UpdateGating(TrainerCallback):
    """Lets the discriminator rest above a ceiling of accuracy and the generator below a floor.

    A discriminator that is always right pays all completions the same; one that only guesses pays noise. The
    discriminator's rest follows from the batch before, so that no forward pass is needed to decide; the generator's
    from the batch itself, whose rewards it would have learnt from. A resting generator gets no gradient at all, so its
    optimizer leaves weights and moments as they are; its learning rate schedule goes on.

    Args:
        ceiling (`float`, *optional*): Accuracy above which the discriminator rests; never by default.
        floor (`float`, *optional*): Accuracy below which the generator rests; never by default.

    Attributes:
        accuracy (`float`, *optional*): The discriminator's accuracy on the last batch, over all processes.
    """

    def __init__(self, ceiling: float | None = None, floor: float | None = None) -> None:
        self.ceiling, self.floor = ceiling, floor
        self.accuracy: float | None = None

    @property
    def discriminator_rests(self) -> bool:
        """Whether the discriminator does not learn from the next batch."""
        return self.ceiling is not None and self.accuracy is not None and self.accuracy > self.ceiling

    @property
    def generator_rests(self) -> bool:
        """Whether the generator does not learn from the last batch."""
        return self.floor is not None and self.accuracy is not None and self.accuracy < self.floor

    def figures(self, discriminator_rested: bool) -> dict[str, float]:
        """Return what was decided for the last batch, 0 or 1 a player that can rest."""
        figures = {}
        if self.ceiling is not None:
            figures["discriminator/skipped"] = float(discriminator_rested)
        if self.floor is not None:
            figures["generator/skipped"] = float(self.generator_rests)
        return figures

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: torch.optim.Optimizer | None = None,
        **kwargs: Any,
    ) -> None:
        """Take the gradients away from a generator that rests: optimizers pass over parameters without one."""
        if self.generator_rests and optimizer is not None:
            optimizer.zero_grad(set_to_none=True)
