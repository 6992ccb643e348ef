"""Jobs of a sweep: each is one condition with one seed, done in a process of its own with one thread.

A job leaves one file in the output folder when it is done. A job whose file is there is not done again, so a sweep
that was stopped goes on when it is started again.
"""

import argparse
import logging
import math
import os
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import datasets
import torch
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from ..testbed import ROOT, versions
from .results import Job, Result, read_folder, rounded, write_file


ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
}


def silence() -> None:
    """Keep libraries from writing, and from using more than one thread."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    set_verbosity_error()
    disable_progress_bar()
    datasets.disable_progress_bars()


def do_job(job: Job, settings: Result, measure: Callable[[], Result]) -> Result:
    """Do a job in this process and return its result; an error becomes part of it.

    Args:
        job ([`Job`]): The job.
        settings (`dict`): What all results in one folder must have in common.
        measure (`Callable`): Returns what the job measures.
    """
    result: Result = {"condition": job.name, "seed": job.seed, "settings": settings}
    began = time.perf_counter()
    try:
        result.update(measure())
    except Exception:  # of whatever sort: the other jobs go on
        result["error"] = traceback.format_exc()
    return rounded({**result, "job_seconds": time.perf_counter() - began, "versions": versions()})


def do_in_process(job: Job, module: str, options: list[str], folder: Path, settings: Result) -> None:
    """Do a job in a new process, which leaves its file; if it dies, its error is the result.

    Args:
        job ([`Job`]): The job.
        module (`str`): The benchmark that takes `--child NAME SEED`.
        options (`list[str]`): Further options of the command.
        folder (`Path`): The output folder.
        settings (`dict`): What all results in one folder must have in common.
    """
    command = [sys.executable, "-m", module, "--child", job.name, str(job.seed), "--output", str(folder), *options]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, check=False
    )
    if not job.path(folder).exists():
        error = f"The process ended with {done.returncode}:\n{done.stderr[-2000:]}"
        write_file(job.path(folder), {"condition": job.name, "seed": job.seed, "settings": settings, "error": error})


def run_jobs(
    jobs: list[Job],
    arguments: argparse.Namespace,
    start: Callable[[Job], None],
    outcome: Callable[[Result], str],
    incomplete: Collection[Job] = (),
) -> None:
    """Do the jobs that have no file yet, `workers` at a time; each is reported when it ends.

    Args:
        jobs (`list[Job]`): In the order in which they start.
        arguments (`argparse.Namespace`): Of a command with the arguments of [`add_arguments`].
        start (`Callable`): Does a job and leaves its file.
        outcome (`Callable`): Says in a few words what a result is.
        incomplete (`Collection[Job]`, *optional*): Jobs to be done though their file is there.
    """
    last_start = math.inf if arguments.stop_after is None else arguments.began + arguments.stop_after
    there = read_folder(arguments.output)
    waiting = [
        job for job in jobs if job not in there or job in incomplete or (arguments.retry and "error" in there[job])
    ]

    def one(job: Job) -> Job | None:
        if time.monotonic() > last_start:
            return None
        job.path(arguments.output).unlink(missing_ok=True)
        start(job)
        return job

    with ThreadPoolExecutor(arguments.workers) as pool:
        for future in as_completed([pool.submit(one, job) for job in waiting]):
            if (job := future.result()) is not None:
                result = read_folder(arguments.output)[job]
                failed = "error" in result
                told = "failed: " + result["error"].strip().splitlines()[-1] if failed else outcome(result)
                print(f"{job.name}.{job.seed}: {told}", flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that every sweep has."""
    parser.add_argument("--output", type=Path, help="folder of the results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1, help="jobs at a time, one thread each")
    parser.add_argument("--retry", action="store_true", help="do jobs again that failed")
    parser.add_argument("--stop_after", type=float, help="seconds after which no job is started")
    parser.add_argument("--tiny", action="store_true", help="a dry run at tiny size")
    parser.add_argument(
        "--merge", type=Path, nargs="+", help="folders or .jsonl files to put in the output; nothing is run"
    )
    parser.add_argument("--publish", action="store_true", help="write the committed results and their page")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "SEED"), help=argparse.SUPPRESS)


def parse_arguments(parser: argparse.ArgumentParser, words: list[str] | None) -> argparse.Namespace:
    """Parse and check the arguments of a sweep.

    Raises:
        SystemExit: If they contradict each other.
    """
    arguments = parser.parse_args(words)
    if arguments.workers < 1:
        parser.error(f"--workers must be at least 1, got {arguments.workers}")
    if arguments.tiny and arguments.publish:
        parser.error("--tiny is a dry run: there is nothing to publish")
    if arguments.output is None and not arguments.publish and not getattr(arguments, "list", False):
        parser.error("--output is needed, unless --publish alone writes the page from the committed results")
    if arguments.output is not None:
        arguments.output = arguments.output.resolve()
    arguments.began = time.monotonic()
    return arguments
