"""Real text and a reward that can be checked: can it be raised without text that nobody would write?

    python -m benchmarks.verifiable_text --output OUT                 # every way, three seeds
    python -m benchmarks.verifiable_text --output OUT --ways grpo_0.1 real_1 --seeds 0    # a part of it
    python -m benchmarks.verifiable_text --output OUT --generator FOLDER --discriminator FOLDER --data FOLDER/wordnet
    python -m benchmarks.verifiable_text --output OUT --publish       # committed results, page and picture
    python -m benchmarks.verifiable_text --publish                    # page and picture alone

The reward is 1 for a text that has a given word. All ways begin with the supervised generator of
`benchmarks.frontier`, which is taken from there with the same --output: GRPO with the divergence to the start as its
anchor, GRPO with a discriminator of the real texts that have the word, supervised training on these, filter and
discriminator at generation, and imitation of what passes. Measured are the reward, and how well two-sample tests tell
the rewarded texts from unseen real ones that have the word too. Each way leaves a file in --output, and a second call
goes on where the first one stopped.
"""

import argparse

from ..frontier.arguments import add_shared_arguments
from ..sweep import PAGES, RESULTS, parsed, publish_runs, without_bars
from .stages import Run
from .tables import draw, gather, page
from .ways import WAYS


MODULE = "benchmarks.verifiable_text"
COMMITTED = RESULTS / "verifiable_text.jsonl"
PAGE = PAGES / "verifiable_text.md"
PICTURE = PAGES / "_static" / "verifiable_text.svg"


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_shared_arguments(parser)
    parser.add_argument("--word", default="he", help="that a rewarded text has, in small letters")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--taught_epochs", type=int, nargs="+", default=[2], help="the same, on rewarded texts")
    parser.add_argument("--steps", type=int, default=60, help="of reinforcement")
    parser.add_argument("--adversarial_batch_size", type=int, default=64, help="of reinforcement")
    parser.add_argument("--updates", type=int, default=600, help="of a discriminator at generation, at most")
    parser.add_argument("--pool", type=int, default=16_000, help="candidates of filter and discriminator")
    parser.add_argument("--few_texts", type=int, default=1000, help="that are measured of each way")
    return parsed(parser, words)


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    if arguments.publish:
        results = publish_runs(arguments.output, COMMITTED, PAGE, gather, page)
        draw(results, PICTURE)
        return
    without_bars()
    for seed in arguments.seeds:
        Run(seed, arguments).do(arguments.ways)


if __name__ == "__main__":
    main()
