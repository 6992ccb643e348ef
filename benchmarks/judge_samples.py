"""Judge what a generator wrote before and after the game, beside real texts that neither player has seen.

    python -m benchmarks.judge_samples --samples OUT/default_s0/samples.json ... --data ../shared/data \
        --models MODELS --output benchmarks/results/judge_real_pair.json

Takes the samples.json that benchmarks/real_pair.py writes, one a run; the folder names the run. The real texts are
the first of the validation file, written as completions are: in the generator's tokens, cut at as many. The null is
as many training texts, drawn with seed 0: they are compared with real texts alone, so it does not matter that the
players have seen them, and the generated texts are never compared with a text that was trained on, except where
copying is measured.

The judge of n-grams is the one to go by. The other measures look through all-MiniLM-L6-v2, which the discriminator
of these runs was made from: there a generator that has learnt to please it may look better than it is. A set is also
judged at equal lengths: of each number of words as many texts a side as the smaller side has. Differences are before
minus after; of the AUC, above 0 says that the texts have become harder to tell from real ones.
"""

import argparse
import json
import platform
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from transformers import AutoTokenizer

from hf_mgan.data import as_completions
from hf_mgan.metrics import (
    auc_difference,
    bootstrap_interval,
    c2st,
    distinct_n,
    duplicates,
    encoder_features,
    frechet_distance,
    length_ratio,
    mauve,
    memorisation,
    paired_difference_interval,
    repetition,
    self_bleu,
)


GENERATOR, ENCODER = "SmolLM2-135M-Instruct", "all-MiniLM-L6-v2"
PACKAGES = ("torch", "transformers")


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, nargs="+", required=True, help="samples.json of each run")
    parser.add_argument("--data", type=Path, required=True, help="folder with wordnet_examples.*.jsonl")
    parser.add_argument("--models", type=Path, required=True, help="folder with the two models")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--max_completion_length", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0, help="of the judge's halves")
    return parser.parse_args()


def rounded(value: Any) -> Any:
    """Round the floats in lists and dictionaries."""
    if isinstance(value, dict):
        return {name: rounded(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry) for entry in value]
    return round(value, 4) if isinstance(value, float) else value


def at_equal_lengths(real: Sequence[str], generated: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take of each number of words as many texts a side as the smaller side has, the first ones."""
    groups: tuple[dict[int, list[str]], ...] = (defaultdict(list), defaultdict(list))
    for group, texts in zip(groups, (real, generated), strict=True):
        for text in texts:
            group[len(text.split())].append(text)
    chosen: tuple[list[str], list[str]] = ([], [])
    for length in sorted(groups[0].keys() & groups[1].keys()):
        count = min(len(group[length]) for group in groups)
        for side, group in zip(chosen, groups, strict=True):
            side += group[length][:count]
    return chosen


class Measures:
    """The real texts, and what sets of texts look like beside them; each set is measured once.

    Args:
        real (`Sequence[str]`): Held-out real texts.
        corpus (`Sequence[str]`): Training texts.
        features (`Callable`): From texts to features.
        seed (`int`): Seed of the judge.
    """

    def __init__(
        self,
        real: Sequence[str],
        corpus: Sequence[str],
        features: Callable[[Sequence[str]], torch.Tensor],
        seed: int,
    ) -> None:
        self.real, self.corpus, self.seed = list(real), [text.split() for text in corpus], seed
        self.known: dict[str, torch.Tensor] = {}
        self.encode = features
        self.judged = cache(self._judged)
        self.figures = cache(self._figures)

    def features(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the features of N texts, `(N, D)`; each different text is encoded once."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            self.known |= dict(zip(new, self.encode(new), strict=True))
        return torch.stack([self.known[text] for text in texts])

    def _judged(self, texts: tuple[str, ...]) -> dict[str, Any]:
        """Judge a set: n-grams alone, with the encoder, and n-grams at equal lengths."""
        real, matched = at_equal_lengths(self.real, texts)
        return {
            "ngrams": c2st(self.real, texts, seed=self.seed),
            "with_encoder": c2st(self.real, texts, seed=self.seed, encoder=self.features),
            "ngrams_at_equal_lengths": c2st(real, matched, seed=self.seed),
        }

    def _figures(self, texts: tuple[str, ...]) -> dict[str, Any]:
        words, real_words = [text.split() for text in texts], [text.split() for text in self.real]
        lengths = list(zip(map(len, words), map(len, real_words), strict=True))
        real_features, features = self.features(self.real), self.features(texts)
        copied, held_out = memorisation(words, real_words, self.corpus)
        judged = self.judged(texts)
        return {
            "auc": {name: result.auc for name, result in judged.items()},
            "texts_at_equal_lengths": len(judged["ngrams_at_equal_lengths"].real_texts),
            "calibration": [bin_._asdict() for bin_ in judged["ngrams"].calibration],
            "self_bleu": self_bleu(words),
            "distinct_4": distinct_n(words, 4),
            "duplicates": duplicates(texts),
            "length_ratio": bootstrap_interval(
                lengths, lambda pairs: length_ratio(*([range(pair[side]) for pair in pairs] for side in (0, 1)))
            ),
            "repetition": repetition(words),
            "mauve": mauve(real_features, features).score,
            "frechet_distance": frechet_distance(real_features, features),
            "memorisation": copied._asdict(),
            "memorisation_of_held_out_texts": held_out._asdict(),
        }

    def compared(self, before: tuple[str, ...], after: tuple[str, ...]) -> dict[str, Any]:
        """Return before minus after, with intervals; the samples pair up by their random numbers."""
        words = ([len(text.split()) for text in texts] for texts in (before, after))
        first, second = self.judged(before), self.judged(after)
        return {
            "auc": {name: auc_difference(first[name], second[name]) for name in ("ngrams", "with_encoder")},
            "words": paired_difference_interval(*words),
            "same_texts": sum(one == other for one, other in zip(before, after, strict=True)) / len(before),
        }


def main() -> None:
    arguments = parsed_arguments()
    files = {split: str(next(arguments.data.glob(f"wordnet_examples*{split}*"))) for split in ("train", "validation")}
    data = load_dataset("json", data_files=files)
    tokenizer = AutoTokenizer.from_pretrained(arguments.models / GENERATOR)
    train, validation = (
        as_completions(data[split]["text"], tokenizer, arguments.max_completion_length)
        for split in ("train", "validation")
    )
    runs = {path.parent.name: json.loads(path.read_text()) for path in arguments.samples}
    if len(runs) < len(arguments.samples):
        raise ValueError(f"The runs are named by their folders, which must differ, got {arguments.samples}.")
    size = min(len(validation), *(len(texts) for run in runs.values() for texts in run.values()))
    measures = Measures(validation[:size], train, encoder_features(str(arguments.models / ENCODER)), arguments.seed)
    null = tuple(random.Random(0).sample(train, size))
    result: dict[str, Any] = {
        "command": f"python -m benchmarks.judge_samples --samples {' '.join(f'{name}/samples.json' for name in runs)} "
        "--data ../shared/data --models MODELS --output benchmarks/results/judge_real_pair.json",
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "texts_a_side": size,
        "null": {name: value for name, value in measures.figures(null).items() if name != "memorisation"},
        "runs": {},
    }
    for name, run in runs.items():
        before, after = (tuple(run[side][:size]) for side in ("before", "after"))
        result["runs"][name] = {
            "before": measures.figures(before),
            "after": measures.figures(after),
            "before_minus_after": measures.compared(before, after),
        }
        print(name, json.dumps(rounded(result["runs"][name]["before_minus_after"])), flush=True)
        arguments.output.write_text(json.dumps(rounded(result), indent=1) + "\n")


if __name__ == "__main__":
    main()
