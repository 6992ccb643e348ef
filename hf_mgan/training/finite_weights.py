"""Weights that are not finite: found before they take the place of those that are."""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def check_finite(name: str, model: nn.Module) -> None:
    """Check that all weights that are trained are finite, before they are saved.

    Of a model whose weights lie on several processes each checks its own.

    Args:
        name (`str`): What the model is called in the error.
        model (`nn.Module`): The model.

    Raises:
        FloatingPointError: If a weight is nan or infinite.
    """
    weights = {at: _local(one) for at, one in model.named_parameters() if one.requires_grad and one.numel()}
    if not weights or torch.stack([weight.isfinite().all() for weight in weights.values()]).all():
        return
    wrong = [at for at, weight in weights.items() if not weight.isfinite().all()]
    raise FloatingPointError(
        f"{len(wrong)} of {len(weights)} weights of the {name} are not finite, the first of them {wrong[0]}. They are "
        "not saved, and the last checkpoint is what it was: go on from it with a lower learning rate, or with bf16 in "
        "place of fp16."
    )


def _local(parameter: nn.Parameter) -> Tensor:
    """Return the part of a parameter that lies on this process."""
    weight = parameter.detach()
    return weight.to_local() if isinstance(weight, DTensor) else weight
