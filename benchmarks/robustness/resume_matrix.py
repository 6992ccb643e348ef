"""Does a resumed run end as one that was never interrupted? Weights bit for bit, and every entry of the log.

    python -m benchmarks.robustness.resume_matrix                     # 60 cells, a few minutes on two cores
    python -m benchmarks.robustness.resume_matrix --publish           # and write the committed results

Cells: 1 and 2 processes; all weights, LoRA, 4-bit with LoRA (of both models); a checkpoint on a boundary of generation
batches, off it, in the second epoch, within a logging window, and in the discriminator's warm-up; plain, and with
replay, warm-up, a KL reference and two iterations per batch. With one process a generation batch serves two steps of
the plain run and four of the other, an epoch has 8 and 16, and every fourth or eighth is logged; with two processes an
epoch has half as many.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..sweep import RESULTS, write_lines
from ..testbed import ROOT, machine, versions
from .tiny_runs import KINDS, log_of, make_trainer, save_models, since, weights


MODULE = "benchmarks.robustness.resume_matrix"
COMMITTED = RESULTS / "resume_matrix.jsonl"
SHARED = {"steps_per_generation": 4, "gradient_accumulation_steps": 2, "num_generations": 2}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"max_steps": 16, "logging_steps": 4},
    "replay, warm-up, KL, 2 iterations": {
        "max_steps": 26,
        "logging_steps": 8,
        "discriminator_replay_fraction": 0.25,
        "discriminator_warmup_steps": 16,
        "beta": 0.1,
        "num_iterations": 2,
    },
}
WARM_UP = {"discriminator_warmup_steps": 16}
# Position -> step of the checkpoint, for one and two iterations per batch.
POSITIONS = {
    "on a boundary": (4, 8),
    "off a boundary": (3, 3),
    "in the second epoch": (12, 24),
    "within a logging window": (6, 4),
    "in the warm-up": (0, 0),
}


class StopInWarmUp(TrainerCallback):
    """Asks one process of the run to stop in the middle of the discriminator's warm-up."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Send the signal at the first entry of the warm-up."""
        if "discriminator/warmup_step" in (logs or {}) and int(os.environ.get("RANK", "0")) == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def cells(models: Path, folder: Path, kind: str, option: str, processes: int) -> list[dict[str, Any]]:
    """Run the five cells of a row in this process, with as many others as there are; return what came out."""
    several = int("2 iterations" in option)
    settings = {**SHARED, **OPTIONS[option]}
    if processes > 1:
        settings["ddp_backend"] = "gloo"

    at_start = weights(make_trainer(models, folder / "start", kind, **settings))

    def run(name: str, resumed_from: Path | None = None, callbacks: Any = None, **more: Any) -> Any:
        trainer = make_trainer(models, folder / name, kind, callbacks, **{**settings, **more})
        trainer.train(resume_from_checkpoint=None if resumed_from is None else str(resumed_from))
        return trainer

    whole = run("whole")
    results = []
    for position, steps in POSITIONS.items():
        start, expected, more = time.perf_counter(), whole, {"save_strategy": "no"}
        checkpoint = folder / "whole" / f"checkpoint-{steps[several]}"
        if not steps[several]:
            more = {**more, **WARM_UP}
            if not several:
                expected = run("warmed", **more)
            try:
                run("stopped", callbacks=[StopInWarmUp()], **more)
            except SystemExit:  # what SIGTERM comes to
                checkpoint = folder / "stopped" / "checkpoint-0"
        resumed = run(f"resumed-{len(results)}", checkpoint, **more)
        ours, theirs = weights(expected), weights(resumed)
        moved = [name for name, one in at_start.items() if not torch.equal(one, ours[name])]
        unequal = [name for name, one in ours.items() if not torch.equal(one, theirs[name])]
        state = json.loads((checkpoint / "discriminator" / "adversarial_state.json").read_text())
        results.append(
            {
                "processes": processes,
                "trained": kind,
                "options": option,
                "checkpoint": position,
                "step": steps[several],
                "epoch": state["epoch"],
                "warm_up": torch.load(checkpoint / "discriminator" / "training_state.pt")["num_updates"],
                "half_used_batch": _has_batch(checkpoint),
                "weights_unequal": len(unequal),
                "weights": len(ours),
                "weights_trained": len(moved),
                "logs_equal": log_of(expected) == log_of(resumed),
                "entries": len(log_of(resumed)),
                "seconds": since(start),
            }
        )
    return results


def _has_batch(checkpoint: Path) -> bool:
    progress = torch.load(checkpoint / "discriminator" / "progress_0.pt", weights_only=True)
    return progress["generation_batch"] is not None


def row(kind: str, option: str, processes: int) -> list[dict[str, Any]]:
    """Run the cells of a row in processes of their own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_models(folder)
        launcher = [sys.executable]
        if processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [*launcher, "-m", MODULE, "--row", kind, option, str(processes), "--folder", str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=1200)
        if ran.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {ran.returncode}:\n{ran.stderr[-4000:]}")
        per_process = [json.loads((folder / f"cells_{rank}.json").read_text()) for rank in range(processes)]
    for other in per_process[1:]:  # each process compares its own weights and its own log
        for ours, theirs in zip(per_process[0], other, strict=True):
            ours["weights_unequal"] = max(ours["weights_unequal"], theirs["weights_unequal"])
            ours["logs_equal"] &= theirs["logs_equal"]
    return per_process[0]


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--options", nargs="+", default=list(OPTIONS), choices=list(OPTIONS))
    parser.add_argument("--publish", action="store_true", help="write the committed results")
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> list[dict[str, Any]]:
    arguments = parsed_arguments(words)
    if arguments.row:
        kind, option, processes = arguments.row
        results = cells(arguments.folder, arguments.folder, kind, option, int(processes))
        (arguments.folder / f"cells_{os.environ.get('RANK', '0')}.json").write_text(json.dumps(results))
        return results
    found = []
    for processes in arguments.processes:
        for kind in arguments.kinds:
            for option in arguments.options:
                for cell in row(kind, option, processes):
                    found.append(cell)
                    same = f"{cell['weights'] - cell['weights_unequal']} of {cell['weights']} weights equal"
                    logs = "equal" if cell["logs_equal"] else "unequal"
                    print(
                        f"{processes} process(es) | {kind:12} | {option:33} | {cell['checkpoint']:23} | {same}, logs "
                        f"{logs} | {cell['seconds']} s",
                        flush=True,
                    )
    good = sum(not cell["weights_unequal"] and cell["logs_equal"] for cell in found)
    print(f"{good} of {len(found)} cells: all weights of both models and all entries of the log equal")
    if arguments.publish:
        source = {"command": f"python -m {MODULE} --publish", "versions": versions("bitsandbytes"), **machine()}
        write_lines(COMMITTED, [{**source, "equal": good, "cells": len(found)}, *found])
    return found


if __name__ == "__main__":
    main()
