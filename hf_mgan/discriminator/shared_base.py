"""One base for both models: a classifier whose weights are those of a causal language model, not a copy of them.

The classifier has modules of its own, and in them the language model's own layers (embeddings, linear layers, norms),
so that its adapters hang on its own modules: nothing has to be switched between the models, and what one does with
its adapters, such as turning them off for the KL reference, the other does not notice. Only the head is new.
"""

import copy
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel


# What transformers and PEFT read from a quantised model.
QUANTISATION = ("hf_quantizer", "is_quantized", "quantization_method", "is_loaded_in_4bit", "is_loaded_in_8bit")


def classifier_on(generator: PreTrainedModel) -> PreTrainedModel:
    """Make a sequence classifier with one label on the weights of a causal language model.

    Args:
        generator (`PreTrainedModel`): A causal language model without adapters, quantised or not.

    Returns:
        `PreTrainedModel`: The classifier, its head fresh and in float32. Its other parameters *are* the generator's,
            so both models have to leave them as they are: give each of them adapters.

    Raises:
        ValueError: If transformers has no sequence classifier for this architecture, or its body is another one.
    """
    config = copy.deepcopy(generator.config)
    config.num_labels = 1
    try:
        with torch.device("meta"):
            classifier = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise ValueError(
            f"transformers has no sequence classifier for {config.model_type}, so that it cannot be generator and "
            "discriminator. Give another model as the discriminator."
        ) from error
    prefix = generator.base_model_prefix
    body: nn.Module = getattr(generator, prefix)
    if type(getattr(classifier, prefix, None)) is not type(body):
        raise ValueError(
            f"{type(classifier).__name__} is not built on {type(body).__name__}, so that they cannot share a base. "
            "Give the discriminator's id in place of the model."
        )
    # The memo tells deepcopy to put these very layers and parameters into the copy. What has layers within is copied,
    # since adapters are hung there, and so is what has no weights: dropout, for one, is on in the generator and off in
    # the discriminator.
    shared: list[Any] = [
        *(layer for layer in body.modules() if not [*layer.children()] and [*layer.parameters()]),
        *body.parameters(),
    ]
    setattr(classifier, prefix, copy.deepcopy(body, {id(one): one for one in shared}))
    for name, module in classifier.named_children():
        if name != prefix:
            module.to_empty(device=generator.device)
            for layer in module.modules():
                classifier._init_weights(layer)
            module.register_forward_pre_hook(_in_its_precision)
    for name in QUANTISATION:
        if name in generator.__dict__:
            setattr(classifier, name, getattr(generator, name))
    return classifier


def _in_its_precision(head: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Cast what the body hands to the head, which computes in float32 whatever the body runs in."""
    precision = next(head.parameters()).dtype
    return tuple(tensor.to(precision) for tensor in inputs)
