"""Loading the tokenizer, or the processor, that belongs to a model."""

from pathlib import Path
from typing import Any

from peft import PeftConfig
from transformers import AutoProcessor, AutoTokenizer, PreTrainedTokenizerBase
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE
from transformers.utils import cached_file, find_adapter_config_file


WORD_STARTS = "▁Ġ "  # what tokenizers write for the space before a word


def load_processing_class(
    source: str | Path,
    of: str,
    remedy: str,
    revision: str | None = None,
    processor: bool = False,
    **kwargs: Any,
) -> Any:
    """Load the tokenizer that lies beside a model; adapters without one have that of the model below them.

    Args:
        source (`str` or `Path`): Hub id or folder of the model; "" of a model that was made from a configuration.
        of (`str`): Which model it is, such as "generator", for errors.
        remedy (`str`): What to do without one, such as "give processing_class=", for errors.
        revision (`str`, *optional*): Branch, tag or commit.
        processor (`bool`, *optional*, defaults to `False`): Whether a model of images may bring its processor.
        **kwargs: Arguments of `from_pretrained`.

    Returns:
        `PreTrainedTokenizerBase` or `ProcessorMixin`: With a vocabulary.

    Raises:
        ValueError: If there is none.
    """
    source = str(source)
    if not source:
        raise ValueError(
            f"The {of} was made from a configuration, so nothing says which tokenizer belongs to it: {remedy}."
        )
    base, revision = tokenizer_source(source, revision)
    loader: Any = AutoProcessor if processor else AutoTokenizer
    try:
        loaded = loader.from_pretrained(base, revision=revision, **kwargs)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"No tokenizer can be loaded from {base!r} for the {of}: {remedy}, or save the tokenizer beside the "
            f"model. transformers says: {error}"
        ) from error
    if isinstance(loaded, PreTrainedTokenizerBase) and not _has_words(loaded):
        raise ValueError(
            f"There is no tokenizer in {base!r}: transformers made one up for the {of} that has special tokens "
            f"alone: {remedy}, or save the tokenizer beside the model."
        )
    return loaded


def tokenizer_source(source: str, revision: str | None) -> tuple[str, str | None]:
    """Return where the tokenizer of a model lies, and in which revision: of adapters without one, below them."""
    if find_adapter_config_file(source, revision=revision) is None:
        return source, revision
    file = cached_file(source, TOKENIZER_CONFIG_FILE, revision=revision, _raise_exceptions_for_missing_entries=False)
    if file is not None:
        return source, revision
    config = PeftConfig.from_pretrained(source, revision=revision)
    return str(config.base_model_name_or_path), config.revision


def _has_words(tokenizer: PreTrainedTokenizerBase) -> bool:
    special = set(tokenizer.all_special_tokens)
    return any(token not in special and token.strip(WORD_STARTS) for token in tokenizer.get_vocab())
