"""What a checkpoint costs in seconds and bytes, and whether a run's memory grows.

    python -m benchmarks.robustness.cost                                    # tiny models alone
    python -m benchmarks.robustness.cost --generator ID --discriminator ID  # and a real pair, all weights and LoRA
    python -m benchmarks.robustness.cost ... --publish                      # and write the committed results

Each checkpoint is written several times, and each part is timed within: the generator with its optimizer, which is
what transformers writes too; the discriminator with its own; the rest of a generation batch and of a logging window;
bringing all of it to the disk and listing it. Memory: the peak of a process that takes so many steps (Linux).
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hf_mgan.training import resumable
from hf_mgan.training.checkpoint import Progress

from ..sources import short_name
from ..sweep import RESULTS, write_lines
from ..testbed import ROOT, machine, versions
from .tiny_runs import make_trainer, save_models


MODULE = "benchmarks.robustness.cost"
COMMITTED = RESULTS / "checkpoint_cost.jsonl"
REPEATS = 3
SETTINGS = {"max_steps": 1, "steps_per_generation": 4, "save_strategy": "no"}


@contextlib.contextmanager
def timed(seconds: dict[str, float], name: str, owner: Any, function: str) -> Iterator[None]:
    """Add the seconds of each call of a function to those of a part."""
    given: Callable = getattr(owner, function)

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return given(*args, **kwargs)
        finally:
            seconds[name] += time.perf_counter() - start

    setattr(owner, function, call)
    try:
        yield
    finally:
        setattr(owner, function, given)


def checkpoint(models: dict[str, Any], kind: str, folder: Path) -> dict[str, Any]:
    """Write a checkpoint [`REPEATS`] times; return the median seconds of its parts and its bytes."""
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = make_trainer(folder, folder / "out", kind, arguments=models, **SETTINGS)
        trainer.train()
    rows = []
    for _ in range(REPEATS):
        seconds: dict[str, float] = defaultdict(float)
        with (
            timed(seconds, "all", trainer, "_save_checkpoint"),
            timed(seconds, "discriminator", trainer.discriminator, "save_pretrained"),
            timed(seconds, "discriminator", trainer.discriminator, "save_state"),
            timed(seconds, "progress", Progress, "save"),
            timed(seconds, "to the disk", resumable, "finish"),
        ):
            trainer._save_checkpoint(trainer.model, None)
        rows.append(dict(seconds))
    median = {name: round(statistics.median(row[name] for row in rows), 4) for name in rows[0]}
    ours = median["discriminator"] + median["progress"] + median["to the disk"]
    files = {path: path.stat().st_size for path in (folder / "out" / "checkpoint-1").rglob("*") if path.is_file()}
    within = {path: size for path, size in files.items() if path.parent.name in ("discriminator", "model")}
    return {
        "trained": kind,
        "seconds": {**median, "generator": round(median["all"] - ours, 4)},
        "bytes": sum(files.values()),
        "bytes_of_the_discriminator": sum(within.values()),
        "bytes_of_progress": sum(size for path, size in files.items() if path.name.startswith("progress")),
    }


def peak_memory(folder: Path, steps: int) -> float:
    """Return the peak memory in MiB of a process that trains so many steps, saving at every hundredth."""
    command = [sys.executable, "-m", MODULE, "--steps", str(steps), "--folder", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def main(words: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--generator", help="id on the Hub, or folder; with --discriminator")
    parser.add_argument("--discriminator", help="id on the Hub, or folder")
    parser.add_argument("--memory_steps", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--publish", action="store_true", help="write the committed results")
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.steps:
        with contextlib.redirect_stdout(io.StringIO()):
            make_trainer(
                arguments.folder,
                arguments.folder / f"steps-{arguments.steps}",
                max_steps=arguments.steps,
                save_steps=100,
                save_total_limit=1,
                logging_steps=10,
                discriminator_replay_fraction=0.25,
            ).train()
        # Of this program alone: `getrusage` begins with the peak of the process that has started it.
        status = Path("/proc/self/status").read_text()
        print(json.dumps(round(int(status.split("VmHWM:")[1].split()[0]) / 1024, 1)))
        return []
    pairs: dict[str, dict[str, Any]] = {"tiny": {}}
    if arguments.generator:
        name = f"{short_name(arguments.generator)}, {short_name(arguments.discriminator)}"
        pairs[name] = {"model": arguments.generator, "discriminator": arguments.discriminator}
    results = []
    for name, models in pairs.items():
        for kind in ("full", "LoRA"):
            with tempfile.TemporaryDirectory() as place:
                save_models(Path(place))
                results.append({"models": name, **checkpoint(models, kind, Path(place))})
            print(json.dumps(results[-1]), flush=True)
    with tempfile.TemporaryDirectory() as place:
        save_models(Path(place))
        for steps in arguments.memory_steps:
            results.append({"models": "tiny", "steps": steps, "peak_memory_mib": peak_memory(Path(place), steps)})
            print(json.dumps(results[-1]), flush=True)
    if arguments.publish:
        names = (("generator", arguments.generator), ("discriminator", arguments.discriminator))
        given = "".join(f" --{name} {short_name(value)}" for name, value in names if value)
        source = {"command": f"python -m {MODULE}{given} --publish", "versions": versions(), **machine()}
        write_lines(COMMITTED, [source, *results])
    return results


if __name__ == "__main__":
    main()
