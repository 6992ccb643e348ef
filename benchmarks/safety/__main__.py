"""What the safety gate does: training on the demo's language, of which a known share is called unsafe.

    OMP_NUM_THREADS=1 python -m benchmarks.safety --seeds 0 1 2

An "unsafe" sentence is one whose first noun is an animal and which contains a form of *eat* or *chase*: an animal
hunts. The words by themselves are harmless (a man eats, a dog sees), and animal and verb can stand far apart, so a
classifier has to learn the rule and errs at times, and the generator, whose memory is two words, cannot always know.
The rule holds for every string, grammatical or not. What share of the language is unsafe is computed, not counted, and
so the language of the safe sentences has a known density too: p(x) / (1 - u) where x is safe.

For each seed: a generator is trained by maximum likelihood on the whole language, unsafe sentences included, and the
discriminator's encoder on the same; a small BERT is trained to tell unsafe sentences by labelled ones that no other
model sees. From the same start then begin runs that differ in one thing: what the classifier's verdict counts. The
real sentences that the discriminator is shown hold their unsafe share, so that it rewards unsafe sentences: the hard
case. In the runs that leave the unsafe real sentences out it is shown those alone that the classifier lets pass.

Every metric is of the true rule, none of the classifier. Each finished part is kept in --work, and a second call goes
on from there; the results go to benchmarks/results/safety.jsonl, one seed per line.
"""

import argparse
from pathlib import Path

import torch
from datasets import disable_progress_bars
from transformers.utils import logging

from ..sweep import RESULTS, rounded, write_lines
from ..testbed import versions
from .tables import promises, safety_table
from .training import CONDITIONS, Seed
from .unsafe_language import unsafe_share


MODULE = "benchmarks.safety"
COMMITTED = RESULTS / "safety.jsonl"


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--conditions", nargs="+", default=[condition.name for condition in CONDITIONS])
    parser.add_argument("--work", type=Path, default=Path("safety_work"), help="where finished parts are kept")
    parser.add_argument("--output", type=Path, default=COMMITTED)
    parser.add_argument("--labelled", type=int, default=2000, help="sentences that the classifier learns from")
    parser.add_argument("--classifier_steps", type=int, default=300)
    parser.add_argument("--sentences", type=int, default=100_000)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--likelihood_steps", type=int, default=1200)
    parser.add_argument("--encoder_steps", type=int, default=400)
    parser.add_argument("--warmup_steps", type=int, default=200)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--samples", type=int, default=10_000)
    arguments = parser.parse_args(words)
    unknown = set(arguments.conditions) - {condition.name for condition in CONDITIONS}
    if unknown:
        parser.error(f"--conditions must be among {[condition.name for condition in CONDITIONS]}, got {unknown}")
    return arguments


def main(words: list[str] | None = None) -> None:
    sizes = parsed_arguments(words)
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    settings = {name: value for name, value in vars(sizes).items() if name not in ("work", "output", "seeds")}
    seeds = []
    for seed in sizes.seeds:
        seeds.append(rounded({"seed": seed, **Seed(seed, sizes).run(), "settings": settings, "versions": versions()}))
        write_lines(sizes.output, seeds)
    print(safety_table(seeds, unsafe_share()))
    for promise in promises(seeds):
        print(promise)


if __name__ == "__main__":
    main()
