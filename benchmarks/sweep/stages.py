"""Stages of a long run: each is done once and leaves a file, so that a run that was stopped goes on.

In: what a stage does. Out: its result as a file, with what it took and what made it.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
from transformers import set_seed
from transformers.utils import logging

from ..testbed import machine, versions
from .results import rounded, write_file


def do_stage(done: Path, seed: int, act: Callable[[], dict[str, Any]]) -> None:
    """Do a stage unless its file is there.

    Args:
        done (`Path`): The file, named after the stage.
        seed (`int`): Set before the stage.
        act (`Callable`): Returns the result, with `seconds` and `cpu_seconds` where not all of it was made just now.
    """
    where = f"{done.parent}: {done.stem}"
    if done.exists():
        print(f"{where} is there already", flush=True)
        return
    set_seed(seed)
    began, cpu = time.perf_counter(), time.process_time()
    made = act()
    result = {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        **made,
        "versions": versions("scikit-learn"),
        "machine": machine(),
    }
    write_file(done, rounded(result))
    print(f"{where}, {result['seconds']} s", flush=True)


def without_bars() -> None:
    """Keep the libraries from drawing bars: long runs write to a file."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()


def parsed(parser: argparse.ArgumentParser, words: list[str] | None) -> argparse.Namespace:
    """Parse the arguments of a benchmark with `--output` and `--publish`.

    Raises:
        SystemExit: If there is neither.
    """
    arguments = parser.parse_args(words)
    if arguments.output is None and not arguments.publish:
        parser.error("--output is needed, unless --publish alone writes the page from the committed results")
    return arguments
