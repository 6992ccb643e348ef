"""What generators, discriminators, safety classifiers and encoders are asked alike: their limits, their tokenizer."""

from .limits import (
    FALLBACK_MAX_LENGTH,
    check_vocabulary,
    checked_max_length,
    length_limit,
    max_tokens,
    num_virtual_tokens,
)
from .padding import end_token_ids, needs_equal_lengths, probe_texts, unpadded_batches, unpadded_rows
from .tokenizers import load_processing_class


__all__ = [
    "FALLBACK_MAX_LENGTH",
    "check_vocabulary",
    "checked_max_length",
    "end_token_ids",
    "length_limit",
    "load_processing_class",
    "max_tokens",
    "needs_equal_lengths",
    "num_virtual_tokens",
    "probe_texts",
    "unpadded_batches",
    "unpadded_rows",
]
