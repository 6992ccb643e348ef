"""One run of `benchmarks.verifiable_text`: a seed, every way gone once, and what is measured on its texts.

In: the command line. Out: a file for each way, and the generators that others begin with.
"""

import argparse
import json
import re
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from hf_mgan.decoding.selection import is_accepted
from hf_mgan.metrics import c2st, encoder_features, self_bleu

from ..frontier import stages as frontier
from ..frontier.generators import LEARNING_RATE, load_merged, supervise, train_adversarially
from ..sources import short_name
from ..sweep import do_stage
from .ways import SUPERVISED, TAUGHT, WAYS, Way


TEMPERATURES = (0.8, 1.0)
THRESHOLDS = (0.0, 2.0)  # c of rejection, in nats
TAUGHT_AT = THRESHOLDS[0]  # of the texts that imitation learns from
WARM_UP = 60  # updates of a fresh discriminator before the first step
LEAST = 40  # texts on each side of a two-sample test
NUM_SAMPLES = 10  # texts of each row that are kept with the results
# Paths, what each entry says by itself, and what changes no text.
NO_SETTINGS = ("output", "generator", "discriminator", "data", "word", "seeds", "ways", "batch_size", "publish")


class HasWord:
    """The reward: 1 for a text with the word, else 0.

    Args:
        word (`str`): In small letters.
    """

    def __init__(self, word: str) -> None:
        self.word, self.__name__ = word, f"has_{word}"

    def __call__(self, completions: Sequence[str], **_: Any) -> list[float]:
        """Return the reward of each completion."""
        return [float(self.word in re.findall(r"[\w']+", text.lower())) for text in completions]

    def only(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that have it."""
        return [text for text, value in zip(texts, self(texts), strict=True) if value]


class Run:
    """A seed: all ways, each gone once. The supervised generator is that of `benchmarks.frontier`, and of all seeds.

    Args:
        seed (`int`): Seed.
        arguments (`argparse.Namespace`): The command line.
    """

    def __init__(self, seed: int, arguments: argparse.Namespace) -> None:
        self.seed, self.arguments, self.reward = seed, arguments, HasWord(arguments.word)
        self.supervised = frontier.Run(frontier.SUPERVISED, seed, arguments)
        self.folder = self.supervised.root / f"word_{arguments.word}" / f"seed_{seed}"
        self.train, self.validation = (
            Dataset.from_dict({"text": self.reward.only(rows["text"])})
            for rows in (self.supervised.train, self.supervised.validation)
        )
        unseen = self.reward.only(list(self.supervised.unseen["text"]))
        if (least := min(map(len, (self.train, self.validation, unseen)))) < LEAST:
            raise ValueError(
                f"At least {LEAST} texts for each of training, validation and test must have the word "
                f"{arguments.word!r}, got {least}. Take another --word, or more texts."
            )

    def do(self, ways: Sequence[str]) -> None:
        """Go the ways that are not gone."""
        self.supervised.do(["generator"])
        for name in (one for one in WAYS if one in ways):
            if WAYS[name].start == TAUGHT:
                self.do([TAUGHT])
            do_stage(self.folder / f"{name}.json", self.seed, partial(self._go, WAYS[name]))

    def _go(self, way: Way) -> dict[str, Any]:
        made: dict[str, Any] = getattr(self, way.kind)(way)
        return {"text": way.text, "settings": self._settings(), **made}

    def _settings(self) -> dict[str, Any]:
        """Return what was asked for, without paths, and the short names of the models."""
        given = {key: value for key, value in vars(self.arguments).items() if key not in NO_SETTINGS}
        return {**given, "discriminator": short_name(self.arguments.discriminator)}

    def measured(self, way: Way) -> dict[str, Any]:
        """Measure the generator that is there."""
        return {"rows": self._rows(self._home(way.start))}

    def taught(self, way: Way) -> dict[str, Any]:
        """Train the generator further on real texts that have the reward."""
        return self._taught(way, self.train, self.validation)

    def reinforced(self, way: Way) -> dict[str, Any]:
        """Train the generator by reinforcement, with a fresh discriminator beside it."""
        folder, arguments = self.folder / way.name / "generator", self.arguments
        texts = self.train if way.rewarded else self.supervised.train
        given = self._home(way.start), arguments.discriminator, folder, texts, self.seed, arguments, self.reward
        training = train_adversarially(*given, discriminator_warmup_steps=WARM_UP, **way.config)
        return {"training": training, "rows": self._rows(folder)}

    def guided(self, way: Way) -> dict[str, Any]:
        """Filter a pool of candidates by the reward, and let a discriminator accept what passes.

        There is no row where a test would have too few texts: a larger --pool has more.
        """
        folder, arguments, tokenizer = self.folder / way.name, self.arguments, self.supervised.tokenizer
        model = self._model(self._home(way.start))
        source = (self.train, self.validation) if way.rewarded else (self.supervised.train, self.supervised.validation)
        known = frontier.fit(model, tokenizer, *source, folder / "discriminator", self.seed, arguments)
        pool = frontier.drawn(model, tokenizer, arguments.pool, frontier.TEMPERATURE, self.seed, arguments)
        passed = self.reward.only(pool["texts"])
        ratios = frontier.ratios_of(folder / "discriminator", passed, arguments, self.supervised.device)
        chosen = {
            "filter": passed,
            **{f"filter and D, c = {c:g}": self._accepted(passed, ratios, c) for c in THRESHOLDS},
        }
        (folder / "passed.json").write_text(json.dumps({"texts": passed, "log_ratios": ratios}))
        rows = [
            {"way": name, "draws": len(pool["texts"]) / len(texts), **self._measure(texts)}
            for name, texts in chosen.items()
            if len(texts) >= LEAST
        ]
        return {"calibration": known["calibration"], "sampling_seconds": pool["sampling_seconds"], "rows": rows}

    def imitated(self, way: Way) -> dict[str, Any]:
        """Train the generator further on what filter and discriminator have let pass."""
        self.do(["guided"])
        made = json.loads((self.folder / "guided" / "passed.json").read_text())
        texts = Dataset.from_dict({"text": self._accepted(made["texts"], made["log_ratios"], TAUGHT_AT)})
        split = texts.train_test_split(0.1, shuffle=False)
        return self._taught(way, split["train"], split["test"])

    def _taught(self, way: Way, texts: Dataset, validation: Dataset) -> dict[str, Any]:
        folder, arguments = self.folder / way.name / "generator", self.arguments
        given = self._home(way.start), folder, texts, validation
        training = supervise(*given, arguments.taught_epochs, [LEARNING_RATE / 2], arguments.bf16)
        return {"training": training, "rows": self._rows(folder)}

    @cached_property
    def real(self) -> list[str]:
        """Unseen real texts that have the reward, cut as completions are."""
        return self.reward.only(self.supervised.real)

    def _accepted(self, texts: Sequence[str], ratios: Sequence[float], threshold: float) -> list[str]:
        uniforms = torch.rand(len(texts), generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)
        kept = is_accepted(torch.tensor(ratios, dtype=torch.float64), uniforms, threshold)
        return [text for text, is_kept in zip(texts, kept.tolist(), strict=True) if is_kept]

    def _home(self, start: str) -> Path:
        return (self.supervised.home if start == SUPERVISED else self.folder / start) / "generator"

    def _model(self, folder: Path) -> Any:
        return load_merged(folder, self.arguments.bf16, self.supervised.device)

    def _rows(self, folder: Path) -> list[dict[str, Any]]:
        """Measure a saved generator at each temperature."""
        model, tokenizer, number = self._model(folder), self.supervised.tokenizer, self.arguments.few_texts
        found = []
        for temperature in TEMPERATURES:
            texts = frontier.drawn(model, tokenizer, number, temperature, self.seed, self.arguments)["texts"]
            found.append({"way": f"T = {temperature:g}", "draws": 1.0, **self._measure(texts)})
        return found

    def _measure(self, texts: Sequence[str]) -> dict[str, Any]:
        """Measure texts: how many have the reward, and how far these, and all, are from real texts that have it."""
        texts = texts[: self.arguments.few_texts]
        rewarded = self.reward.only(texts)
        words = [text.split() for text in texts]
        made = {
            "texts": len(texts),
            "reward": len(rewarded) / len(texts),
            "rewarded_auc": self._areas(rewarded),
            "auc": self._areas(texts),
            "self_bleu": self_bleu(words, 4),
            "words": sum(map(len, words)) / len(words),
            "samples": list(texts[:NUM_SAMPLES]),
        }
        print(made, flush=True)
        return made

    def _areas(self, texts: Sequence[str]) -> dict[str, list[float]]:
        """Return areas, with their intervals, of two tests against real texts; none where there are too few texts."""
        count = min(len(texts), len(self.real))
        if count < LEAST:
            return {}
        sides = self.real[:count], texts[:count]
        return {
            "n-grams": list(c2st(*sides, seed=self.seed).auc),
            "encoder": list(c2st(*sides, seed=self.seed, encoder=self._features).auc),
        }

    @cached_property
    def _features(self) -> Any:
        return encoder_features(self.arguments.generator, device=str(self.supervised.device))
