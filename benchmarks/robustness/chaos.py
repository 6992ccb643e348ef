"""Kill a run at random moments, and let it go on each time: does it end as one that nobody has killed?

    python -m benchmarks.robustness.chaos                 # 50 kills with SIGKILL, at least 15 of them while it saves
    python -m benchmarks.robustness.chaos --publish       # and write the committed results

Every second step is saved, the two newest checkpoints are kept, and a kill falls between two bytes as well as between
two steps. After each: is every checkpoint that lies there whole? Then `resume_from_checkpoint=True`, and at the end:
are the weights of both models, and the log, those of the run that was left alone?
"""

import argparse
import multiprocessing
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from hf_mgan.training.whole_checkpoint import fault

from ..sweep import RESULTS, write_lines
from ..testbed import machine, versions
from .tiny_runs import log_of, make_trainer, save_models, weights


MODULE = "benchmarks.robustness.chaos"
COMMITTED = RESULTS / "chaos.jsonl"
SETTINGS = {
    "max_steps": 40,
    "save_steps": 2,
    "save_total_limit": 2,
    "steps_per_generation": 4,
    "gradient_accumulation_steps": 2,
    "discriminator_warmup_steps": 4,
    "discriminator_replay_fraction": 0.25,
    "logging_steps": 3,
}
NOT_YET, TRAINING, SAVING, DONE = range(4)


def train(models: Path, run: Path, phase: Any, resume: bool) -> None:
    """Train in this process, telling its phase; save the final weights and the log."""
    torch.set_num_threads(1)
    trainer = make_trainer(models, run, **SETTINGS)
    save = trainer._save_checkpoint

    def told(*args: Any) -> None:
        phase.value = SAVING
        save(*args)
        phase.value = TRAINING

    trainer._save_checkpoint = told
    phase.value = TRAINING
    trainer.train(resume_from_checkpoint=resume or None)
    torch.save({"weights": weights(trainer), "log": log_of(trainer)}, run / "final.pt")
    phase.value = DONE


def killed(process: Any, phase: Any, rng: random.Random, while_saving: bool) -> int:
    """Kill a process at a random moment; return its phase, `DONE` if it was over before."""
    while phase.value == NOT_YET and process.is_alive():
        time.sleep(0.002)
    deadline = time.perf_counter() + rng.uniform(0.0, 4.0)
    while time.perf_counter() < deadline and process.is_alive():
        time.sleep(0.002)
    if while_saving:  # a save takes tens of milliseconds
        while phase.value != SAVING and process.is_alive():
            time.sleep(0.0002)
        time.sleep(rng.uniform(0.0, 0.05))
    if process.is_alive():
        os.kill(process.pid, signal.SIGSTOP)
        found = phase.value
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        return found
    process.join()
    return DONE if process.exitcode == 0 else -1


def checkpoints(run: Path) -> list[Path]:
    return sorted(run.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def main(words: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--while_saving", type=float, default=0.5, help="share of the kills that are aimed at a save")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--publish", action="store_true", help="write the committed results")
    arguments = parser.parse_args(words)
    rng, context, torch_threads = random.Random(arguments.seed), multiprocessing.get_context("fork"), 1
    torch.set_num_threads(torch_threads)
    counts = {"kills": 0, "while_saving": 0, "in_warm_up": 0, "runs": 0, "not_whole": 0, "unusable": 0, "unequal": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_models(folder)
        phase = context.Value("i", NOT_YET, lock=False)
        alone = context.Process(target=train, args=(folder, folder / "alone", phase, False))
        alone.start()
        alone.join()
        expected = torch.load(folder / "alone" / "final.pt")
        while counts["kills"] < arguments.kills:
            counts["runs"] += 1
            run = folder / f"run-{counts['runs']}"
            finished = False
            while not finished:
                phase.value = NOT_YET
                resume = bool(checkpoints(run))
                process = context.Process(target=train, args=(folder, run, phase, resume))
                process.start()
                if counts["kills"] >= arguments.kills:
                    process.join()
                    found = DONE if process.exitcode == 0 else -1
                else:
                    found = killed(process, phase, rng, rng.random() < arguments.while_saving)
                finished = found in (DONE, -1)
                counts["unusable"] += found == -1
                if not finished:
                    counts["kills"] += 1
                    counts["while_saving"] += found == SAVING
                    counts["in_warm_up"] += not any(one.name != "checkpoint-0" for one in checkpoints(run))
                    problems = [problem for one in checkpoints(run) if (problem := fault(one))]
                    counts["not_whole"] += len(problems)
                    moment = "while it saved" if found == SAVING else "between saves"
                    names = ", ".join(one.name for one in checkpoints(run)) or "no checkpoint yet"
                    print(f"kill {counts['kills']:3} {moment:14} {names:32} {problems or 'whole'}", flush=True)
            if (run / "final.pt").exists():
                ours = torch.load(run / "final.pt")
                unequal = [at for at, one in expected["weights"].items() if not torch.equal(one, ours["weights"][at])]
                differing = [pair for pair in zip(expected["log"], ours["log"], strict=False) if pair[0] != pair[1]]
                differs = bool(unequal or differing or len(expected["log"]) != len(ours["log"]))
                counts["unequal"] += differs
                if differs:
                    print(f"run {counts['runs']}: {len(unequal)} weights differ; of the log first {differing[:1]}")
    print(
        f"{counts['kills']} kills, {counts['while_saving']} of them while a checkpoint was written; {counts['runs']} "
        f"runs ended, {counts['unequal']} of them otherwise than the one that was left alone; {counts['not_whole']} "
        f"checkpoints were not whole, {counts['unusable']} could not be gone on from"
    )
    if arguments.publish:
        source = {
            "command": f"python -m {MODULE} --publish",
            "seed": arguments.seed,
            "versions": versions(),
            **machine(),
        }
        write_lines(COMMITTED, [{**source, **counts}])
    return counts


if __name__ == "__main__":
    main()
