"""The demo's language: how near to it do a generator and its discriminator come when both are used at generation?

    python -m benchmarks.guided_language --output runs/guided --workers 2
    python -m benchmarks.guided_language --output runs/guided --publish
    python -m benchmarks.guided_language --publish

For each seed: the demo's generator, trained by maximum likelihood and then left as it is; a causal model that has read
the same sentences, from which two discriminators start, one of whole sentences and one of all prefixes; each learns
against the generator's samples and is calibrated (`fit_discriminator`). Then the exact divergence to the language of
rejection by whole sentences over a range of thresholds, by the discriminator and by a perfect one, and of rejection
token by token. `--publish` puts the results in the place of those of benchmarks/results/guided_language.jsonl with the
same seed, and writes docs/guided_language.md and its picture from that file.
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
    read_lines,
    rounded,
    run_jobs,
    silence,
    write_file,
    write_lines,
)
from .measurement import TINY, Sizes, measure
from .tables import at_draws, draw, page


MODULE = "benchmarks.guided_language"
COMMITTED = RESULTS / "guided_language.jsonl"
PAGE = PAGES / "guided_language.md"
PICTURE = PAGES / "_static" / "guided_language.svg"
NAME = "guided"


def settings(tiny: bool) -> dict[str, Any]:
    """Return what all results in one folder must have in common."""
    return rounded(asdict(TINY if tiny else Sizes()))


def do(job: Job, tiny: bool) -> dict[str, Any]:
    """Do a job in this process and return its result; an error becomes part of it."""
    return do_job(job, settings(tiny), lambda: measure(TINY if tiny else Sizes(), job.seed))


def outcome(result: dict[str, Any]) -> str:
    two, eight = (at_draws(result["whole"], draws, "divergence") for draws in (2, 8))
    return f"{two:.4f} bits at 2 draws, {eight:.4f} at 8 ({result['job_seconds']:.0f} s)"


def ordered(results: dict[Job, dict[str, Any]]) -> list[dict[str, Any]]:
    return [results[job] for job in sorted(results, key=lambda job: job.seed)]


def run(arguments: argparse.Namespace) -> None:
    """Do all jobs that are not done."""

    def start(job: Job) -> None:
        do_in_process(job, MODULE, ["--tiny"] * arguments.tiny, arguments.output, settings(arguments.tiny))

    check_settings([{"settings": settings(arguments.tiny)}, *read_folder(arguments.output).values()])
    run_jobs([Job(NAME, seed) for seed in arguments.seeds], arguments, start, outcome)


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
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
        write_lines(arguments.output / "guided_language.jsonl", results)
        (arguments.output / "guided_language.md").write_text(page(results))
        draw(results, arguments.output / "guided_language.svg")
    if arguments.publish:
        publish(arguments.output, COMMITTED, PAGE, ordered, page)
        draw(read_lines(COMMITTED), PICTURE)


if __name__ == "__main__":
    main()
