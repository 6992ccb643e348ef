"""Activation checkpointing of a model in evaluation mode: less memory, at the price of a second forward pass.

transformers' own checkpointing is active only in training mode, which the discriminator never enters since its dropout
is off. The same layers are therefore wrapped here.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


class _Checkpointed:
    """The forward function of a layer, run again in the backward pass in place of keeping its activations."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        # Without dropout nothing is random, so there is no state of a generator to restore.
        return checkpoint(self.forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def checkpoint_activations(model: nn.Module, config: Any) -> None:
    """Checkpoint each layer of a model, in place.

    Args:
        model (`nn.Module`): A model whose layers are transformers' `GradientCheckpointingLayer`.
        config (`PreTrainedConfig`): Its configuration. The cache of keys and values, of which a classifier has no
            use, is switched off there: a layer that runs twice would write to it twice.

    Raises:
        ValueError: If the model has no such layers.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no layers that can be checkpointed: leave out gradient_checkpointing of "
            "discriminator_model_init_kwargs. Less memory is also taken with a small discriminator_batch_size."
        )
    if getattr(config, "use_cache", False):
        config.use_cache = False
    for layer in layers:
        if isinstance(layer.forward, _Checkpointed):
            continue
        layer.forward = _Checkpointed(layer.forward)
