"""What the trainer's arguments may be; those of TRL's constructor that are not named here are TRL's to check."""

import inspect
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset
from peft import PeftConfig, PeftModel
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin
from transformers.trainer_callback import TrainerCallback
from transformers.utils.quantization_config import QuantizationConfigMixin

from ..checks import Check, Instance, Items
from ..evaluation.evaluator import GeneratorEvaluator


DATASET = Instance(of=(Dataset, IterableDataset), what="a Dataset or an IterableDataset", optional=True)
ADAPTERS = Instance(of=(PeftConfig,), what="a `peft.PeftConfig` instance (e.g. `peft.LoraConfig`)", optional=True)
# In the order in which the trainer has them.
ARGUMENTS: dict[str, Check] = {
    # Modules that wrap a model are let through to TRL, and so are wrapped classifiers among the rewards.
    "model": Instance(of=(str, nn.Module), what="a Hub id, a folder or a causal language model"),
    "reward_funcs": Items(
        each=Instance(of=(str, nn.Module), what="a Hub id, a folder, a classifier or a function", function=True),
        several="a list of rewards",
        single=True,
        optional=True,
    ),
    "train_dataset": DATASET,
    "eval_dataset": Instance(
        of=(Dataset, IterableDataset, dict), what="a Dataset, an IterableDataset or a dict of them", optional=True
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
    "real_dataset": Instance(of=(Dataset,), what="a map-style Dataset with a `text` column", optional=True),
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
    if isinstance(given["eval_dataset"], dict):
        for name, dataset in given["eval_dataset"].items():
            DATASET(f"eval_dataset[{name!r}]", dataset)
    _check_callbacks(given["callbacks"])


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
