"""Measures of generated text: pure functions, one a file."""

from .distinct_n import distinct_n
from .jensen_shannon import jensen_shannon


__all__ = ["distinct_n", "jensen_shannon"]
