"""Numbers that are not finite: found before they take the place of those that are."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


REMEDY = (
    "The last checkpoint, if there is one, is what it was: go on from it with a lower learning rate, or with bf16 in "
    "place of fp16."
)


def check_finite(name: str, model: nn.Module) -> None:
    """Check that all weights that are trained are finite.

    Of a model whose weights lie on several processes each checks its own.

    Args:
        name (`str`): What the model is called in the error.
        model (`nn.Module`): The model.

    Raises:
        FloatingPointError: If a weight is nan or infinite.
    """
    weights = {at: one for at, one in model.named_parameters() if one.requires_grad}
    if wrong := _not_finite(weights):
        raise FloatingPointError(
            f"{len(wrong)} of {len(weights)} weights of the {name} are not finite, the first of them {wrong[0]}. They "
            f"are not saved. {REMEDY}"
        )


def check_optimizer_finite(name: str, optimizer: torch.optim.Optimizer) -> None:
    """Check that what an optimizer keeps of each weight is finite, as [`check_finite`] checks the weights.

    Args:
        name (`str`): What the model is called in the error.
        optimizer (`torch.optim.Optimizer`): Its optimizer.

    Raises:
        FloatingPointError: If a value is nan or infinite.
    """
    kept: dict[str, Tensor] = {}
    for number, state in enumerate(optimizer.state.values()):
        if isinstance(state, Mapping):
            kept |= {f"{key} of weight {number}": one for key, one in state.items() if isinstance(one, Tensor)}
    if wrong := _not_finite(kept):
        raise FloatingPointError(
            f"{len(wrong)} of {len(kept)} tensors of the optimizer of the {name} are not finite, the first of them "
            f"{wrong[0]}. They are not saved. {REMEDY}"
        )


def check_rewards_finite(rewards: Tensor, names: Sequence[str], own: str) -> None:
    """Check that no reward is infinite, of which the advantages of its whole group would be nan.

    Args:
        rewards (`Tensor` of shape `(B, F)`): Of B completions by F reward functions; nan where one returned None, as
            it does not apply.
        names (`Sequence[str]` of length F): What the reward functions are called.
        own (`str`): The one among them that always applies.

    Raises:
        FloatingPointError: If one is infinite, or one of `own` nan.
    """
    bad = rewards.isinf()
    bad[:, names.index(own)] |= rewards[:, names.index(own)].isnan()
    if bad.any():
        row, column = bad.nonzero()[0].tolist()
        raise FloatingPointError(
            f"The reward function {names[column]!r} returned {rewards[row, column].item()} for completion {row} of "
            f"the batch. A reward is a finite number, or None where it does not apply. {REMEDY}"
        )


def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of those that hold a value that is not finite, with one synchronisation if there are none."""
    floats = {at: _local(one) for at, one in tensors.items() if one.is_floating_point()}
    finite = {at: one.isfinite().all() for at, one in floats.items() if one.numel()}
    if not finite or all(bool(one) for one in _by_device(finite.values())):
        return []
    return [at for at, is_finite in finite.items() if not is_finite]


def _by_device(values: Iterable[Tensor]) -> list[Tensor]:
    """Return one value per device: an optimizer may keep some of its state on the CPU."""
    grouped: dict[torch.device, list[Tensor]] = {}
    for value in values:
        grouped.setdefault(value.device, []).append(value)
    return [torch.stack(group).all() for group in grouped.values()]


def _local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that lies on this process."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
