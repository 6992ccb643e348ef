"""The models of an evaluation: what they are called, how they are loaded, and by what they are known again."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import torch
from peft import AutoPeftModelForCausalLM, PeftConfig, PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE
from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME, cached_file, find_adapter_config_file
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME

from ..models import saved_quantisation
from .guided_model import GuidedModel


Alone: TypeAlias = str | PreTrainedModel | PeftModel
Model: TypeAlias = Alone | GuidedModel
OF_EVALUATION = ("max_new_tokens", "batch_size", "seed")  # settings of a guided model that are the evaluation's
SAMPLED = 2**22  # bytes at both ends of a file by which it is known again


def load_generator(
    model: Alone,
    processing_class: PreTrainedTokenizerBase | None = None,
    dtype: str = "auto",
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """Load a generator and its tokenizer; a folder or id with adapters brings the model below them.

    Args:
        model (`str`, `PreTrainedModel` or `PeftModel`): Hub id, folder, or the model itself, which stays where it is.
        processing_class (`PreTrainedTokenizerBase`, *optional*): Its tokenizer; loaded by [`load_tokenizer`] by
            default.
        dtype (`str`, *optional*, defaults to `"auto"`): Precision of a loaded model; by default that of its file, and
            below adapters the quantisation of their training, which any other value leaves out.

    Returns:
        `tuple`: The model, on the first GPU or else the CPU and in evaluation mode if it was loaded, and its
        tokenizer.
    """
    tokenizer = load_tokenizer(model, processing_class)
    if not isinstance(model, str):
        return model, tokenizer
    is_adapter = find_adapter_config_file(model) is not None
    loader = AutoPeftModelForCausalLM if is_adapter else AutoModelForCausalLM
    how: dict[str, Any] = {"dtype": dtype}
    if is_adapter and dtype == "auto" and (quantisation := saved_quantisation(model)) is not None:
        how["quantization_config"] = quantisation
    loaded: Any = loader.from_pretrained(model, **how)
    if not getattr(loaded, "is_quantized", False):  # placed when it is loaded
        loaded.to("cuda" if torch.cuda.is_available() else "cpu")
    return loaded.eval(), tokenizer


def load_tokenizer(model: Alone, processing_class: PreTrainedTokenizerBase | None = None) -> PreTrainedTokenizerBase:
    """Load a generator's tokenizer from where the generator is or was loaded from, unless it is given.

    Adapters that were saved without a tokenizer have that of the model below them.

    Args:
        model (`str`, `PreTrainedModel` or `PeftModel`): As in [`load_generator`].
        processing_class (`PreTrainedTokenizerBase`, *optional*): The tokenizer itself.

    Returns:
        `PreTrainedTokenizerBase`: The tokenizer.

    Raises:
        ValueError: If the model was not loaded from anywhere.
    """
    if processing_class is not None:
        return processing_class
    if not isinstance(model, str):
        if not model.config._name_or_path:
            raise ValueError("A model that was not loaded from a folder or the Hub needs its tokenizer beside it.")
        return AutoTokenizer.from_pretrained(model.config._name_or_path)
    has_tokenizer = cached_file(model, TOKENIZER_CONFIG_FILE, _raise_exceptions_for_missing_entries=False) is not None
    if not has_tokenizer and find_adapter_config_file(model) is not None:
        return AutoTokenizer.from_pretrained(PeftConfig.from_pretrained(model).base_model_name_or_path)
    return AutoTokenizer.from_pretrained(model)


def configured_ends(model: Alone) -> set[int]:
    """Return the tokens at which a generator's own config ends a text; nothing is loaded but that config.

    Args:
        model (`str`, `PreTrainedModel` or `PeftModel`): As in [`load_generator`].
    """
    if isinstance(model, str):
        source = model
        if find_adapter_config_file(model) is not None:
            source = PeftConfig.from_pretrained(model).base_model_name_or_path
        has_config = cached_file(source, GENERATION_CONFIG_NAME, _raise_exceptions_for_missing_entries=False)
        config: Any = (GenerationConfig if has_config is not None else AutoConfig).from_pretrained(source)
    else:
        config = model.generation_config
    given = getattr(config, "eos_token_id", None)
    return {token for token in (given if isinstance(given, list) else [given]) if token is not None}


def saved_discriminator(model: Model) -> str | None:
    """Return the folder of the discriminator that the trainer saves beside a generator, None where there is none.

    Args:
        model (`str`, `PreTrainedModel`, `PeftModel` or [`GuidedModel`]): As in [`load_generator`]; only a folder is
            looked into, and a guided model says itself where its discriminator is.

    Returns:
        `str`, *optional*: `discriminator/` of a saved model, `discriminator/model/` of a checkpoint.
    """
    if isinstance(model, GuidedModel):
        return model.discriminator if isinstance(model.discriminator, str) else None
    if not isinstance(model, str):
        return None
    folders = [Path(model, "discriminator"), Path(model, "discriminator", "model")]
    files = (CONFIG_NAME, ADAPTER_CONFIG_NAME)
    return next((str(folder) for folder in folders if any((folder / file).exists() for file in files)), None)


def named_models(models: Model | list[str] | Mapping[str, Model]) -> dict[str, Model]:
    """Give every model a name that can stand in a file's.

    Args:
        models (`str`, model, `list[str]` or `Mapping`): One model; ids and folders, each called by its last part or as
            `NAME=ID` says; or models by name.

    Returns:
        `dict[str, Model]`: The models in their order.

    Raises:
        ValueError: If there is none, two have the same name, or a name cannot stand in a file's.
    """
    if isinstance(models, Mapping):
        pairs = list(models.items())
    elif isinstance(models, (str, PreTrainedModel, PeftModel, GuidedModel)):
        pairs = [_named(models) if isinstance(models, str) else ("model", models)]
    else:
        pairs = [_named(one) for one in models]
    names = [name for name, _ in pairs]
    for name in names:
        if not name or name == "real" or any(character in name for character in '/\\:*?"<>| '):
            raise ValueError(
                f"A model cannot be called {name!r}: its name becomes part of a file's, and 'real' are the real "
                "texts. Give it another one, as NAME=ID."
            )
        if names.count(name) > 1:
            raise ValueError(f"Several models are called {name!r}: give each a name of its own, as NAME=ID.")
    if not pairs:
        raise ValueError("There is no model to evaluate: give a Hub id, a folder or a model.")
    return dict(pairs)


def fingerprint(model: Model) -> str:
    """Return by what a model is known again: its files if they are here, its weights if it is loaded, or its id.

    Args:
        model (`str`, `PreTrainedModel`, `PeftModel` or [`GuidedModel`]): As in [`load_generator`].

    Returns:
        `str`: Equal for the same model.
    """
    known = hashlib.sha256()
    if isinstance(model, GuidedModel):
        given = model.discriminator
        of_discriminator = fingerprint(given if isinstance(given, str) else given.model)
        settings = {name: value for name, value in asdict(model.config).items() if name not in OF_EVALUATION}
        known.update(f"{fingerprint(model.generator)} {of_discriminator} {settings} {model.keep}".encode())
        return known.hexdigest()[:16]
    if not isinstance(model, str):
        for name, value in model.state_dict().items():
            known.update(f"{name} {float(value.float().sum()):.6e}\n".encode())
        return known.hexdigest()[:16]
    folder = Path(model)
    if not folder.is_dir():
        return model
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".bin", ".json"):
            with path.open("rb") as file:
                beginning = file.read(SAMPLED)
                file.seek(max(0, path.stat().st_size - SAMPLED))
                known.update(f"{path.name} {path.stat().st_size}\n".encode() + beginning + file.read())
    return known.hexdigest()[:16]


def _named(text: str) -> tuple[str, str]:
    name, sign, path = text.partition("=")
    return (name, path) if sign else (Path(text).name, text)
