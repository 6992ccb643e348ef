"""What preparing a dataset costs: rows per second and memory, beside a `datasets.map` that only tokenises.

    python -m benchmarks.hardware.prepare_cost                              # tokenizer from the Hub
    python -m benchmarks.hardware.prepare_cost --generator FOLDER --rows 200000

Rows of text are written to a file and read from it, each way in a process of its own, so that its peak memory is its
own; nothing is kept from one way to the next. Ways: a batched map that tokenises and nothing else; [`prepare_dataset`]
for whole texts, and with prompts of 1 to 8 tokens, which are cut where the tokens of the prompt by itself are those of
the text; both on a stream, at the number of rows and at a quarter of it, where memory should stay the same.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
from datasets import load_dataset
from transformers import AutoTokenizer

from hf_mgan import prepare_dataset

from ..sources import GENERATOR, short_name
from ..sweep import RESULTS, write_lines
from ..testbed import machine, versions


MODULE = "benchmarks.hardware.prepare_cost"
PROMPT_TOKENS = (1, 8)
WORDS = ("the", "a", "dog", "cat", "king", "house", "sees", "eats", "near", "old", "small", "never", "always", "again")


def write_rows(path: Path, count: int) -> None:
    """Write rows of 5 to 60 words."""
    rng = random.Random(0)
    with path.open("w") as file:
        for _ in range(count):
            text = " ".join(rng.choices(WORDS, k=rng.randint(5, 60))).capitalize() + "."
            file.write(json.dumps({"text": text}) + "\n")


def tokenised(data: Any, tokenizer: Any) -> Any:
    """Tokenise, and nothing else."""
    return data.map(lambda batch: {"input_ids": tokenizer(batch["text"])["input_ids"]}, batched=True)


def whole(data: Any, tokenizer: Any) -> Any:
    """Prepare whole texts."""
    return prepare_dataset(data, tokenizer)


def cut(data: Any, tokenizer: Any) -> Any:
    """Prepare texts of which the first tokens are the prompt."""
    return prepare_dataset(data, tokenizer, prompt_tokens=PROMPT_TOKENS)


WAYS: dict[str, Callable[[Any, Any], Any]] = {"tokenised": tokenised, "whole": whole, "cut": cut}


def measure(way: str, path: Path, generator: str, streamed: bool) -> dict[str, float]:
    """Prepare the rows of a file in one way, in this process."""
    tokenizer = AutoTokenizer.from_pretrained(generator)
    datasets.disable_progress_bars()
    data: Any = load_dataset("json", data_files=str(path), split="train", streaming=streamed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, cpu = time.perf_counter(), time.process_time()
    made = WAYS[way](data, tokenizer)
    count = read_through(made) if streamed else len(made)
    return {
        "rows": count,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "added_memory_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def read_through(rows: Iterable[Any]) -> int:
    """Return the number of rows of a stream, read one after the other."""
    return sum(1 for _ in rows)


def in_own_process(way: str, path: Path, arguments: argparse.Namespace, streamed: bool) -> dict[str, Any]:
    """Measure a way in a process of its own, whose cache is its own as well."""
    with tempfile.TemporaryDirectory() as cache:
        words = [sys.executable, "-m", MODULE, "--way", way, "--file", str(path), "--generator", arguments.generator]
        run = subprocess.run(
            [*words, *(["--streamed"] if streamed else [])],
            env={**os.environ, "HF_DATASETS_CACHE": cache},
            capture_output=True,
            text=True,
            check=True,
        )
    return json.loads(run.stdout.splitlines()[-1])


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--generator", default=GENERATOR, help="id on the Hub, or folder, of the tokenizer")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "prepare_cost.jsonl")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--streamed", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    if arguments.way is not None:
        print(json.dumps(measure(arguments.way, arguments.file, arguments.generator, arguments.streamed)))
        return
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for streamed, count in ((False, arguments.rows), (True, arguments.rows), (True, arguments.rows // 4)):
            path = Path(folder) / f"{count}.jsonl"
            write_rows(path, count)
            rounds: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
            for _ in range(arguments.rounds):
                for way, each in rounds.items():
                    each.append(in_own_process(way, path, arguments, streamed))
            plain = min(one["cpu_seconds"] for one in rounds["tokenised"])
            for way, each in rounds.items():
                best = min(each, key=lambda one: one["cpu_seconds"])
                results.append(
                    {
                        "way": way,
                        "streamed": streamed,
                        **{name: round(value, 2) for name, value in best.items()},
                        "rows_per_second": round(count / best["seconds"]),
                        "over_tokenised": round(best["cpu_seconds"] / plain, 3),
                    }
                )
                print(results[-1], flush=True)
    made = {
        "generator": short_name(arguments.generator),
        "prompt_tokens": PROMPT_TOKENS,
        "rounds": arguments.rounds,
        "versions": versions(),
        "machine": machine(),
    }
    write_lines(arguments.output, [{**made, **result} for result in results])


if __name__ == "__main__":
    main()
