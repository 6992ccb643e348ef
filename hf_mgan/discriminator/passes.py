"""The passes through the classifier: forward to the logits, backward from a loss made of all of them.

In: encoded texts, in one batch or in several. Out: a logit a text, and gradients at the parameters; in several batches
they are those of one.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import BatchEncoding, PreTrainedModel

from ..objectives import logit_penalty
from ..objectives.losses import Loss
from .prefixes import PrefixScorer, label_logits
from .regularization import GradientPenalty, Regularization
from .sides import Sides


@dataclass(frozen=True)
class Outcome:
    """What a backward pass came from.

    Attributes:
        logits (`Tensor` of shape `(N,)` or `(N, T)`): Logits of the different texts, without offsets.
        loss (`Tensor` of shape `()`): The loss alone.
        penalties (`dict[str, Tensor]`): What was added to it, by name, before it is multiplied with its coefficient;
            of shape `()` each.
    """

    logits: Tensor
    loss: Tensor
    penalties: dict[str, Tensor]

    def not_finite(self) -> str:
        """Say which of the values is not finite, as in "loss is nan"; "" if all are."""
        values = {"loss": self.loss, **self.penalties}
        if torch.stack([*values.values()]).isfinite().all():
            return ""
        return next(f"{name} is {value.item()}" for name, value in values.items() if not value.isfinite())


class Passes:
    """Runs a classifier forward and backward.

    Args:
        model (`PreTrainedModel` or `PeftModel`): The classifier.
        label (`int`): Index of the label that means real.
        precision (`torch.dtype`, *optional*): Of the autocast that it runs under; none by default.
        regularization ([`Regularization`]): Its penalties are added to the loss.
        gradient_penalty ([`GradientPenalty`], *optional*): Computes the penalty on the gradient, if there is one.
        prefixes ([`PrefixScorer`], *optional*): Reads off the logits of all prefixes, if they are wanted: logits are
            then of shape `(B, T)`, those of the texts themselves in the last place.

    Attributes:
        trained (`nn.Module`): What is called for a backward pass: the model, or the model within
            DistributedDataParallel.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        label: int,
        precision: torch.dtype | None,
        regularization: Regularization,
        gradient_penalty: GradientPenalty | None,
        prefixes: PrefixScorer | None,
    ) -> None:
        self.model = model
        self.trained: nn.Module = model
        self._label, self._precision = label, precision
        self._regularization, self._gradient_penalty = regularization, gradient_penalty
        self._prefixes = prefixes

    def logits(self, batch: BatchEncoding) -> Tensor:
        """Compute the logits of a batch, float32, of shape `(B,)`, or `(B, T)` with prefixes."""
        return self._forward(self.model, batch)

    def backward(self, sides: Sides, loss: Loss, scaler: torch.amp.GradScaler) -> Outcome:
        """Add the gradients of the loss and the penalties to the parameters, scaled.

        Several batches take a pass without gradients first, which tells the gradient of the loss with respect to all
        logits. It is exact for losses that do not fall apart into a sum over texts, such as `relativistic_average`.
        """
        whole = len(sides.batches) == 1
        with self._gradient_penalty.kernels() if self._gradient_penalty else nullcontext():
            if whole:
                logits, slope = self._with_slope(sides, 0)
            else:
                with torch.no_grad():
                    logits, slope = torch.cat([self.logits(batch) for batch in sides.batches]), None
                logits.requires_grad_()
            value, penalties = loss(*sides.of_loss(logits)), {}
            total = value
            if self._regularization.logit_penalty:
                penalties["logit_penalty"] = logit_penalty(*sides.of_loss(logits, with_offsets=False))
                total = total + self._regularization.logit_penalty * penalties["logit_penalty"]
            if not whole:
                slope = self._backward_in_batches(sides, torch.autograd.grad(scaler.scale(total), logits)[0], scaler)
            elif slope is None:
                scaler.scale(total).backward()
            else:
                scaler.scale(total + self._regularization.gradient_penalty * slope).backward()
        if slope is not None:
            penalties["gradient_penalty"] = slope
        return Outcome(logits.detach(), value.detach(), {name: one.detach() for name, one in penalties.items()})

    def _backward_in_batches(self, sides: Sides, gradient: Tensor, scaler: torch.amp.GradScaler) -> Tensor | None:
        """Run the backward pass a batch at a time, given the gradient of the loss with respect to all logits.

        Returns the penalty on the slope, if there is one.
        """
        parts = gradient.split([len(batch["input_ids"]) for batch in sides.batches])
        slopes: list[Tensor] = []
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            with nullcontext() if last else self._without_sync():
                logits, slope = self._with_slope(sides, number)
                if slope is None:
                    logits.backward(part)
                else:
                    penalty = scaler.scale(self._regularization.gradient_penalty * slope)
                    torch.autograd.backward([logits, penalty], [part, None])
                    slopes.append(slope.detach())
        return torch.stack(slopes).sum() if slopes else None

    def _with_slope(self, sides: Sides, number: int) -> tuple[Tensor, Tensor | None]:
        """Run the forward pass of a batch; compute its part of the penalty on the slope too, if there is one."""
        batch = sides.batches[number]
        if self._gradient_penalty is None:
            return self._forward(self.trained, batch), None
        return self._gradient_penalty(self._forward, self.trained, batch, sides.shares(number))

    def _forward(self, module: nn.Module, batch: BatchEncoding) -> Tensor:
        enabled = self._precision is not None
        with torch.autocast(self.model.device.type, self._precision or torch.bfloat16, enabled=enabled):
            values = self._prefixes.logits(module, batch) if self._prefixes else module(**batch).logits
        return label_logits(values, self._label)

    def _without_sync(self) -> AbstractContextManager[None]:
        return self.trained.no_sync() if isinstance(self.trained, DistributedDataParallel) else nullcontext()
