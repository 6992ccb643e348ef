"""Rewards that can be checked, on the demo's language: can they be raised without text that nobody would write?

    python -m benchmarks.verifiable --output runs/verifiable --workers 8
    python -m benchmarks.verifiable --output runs/verifiable --rewards dog --conditions grpo real --seeds 0
    python -m benchmarks.verifiable --output runs/verifiable --publish
    python -m benchmarks.verifiable --publish

Every job is one way to raise one reward with one seed, in a process of its own with one thread: GRPO with the
divergence to the start as its anchor, GRPO with a discriminator, in several combinations, a filter with a
discriminator at generation, and imitation of that. All begin with the generator of maximum likelihood of that seed.
Measured is the exact Jensen-Shannon divergence to the language tilted by the reward.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hf_mgan.demo.run import DemoArguments

from ..recipe.__main__ import TINY as TINY_RECIPE
from ..recipe.initial_models import digest, make_initial_models
from ..sweep import (
    PAGES,
    RESULTS,
    Job,
    add_arguments,
    check_settings,
    do_in_process,
    do_job,
    merge,
    parse_arguments,
    publish,
    read_folder,
    read_lines,
    run_jobs,
    silence,
    write_file,
    write_lines,
)
from .conditions import CONDITIONS, GROUPS, Condition, selected
from .tables import draw, page
from .target import REWARDS
from .training import run


MODULE = "benchmarks.verifiable"
COMMITTED = RESULTS / "verifiable.jsonl"
PAGE = PAGES / "verifiable.md"
PICTURE = PAGES / "_static" / "verifiable.svg"
INITIAL_MODELS = "initial_models"


def sizes_of(tiny: bool) -> DemoArguments:
    return TINY_RECIPE if tiny else DemoArguments()


def settings(sizes: DemoArguments) -> dict[str, Any]:
    """Return what all results in one folder must have in common."""
    return {name: value for name, value in asdict(sizes).items() if name not in ("output_dir", "seeds")}


def do(job: Job, sizes: DemoArguments, models: Path) -> dict[str, Any]:
    """Do a job in this process and return its result; an error becomes part of it."""
    folder = models / f"seed_{job.seed}"

    def measure() -> dict[str, Any]:
        if job.name == INITIAL_MODELS:
            return make_initial_models(sizes, job.seed, folder)
        reward, _, condition = job.name.partition(".")
        made = run(CONDITIONS[condition], REWARDS[reward], sizes, job.seed, folder)
        return {"reward": reward, **made, "initial_models": digest(folder)}

    return do_job(job, settings(sizes), measure)


def jobs_of(conditions: list[Condition], rewards: list[str], seeds: list[int]) -> list[Job]:
    """Return the jobs in their order: seed after seed, and within a seed reward after reward."""
    return [Job(f"{reward}.{one.name}", seed) for seed in seeds for reward in rewards for one in conditions]


def outcome(result: dict[str, Any]) -> str:
    if result["condition"] == INITIAL_MODELS:
        return f"{result['job_seconds']:.0f} s"
    row = list(result["rows"].values())[-1][-1]
    measured = f"reward {row['reward']:.2f}, both {row['both']:.2f}, JS {row['divergence']:.3f}"
    return f"{measured} ({result['job_seconds']:.0f} s)"


def ordered(results: dict[Job, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the results in order: the initial models, then reward after reward."""
    names = [INITIAL_MODELS, *(f"{reward}.{one}" for reward in REWARDS for one in CONDITIONS)]
    return [results[job] for job in sorted(results, key=lambda job: (names.index(job.name), job.seed))]


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--models", type=Path, help="folder of the initial models; initial_models/ in the output")
    parser.add_argument("--rewards", nargs="+", default=list(REWARDS), choices=list(REWARDS))
    parser.add_argument(
        "--conditions", nargs="+", default=list(GROUPS), help=f"names of conditions, or {', '.join(GROUPS)}"
    )
    arguments = parse_arguments(parser, words)
    if arguments.output is not None:
        arguments.models = (arguments.models or arguments.output / INITIAL_MODELS).resolve()
    return arguments


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    sizes = sizes_of(arguments.tiny)
    if arguments.child is not None:
        silence()
        job = Job(arguments.child[0], int(arguments.child[1]))
        write_file(job.path(arguments.output), do(job, sizes, arguments.models))
        return
    if arguments.output is not None:
        if arguments.merge is not None:
            merge(arguments.merge, arguments.output)
        else:
            _run(selected(arguments.conditions), arguments, sizes)
        results = ordered(read_folder(arguments.output))
        check_settings(results)
        write_lines(arguments.output / "verifiable.jsonl", results)
        (arguments.output / "verifiable.md").write_text(page(results))
    if arguments.publish:
        publish(arguments.output, COMMITTED, PAGE, ordered, page)
        draw(read_lines(COMMITTED), PICTURE)


def _run(conditions: list[Condition], arguments: argparse.Namespace, sizes: DemoArguments) -> None:
    """Do all jobs that are not done: first the initial models, which every other job of their seed begins with."""

    def start(job: Job) -> None:
        options = ["--models", str(arguments.models), *["--tiny"] * arguments.tiny]
        do_in_process(job, MODULE, options, arguments.output, settings(sizes))

    arguments.output.mkdir(parents=True, exist_ok=True)
    check_settings([{"settings": settings(sizes)}, *read_folder(arguments.output).values()])
    made = [Job(INITIAL_MODELS, seed) for seed in arguments.seeds]
    run_jobs(made, arguments, start, outcome)
    run_jobs(jobs_of(conditions, arguments.rewards, arguments.seeds), arguments, start, outcome)


if __name__ == "__main__":
    main()
