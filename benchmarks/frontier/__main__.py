"""Real text: from supervised training's best to text that a test can hardly tell, and what each step costs.

    python -m benchmarks.frontier --output OUT             # every generator, three seeds
    python -m benchmarks.frontier --output OUT --trained supervised --seeds 0    # a part of it
    python -m benchmarks.frontier --output OUT --generator small --texts 1000 --few_texts 500    # of real_text
    python -m benchmarks.frontier --output OUT --generator FOLDER --discriminator FOLDER --data FOLDER/wordnet
    python -m benchmarks.frontier --output OUT --publish   # committed results, page and picture
    python -m benchmarks.frontier --publish                # page and picture alone

A generator is fine-tuned with adapters, for the number of epochs and at the learning rate with the least held-out loss
("supervised"); the `small` one of `benchmarks.real_text` is trained whole, from random weights. For each
seed a discriminator learns from the same texts against samples of it (`fit_discriminator`), is calibrated on held-out
texts, and scores a pool of candidates that the generator draws at temperature 1. Each way to choose among them is a
row: the generator alone, rejection at several numbers of draws per text kept, resampling and the best of four. Three
more generators go on from the supervised one, each with a discriminator and rows of its own: "distilled" learns from
texts that rejection has kept at two draws, "adversarial" is trained against the discriminator, "for_4_draws" too, with
the gradient of what rejection keeps at four draws (`benchmarks/for_rejection.py`).

`second` is a stage that is done where it is asked for: a second discriminator learns from what the first one keeps of
one half of the pool at four draws, and the fine-tuned encoder reads what both keep of the other half.

Each row is compared with the last texts of the corpus, which no model has seen: by the two-sample test on n-grams and
with the features of the generator as it was before (`--few_texts` of each), and the generator alone, rejection and
real text by n-grams and by a freshly fine-tuned encoder (`--texts` of each). Each stage leaves its files in --output,
and a second call goes on where the first one stopped. On a GPU the whole takes minutes; on two CPU cores hours.
"""

import argparse

from ..real_text.stages import SMALL
from ..sources import GENERATOR
from ..sweep import PAGES, RESULTS, parsed, publish_runs, without_bars
from .arguments import add_shared_arguments
from .stages import GENERATORS, SECOND, STAGES, Run
from .tables import draw, gather, page


MODULE = "benchmarks.frontier"
COMMITTED = RESULTS / "frontier.jsonl"
PAGE = PAGES / "frontier.md"
PICTURE = PAGES / "_static" / "frontier.svg"


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_shared_arguments(parser)
    parser.add_argument("--trained", nargs="+", default=list(GENERATORS), choices=GENERATORS, help="generators")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=(*STAGES, SECOND))
    parser.add_argument(
        "--encoder", help="of the fast tests: id on the Hub, or folder; the generator, as it was, unless it is small"
    )
    parser.add_argument("--steps", type=int, default=60, help="of adversarial training")
    parser.add_argument("--adversarial_batch_size", type=int, default=64, help="of adversarial training")
    parser.add_argument("--updates", type=int, default=600, help="of a discriminator at most, 32 texts of each kind")
    parser.add_argument("--draws", type=float, nargs="+", default=[2, 4, 8], help="per text kept, of rejection")
    parser.add_argument("--few_texts", type=int, default=1000, help="of a row in the other tests")
    arguments = parsed(parser, words)
    if 2 * arguments.few_texts > arguments.texts:
        parser.error(
            f"--few_texts {arguments.few_texts} is more than half of --texts {arguments.texts}, and real texts are "
            "compared with as many other ones: give fewer"
        )
    for name in ("epochs", "learning_rates"):
        if arguments.generator == SMALL and getattr(arguments, name) != parser.get_default(name):
            parser.error(f"--{name} is of generators that are fine-tuned, and {SMALL} is trained from random weights")
    if arguments.encoder is None:
        arguments.encoder = GENERATOR if arguments.generator == SMALL else arguments.generator
    return arguments


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    if arguments.publish:
        runs = publish_runs(arguments.output, COMMITTED, PAGE, gather, page)
        draw(runs, PICTURE)
        return
    without_bars()
    for seed in arguments.seeds:
        for name in (one for one in GENERATORS if one in arguments.trained):
            Run(name, seed, arguments).do(arguments.stages)


if __name__ == "__main__":
    main()
