"""Real text: is adversarial training better than supervised training at its best temperature?

    python -m benchmarks.real_text --output OUT                            # the small generator, three seeds
    python -m benchmarks.real_text --output OUT --generator HuggingFaceTB/SmolLM2-135M-Instruct --seeds 0
    python -m benchmarks.real_text --output OUT --data FOLDER/austen FOLDER/wordnet --discriminator FOLDER
    python -m benchmarks.real_text --output OUT --stages supervised curve --batch_size 256 --steps 400
    python -m benchmarks.real_text --output OUT --publish
    python -m benchmarks.real_text --publish

A generator is fine-tuned on a corpus (supervised), and from there go on, each from the same weights:

- `longer`: supervised training, for as many texts as the others generate;
- `frozen`: GRPO against a discriminator that is frozen after its warm-up;
- `adversarial`: adversarial training, with the anchors of docs/real_text.md.

All four are then sampled at every temperature and measured against held-out texts by `evaluate_generator`, with the
supervised one as the baseline. The `small` generator is a GPT-2 of 5.8 million weights with a vocabulary of its own,
trained from random weights until its loss on held-out texts no longer falls, so that `longer` has nothing to add and
is left out; any other generator is a model on the Hub or in a folder, with adapters. The discriminator is trained
whole. The metrics that need an encoder take another model than the discriminator's, which adversarial training has
learnt to please. Held-out are the validation split and the last rows of the training split.

`curve` is a stage that is done where it is asked for: adversarial training once more, measured after an eighth, a
quarter, a half and all of its steps.

Each stage leaves its folder in --output, and a second call goes on where the first one stopped; `--stages` does some
of them only, so that several processes can share a run. `--publish` puts the runs of --output in the place of those of
benchmarks/results/real_text.jsonl with the same corpus, generator and seed, and writes docs/real_text.md from that
file; without --output it writes the page alone.
"""

import argparse
from pathlib import Path

from ..sources import ENCODER, GENERATOR, TEXTS, TEXTS_HELP
from ..sweep import PAGES, RESULTS, parsed, publish_runs, without_bars
from .stages import CURVE, SMALL, STAGES, Run
from .tables import gather, page


MODULE = "benchmarks.real_text"
COMMITTED = RESULTS / "real_text.jsonl"
PAGE = PAGES / "real_text.md"
NO_ENCODER = "none"
# Of adversarial training: for the small generator and for a pre-trained one.
LEARNING_RATES = {True: 1e-3, False: 5e-5}
REAL_TEXT_COEFS = {True: 0.01, False: 0.1}  # with 0.1 the small generator stays where it is


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="folder of the runs")
    parser.add_argument("--generator", default=SMALL, help=f"{SMALL}, or id on the Hub, or folder")
    parser.add_argument("--discriminator", default=ENCODER, help="id on the Hub, or folder")
    parser.add_argument(
        "--encoder",
        default=GENERATOR,
        help=f"of the metrics: id on the Hub, folder, or {NO_ENCODER} to leave them out",
    )
    parser.add_argument(
        "--fine_tuned_test", action="store_true", help="fine-tune that encoder for a C2ST: minutes per set on a GPU"
    )
    parser.add_argument("--data", nargs="+", default=[TEXTS], help=TEXTS_HELP)
    parser.add_argument("--max_texts", type=int, default=20_000, help="of each split")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=(*STAGES, CURVE))
    parser.add_argument("--steps", type=int, default=150, help="of the generator, frozen and adversarial")
    parser.add_argument("--learning_rate", type=float, help="of adversarial training; 1e-3, or 5e-5 if pre-trained")
    parser.add_argument("--real_text_coef", type=float, help="of adversarial training; 0.01, or 0.1 if pre-trained")
    parser.add_argument("--batch_size", type=int, default=32, help="completions per step")
    parser.add_argument("--warmup_steps", type=int, default=30, help="of the discriminator")
    parser.add_argument("--supervised_steps", type=int, default=200, help="of a pre-trained generator, 32 texts each")
    parser.add_argument("--epochs", type=int, default=8, help="of the small generator, at most")
    parser.add_argument("--width", type=int, default=256, help="of the small generator")
    parser.add_argument("--layers", type=int, default=6, help="of the small generator")
    parser.add_argument("--vocabulary", type=int, default=4096, help="of the small generator")
    parser.add_argument("--bf16", action="store_true", help="train adversarially under bfloat16 autocast")
    parser.add_argument("--max_completion_length", type=int, default=40)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.7, 0.8, 0.9, 1.0, 1.1])
    parser.add_argument("--num_samples", type=int, default=1000)
    parser.add_argument("--evaluation_batch_size", type=int, default=100)
    parser.add_argument("--further_held_out", type=int, default=1000, help="last rows of the training split")
    parser.add_argument("--reverse_perplexity", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--publish", action="store_true", help="write the committed results and their page")
    arguments = parsed(parser, words)
    is_small = arguments.generator == SMALL
    if arguments.learning_rate is None:
        arguments.learning_rate = LEARNING_RATES[is_small]
    if arguments.learning_rate <= 0:
        parser.error(f"--learning_rate must be greater than 0, got {arguments.learning_rate}")
    if arguments.real_text_coef is None:
        arguments.real_text_coef = REAL_TEXT_COEFS[is_small]
    if arguments.real_text_coef < 0:
        parser.error(f"--real_text_coef must be at least 0, got {arguments.real_text_coef}")
    if arguments.encoder == NO_ENCODER:
        arguments.encoder = None
    return arguments


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    if arguments.publish:
        publish_runs(arguments.output, COMMITTED, PAGE, gather, page)
        return
    without_bars()
    for source in arguments.data:
        for seed in arguments.seeds:
            Run(source, seed, arguments).do(arguments.stages)


if __name__ == "__main__":
    main()
