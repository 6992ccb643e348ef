"""Adversarial training where the density of real text is known: an LSTM, and the demo's language at other sizes.

    python -m benchmarks.oracle --output runs/oracle --workers 2 --publish
    python -m benchmarks.oracle --output runs/oracle --conditions lstm --seeds 0
    python -m benchmarks.oracle --publish

Part `lstm` is the classical test of text GANs with its metric NLL_oracle, beside metrics that a collapsed generator
cannot win (see `oracle.lstm`). Part `language` varies data and generator on the demo's formal language (see
`oracle.language`). In both, maximum likelihood stands beside adversarial training at every temperature.

Every job is one condition with one seed, in a process of its own with one thread. `oracle.jsonl` and `oracle.md` in
the output folder are made of all its results. `--publish` puts them in the place of those of
benchmarks/results/oracle.jsonl with the same condition and seed, and writes docs/oracle.md from that file; without
`--output` it writes the page alone.
"""

import argparse
from dataclasses import asdict
from typing import Any

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
    rounded,
    run_jobs,
    silence,
    write_file,
    write_lines,
)
from . import language, lstm
from .tables import LSTM, at, page


MODULE = "benchmarks.oracle"
COMMITTED = RESULTS / "oracle.jsonl"
PAGE = PAGES / "oracle.md"
LANGUAGE = "language"  # names all conditions of this part
LANGUAGES = {condition.name: condition for condition in language.CONDITIONS}
NAMES = [LSTM, *LANGUAGES]


def settings(tiny: bool) -> dict[str, Any]:
    """Return what all results in one folder must have in common."""
    of_lstm, of_language = (part.TINY if tiny else part.Sizes() for part in (lstm, language))
    return rounded({LSTM: asdict(of_lstm), LANGUAGE: asdict(of_language)})


def do(job: Job, tiny: bool) -> dict[str, Any]:
    """Do a job in this process and return its result; an error becomes part of it."""

    def measure() -> dict[str, Any]:
        if job.name == LSTM:
            return lstm.measure(lstm.TINY if tiny else lstm.Sizes(), job.seed)
        return language.measure(LANGUAGES[job.name], language.TINY if tiny else language.Sizes(), job.seed)

    return do_job(job, settings(tiny), measure)


def outcome(result: dict[str, Any]) -> str:
    before, after = (at(result[name], 1.0)["divergence"] for name in ("likelihood", "adversarial"))
    return f"divergence {before:.4f} > {after:.4f} bits ({result['job_seconds']:.0f} s)"


def ordered(results: dict[Job, dict[str, Any]]) -> list[dict[str, Any]]:
    return [results[job] for job in sorted(results, key=lambda job: (NAMES.index(job.name), job.seed))]


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
        raise ValueError(f"--conditions must be among {[LANGUAGE, *NAMES]}, got {sorted(unknown)}.")
    chosen = [name for name in NAMES if name in names or (LANGUAGE in names and name in LANGUAGES)]
    return [Job(name, seed) for seed in seeds for name in chosen]


def run(arguments: argparse.Namespace) -> None:
    """Do all jobs that are not done."""

    def start(job: Job) -> None:
        do_in_process(job, MODULE, ["--tiny"] * arguments.tiny, arguments.output, settings(arguments.tiny))

    check_settings([{"settings": settings(arguments.tiny)}, *read_folder(arguments.output).values()])
    run_jobs(jobs_of(arguments.conditions, arguments.seeds), arguments, start, outcome)


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    names = f"{LANGUAGE}, or {', '.join(NAMES)}"
    parser.add_argument("--conditions", nargs="+", default=[LSTM, LANGUAGE], help=names)
    return parse_arguments(parser, words)


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    if arguments.child is not None:
        silence()
        job = Job(arguments.child[0], int(arguments.child[1]))
        write_file(job.path(arguments.output), do(job, arguments.tiny))
        return
    if arguments.output is not None:
        if arguments.merge is not None:
            merge(arguments.merge, arguments.output)
        else:
            run(arguments)
        results = ordered(read_folder(arguments.output))
        write_lines(arguments.output / "oracle.jsonl", results)
        (arguments.output / "oracle.md").write_text(page(results))
    if arguments.publish:
        publish(arguments.output, COMMITTED, PAGE, ordered, page)


if __name__ == "__main__":
    main()
