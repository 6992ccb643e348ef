"""An exponential moving average of the generator's trained weights, for evaluation and saving.

Two players that chase each other circle around their equilibrium; the average of the path lies nearer to it (Yazici et
al. 2018, "The Unusual Effectiveness of Averaging in GAN Training",
[1806.04498](https://huggingface.co/papers/1806.04498)).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import TrainerCallback


class WeightAverage(TrainerCallback):
    """Keeps the average of all parameters of a model that are trained: average = decay * average + (1 - decay) * now.

    The average starts as the weights that training starts with, and takes a step after each of the optimizer's. When
    training ends the model is given the average, unless the best checkpoint has been loaded, which holds one already.

    Args:
        decay (`float`): (0, 1). The average reaches back about 1 / (1 - decay) steps.

    Attributes:
        average (`dict[str, Tensor]`): The average by the parameter's name, float32; empty outside of training.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] = {}

    def start(self, model: nn.Module) -> None:
        """Begin a new average at the weights that the model has."""
        self.average = {name: parameter.detach().float().clone() for name, parameter in _trained(model)}

    def live_weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the weights themselves, which a run goes on with, in their own dtypes."""
        return {name: parameter.detach().clone() for name, parameter in _trained(model)}

    def resume(self, model: nn.Module, live_weights: dict[str, Tensor]) -> None:
        """Go on from a checkpoint: the loaded model holds the average, and then gets the weights themselves."""
        self.start(model)
        _assign(model, live_weights)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Give the model the average within this context; does nothing outside of training."""
        if not self.average:
            yield
            return
        live = self.live_weights(model)
        _assign(model, self.average)
        try:
            yield
        finally:
            _assign(model, live)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the average, unless a checkpoint has brought one."""
        if not self.average:
            self.start(kwargs["model"])

    @torch.no_grad()
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take a step towards the weights."""
        for name, parameter in _trained(kwargs["model"]):
            self.average[name].lerp_(parameter.detach().float(), 1 - self.decay)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the average in the model."""
        if not (args.load_best_model_at_end and state.best_model_checkpoint):
            _assign(kwargs["model"], self.average)
        self.average = {}


def _trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


@torch.no_grad()
def _assign(model: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, parameter in _trained(model):
        parameter.copy_(weights[name])
