"""What does each classifier of a two-sample test see, and how long does it take?

    python -m benchmarks.two_sample                            # models and texts from the Hub
    python -m benchmarks.two_sample --encoder FOLDER --data FOLDER/wordnet

Real sentences stand against as many others, in two conditions: `swapped`, in which two neighbouring words of each
change places, and `real`, in which nothing is changed, so that an area of 0.5 is right. Writes one line per condition
and classifier to --output. Seconds are processor time.
"""

import argparse
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hf_mgan.metrics import C2STResult, c2st, encoder_features, fine_tuned_c2st

from ..sources import ENCODER, TEXTS, TEXTS_HELP, load_texts, short_name
from ..sweep import RESULTS, rounded, write_lines
from ..testbed import machine, versions


MODULE = "benchmarks.two_sample"
CONDITIONS = ("swapped", "real")


def sides(texts: list[str], count: int, condition: str) -> tuple[list[str], list[str]]:
    """Return `count` real sentences and as many others.

    Args:
        texts (`list[str]`): Real sentences; those of one word are left out.
        count (`int`): Of each side.
        condition (`str`): `"swapped"` or `"real"`.
    """
    different = [text for text in dict.fromkeys(texts) if len(text.split()) > 1]
    chosen = random.Random(0).sample(different, 3 * count)
    if condition == "real":
        return chosen[:count], chosen[count : 2 * count]
    places = random.Random(1)
    return chosen[:count], [swapped(text, places) for text in chosen[2 * count :]]


def swapped(text: str, places: random.Random) -> str:
    """Return a sentence two neighbouring words of which have changed places."""
    words = text.split()
    at = places.randrange(len(words) - 1)
    words[at], words[at + 1] = words[at + 1], words[at]
    return " ".join(words)


def tests(encoder: str) -> dict[str, Callable[[list[str], list[str]], C2STResult]]:
    """Return the tests by the names of their metrics."""
    return {
        "c2st_auc": c2st,
        "encoder_c2st_auc": partial(c2st, encoder=encoder_features(encoder)),
        "fine_tuned_c2st_auc": partial(fine_tuned_c2st, encoder=encoder),
    }


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default=ENCODER, help="id on the Hub, or folder")
    parser.add_argument("--data", default=TEXTS, help=TEXTS_HELP)
    parser.add_argument("--texts", type=int, default=1000, help="of each side")
    parser.add_argument("--conditions", nargs="+", default=list(CONDITIONS), choices=CONDITIONS)
    parser.add_argument("--output", type=Path, default=RESULTS / "two_sample.jsonl")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    texts = load_texts(arguments.data)["train"]["text"]
    about = {
        "encoder": short_name(arguments.encoder),
        "data": short_name(arguments.data),
        "texts": arguments.texts,
        "versions": versions("scikit-learn"),
        **machine(),
    }
    results = []
    for condition in arguments.conditions:
        both = sides(list(texts), arguments.texts, condition)
        for name, test in tests(arguments.encoder).items():
            began = time.process_time()
            auc = list(test(*both).auc)
            results.append(rounded({"condition": condition, "test": name, "auc": auc, **about}))
            results[-1]["cpu_seconds"] = round(time.process_time() - began, 1)
            print(f"{condition}, {name}: {auc}, {results[-1]['cpu_seconds']} s", flush=True)
            write_lines(arguments.output, results)


if __name__ == "__main__":
    main()
