"""What all models are asked alike, whatever they are for: their limits, their tokenizer, what was saved of them."""

from .limits import (
    FALLBACK_MAX_LENGTH,
    check_vocabulary,
    checked_max_length,
    length_limit,
    max_tokens,
    num_virtual_tokens,
)
from .modes import evaluation_mode
from .padding import end_token_ids, needs_equal_lengths, probe_texts, unpadded_batches, unpadded_rows
from .quantization import quantisation_of, save_quantisation, saved_quantisation
from .saved_weights import check_saved_weights, refusal
from .tokenizers import load_processing_class


__all__ = [
    "FALLBACK_MAX_LENGTH",
    "check_saved_weights",
    "check_vocabulary",
    "checked_max_length",
    "end_token_ids",
    "evaluation_mode",
    "length_limit",
    "load_processing_class",
    "max_tokens",
    "needs_equal_lengths",
    "num_virtual_tokens",
    "probe_texts",
    "quantisation_of",
    "refusal",
    "save_quantisation",
    "saved_quantisation",
    "unpadded_batches",
    "unpadded_rows",
]
