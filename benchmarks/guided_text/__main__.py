"""Real text: what is the discriminator worth at generation?

    python -m benchmarks.guided_text --output OUT             # three seeds of the discriminator and of the samples
    python -m benchmarks.guided_text --output OUT --generator FOLDER --discriminator FOLDER --data FOLDER/wordnet
    python -m benchmarks.guided_text --output OUT --publish   # committed results and docs/guided_text.md
    python -m benchmarks.guided_text --publish                # the page alone

A generator is fine-tuned on the first rows of a corpus, each once (supervised, with adapters), and then left as it is.
For each seed a discriminator learns from as many other rows against samples of it (`fit_discriminator`), is calibrated
on the validation split, and scores a pool of candidates that the generator draws at temperature 1. Each way to choose
among them is a row: texts of the generator alone, rejection at several thresholds, resampling and the best of three.
Since all texts start from the start of the sequence, candidates of one pool serve every row.

Each row is compared with the rest of the texts, which neither model has seen: by the two-sample test on n-grams and
with the features of the generator as it was before (1,000 of each), and, for the generator alone, the last
threshold and real text, by a freshly fine-tuned encoder (as many as there are). Each stage leaves its files in
--output, and a second call goes on where the first one stopped.
"""

import argparse

from ..frontier.arguments import add_sources
from ..sweep import PAGES, RESULTS, parsed, publish_runs, without_bars
from .stages import STAGES, Run
from .tables import gather, page


MODULE = "benchmarks.guided_text"
COMMITTED = RESULTS / "guided_text.jsonl"
PAGE = PAGES / "guided_text.md"


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_sources(parser)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--supervised_steps", type=int, default=200, help="of the generator, 32 texts each")
    parser.add_argument("--updates", type=int, default=300, help="of the discriminator, 32 texts of each kind")
    parser.add_argument("--max_completion_length", type=int, default=40)
    parser.add_argument("--texts", type=int, default=4900, help="of a row in the last test, at most")
    parser.add_argument("--few_texts", type=int, default=1000, help="of a row in the other tests")
    parser.add_argument("--batch_size", type=int, default=128, help="texts that are sampled at a time")
    parser.add_argument("--publish", action="store_true", help="write the committed results and their page")
    return parsed(parser, words)


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    if arguments.publish:
        publish_runs(arguments.output, COMMITTED, PAGE, gather, page)
        return
    without_bars()
    for seed in arguments.seeds:
        Run(seed, arguments).do(arguments.stages)


if __name__ == "__main__":
    main()
