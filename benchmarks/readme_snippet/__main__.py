"""Runs the README's first Python block on local copies of the models it names, and prints what it prints.

    python ../shared/tools/real_models.py MODELS
    python benchmarks/readme_snippet.py --models MODELS --texts ../shared/data/wordnet_examples.train.jsonl

The first 5,000 texts are taken. The block is run as it stands but for the ids, the name of the data file and, on a
machine without an accelerator, `use_cpu=True`, which transformers asks for there.
"""

import argparse
import os
import re
import tempfile
from pathlib import Path

import torch


README = Path(__file__).parents[1] / "README.md"


def snippet() -> str:
    """Return the README's first Python block."""
    match = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    if match is None:
        raise ValueError(f"{README} has no Python block.")
    return match.group(1)


def for_this_machine(code: str, names: dict[str, Path]) -> str:
    """Return the code for this machine, with local paths for the quoted names; a name that is missing is an error."""
    for name, path in names.items():
        if f'"{name}"' not in code:
            raise ValueError(f"The README's block does not name {name}.")
        code = code.replace(f'"{name}"', repr(str(path.resolve())))
    return code if torch.accelerator.is_available() else code.replace('("out",', '("out", use_cpu=True,')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder with the two models")
    parser.add_argument("--texts", type=Path, required=True, help="JSON lines with a `text`")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "texts.jsonl"
        data.write_text("".join(arguments.texts.read_text().splitlines(keepends=True)[:5000]))
        names = {
            "HuggingFaceTB/SmolLM2-135M-Instruct": arguments.models / "SmolLM2-135M-Instruct",
            "sentence-transformers/all-MiniLM-L6-v2": arguments.models / "all-MiniLM-L6-v2",
            "texts.jsonl": data,
        }
        code = for_this_machine(snippet(), names)
        os.chdir(folder)
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


if __name__ == "__main__":
    main()
