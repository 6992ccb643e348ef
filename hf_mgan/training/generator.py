"""The generator: what is given for it is checked before any weights are loaded, and saved adapters are trained on.

In: the arguments of [`AdversarialTrainer`]. Out: errors that say what to do, and, where a folder or id of adapters is
given, the model below them with the adapters on it. Any other generator is TRL's to load.
"""

import heapq
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from datasets import Dataset
from peft import PeftConfig, PeftModel, PromptLearningConfig, TaskType
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import find_adapter_config_file
from trl.trainer.utils import create_model_from_path

from ..checks import PLACE
from ..config import AdversarialConfig
from ..decoding.sampling import encode_prompts
from ..models import max_tokens, saved_quantisation


# Families that read text in both directions unless their configuration says otherwise, beside those that are trained
# on masked words.
BIDIRECTIONAL = {*MODEL_FOR_MASKED_LM_MAPPING_NAMES, "bert-generation", "xlnet"}
PROMPTS_TRIED = 64  # the longest ones by characters, of which one is the longest by tokens


class Generator:
    """What is known of a generator before its weights are there.

    Args:
        model (`str`, `PreTrainedModel` or `PeftModel`): The generator as it is given.
        peft_config (`PeftConfig`, *optional*): Adapters that it is to get.
        args ([`AdversarialConfig`]): Settings; `model_init_kwargs` and `trust_remote_code` are read.

    Attributes:
        adapters (`PeftConfig`, *optional*): Those that the folder or id holds.
        model (`PreTrainedModel` or `PeftModel`): The generator; without weights where an id or folder is given.

    Raises:
        TypeError: If a model is given that is no causal language model.
        ValueError: If an id or folder holds none, there are adapters on top of saved ones, or nothing to train.
    """

    def __init__(
        self, model: str | PreTrainedModel | PeftModel, peft_config: PeftConfig | None, args: AdversarialConfig
    ) -> None:
        self.adapters = saved_adapters(model, args)
        self._given, self._args = model, args
        if self.adapters is not None:
            self._check_adapters(peft_config)
        self.model = without_weights(model, self.adapters, args) if isinstance(model, str) else model
        adapters = peft_config or self.adapters
        self._num_virtual_tokens = adapters.num_virtual_tokens if isinstance(adapters, PromptLearningConfig) else 0
        self._check_family()
        if adapters is None:
            self._check_trainable()

    def _check_adapters(self, peft_config: PeftConfig | None) -> None:
        assert self.adapters is not None
        if peft_config is not None:
            raise ValueError(
                f"{self._given!r} holds adapters already, which are trained on; peft_config would add others. Leave "
                "it out, or merge the saved adapters first and save the merged model."
            )
        if self.adapters.task_type not in (None, TaskType.CAUSAL_LM):
            raise ValueError(
                f"{self._given!r} holds adapters of the task type {self.adapters.task_type!r}, and a generator is a "
                "causal language model (task_type='CAUSAL_LM')."
            )

    def _check_family(self) -> None:
        inner: Any = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        config, name = inner.config, type(inner).__name__
        is_decoder = getattr(config, "is_decoder", False) or getattr(config, "causal", False)  # XLM says causal
        if config.is_encoder_decoder:
            problem = "has an encoder of its own for the prompt, which GRPO does not feed"
        elif not inner.can_generate():
            problem = "has no head that writes one token after the other"
        elif config.model_type in BIDIRECTIONAL and not is_decoder:
            problem = "sees the tokens behind the one that it predicts (config.is_decoder is False)"
        else:
            return
        message = f"is {name}, which {problem}. Give a causal language model, such as GPT-2, Llama or Qwen."
        if isinstance(self._given, str):
            raise ValueError(f"The generator {self._given!r} {message}")
        raise TypeError(f"The generator {message}")

    def _check_trainable(self) -> None:
        """Check that something can move, unless the generator is not to be trained at all."""
        never_trained = self._args.max_steps <= 0 and self._args.num_train_epochs == 0
        if never_trained or any(parameter.requires_grad for parameter in self.model.parameters()):
            return
        remedy = "Call model.requires_grad_(), or give peft_config= to train adapters on it."
        if isinstance(self.model, PeftModel) or self.model._hf_peft_config_loaded:  # by PEFT, or by transformers
            remedy = (
                "Its adapters were loaded for inference. Load them with PeftModel.from_pretrained(model, folder, "
                "is_trainable=True), or give the folder itself as model."
            )
        raise ValueError(f"All parameters of the generator are frozen, so it cannot learn. {remedy}")

    def check_room(self, data: Iterable[Any], tokenizer: PreTrainedTokenizerBase) -> None:
        """Check that the generator has positions for prompts and completions.

        Args:
            data (`Iterable[Dataset, IterableDataset or None]`): Prepared datasets whose prompts reach the generator as
                they stand; those of streaming ones cannot be known.
            tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.

        Raises:
            ValueError: If the completions do not fit, alone or behind the longest prompt.
        """
        limit, length = max_tokens(self.model), self._args.max_completion_length
        if limit is None or length is None:
            return
        limit -= self._num_virtual_tokens
        allowed = 1 + self._args.max_prompt_tokens  # behind the start of the sequence
        which = "the longest prompt that max_prompt_tokens allows" if allowed > 1 else "the start of the sequence"
        _check_fits(limit, length, allowed, which)
        for dataset in data:
            if isinstance(dataset, Dataset):
                _check_fits(limit, length, self._longest(dataset, tokenizer), "the longest prompt of the data")

    def _longest(self, dataset: Dataset, tokenizer: PreTrainedTokenizerBase) -> int:
        """Return the number of tokens of the longest prompt, as far as numbers of characters tell which that is."""
        prompts = (prompt for prompt in dataset["prompt"] if prompt)
        longest = heapq.nlargest(PROMPTS_TRIED, prompts, key=lambda prompt: len(str(prompt)))
        return max(
            map(len, encode_prompts(longest, tokenizer, cast("dict | None", self._args.chat_template_kwargs))),
            default=0,
        )

    def load_adapters(self, quantization_config: Any) -> PeftModel:
        """Load the model below saved adapters as TRL loads a generator, and the adapters on it, to be trained on.

        Args:
            quantization_config (*optional*): Its quantisation; by default that of the training of the adapters.
        """
        assert isinstance(self._given, str)
        assert self.adapters is not None
        arguments = {"trust_remote_code": self._args.trust_remote_code, **(self._args.model_init_kwargs or {})}
        revision = arguments.pop("revision", None)  # of the adapters; they say themselves which one their base has
        quantization_config = quantisation_below(self._given, quantization_config, self._args)
        if quantization_config is not None:
            arguments["quantization_config"] = quantization_config
        if self._args.distributed_state.distributed_type in ("MULTI_GPU", "DEEPSPEED"):
            arguments["device_map"] = None
        base = create_model_from_path(_base(self.adapters), revision=self.adapters.revision, **arguments)
        return PeftModel.from_pretrained(base, self._given, is_trainable=True, revision=revision)


def checked_model(model: Any) -> str | PreTrainedModel | PeftModel:
    """Return what is given as the generator, a path as a string.

    Raises:
        TypeError: If it is no id, no folder and no model of transformers.
        ValueError: If it is an empty string.
    """
    if isinstance(model, (str, Path)):
        return str(PLACE("model", model))
    if not isinstance(model, (PreTrainedModel, PeftModel)):
        raise TypeError(f"model must be a Hub id, a folder or a causal language model, got {type(model).__name__}.")
    return model


def saved_adapters(model: Any, args: AdversarialConfig) -> PeftConfig | None:
    """Return the configuration of the adapters that a folder or id holds, None where it holds a whole model."""
    revision = (args.model_init_kwargs or {}).get("revision")
    if not isinstance(model, str) or find_adapter_config_file(model, revision=revision) is None:
        return None
    return PeftConfig.from_pretrained(model, revision=revision)


def quantisation_below(adapters: str, quantization_config: Any, args: AdversarialConfig) -> Any:
    """Return the quantisation of the model below saved adapters: the one given, by default that of their training."""
    arguments = args.model_init_kwargs or {}
    if quantization_config is not None or "quantization_config" in arguments:
        return quantization_config
    return saved_quantisation(adapters, arguments.get("revision"))


def without_weights(name: str, adapters: PeftConfig | None, args: AdversarialConfig) -> PreTrainedModel:
    """Make the model that TRL would load from a folder or id, or that is below adapters, on the device `meta`."""
    revision = (args.model_init_kwargs or {}).get("revision")
    if adapters is not None:
        name, revision = _base(adapters), adapters.revision
    config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=args.trust_remote_code)
    if not config.architectures:
        raise ValueError(
            f"Nothing says what kind of model {name!r} is: its config.json names no architecture. Save the model "
            "itself with save_pretrained."
        )
    architecture = getattr(transformers, config.architectures[0], None)
    with torch.device("meta"):
        if architecture is None:  # its code comes with it
            return AutoModelForCausalLM.from_config(config, trust_remote_code=args.trust_remote_code)
        return architecture._from_config(config)


def _base(adapters: PeftConfig) -> str:
    return str(adapters.base_model_name_or_path)


def _check_fits(limit: int, completion: int, prompt: int, which: str) -> None:
    if prompt + completion > limit:
        raise ValueError(
            f"max_completion_length is {completion}, and the generator reads {limit} tokens in all, {which} being "
            f"{prompt} of them. Lower max_completion_length to {max(limit - prompt, 0)}, shorten the "
            "prompts, or give a generator that reads longer texts."
        )
