"""What raises a discriminator's area on real text: its kind, the number of texts, label smoothing, the learning rate?

    python -m benchmarks.discriminators --output OUT                  # every discriminator, three seeds
    python -m benchmarks.discriminators --output OUT --generator FOLDER --discriminator FOLDER --data FOLDER/wordnet
    python -m benchmarks.discriminators --output OUT --publish        # committed results and page
    python -m benchmarks.discriminators --publish                     # the page alone

The generated texts are the pool of the supervised generator of `benchmarks.frontier`, which is taken from there with
the same --output: one part to learn from, one to stop by and one for the test. Each discriminator leaves a file in
--output, and a second call goes on where the first one stopped.
"""

import argparse
from functools import partial

from ..frontier.arguments import add_shared_arguments
from ..frontier.stages import SUPERVISED, TEMPERATURE, Run
from ..sweep import PAGES, RESULTS, do_stage, parsed, publish_runs, without_bars
from .tables import FOLDER, gather, page
from .training import Sides, conditions, train


MODULE = "benchmarks.discriminators"
COMMITTED = RESULTS / "discriminators.jsonl"
PAGE = PAGES / "discriminators.md"


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_shared_arguments(parser)
    parser.add_argument("--draws", type=float, nargs="+", default=[2, 4, 8], help="of the pool, as of the frontier")
    parser.add_argument("--encoder_samples", type=int, nargs="+", default=[1000, 4000, 16_000], help="of each side")
    parser.add_argument("--causal_samples", type=int, nargs="+", default=[1000, 4000], help="of a causal model")
    parser.add_argument("--epochs_of_discriminator", type=int, default=4, help="at most")
    return parsed(parser, words)


def study(seed: int, arguments: argparse.Namespace) -> None:
    """Train and test the discriminators of a seed that are not done.

    Raises:
        ValueError: If the pool is too small to test on as many texts as there are real ones.
    """
    run = Run(SUPERVISED, seed, arguments)
    run.do(["generator", "samples"])
    pool, unseen = run.read("samples")[f"{TEMPERATURE:g}"]["texts"], run.real
    validation = run.cut(run.validation["text"])
    rest, tested = pool[: -len(unseen)], Sides(unseen, pool[-len(unseen) :])
    stopping = Sides(validation, rest[-len(validation) :])
    learnt = Sides(run.cut(run.train["text"]), rest[: -len(validation)])
    if not learnt.generated:
        raise ValueError(
            f"A pool of {len(pool)} texts leaves none to learn from beside {len(unseen)} for the test and "
            f"{len(validation)} to stop by: raise --draws."
        )
    epochs = arguments.epochs_of_discriminator
    for condition in conditions(arguments.encoder_samples, arguments.causal_samples):
        given = condition, learnt, stopping, tested, epochs, run.folder, seed, run.device, arguments
        do_stage(run.folder / FOLDER / f"{condition.name}.json", seed, partial(train, *given))


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    if arguments.publish:
        publish_runs(arguments.output, COMMITTED, PAGE, gather, page)
        return
    without_bars()
    for seed in arguments.seeds:
        study(seed, arguments)


if __name__ == "__main__":
    main()
