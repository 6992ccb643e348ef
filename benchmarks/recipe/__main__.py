"""What the demo's recipe is made of: how far it is from the best, and what each of its parts is worth.

    python -m benchmarks.recipe --output runs/recipe --workers 8
    python -m benchmarks.recipe --output runs/recipe --conditions headroom warmup_0 --seeds 0 1
    python -m benchmarks.recipe --output runs/recipe --merge elsewhere --publish
    python -m benchmarks.recipe --publish

Every job is one condition with one seed: adversarial training on the demo's formal language, whose divergence is
exact, in a process of its own with one thread. `recipe.jsonl` and `recipe.md` in the output folder are made of all its
results. `--publish` puts them in the place of those of benchmarks/results/recipe.jsonl with the same condition and
seed, and writes docs/recipe.md from that file; without `--output` it writes the page alone.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hf_mgan.demo.run import DemoArguments

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
    run_jobs,
    silence,
    write_file,
    write_lines,
)
from .conditions import CONDITIONS, GROUPS, Condition, selected
from .initial_models import METRICS, digest, make_initial_models
from .tables import INITIAL_MODELS, page, tables
from .training import train


MODULE = "benchmarks.recipe"
COMMITTED = RESULTS / "recipe.jsonl"
PAGE = PAGES / "recipe.md"
TINY = DemoArguments(
    sentences=400,
    batch_size=16,
    likelihood_steps=12,
    encoder_steps=4,
    warmup_steps=2,
    steps=10,
    final_steps=2,
    samples=50,
)


def sizes_of(tiny: bool) -> DemoArguments:
    return TINY if tiny else DemoArguments()


def settings(sizes: DemoArguments) -> dict[str, Any]:
    """Return what all results in one folder must have in common."""
    return {name: value for name, value in asdict(sizes).items() if name not in ("output_dir", "seeds", "final_steps")}


def do(job: Job, sizes: DemoArguments, models: Path) -> dict[str, Any]:
    """Do a job in this process and return its result; an error becomes part of it."""
    folder = models / f"seed_{job.seed}"

    def measure() -> dict[str, Any]:
        if job.name == INITIAL_MODELS:
            result = make_initial_models(sizes, job.seed, folder)
        else:
            condition = CONDITIONS[job.name]
            result = {"config": condition.config, **train(condition, sizes, job.seed, folder)}
        return {**result, "initial_models": digest(folder)}

    return do_job(job, settings(sizes), measure)


def jobs_of(conditions: list[Condition], seeds: list[int]) -> list[Job]:
    """Return the jobs in their order: group after group, and within a group seed after seed.

    A sweep that is stopped has then whole seeds, of the most important group first.
    """
    groups = [[one for one in conditions if one.group == group] for group in GROUPS]
    return [Job(one.name, seed) for group in groups for seed in seeds for one in group]


def has_models(folder: Path, seed: int) -> bool:
    return (folder / f"seed_{seed}" / METRICS).exists()


def outcome(result: dict[str, Any]) -> str:
    quality = result["likelihood"][0] if result["condition"] == INITIAL_MODELS else result["generator"]
    return f"divergence {quality['divergence']:.4f} bits ({result['job_seconds']:.0f} s)"


def ordered(results: dict[Job, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the results in order: the initial models, then the conditions, then what is a condition no more."""
    names = [INITIAL_MODELS, *CONDITIONS]

    def place(job: Job) -> tuple[int, str, int]:
        return (names.index(job.name), "", job.seed) if job.name in names else (len(names), job.name, job.seed)

    return [results[job] for job in sorted(results, key=place)]


def summarise(folder: Path) -> None:
    """Write what all results in the folder come to."""
    results = ordered(read_folder(folder))
    check_settings(results)
    write_lines(folder / "recipe.jsonl", results)
    (folder / "recipe.md").write_text(tables(results))


def run(conditions: list[Condition], arguments: argparse.Namespace) -> None:
    """Do all jobs that are not done: the initial models first, which every other job of their seed begins with."""
    sizes = sizes_of(arguments.tiny)

    def start(job: Job) -> None:
        options = ["--models", str(arguments.models), *["--tiny"] * arguments.tiny]
        do_in_process(job, MODULE, options, arguments.output, settings(sizes))

    there = read_folder(arguments.output)
    check_settings([{"settings": settings(sizes)}, *there.values()])
    jobs = jobs_of(conditions, arguments.seeds)
    waiting = [job for job in jobs if job not in there or (arguments.retry and "error" in there[job])]
    seeds = [seed for seed in arguments.seeds if any(job.seed == seed for job in waiting)]
    # Results of another machine come without the models.
    lacking = [Job(INITIAL_MODELS, seed) for seed in seeds if not has_models(arguments.models, seed)]
    run_jobs(lacking, arguments, start, outcome, incomplete=lacking)
    lacking = [job for job in lacking if not has_models(arguments.models, job.seed)]
    if lacking:
        print(f"There are no initial models for the seeds {[job.seed for job in lacking]}: nothing is trained there")
    run_jobs([job for job in jobs if Job(INITIAL_MODELS, job.seed) not in lacking], arguments, start, outcome)


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--models", type=Path, help="folder of the initial models; initial_models/ in the output")
    parser.add_argument(
        "--conditions", nargs="+", default=list(GROUPS), help=f"names of conditions, or {', '.join(GROUPS)}"
    )
    parser.add_argument("--list", action="store_true", help="name the conditions, and run nothing")
    arguments = parse_arguments(parser, words)
    if arguments.output is not None:
        arguments.models = (arguments.models or arguments.output / INITIAL_MODELS).resolve()
    return arguments


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    if arguments.child is not None:
        silence()
        job = Job(arguments.child[0], int(arguments.child[1]))
        write_file(job.path(arguments.output), do(job, sizes_of(arguments.tiny), arguments.models))
        return
    conditions = selected(arguments.conditions)
    if arguments.list:
        print("\n".join(f"{one.group:10} {one.name:30} {one.text}" for one in conditions))
        return
    if arguments.output is not None:
        if arguments.merge is not None:
            merge(arguments.merge, arguments.output)
        else:
            run(conditions, arguments)
        summarise(arguments.output)
    if arguments.publish:
        publish(arguments.output, COMMITTED, PAGE, ordered, page)


if __name__ == "__main__":
    main()
