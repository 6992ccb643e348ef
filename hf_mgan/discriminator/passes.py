"""The passes through the classifier: forward to the logits, backward from a loss made of all of them.

In: encoded texts, in one batch or in several. Out: one logit per text, and gradients at the parameters; in several
batches they are those of one.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import BatchEncoding, PreTrainedModel

from .gathering import gathered
from .prefixes import PrefixScorer


class Passes:
    """Runs a classifier forward and backward.

    Args:
        model (`PreTrainedModel` or `PeftModel`): The classifier.
        label (`int`): Index of the label that means real.
        precision (`torch.dtype`, *optional*): Of the autocast that it runs under; none by default.
        prefixes ([`PrefixScorer`], *optional*): Reads off the logits of all prefixes, if they are wanted: logits are
            then of shape `(B, T)`, those of the texts themselves in the last place.
        exclusive (`bool`, *optional*, defaults to `True`): Whether its labels exclude each other.

    Attributes:
        trained (`nn.Module`): What is called for a backward pass: the model, or the model within
            DistributedDataParallel.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        label: int,
        precision: torch.dtype | None,
        prefixes: PrefixScorer | None,
        exclusive: bool = True,
    ) -> None:
        self.model = model
        self.trained: nn.Module = model
        self._label, self._precision, self._prefixes, self._exclusive = label, precision, prefixes, exclusive

    def of_all_processes(self, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return logits of this process together with those of all others, see [`gathered`]; each has to call this."""
        if not isinstance(self.trained, DistributedDataParallel):
            return parts
        return gathered(parts, self.trained.process_group)

    def logits(self, batch: BatchEncoding) -> Tensor:
        """Compute the logits of a batch, float32, of shape `(B,)`, or `(B, T)` with prefixes."""
        return self._forward(self.model, batch)

    def backward(
        self, batches: list[BatchEncoding], loss: Callable[[Tensor], Tensor], scaler: torch.amp.GradScaler
    ) -> Tensor:
        """Add the gradients of a loss to the parameters, scaled.

        Several batches take a pass without gradients first, which tells the gradient of the loss with respect to all
        logits. It is exact for losses that do not fall apart into a sum over texts, such as `relativistic_average`.

        Args:
            batches (`list[BatchEncoding]`): The texts.
            loss (`Callable`): From all logits, shape `(N,)` or `(N, T)`, to a `Tensor` of shape `()`.
            scaler (`torch.amp.GradScaler`): Scales the loss.

        Returns:
            `Tensor` of shape `(N,)` or `(N, T)`: The logits, detached.
        """
        if len(batches) == 1:
            logits = self._forward(self.trained, batches[0])
            scaler.scale(loss(logits)).backward()
            return logits.detach()
        with torch.no_grad():
            logits = torch.cat([self.logits(batch) for batch in batches])
        logits.requires_grad_()
        (gradient,) = torch.autograd.grad(scaler.scale(loss(logits)), logits)
        parts = gradient.split([len(batch["input_ids"]) for batch in batches])
        for number, (batch, part) in enumerate(zip(batches, parts, strict=True)):
            with nullcontext() if number == len(batches) - 1 else self._without_sync():
                self._forward(self.trained, batch).backward(part)
        return logits.detach()

    def leaves_parameters_idle(self, batch: BatchEncoding) -> bool:
        """Try out whether there are trained parameters that the forward pass does not use, as in BigBird."""
        self._forward(self.model, batch).sum().backward()
        idle = any(parameter.requires_grad and parameter.grad is None for parameter in self.model.parameters())
        self.model.zero_grad(set_to_none=True)
        return idle

    def _forward(self, module: nn.Module, batch: BatchEncoding) -> Tensor:
        enabled = self._precision is not None
        with torch.autocast(self.model.device.type, self._precision or torch.bfloat16, enabled=enabled):
            values = self._prefixes.logits(module, batch) if self._prefixes else module(**batch).logits
        return label_logits(values, self._label, self._exclusive)

    def _without_sync(self) -> AbstractContextManager[None]:
        return self.trained.no_sync() if isinstance(self.trained, DistributedDataParallel) else nullcontext()


def label_logits(values: Tensor, label: int, exclusive: bool = True) -> Tensor:
    """Compute the logit of being real from what a head says: its one label, or the log-odds of `label` among several.

    Args:
        values (`Tensor` of shape `(..., labels)`): Output of the head.
        label (`int`): Index of the label that means real.
        exclusive (`bool`, *optional*, defaults to `True`): Whether the labels exclude each other. If not, as in
            multi-label classification, the label's own logit is the log-odds that it holds.

    Returns:
        `Tensor` of shape `(...)`: float32; higher = more real.
    """
    values = values.float()
    if values.size(-1) == 1 or not exclusive:
        return values[..., label]
    others = [index for index in range(values.size(-1)) if index != label]
    return values[..., label] - values[..., others].logsumexp(-1)
