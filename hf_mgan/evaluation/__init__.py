"""Measures of generated text: pure functions, one a file."""

from .distinct_n import distinct_n
from .duplicates import duplicates
from .jensen_shannon import jensen_shannon
from .self_bleu import self_bleu


__all__ = ["distinct_n", "duplicates", "jensen_shannon", "self_bleu"]
