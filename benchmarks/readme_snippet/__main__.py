"""Runs the README's first Python block, and prints what it prints.

    python -m benchmarks.readme_snippet                        # models and texts from the Hub
    python -m benchmarks.readme_snippet --generator FOLDER --discriminator FOLDER --data FOLDER

The block is run as it stands but for the names that are given, and for its data file, which becomes the first 5,000
texts of --data.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

from ..sources import ENCODER, GENERATOR, TEXTS, TEXTS_HELP, load_texts
from .block import DATA_FILE, snippet, with_names


MODULE = "benchmarks.readme_snippet"


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--generator", default=GENERATOR, help="id on the Hub, or folder")
    parser.add_argument("--discriminator", default=ENCODER, help="id on the Hub, or folder")
    parser.add_argument("--data", default=TEXTS, help=TEXTS_HELP)
    parser.add_argument("--max_texts", type=int, default=5000)
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / DATA_FILE
        texts = load_texts(arguments.data, arguments.max_texts)["train"]["text"]
        data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        given = {GENERATOR: arguments.generator, ENCODER: arguments.discriminator}
        paths = {name: str(Path(path).resolve()) if Path(path).exists() else path for name, path in given.items()}
        code = with_names(snippet(), {**paths, DATA_FILE: str(data)})
        os.chdir(folder)
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


if __name__ == "__main__":
    main()
