"""What the trainer's arguments may be; those of TRL's constructor that are not named here are TRL's to check."""

import inspect
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin
from transformers.trainer_callback import TrainerCallback
from transformers.utils.quantization_config import QuantizationConfigMixin

from ..checks import Check, Instance, Items
from ..data import check_is_dataset
from ..evaluation.evaluator import GeneratorEvaluator


ADAPTERS = Instance(of=(PeftConfig,), what="a `peft.PeftConfig` instance (e.g. `peft.LoraConfig`)", optional=True)
# In the order in which the trainer has them.
ARGUMENTS: dict[str, Check] = {
    # Modules that wrap a classifier are let through to TRL.
    "reward_funcs": Items(
        each=Instance(of=(str, nn.Module), what="a Hub id, a folder, a classifier or a function", function=True),
        several="a list of rewards",
        single=True,
        optional=True,
    ),
    "processing_class": Instance(
        of=(PreTrainedTokenizerBase, ProcessorMixin),
        what="either a `PreTrainedTokenizerBase` or a `ProcessorMixin`",
        optional=True,
    ),
    "reward_processing_classes": Items(
        each=Instance(of=(PreTrainedTokenizerBase,), what="a tokenizer", optional=True),
        several="a list of tokenizers",
        single=True,
        optional=True,
    ),
    "quantization_config": Instance(
        of=(QuantizationConfigMixin, dict), what="a quantisation such as BitsAndBytesConfig", optional=True
    ),
    "peft_config": ADAPTERS,
    "discriminator": Instance(
        of=(str, Path, PreTrainedModel, PeftModel), what="a Hub id, a folder or a sequence classifier", optional=True
    ),
    "discriminator_processing_class": Instance(of=(PreTrainedTokenizerBase,), what="a tokenizer", optional=True),
    "discriminator_peft_config": ADAPTERS,
    "discriminator_quantization_config": Instance(
        of=(BitsAndBytesConfig,), what="a BitsAndBytesConfig", optional=True
    ),
    "evaluator": Instance(of=(GeneratorEvaluator,), what="a GeneratorEvaluator", optional=True),
}


def check_types(given: dict[str, Any]) -> None:
    """Check the types of the trainer's arguments, by their names.

    Args:
        given (`dict`): The arguments.

    Raises:
        TypeError: If one is of another type.
        ValueError: If one is an empty string.
    """
    for name, check in ARGUMENTS.items():
        check(name, given[name])
    for name, dataset in named_datasets(given).items():
        check_is_dataset(name, dataset)
    _check_callbacks(given["callbacks"])


def named_datasets(given: dict[str, Any]) -> dict[str, Any]:
    """Return the datasets that are given, each under what it is called in an error."""
    evaluated = given["eval_dataset"]
    sets = {f"eval_dataset[{name!r}]": one for name, one in evaluated.items()} if isinstance(evaluated, dict) else {}
    named = {"train_dataset": given["train_dataset"], **(sets or {"eval_dataset": evaluated})}
    return {name: one for name, one in {**named, "real_dataset": given["real_dataset"]}.items() if one is not None}


def _check_callbacks(callbacks: Any) -> None:
    """Check the callbacks, which may be objects or classes of theirs."""
    if not isinstance(callbacks, (list, tuple)) and callbacks is not None:
        raise TypeError(
            f"callbacks must be a list of TrainerCallback objects or classes, or None, got {type(callbacks).__name__}."
        )
    for place, one in enumerate(callbacks or ()):
        if not isinstance(one, TrainerCallback) and not (inspect.isclass(one) and issubclass(one, TrainerCallback)):
            raise TypeError(
                f"callbacks[{place}] must be a TrainerCallback or a class of it, got {type(one).__name__}."
            )
