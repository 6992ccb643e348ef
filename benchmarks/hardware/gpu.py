"""What adversarial training costs on a GPU: a 4-bit 7B generator against a 0.4B discriminator.

    python -m benchmarks.hardware.gpu                      # on a machine with CUDA; at most nine minutes per part
    python -m benchmarks.hardware.gpu --parts adversarial  # one part
    python -m benchmarks.hardware.gpu --tiny --output OUT  # every line on a CPU, at tiny size

Three parts, each in a process of its own:

- `tests`: the tests with the mark `gpu`;
- `adversarial`: QLoRA of a generator of Llama-2-7B's shape (nf4, double quantisation, bfloat16 compute) by
  `AdversarialTrainer`, against a discriminator of BERT-large's shape with a vocabulary of 128,000, trained with LoRA;
- `grpo`: the same generator, adapters, rows and settings under `trl.GRPOTrainer`, with the same classifier frozen in
  `reward_funcs`.

A step is divided as in `hardware.step_time`, into generation, discriminator and policy, and the peak of memory is
taken for each of them; the first step is not timed. The output holds a line per part; a part that is there is skipped
unless `--again` is given, so that a run that was cut off goes on where it stopped.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BertConfig, LlamaConfig, set_seed

from ..sweep import RESULTS, read_lines, write_lines
from ..testbed import ROOT, versions
from .trainers import FULL, TINY, Size, make_trainer, nf4, random_model, train_timed


MODULE = "benchmarks.hardware.gpu"
PARTS = ("tests", "adversarial", "grpo")


def run_trainer(name: str, size: Size, seed: int) -> dict[str, Any]:
    """Make both models and train under one of the two trainers."""
    set_seed(seed)
    began = time.perf_counter()
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    generator = random_model(AutoModelForCausalLM, LlamaConfig(**size.generator, **special), torch.bfloat16, nf4())
    classifier = random_model(
        AutoModelForSequenceClassification,
        BertConfig(**size.discriminator, num_labels=1, **special),
        torch.float32,
        None,
    )
    seconds = time.perf_counter() - began
    counts = {
        "generator_parameters": generator.num_parameters(),
        "classifier_parameters": classifier.num_parameters(),
    }
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(name, generator, classifier, size, seed, folder)
        measured = train_timed(trainer, size)
        trainable = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    return {**measured, "seconds_to_make_the_models": round(seconds, 1), **counts, "generator_trainable": trainable}


def run_tests(environment: dict[str, str], limit: float) -> dict[str, Any]:
    """Run the tests that are marked `gpu` and return their number by outcome.

    Raises:
        RuntimeError: If a test fails, or none is found.
    """
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit, check=False
    )
    if done.returncode:
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    closing = done.stdout.strip().splitlines()[-1]
    return {
        "command": "python -m pytest -m gpu",
        "outcomes": {name: int(number) for number, name in re.findall(r"(\d+) (passed|skipped)", closing)},
        "skipped_because": sorted(set(re.findall(r"^SKIPPED \[\d+\] \S+ (.*)$", done.stdout, re.MULTILINE))),
        "closing_line": closing.strip("= "),
    }


def run_part(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run a part in a process of its own and return what it measured.

    Raises:
        RuntimeError: If it fails.
        subprocess.TimeoutExpired: If it takes more than `--limit` seconds.
    """
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""} if arguments.tiny else dict(os.environ)
    if name == "tests":
        return run_tests(environment, arguments.limit)
    command = [sys.executable, "-m", MODULE, "--child", name, "--seed", str(arguments.seed)]
    if arguments.tiny:
        command.append("--tiny")
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=arguments.limit, check=False
    )
    if done.returncode:
        raise RuntimeError(f"The part {name} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def overhead(parts: dict[str, Any]) -> dict[str, float]:
    """Return how many times the time and the memory of GRPO the adversarial trainer takes, once both are measured."""
    if "adversarial" not in parts or "grpo" not in parts:
        return {}
    ours, theirs = parts["adversarial"], parts["grpo"]
    return {
        "step": round(ours["seconds"]["step"] / theirs["seconds"]["step"], 3),
        "peak_memory": round(ours["memory_gib"]["peak"] / theirs["memory_gib"]["peak"], 3),
    }


def conditions(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what all parts in one output must have in common."""
    return {
        "device": "cpu" if arguments.tiny else torch.cuda.get_device_name(),
        "size": asdict(TINY if arguments.tiny else FULL),
        "seed": arguments.seed,
        "versions": versions("bitsandbytes"),
    }


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu.jsonl")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--again", action="store_true", help="run parts that the output already holds")
    parser.add_argument("--tiny", action="store_true", help="a dry run at tiny size on the CPU")
    parser.add_argument("--limit", type=float, default=500, help="most seconds per part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", choices=PARTS[1:], help=argparse.SUPPRESS)  # what a new process is asked for
    arguments = parser.parse_args(words)
    if not arguments.tiny and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --tiny makes a dry run on the CPU")
    return arguments


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    if arguments.child is not None:
        print(json.dumps(run_trainer(arguments.child, TINY if arguments.tiny else FULL, arguments.seed)))
        return
    common = conditions(arguments)
    parts = {one["part"]: one for one in read_lines(arguments.output)} if arguments.output.exists() else {}
    for part in parts.values():
        if changed := [name for name in common if part[name] != common[name]]:
            sys.exit(f"{arguments.output} was made with another {' and '.join(changed)}: give another --output.")
    for name in arguments.parts:
        if name in parts and not arguments.again:
            print(f"{name}: there already")
            continue
        began = time.perf_counter()
        measured = run_part(name, arguments)
        parts[name] = {"part": name, **common, **measured, "seconds_in_all": round(time.perf_counter() - began, 1)}
        write_lines(arguments.output, [parts[part] for part in PARTS if part in parts])
        print(f"{name}: {json.dumps(measured)}", flush=True)
    print(json.dumps({"overhead": overhead(parts)}))


if __name__ == "__main__":
    main()
