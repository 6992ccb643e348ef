"""Writes every page of the documentation that is made of committed results.

    python -m benchmarks.pages           # write them
    python -m benchmarks.pages --check   # fail if one is not what the committed results make of it
    python -m benchmarks.pages --demo demo/demo.json --evaluation OUT/report.json   # take in what these commands found

The pages are recipe, oracle, real_text, guided_language, language_frontier, guided_text, frontier, verifiable,
verifiable_text, supported_models, memory, many_processes and results; each is made of a template beside its benchmark
and of benchmarks/results. The measured parts of the how-tos of applications are made of them too.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..applications.tables import HOW_TOS
from ..applications.tables import page as how_to_page
from ..frontier.tables import page as frontier_page
from ..guided_language.tables import page as guided_language_page
from ..guided_text.tables import page as guided_text_page
from ..hardware.architectures import page as architectures_page
from ..hardware.memory_page import page as memory_page
from ..hardware.scale import page as scale_page
from ..language_frontier.tables import page as language_frontier_page
from ..oracle.tables import page as oracle_page
from ..real_text.tables import page as real_text_page
from ..recipe.tables import page as recipe_page
from ..sweep import PAGES, RESULTS, read_lines, write_lines
from ..verifiable.tables import page as verifiable_page
from ..verifiable_text.tables import page as verifiable_text_page
from .results import demo_lines, evaluation_lines
from .results import page as results_page


def _results(name: str) -> list[dict]:
    return read_lines(RESULTS / f"{name}.jsonl")


def _how_to(name: str) -> str:
    return how_to_page(name, _results("applications"))


WRITTEN: dict[str, Callable[[], str]] = {
    "supported_models": lambda: architectures_page(_results("architectures")),
    "frontier": lambda: frontier_page(_results("frontier")),
    "guided_language": lambda: guided_language_page(_results("guided_language")),
    "guided_text": lambda: guided_text_page(_results("guided_text")),
    "language_frontier": lambda: language_frontier_page(_results("language_frontier")),
    **{f"how_to/{name}": partial(_how_to, name) for name in HOW_TOS},
    "many_processes": scale_page,
    "memory": lambda: memory_page(_results("memory"), _results("gpu")),
    "oracle": lambda: oracle_page(_results("oracle")),
    "real_text": lambda: real_text_page(_results("real_text")),
    "recipe": lambda: recipe_page(_results("recipe")),
    "results": lambda: results_page(_results),
    "verifiable": lambda: verifiable_page(_results("verifiable")),
    "verifiable_text": lambda: verifiable_text_page(_results("verifiable_text")),
}


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pages", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page differs")
    parser.add_argument("--demo", type=Path, help="demo.json of `hf-mgan demo`, to become committed results")
    parser.add_argument(
        "--evaluation", type=Path, help="report.json of `hf-mgan evaluate`, to become committed results"
    )
    arguments = parser.parse_args(words)
    for name, lines in {"demo": demo_lines, "evaluation": evaluation_lines}.items():
        if (path := getattr(arguments, name)) is not None:
            write_lines(RESULTS / f"{name}.jsonl", lines(json.loads(path.read_text())))
    different = []
    for name, written in WRITTEN.items():
        path = PAGES / f"{name}.md"
        if path.read_text() != (text := written()):
            different.append(f"docs/{name}.md")
            if not arguments.check:
                path.write_text(text)
    if arguments.check and different:
        sys.exit(
            f"Not what the committed results make of them: {', '.join(different)}. Run python -m benchmarks.pages"
        )
    print(f"{len(WRITTEN)} pages, {len(different)} {'different' if arguments.check else 'rewritten'}")


if __name__ == "__main__":
    main()
