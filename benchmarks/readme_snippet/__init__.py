"""The README's first Python block, run as it stands or with other models and texts."""

from .block import DATA_FILE, README, snippet, with_names


__all__ = ["DATA_FILE", "README", "snippet", "with_names"]
