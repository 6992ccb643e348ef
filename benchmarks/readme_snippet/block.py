"""The text of the README's first Python block, and the same with other names."""

import re
from pathlib import Path

from ..testbed import ROOT


README = ROOT / "README.md"
DATA_FILE = "texts.jsonl"  # what the block calls its data


def snippet() -> str:
    """Return the README's first Python block."""
    match = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    if match is None:
        raise ValueError(f"{README} has no Python block.")
    return match.group(1)


def with_names(code: str, names: dict[str, str | Path]) -> str:
    """Return the code with other names in quotes.

    Raises:
        ValueError: If a name is missing in the code.
    """
    for name, replacement in names.items():
        if f'"{name}"' not in code:
            raise ValueError(f"The README's block does not name {name}.")
        code = code.replace(f'"{name}"', repr(str(replacement)))
    return code
