"""How much memory adversarial training takes: measured on a small pair, computed for pairs up to 7B, compared.

    python -m benchmarks.hardware.memory           # measure the cells that are missing, and write results and page
    python -m benchmarks.hardware.memory --again   # measure all cells
    python -m benchmarks.hardware.memory --publish # write the page from the committed results

Writes benchmarks/results/memory.jsonl after every measured cell, and docs/memory.md from it and from the formula
(`hardware.memory_formula`). A measured cell is a training of two steps in a process of its own: models of random
weights in real shapes, the peak of the resident memory above what a process holds that has already done a tiny
training. Linux alone.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BitsAndBytesConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    set_seed,
)

from ..sweep import PAGES, RESULTS, read_lines, write_lines
from ..testbed import ROOT, machine, versions
from .memory_formula import DISCRIMINATORS, GENERATORS, MEASURED, MEASURED_SIZE, PHASES, SPECIAL, name_of
from .memory_page import page
from .step_parts import memory
from .trainers import TINY, Size, make_trainer, nf4, random_model, train_timed


MODULE = "benchmarks.hardware.memory"
COMMITTED = RESULTS / "memory.jsonl"
GPU = RESULTS / "gpu.jsonl"
PAGE = PAGES / "memory.md"


def quantisation(precision: str, skip: list[str] | None = None) -> BitsAndBytesConfig | None:
    if precision == "4-bit + LoRA":
        return nf4(skip)
    if precision == "8-bit + LoRA":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    return None


def train_once(
    generator: PreTrainedModel, discriminator: PreTrainedModel, size: Size, adapters: bool
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return train_timed(make_trainer("adversarial", generator, discriminator, size, 0, folder, adapters), size)


def make_models(
    generator: PreTrainedConfig, discriminator: PreTrainedConfig, precision: str
) -> tuple[PreTrainedModel, PreTrainedModel]:
    dtype = torch.float32 if precision == "full" else torch.bfloat16
    heads = ["classifier", r".*\.pooler"]
    return (
        random_model(AutoModelForCausalLM, generator, dtype, quantisation(precision)),
        random_model(AutoModelForSequenceClassification, discriminator, torch.float32, quantisation(precision, heads)),
    )


def settled_memory() -> float:
    """Return what the process holds, in GiB, once all that can be given back is given back."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return memory()


def measure(generator: str, discriminator: str, precision: str) -> dict[str, Any]:
    """Train for two steps in this process and return the memory in GiB above that of a tiny training."""
    set_seed(0)
    adapters = precision != "full"
    tiny = LlamaConfig(**TINY.generator, **SPECIAL), BertConfig(**TINY.discriminator, num_labels=1, **SPECIAL)
    train_once(*make_models(*tiny, precision), TINY, adapters)
    baseline = settled_memory()
    pair = make_models(GENERATORS[generator], DISCRIMINATORS[discriminator], precision)
    at_rest = settled_memory() - baseline
    began = time.perf_counter()
    measured = train_once(*pair, MEASURED_SIZE, adapters)
    peaks = {part: round(measured["memory_gib"][part] - baseline, 3) for part in (*PHASES, "peak")}
    return {
        "process_before": round(baseline, 3),
        "models": round(at_rest, 3),
        **peaks,
        "seconds": round(time.perf_counter() - began, 1),
    }


def measure_in_a_new_process(cell: tuple[str, str, str]) -> dict[str, Any]:
    # Above this size glibc gives every freed block back at once, so that the resident memory is what is in use.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", MODULE, "--cell", *cell]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The cell {cell} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def publish(committed: Path = COMMITTED, page_path: Path = PAGE) -> None:
    """Write the page from committed results."""
    page_path.write_text(page(read_lines(committed), read_lines(GPU)))


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=COMMITTED)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--again", action="store_true", help="measure cells that the output already holds")
    parser.add_argument("--publish", action="store_true", help="measure nothing, and write the page")
    parser.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)  # what a new process is asked for
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    if arguments.cell is not None:
        print(json.dumps(measure(*arguments.cell)))
        return
    there = read_lines(arguments.output) if arguments.output.exists() else []
    measured = {name_of(one["cell"]): one for one in there}
    for cell in [] if arguments.publish else MEASURED:
        if arguments.again or name_of(cell) not in measured:
            about = {"versions": versions("bitsandbytes"), **machine()}
            measured[name_of(cell)] = {"cell": list(cell), **measure_in_a_new_process(cell), **about}
            print(json.dumps(measured[name_of(cell)]), flush=True)
            write_lines(arguments.output, measured.values())
    publish(arguments.output, arguments.page)


if __name__ == "__main__":
    main()
