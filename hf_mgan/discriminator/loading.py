"""Loading a classifier as a discriminator: fresh heads, labels, adapters, quantisation and length limits."""

import copy
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftConfig, PeftModel, TaskType, get_peft_model
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.peft_utils import find_adapter_config_file


if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

FALLBACK_MAX_LENGTH = 512
# transformers keeps the last linear layer in full precision only if it has no bias (it compares parameter names), so
# the heads are named: the union of what its sequence classifiers call them.
HEAD_MODULES = ["classifier", "score", "pooler", "head", "pre_classifier", "out_proj", "logits_proj", "summary"]


def load_classifier(
    name: str,
    peft_config: PeftConfig | None,
    quantization_config: "BitsAndBytesConfig | None",
    revision: str | None,
    trust_remote_code: bool,
) -> PreTrainedModel | PeftModel:
    """Load a sequence classifier to be trained; arguments as in `Discriminator.from_pretrained`."""
    source = {"revision": revision, "trust_remote_code": trust_remote_code}
    adapter = find_adapter_config_file(name, revision=revision) is not None
    if adapter and peft_config is not None:
        raise ValueError(
            f"{name} holds adapters already, which are trained on; discriminator_peft_config would add others. Leave "
            "it out, or merge the saved adapters first."
        )
    if quantization_config is not None and peft_config is None and not adapter:
        raise ValueError(
            "A quantised discriminator cannot be trained as it is. Give discriminator_peft_config, for example "
            "LoraConfig(task_type='SEQ_CLS', target_modules='all-linear')."
        )
    # Spelt out, since the default would train a classifier that was saved in bfloat16 in pure bfloat16.
    arguments: dict[str, Any] = {"dtype": torch.float32, **source}
    if quantization_config is not None:
        arguments["quantization_config"] = _with_head_in_full_precision(quantization_config)
    base_name = PeftConfig.from_pretrained(name).base_model_name_or_path if adapter else name
    config = AutoConfig.from_pretrained(base_name, **source)
    if not any("ForSequenceClassification" in architecture for architecture in config.architectures or []):
        arguments["num_labels"] = 1
    model = AutoModelForSequenceClassification.from_pretrained(base_name, **arguments)
    if adapter:
        model = PeftModel.from_pretrained(model, name, is_trainable=True)
    elif peft_config is not None:
        model = with_adapters(model, peft_config)
    return model


def real_label_index(config: Any, label: str | int | None) -> int:
    """Return the index of the label that means "real".

    Args:
        config (`PreTrainedConfig`): The classifier's configuration.
        label (`str` or `int`, *optional*): Name or index; a string of digits counts as an index.

    Returns:
        `int`: In [0, number of labels).

    Raises:
        ValueError: If the classifier has several labels and none is named, or it has no such label.
    """
    names = [config.id2label[index] for index in range(config.num_labels)]
    if label is None:
        if config.num_labels == 1:
            return 0
        raise ValueError(
            f"The discriminator has the labels {names}: say which of them means real text with discriminator_label, "
            "a name or an index. (Or load it with num_labels=1 for a fresh head.)"
        )
    if label in names:
        return names.index(str(label))
    if str(label).isdecimal() and int(label) < config.num_labels:
        return int(label)
    raise ValueError(
        f"discriminator_label is {label!r}, and the discriminator has the labels {names}. Give a name or an index."
    )


def with_adapters(model: PreTrainedModel, peft_config: PeftConfig) -> PeftModel:
    """Add adapters to a classifier, its head trained and saved with them; the configuration given is not changed."""
    config = copy.deepcopy(peft_config)
    if config.task_type is None:
        config.task_type = TaskType.SEQ_CLS
    if config.task_type != TaskType.SEQ_CLS:
        raise ValueError(
            f"discriminator_peft_config has the task type {config.task_type!r}, and a discriminator is a sequence "
            "classifier: use task_type='SEQ_CLS' or leave it out."
        )
    return get_peft_model(model, config)


def _with_head_in_full_precision(config: "BitsAndBytesConfig") -> "BitsAndBytesConfig":
    if config.llm_int8_skip_modules is not None:
        return config
    config = copy.deepcopy(config)
    config.llm_int8_skip_modules = HEAD_MODULES
    return config


def checked_max_length(config: Any, tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> int:
    """Return the number of tokens to cut texts to, no more than tokenizer and model can take."""
    # A tokenizer without a limit states a number with thirty digits; position tables can be longer than what may be
    # used.
    limits = [tokenizer.model_max_length, getattr(config.get_text_config(), "max_position_embeddings", None)]
    limit = min((limit for limit in limits if limit is not None and limit < 10**9), default=None)
    if max_length is None:
        return limit or FALLBACK_MAX_LENGTH
    if max_length < 1 or (limit is not None and max_length > limit):
        raise ValueError(
            f"discriminator_max_length must lie between 1 and the model's limit of {limit}, got {max_length}."
        )
    return max_length
