"""The demo's language: divergence against draws for generators that are trained in several ways, exactly.

    python -m benchmarks.language_frontier --output OUT
    python -m benchmarks.language_frontier --output OUT --generators likelihood for_2_draws --seeds 0    # a part
    python -m benchmarks.language_frontier --output OUT --publish   # committed results, page and picture
    python -m benchmarks.language_frontier --publish                # page and picture alone

For each seed: the demo's generator by maximum likelihood, and six more that go on from it: by adversarial training,
for a fourth of its steps, with the gradient of what rejection keeps at two and at four draws, and by maximum
likelihood on as many sentences that the discriminator has accepted, once and twice. Each has a discriminator of its
own, which starts from the same encoder, learns against this generator's samples and is calibrated. Both densities are
known, so that the Jensen-Shannon divergence to the language is exact: of the generator alone, with its discriminator
over a range of thresholds, and with a perfect one, which says what this generator allows. Each leaves a file in
--output, and a second call goes on where the first one stopped. `--publish` writes docs/language_frontier.md and its
picture.
"""

import argparse
from pathlib import Path
from typing import Any

from hf_mgan.demo.parts import quiet
from hf_mgan.demo.run import DemoArguments

from ..sweep import PAGES, RESULTS, parsed, publish_runs
from .generators import GENERATORS, Generators
from .tables import draw, gather, page


MODULE = "benchmarks.language_frontier"
COMMITTED = RESULTS / "language_frontier.jsonl"
PAGE = PAGES / "language_frontier.md"
PICTURE = PAGES / "_static" / "language_frontier.svg"
UPDATES = 600  # of each discriminator
TINY: dict[str, Any] = {
    "sentences": 400,
    "batch_size": 16,
    "likelihood_steps": 12,
    "encoder_steps": 4,
    "warmup_steps": 2,
    "steps": 40,
    "final_steps": 4,
    "samples": 60,
}


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="folder of models and results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--generators", nargs="+", default=list(GENERATORS), choices=GENERATORS)
    parser.add_argument("--tiny", action="store_true", help="a dry run at tiny size")
    parser.add_argument("--publish", action="store_true", help="write the committed results and their page")
    arguments = parsed(parser, words)
    if arguments.tiny and arguments.publish:
        parser.error("--tiny is a dry run: there is nothing to publish")
    return arguments


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    if arguments.publish:
        draw(publish_runs(arguments.output, COMMITTED, PAGE, gather, page), PICTURE)
        return
    sizes: dict[str, Any] = TINY if arguments.tiny else {"final_steps": UPDATES}
    with quiet():
        for seed in arguments.seeds:
            Generators(DemoArguments(str(arguments.output), **sizes), seed).do(arguments.generators)


if __name__ == "__main__":
    main()
