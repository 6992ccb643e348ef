"""Loading a trained classifier, and finding the label that means unsafe."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils.peft_utils import find_adapter_config_file

from ..discriminator.loading import label_index
from ..discriminator.zero3 import loaded_whole


def load_trained_classifier(name: str) -> PreTrainedModel:
    """Load a trained classifier in float32; one whose head would be random is refused."""
    if find_adapter_config_file(name) is not None:
        raise ValueError(
            f"{name} holds adapters, which do not say how many labels their classifier has. Load it with "
            "AutoPeftModelForSequenceClassification.from_pretrained(..., num_labels=...) and give the model."
        )
    architectures = AutoConfig.from_pretrained(name).architectures or []
    with loaded_whole():
        model, report = AutoModelForSequenceClassification.from_pretrained(
            name, dtype=torch.float32, output_loading_info=True
        )
    if report["missing_keys"]:
        raise ValueError(
            f"{name} ({', '.join(architectures)}) is no trained sequence classifier: it lacks "
            f"{sorted(report['missing_keys'])}, which would be random, and so would its verdicts."
        )
    return model


def unsafe_label_index(config: Any, label: str | int | None) -> int:
    """Return the index of the label that means unsafe.

    Args:
        config (`PreTrainedConfig`): The classifier's configuration.
        label (`str` or `int`, *optional*): Name or index; a string of digits that is no name counts as an index.

    Returns:
        `int`: In [0, number of labels).

    Raises:
        ValueError: If the classifier has several labels and none is named, has no such label, or gives no
            probabilities.
    """
    if config.problem_type == "regression":
        raise ValueError(
            "The safety classifier is a regression (config.problem_type), so its outputs are no logits. Wrap it in a "
            "function from a list of completions to their probabilities of being unsafe."
        )
    return label_index(config, label, "label", "unsafe text")
