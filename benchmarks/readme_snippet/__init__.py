"""The README's first Python block, run as it stands or with other models and texts."""

from .block import DATA_FILE, README, for_this_machine, snippet


__all__ = ["DATA_FILE", "README", "for_this_machine", "snippet"]
