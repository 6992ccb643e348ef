"""The game where the density of the real texts is known: an LSTM oracle, and the demo's language at other sizes.

    python -m benchmarks.oracle --output runs/oracle --workers 2 --publish
    python -m benchmarks.oracle --output runs/oracle --only lstm --seeds 0

Part `lstm` is the classical test of text GANs with its measure NLL_oracle, beside measures that a collapsed generator
cannot win (see `oracle_lstm`); part `language` varies data and generator on the demo's formal language (see
`oracle_language`). In both, maximum likelihood stands beside the game at every temperature.

Every job is one condition with one seed, in a process of its own with one thread. It leaves one file in the output
folder when it is done, and a job whose file is there is not run again, so a run that was stopped goes on when it is
started again. `oracle.json` and `oracle.md` in the output folder are made of all files there; `--publish` writes
benchmarks/results/oracle.json and docs/oracle.md.
"""

import argparse
import os
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hf_mgan.demo.run import PACKAGES

from . import oracle_language, oracle_lstm
from .oracle_tables import LSTM, at, page
from .recipe import ONE_THREAD, Job, check_settings, finite, known, silence, write


ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "oracle.json"
PAGE = ROOT / "docs" / "oracle.md"
COMMAND = "python -m benchmarks.oracle"
LANGUAGE = "language"  # names all conditions of this part
LANGUAGES = {condition.name: condition for condition in oracle_language.CONDITIONS}
NAMES = [LSTM, *LANGUAGES]


def settings(tiny: bool) -> dict[str, Any]:
    """Return what all results in one folder must have in common."""
    lstm, language = (part.TINY if tiny else part.Sizes() for part in (oracle_lstm, oracle_language))
    return finite({LSTM: asdict(lstm), LANGUAGE: asdict(language)})


def do(job: Job, tiny: bool) -> dict[str, Any]:
    """Do a job in this process and return its result; an error becomes part of it."""
    result: dict[str, Any] = {"condition": job.name, "seed": job.seed, "settings": settings(tiny)}
    began = time.perf_counter()
    try:
        if job.name == LSTM:
            result.update(oracle_lstm.measure(oracle_lstm.TINY if tiny else oracle_lstm.Sizes(), job.seed))
        else:
            sizes = oracle_language.TINY if tiny else oracle_language.Sizes()
            result.update(oracle_language.measure(LANGUAGES[job.name], sizes, job.seed))
    except Exception:  # of whatever sort: the other jobs go on
        result["error"] = traceback.format_exc()
    versions = {name: version(name) for name in PACKAGES}
    return finite({**result, "job_seconds": time.perf_counter() - began, "versions": versions})


def in_a_process(job: Job, arguments: argparse.Namespace) -> None:
    """Do a job in a new process, which leaves its file."""
    command = [sys.executable, "-m", "benchmarks.oracle", "--child", job.name, str(job.seed)]
    command += ["--output", str(arguments.output), *["--tiny"] * arguments.tiny]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, check=False
    )
    if not job.path(arguments.output).exists():  # it died, and wrote nothing
        error = f"The process ended with {done.returncode}:\n{done.stderr[-2000:]}"
        result = {"condition": job.name, "seed": job.seed, "settings": settings(arguments.tiny), "error": error}
        write(job.path(arguments.output), result)


def run(jobs: list[Job], arguments: argparse.Namespace) -> None:
    """Do the jobs that have no file yet, so many at a time; each is told of when it ends."""
    there = known(arguments.output)
    waiting = [job for job in jobs if job not in there or (arguments.retry and "error" in there[job])]

    def one(job: Job) -> Job:
        job.path(arguments.output).unlink(missing_ok=True)
        in_a_process(job, arguments)
        return job

    print(f"{len(waiting)} of {len(jobs)} jobs to do", flush=True)
    with ThreadPoolExecutor(arguments.workers) as pool:
        for future in as_completed([pool.submit(one, job) for job in waiting]):
            job = future.result()
            print(f"{job.name}.{job.seed}: {outcome(known(arguments.output)[job])}", flush=True)


def outcome(result: dict[str, Any]) -> str:
    if "error" in result:
        return "failed: " + result["error"].strip().splitlines()[-1]
    before, after = (at(result[name], 1.0)["divergence"] for name in ("likelihood", "adversarial"))
    return f"divergence {before:.4f} > {after:.4f} bits ({result['job_seconds']:.0f} s)"


def summarise(folder: Path, publish: bool) -> None:
    """Write what all results in the folder come to, and print it."""
    results = known(folder)
    check_settings(list(results.values()))
    ordered = [results[job] for job in sorted(results, key=lambda job: (NAMES.index(job.name), job.seed))]
    record = {"command": COMMAND, "results": ordered}
    text = page(ordered)
    write(folder / "oracle.json", record, indent=1)
    (folder / "oracle.md").write_text(text)
    if publish:
        write(RESULTS, record, indent=1)
        PAGE.write_text(text)
    print(text)


def jobs_of(names: list[str], seeds: list[int]) -> list[Job]:
    """Return the jobs seed after seed, so that a run that is stopped has whole seeds.

    Args:
        names (`list[str]`): Conditions, or `language` for all of that part.
        seeds (`list[int]`): Seeds.

    Returns:
        `list[Job]`: In the order in which they start, the longest of a seed first.

    Raises:
        ValueError: If there is no such condition.
    """
    if unknown := set(names) - {*NAMES, LANGUAGE}:
        raise ValueError(f"There is no condition {sorted(unknown)}; there are {[LANGUAGE, *NAMES]}.")
    chosen = [name for name in NAMES if name in names or (LANGUAGE in names and name in LANGUAGES)]
    return [Job(name, seed) for seed in seeds for name in chosen]


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--only", nargs="+", default=[LSTM, LANGUAGE], help=f"{LANGUAGE}, or {', '.join(NAMES)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1, help="jobs at a time, one thread each")
    parser.add_argument("--publish", action="store_true", help=f"write {RESULTS.name} and {PAGE.name}")
    parser.add_argument("--retry", action="store_true", help="do jobs again that failed")
    parser.add_argument("--tiny", action="store_true", help="a dry run at tiny size")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.workers < 1:
        parser.error(f"--workers must be at least 1, got {arguments.workers}")
    if arguments.tiny and arguments.publish:
        parser.error("--tiny is a dry run: there is nothing to publish")
    arguments.output = arguments.output.resolve()
    return arguments


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    if arguments.child is not None:
        silence()
        job = Job(arguments.child[0], int(arguments.child[1]))
        write(job.path(arguments.output), do(job, arguments.tiny))
        return
    jobs = jobs_of(arguments.only, arguments.seeds)
    check_settings([{"settings": settings(arguments.tiny)}, *known(arguments.output).values()])
    run(jobs, arguments)
    summarise(arguments.output, arguments.publish)


if __name__ == "__main__":
    main()
