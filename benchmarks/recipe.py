"""What the recipe of the demo is made of: how far it is from the best, and what each of its parts is worth.

    python -m benchmarks.recipe --output runs/recipe --workers 8
    python -m benchmarks.recipe --output runs/recipe --only headroom warmup_0 --seeds 0 1
    python -m benchmarks.recipe --output runs/recipe --merge elsewhere.jsonl another_folder --publish

Every job is one condition with one seed: a game on the demo's formal language, whose divergence is exact, in a
process of its own with one thread. A job leaves one file in the output folder when it is done, and a job whose file is
there is not run again, so a run that was stopped goes on when it is started again. Jobs of several machines are put
together by `--merge`. `recipe.json` and `recipe.md` in the output folder are made of all files there; `--publish`
writes benchmarks/results/recipe.json and docs/recipe.md.
"""

import argparse
import json
import logging
import math
import os
import re
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import torch
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from hf_mgan.demo.run import PACKAGES, DemoArguments

from .recipe_conditions import CONDITIONS, GROUPS, Condition, selected
from .recipe_game import play
from .recipe_players import METRICS, digest, make_players
from .recipe_tables import page, tables


ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "recipe.json"
PAGE = ROOT / "docs" / "recipe.md"
COMMAND = "python -m benchmarks.recipe"
PLAYERS = "players"  # the name of the jobs that make the players of a seed
TINY = DemoArguments(
    sentences=400, batch_size=16, likelihood_steps=12, encoder_steps=4, warmup_steps=2, steps=10, samples=50
)
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
}


class Job(NamedTuple):
    """A condition, or the players, with a seed."""

    name: str
    seed: int

    def path(self, folder: Path) -> Path:
        """Return the file that it leaves in the folder."""
        return folder / f"{self.name}.{self.seed}.json"


def sizes_of(tiny: bool) -> DemoArguments:
    return TINY if tiny else DemoArguments()


def settings(sizes: DemoArguments) -> dict[str, Any]:
    """Return what all results in one folder must have in common."""
    return {name: value for name, value in asdict(sizes).items() if name not in ("output_dir", "seeds")}


def finite(value: Any) -> Any:
    """Return the value with every number rounded to six digits; None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def write(path: Path, value: Any, indent: int | None = None) -> None:
    """Write JSON so that the file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")
    os.replace(unfinished, path)


def do(job: Job, sizes: DemoArguments, players: Path) -> dict[str, Any]:
    """Do a job in this process and return its result; an error becomes part of it."""
    result: dict[str, Any] = {"condition": job.name, "seed": job.seed, "settings": settings(sizes)}
    folder = players / f"seed_{job.seed}"
    began = time.perf_counter()
    try:
        if job.name == PLAYERS:
            result.update(make_players(sizes, job.seed, folder))
        else:
            result.update(described(CONDITIONS[job.name]), **play(CONDITIONS[job.name], sizes, job.seed, folder))
        result["players"] = digest(folder)
    except Exception:  # of whatever sort: the other jobs go on
        result["error"] = traceback.format_exc()
    versions = {name: version(name) for name in PACKAGES}
    return finite({**result, "job_seconds": time.perf_counter() - began, "versions": versions})


def described(condition: Condition) -> dict[str, Any]:
    """Return what a condition changes."""
    values = asdict(condition)
    return {"group": values.pop("group"), "config": values.pop("config"), "flags": values}


def in_this_process(job: Job, arguments: argparse.Namespace) -> None:
    """Do a job and leave its file."""
    write(job.path(arguments.output), do(job, sizes_of(arguments.tiny), arguments.players))


def silence() -> None:
    """Keep libraries from writing, and from using more than one thread."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    set_verbosity_error()
    disable_progress_bar()
    datasets.disable_progress_bars()


def in_a_process(job: Job, arguments: argparse.Namespace) -> None:
    """Do a job in a new process."""
    command = [sys.executable, "-m", "benchmarks.recipe", "--child", job.name, str(job.seed)]
    command += ["--output", str(arguments.output), "--players", str(arguments.players)]
    command += ["--tiny"] * arguments.tiny
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, check=False
    )
    if not job.path(arguments.output).exists():  # it died, and wrote nothing
        error = f"The process ended with {done.returncode}:\n{done.stderr[-2000:]}"
        common = settings(sizes_of(arguments.tiny))
        write(
            job.path(arguments.output),
            {"condition": job.name, "seed": job.seed, "settings": common, "error": error},
        )


def results_in(source: Path) -> Iterator[dict[str, Any]]:
    """Yield all results in a folder, in a bundle (a result a line) or in a merged file.

    The last line of a bundle may be cut where its machine stopped: it is left out.
    """
    if source.is_dir():
        for path in sorted(source.glob("*.json")):
            if re.fullmatch(r"\w[\w.-]*\.\d+\.json", path.name):
                yield json.loads(path.read_text())
        return
    text = source.read_text()
    if source.suffix == ".json":
        yield from json.loads(text)["results"]
        return
    lines = text.split("\n")
    for line in lines[:-1] if text.endswith("\n") else lines:
        try:
            result = json.loads(line)
        except json.JSONDecodeError:
            print(f"{source}: a line of {len(line)} characters is no result and is left out")
            continue
        yield result


def known(folder: Path) -> dict[Job, dict[str, Any]]:
    """Return the results in a folder by job."""
    return {Job(one["condition"], one["seed"]): one for one in results_in(folder)} if folder.is_dir() else {}


def merge(sources: list[Path], folder: Path) -> None:
    """Unpack results into the folder. A result takes the place of an error, and of nothing else.

    Raises:
        ValueError: If results were made with other sizes than those in the folder.
    """
    there = known(folder)
    for source in sources:
        counts = {"new": 0, "there already": 0, "different from the one there, which is kept": 0}
        for result in results_in(source):
            job = Job(result["condition"], result["seed"])
            check_settings([*there.values(), result])
            if job not in there or ("error" in there[job] and "error" not in result):
                write(job.path(folder), result)
                there[job] = result
                counts["new"] += 1
            else:
                counts[list(counts)[1 if there[job] == result or "error" in result else 2]] += 1
        print(f"{source}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))


def check_settings(results: list[dict[str, Any]]) -> None:
    different = {json.dumps(one["settings"], sort_keys=True) for one in results}
    if len(different) > 1:
        raise ValueError("Results of different sizes do not go together: " + " and ".join(sorted(different)))


def jobs_of(conditions: list[Condition], seeds: list[int]) -> list[Job]:
    """Return the jobs in their order: group after group, and within a group seed after seed.

    A sweep that is stopped has then whole seeds, of the most important group first.
    """
    groups = [[one for one in conditions if one.group == group] for group in GROUPS]
    return [Job(one.name, seed) for group in groups for seed in seeds for one in group]


class Bundle:
    """A file with one finished result a line, to be brought from one machine to another.

    Args:
        path (`Path`, *optional*): The file; without one nothing is written. What it holds already stays.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.there: set[Job] = set()
        if path is not None and path.exists():
            self.there = {Job(one["condition"], one["seed"]) for one in results_in(path) if "error" not in one}

    def add(self, result: dict[str, Any]) -> None:
        """Append a result, unless it is there."""
        job = Job(result["condition"], result["seed"])
        if self.path is None or job in self.there:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cut = self.path.exists() and not self.path.read_text().endswith("\n")
        with self.path.open("a") as file:
            file.write("\n" * cut + json.dumps(result, ensure_ascii=False) + "\n")
        self.there.add(job)


def is_done(job: Job, there: dict[Job, dict[str, Any]], arguments: argparse.Namespace) -> bool:
    """Return whether a job has its result, and players also their folder, which results of elsewhere come without."""
    if job not in there or (arguments.retry and "error" in there[job]):
        return False
    return job.name != PLAYERS or "error" in there[job] or has_players(arguments.players, job.seed)


def has_players(folder: Path, seed: int) -> bool:
    return (folder / f"seed_{seed}" / METRICS).exists()


def run(
    jobs: list[Job],
    arguments: argparse.Namespace,
    bundle: Bundle,
    start: Callable[[Job, argparse.Namespace], None] = in_a_process,
) -> None:
    """Do the jobs that have no file yet, so many at a time; each is told of when it ends.

    Args:
        jobs (`list[Job]`): In the order in which they start.
        arguments (`argparse.Namespace`): Of the command.
        bundle ([`Bundle`]): Gets every result.
        start (`Callable`, *optional*): Does a job and leaves its file.
    """
    last_start = math.inf if arguments.stop_after is None else arguments.began + arguments.stop_after
    there = known(arguments.output)

    def one(job: Job) -> Job | None:
        if time.monotonic() > last_start:
            return None
        job.path(arguments.output).unlink(missing_ok=True)
        start(job, arguments)
        return job

    waiting = [job for job in jobs if not is_done(job, there, arguments)]
    for job in jobs:
        if job not in waiting:
            bundle.add(there[job])
    with ThreadPoolExecutor(arguments.workers) as pool:
        for future in as_completed([pool.submit(one, job) for job in waiting]):
            if (job := future.result()) is not None:
                result = json.loads(job.path(arguments.output).read_text())
                bundle.add(result)
                print(f"{job.name}.{job.seed}: {outcome(result)}", flush=True)


def outcome(result: dict[str, Any]) -> str:
    if "error" in result:
        return "failed: " + result["error"].strip().splitlines()[-1]
    quality = result["likelihood"][0] if result["condition"] == PLAYERS else result["generator"]
    return f"divergence {quality['divergence']:.4f} bits ({result['job_seconds']:.0f} s)"


def summarise(folder: Path, publish: bool) -> None:
    """Write what all results in the folder come to: the merged file, the tables, and the published ones if asked."""
    results = known(folder)
    check_settings(list(results.values()))
    ordered = [results[job] for job in sorted(results, key=lambda job: (*place(job.name), job.seed))]
    record = {"command": COMMAND, "results": ordered}
    write(folder / "recipe.json", record, indent=1)
    (folder / "recipe.md").write_text(tables(ordered))
    if publish:
        write(RESULTS, record, indent=1)
        PAGE.write_text(page(ordered))


def place(name: str) -> tuple[int, str]:
    """Return what puts the results in order: the players, then the conditions, then what is a condition no more."""
    names = [PLAYERS, *CONDITIONS]
    return (names.index(name), "") if name in names else (len(names), name)


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--players", type=Path, help="folder of the players; players/ in the output by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1, help="jobs at a time, one thread each")
    names = ", ".join((*GROUPS, PLAYERS))
    parser.add_argument("--only", nargs="+", default=list(GROUPS), help=f"conditions, or {names}")
    parser.add_argument("--bundle", type=Path, help="a file that gets every finished result, one a line")
    parser.add_argument(
        "--merge", type=Path, nargs="+", help="bundles or folders to put in the output; nothing is run"
    )
    parser.add_argument("--publish", action="store_true", help=f"write {RESULTS.name} and {PAGE.name}")
    parser.add_argument("--retry", action="store_true", help="do jobs again that failed")
    parser.add_argument("--stop-after", type=float, help="seconds after which no job is started")
    parser.add_argument("--tiny", action="store_true", help="a dry run at tiny size")
    parser.add_argument("--list", action="store_true", help="name the conditions, and run nothing")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.workers < 1:
        parser.error(f"--workers must be at least 1, got {arguments.workers}")
    arguments.output = arguments.output.resolve()
    arguments.players = (arguments.players or arguments.output / PLAYERS).resolve()
    arguments.began = time.monotonic()
    return arguments


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    if arguments.child is not None:
        silence()
        in_this_process(Job(arguments.child[0], int(arguments.child[1])), arguments)
        return
    if arguments.merge is not None:
        merge(arguments.merge, arguments.output)
        summarise(arguments.output, arguments.publish)
        return
    conditions = playable([name for name in arguments.only if name != PLAYERS])
    if arguments.list:
        print("\n".join(f"{one.group:10} {one.name:30} {one.text}" for one in conditions))
        return
    there = known(arguments.output)
    check_settings([{"settings": settings(sizes_of(arguments.tiny))}, *there.values()])
    bundle = Bundle(arguments.bundle)
    games = jobs_of(conditions, arguments.seeds)
    seeds = [
        seed
        for seed in arguments.seeds
        if PLAYERS in arguments.only or any(job.seed == seed and not is_done(job, there, arguments) for job in games)
    ]
    run([Job(PLAYERS, seed) for seed in seeds], arguments, bundle)
    lacking = [seed for seed in seeds if not has_players(arguments.players, seed)]
    if lacking:
        print(f"There are no players for the seeds {lacking}, so no game is played with them")
    run([job for job in games if job.seed not in lacking], arguments, bundle)
    summarise(arguments.output, arguments.publish)


def playable(only: list[str]) -> list[Condition]:
    """Return the conditions that this version of the package has all settings for, and name the others."""
    conditions = []
    for condition in selected(only):
        if missing := condition.missing():
            print(f"{condition.name} is left out: there is no {', '.join(missing)} in this version of the package")
        else:
            conditions.append(condition)
    return conditions


if __name__ == "__main__":
    main()
