"""What generators, discriminators, safety classifiers and encoders are asked alike: their limits, their tokenizer."""

from .limits import (
    FALLBACK_MAX_LENGTH,
    check_vocabulary,
    checked_max_length,
    length_limit,
    max_tokens,
    num_virtual_tokens,
)
from .tokenizers import load_processing_class


__all__ = [
    "FALLBACK_MAX_LENGTH",
    "check_vocabulary",
    "checked_max_length",
    "length_limit",
    "load_processing_class",
    "max_tokens",
    "num_virtual_tokens",
]
