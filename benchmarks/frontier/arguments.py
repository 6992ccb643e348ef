"""The options that benchmarks on real text share, and those of one that begins with the generator of `frontier`."""

import argparse
from pathlib import Path

from ..sources import ENCODER, GENERATOR, TEXTS, TEXTS_HELP
from .generators import SUPERVISED_LEARNING_RATE


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add the folder of the runs, models, texts and seeds."""
    parser.add_argument("--output", type=Path, help="folder of the runs")
    parser.add_argument("--generator", default=GENERATOR, help="id on the Hub, or folder")
    parser.add_argument("--discriminator", default=ENCODER, help="id on the Hub, or folder; fresh for a last test")
    parser.add_argument("--data", default=TEXTS, help=TEXTS_HELP)
    parser.add_argument("--max_texts", type=int, default=20_000, help="of each split")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all of them, and how texts are sampled."""
    add_sources(parser)
    parser.add_argument(
        "--epochs", type=int, nargs="+", default=[1, 2], help="of supervised trainings, the best is kept"
    )
    parser.add_argument(
        "--learning_rates",
        type=float,
        nargs="+",
        default=[SUPERVISED_LEARNING_RATE],
        help="the same, each with every number of --epochs",
    )
    parser.add_argument("--max_completion_length", type=int, default=40)
    parser.add_argument("--texts", type=int, default=4000, help="unseen real ones, and of a row in the last test")
    parser.add_argument("--batch_size", type=int, default=256, help="texts that are sampled at a time")
    parser.add_argument(
        "--bf16", action="store_true", help="sample and train in bfloat16: twice as fast on a GPU or a CPU with AMX"
    )
    parser.add_argument("--publish", action="store_true", help="write the committed results, their page and picture")
