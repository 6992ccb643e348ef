"""One run of `benchmarks.frontier`: a seed of discriminators and samples, through all stages, each done once.

In: the command line. Out, for each generator: folders with both models, samples and test results.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer

from hf_mgan import AdversarialConfig, AdversarialTrainer
from hf_mgan.data import TextPath, start_of_sequence
from hf_mgan.decoding import sample
from hf_mgan.metrics import (
    auc_interval,
    c2st,
    encoder_features,
    fine_tuned_c2st,
    mauve,
    memorisation,
    self_bleu,
    sequence_logps,
)
from hf_mgan.training.final_updates import fit_discriminator

from ..for_rejection import ForFourDrawsTrainer
from ..real_text.__main__ import LEARNING_RATES, REAL_TEXT_COEFS
from ..real_text.stages import SMALL
from ..sources import load_texts, short_name
from ..sweep import do_stage
from .candidates import ALONE, Row, rejection_name, rows
from .generators import (
    BATCH_SIZE,
    LEARNING_RATE,
    QUIET,
    load_discriminator,
    load_merged,
    supervise,
    train_adversarially,
    train_small,
)
from .second import second_discriminator
from .words import telling_words


SUPERVISED, DISTILLED, ADVERSARIAL, FOR_FOUR = GENERATORS = ("supervised", "distilled", "adversarial", "for_4_draws")
TRAINERS: dict[str, tuple[type[AdversarialTrainer], dict[str, Any]]] = {
    ADVERSARIAL: (AdversarialTrainer, {}),
    FOR_FOUR: (ForFourDrawsTrainer, {"discriminator_reward": "logit"}),
}
STAGES = ("generator", "samples", "discriminator", "log_ratios", "tests", "ngram_tests", "fine_tuned_tests")
SECOND = "second"  # a stage that is done where it is asked for
TEMPERATURE, COLDER = 1.0, 0.9
REAL = "real text"
NUM_SAMPLES = 20  # texts of each row that are kept with the results
SPARE = 1.05  # of candidates: how many are kept is a matter of chance
TAUGHT_AT = 2.0  # draws per text that the distilled generator learns from


class Run:
    """A generator and a seed: all stages, each done once. The supervised generator is that of all seeds.

    Args:
        name (`str`): One of `GENERATORS`.
        seed (`int`): Seed of the discriminator and the samples.
        arguments (`argparse.Namespace`): The command line.
    """

    def __init__(self, name: str, seed: int, arguments: argparse.Namespace) -> None:
        self.name, self.seed, self.arguments = name, seed, arguments
        self.root: Path = arguments.output / f"{short_name(arguments.generator)}_{short_name(arguments.data)}"
        self.folder = self.root / f"seed_{seed}" / name
        self.home = self.root if name == SUPERVISED else self.folder  # of the generator
        self.folder.mkdir(parents=True, exist_ok=True)
        data = load_texts(arguments.data, arguments.max_texts)
        rows, self.validation = data["train"], data["validation"]
        cut = len(rows) - min(arguments.texts, len(rows) // 3)
        self.train, self.unseen = rows.select(range(cut)), rows.select(range(cut, len(rows)))

    def do(self, stages: Sequence[str]) -> None:
        """Do the stages that are not done."""
        for stage in (one for one in (*STAGES, SECOND) if one in stages):
            folder = self.home if stage == "generator" else self.folder
            do_stage(folder / f"{stage}.json", self.seed, getattr(self, stage))

    def generator(self) -> dict[str, Any]:
        """Train the generator."""
        arguments, folder = self.arguments, self.home / "generator"
        if self.name == SUPERVISED and arguments.generator == SMALL:
            return train_small(folder, arguments.data, arguments.max_texts, len(self.unseen))
        if self.name == SUPERVISED:
            given = folder, self.train, self.validation, arguments.epochs, arguments.learning_rates, arguments.bf16
            return supervise(arguments.generator, *given)
        teacher = Run(SUPERVISED, self.seed, arguments)
        start = teacher.home / "generator"
        if self.name in TRAINERS:
            given, (trainer_class, config) = (start, teacher.folder / "discriminator", folder), TRAINERS[self.name]
            if arguments.generator == SMALL:
                config = {**config, "learning_rate": LEARNING_RATES[True], "real_text_coef": REAL_TEXT_COEFS[True]}
            return train_adversarially(*given, self.train, self.seed, arguments, trainer_class=trainer_class, **config)
        accepted = Dataset.from_dict({"text": teacher.rows()[rejection_name(TAUGHT_AT)].texts})
        split = accepted.train_test_split(0.1, shuffle=False)
        return supervise(start, folder, split["train"], split["test"], [1], [LEARNING_RATE / 2], arguments.bf16)

    def samples(self) -> dict[str, Any]:
        """Draw the pool of candidates, and as many texts as are tested at a lower temperature."""
        arguments, made = self.arguments, {}
        for temperature, number in (
            (TEMPERATURE, math.ceil(SPARE * max(arguments.draws) * arguments.texts)),
            (COLDER, arguments.texts),
        ):
            made[f"{temperature:g}"] = drawn(self.model, self.tokenizer, number, temperature, self.seed, arguments)
        return made

    def discriminator(self) -> dict[str, Any]:
        """Train the discriminator against the generator and calibrate it."""
        given = self.model, self.tokenizer, self.train, self.validation
        return fit(*given, self.folder / "discriminator", self.seed, self.arguments)

    def log_ratios(self) -> dict[str, Any]:
        """Let the discriminator read the pool and the real texts, and the generator say how likely these are."""
        read = partial(ratios_of, self.folder / "discriminator", arguments=self.arguments, device=self.device)
        began = time.perf_counter()
        made: dict[str, Any] = {"pool": read(self.pool()["texts"])}
        made["pool_seconds"] = time.perf_counter() - began
        made["real"] = read(self.real)
        path = TextPath(self.tokenizer, self.arguments.max_completion_length)
        ids = path.encode([""] * len(self.real), list(self.unseen["text"]))
        starts = path.encode_prompts([path.started("")] * len(ids))
        made["real_logps"] = sequence_logps(self.model, starts, ids, TEMPERATURE, self.arguments.batch_size).tolist()
        return made

    def rows(self) -> dict[str, Row]:
        """Return texts of every row, and what they cost."""
        pool, ratios = self.pool(), self.read("log_ratios")
        colder = self.read("samples")[f"{COLDER:g}"]
        unknown = [0.0] * len(colder["texts"])  # the discriminator is that of temperature 1
        found = rows({**pool, "log_ratios": ratios["pool"]}, self.arguments.draws, self.seed)
        tokens = sum(colder["tokens"]) / len(colder["tokens"])
        return {ALONE: found.pop(ALONE), f"T = {COLDER:g}": Row(colder["texts"], unknown, 1.0, tokens), **found}

    def tests(self) -> dict[str, Any]:
        """Compare each row with unseen real texts by the fast two-sample tests, and measure its texts."""
        few, real = self.arguments.few_texts, self.real
        features = encoder_features(self.arguments.encoder, device=str(self.device))
        made = {**self.rows(), REAL: Row(real[few:], self.read("log_ratios")["real"][few:], 0.0, 0.0)}
        ratios = self.read("log_ratios")
        corpus, results = [text.split() for text in self.train["text"]], {}
        for name, row in made.items():
            texts = row.texts[:few]
            reference = real[: len(texts)]
            words, real_words = ([text.split() for text in side] for side in (texts, reference))
            copied = memorisation(words, real_words, corpus)
            results[name] = {
                "draws": row.draws,
                "tokens": row.tokens,
                "threshold": row.threshold,
                "texts": len(texts),
                "c2st_auc": list(c2st(reference, texts, seed=self.seed).auc),
                "encoder_c2st_auc": list(c2st(reference, texts, seed=self.seed, encoder=features).auc),
                "mauve": mauve(features(reference), features(texts), seed=self.seed).score,
                "self_bleu": self_bleu(words, 4),
                "words": sum(map(len, words)) / len(words),
                "near_duplicates": copied.generated.near_duplicate_share,
                "near_duplicates_of_real": copied.held_out.near_duplicate_share,
                "longest_ngram": copied.generated.longest_ngram,
                "real_nll": real_nll(ratios, row) if name == ALONE or row.threshold is not None else None,
                "samples": list(zip(texts[:NUM_SAMPLES], row.log_ratios[:NUM_SAMPLES], strict=True)),
            }
            print(f"{name}: {results[name]}", flush=True)
        lengths = [len(text.split()) for text in real]
        return {
            "rows": results,
            "real_words": sum(lengths) / len(lengths),
            "unseen_auc": list(auc_interval(torch.tensor(ratios["real"]), torch.tensor(ratios["pool"]))),
        }

    def fine_tuned_tests(self) -> dict[str, Any]:
        """Compare rows with real texts by a freshly fine-tuned encoder."""
        results = {}
        for name, sides_of_row in self._sides().items():
            done = self.folder / "fine_tuned_tests" / f"{name}.json"  # each takes minutes
            do_stage(done, self.seed, partial(self.fine_tuned_test, name, *sides_of_row))
            results[name] = json.loads(done.read_text())
        taken = {name: sum(row[name] for row in results.values()) for name in ("seconds", "cpu_seconds")}
        kept = ("texts", "fine_tuned_c2st_auc")
        return {"rows": {name: {key: row[key] for key in kept} for name, row in results.items()}, **taken}

    def ngram_tests(self) -> dict[str, Any]:
        """Compare by n-grams all texts of the rows that the fine-tuned encoder reads, and find telling words."""
        results = {}
        for name, (real, texts) in self._sides().items():
            count = min(len(real), len(texts))
            results[name] = list(c2st(real[:count], texts[:count], seed=self.seed).auc)
            print(f"{name}: n-grams of {count} texts, {results[name]}", flush=True)
        rows = self.rows()
        others = {name: row.texts for name, row in rows.items() if row.threshold is not None}
        learnt = {"learnt": self.cut(self.train["text"])}
        return {"rows": results, **telling_words(self.real, rows[ALONE].texts, {**learnt, **others})}

    def _sides(self) -> dict[str, tuple[list[str], list[str]]]:
        """Return real texts and those of a row, for each row whose tests take all of them."""
        real, made = self.real, self.rows()
        sides = {
            name: (real, row.texts)
            for name, row in made.items()
            if row.threshold is not None or name == ALONE or (self.name == SUPERVISED and row.draws == 1)
        }
        if self.name == SUPERVISED:
            sides[REAL] = (real[: len(real) // 2], real[len(real) // 2 :])
        return sides

    def fine_tuned_test(self, name: str, real: list[str], texts: list[str]) -> dict[str, Any]:
        """Compare the texts of a row with real ones by a freshly fine-tuned encoder, as many of each as there are."""
        count = min(len(real), len(texts))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.arguments.bf16):
            test = fine_tuned_c2st(real[:count], texts[:count], self.arguments.discriminator, seed=self.seed)
        print(f"{name}: {count} texts, {test.auc}", flush=True)
        return {"name": name, "texts": count, "fine_tuned_c2st_auc": list(test.auc)}

    def second(self) -> dict[str, Any]:
        """Train a second discriminator against what the first one keeps, and test what both keep."""
        return second_discriminator(self)

    def pool(self) -> dict[str, Any]:
        """Return the candidates: their texts and tokens."""
        made: dict[str, Any] = self.read("samples")[f"{TEMPERATURE:g}"]
        return made

    def read(self, stage: str) -> dict[str, Any]:
        """Return the result of a stage that is done."""
        made: dict[str, Any] = json.loads((self.folder / f"{stage}.json").read_text())
        return made

    @cached_property
    def real(self) -> list[str]:
        """Unseen real texts, cut as completions are."""
        return self.cut(self.unseen["text"])

    def cut(self, texts: Sequence[str]) -> list[str]:
        """Return real texts as a generator would have written them, cut as completions are."""
        path = TextPath(self.tokenizer, self.arguments.max_completion_length)
        return path.as_completions([""] * len(texts), list(texts))

    @cached_property
    def tokenizer(self) -> Any:
        """The generator's."""
        return AutoTokenizer.from_pretrained(self.home / "generator", padding_side="left")

    @property
    def device(self) -> torch.device:
        """Where all models are."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @cached_property
    def model(self) -> Any:
        """The generator, to sample from."""
        return load_merged(self.home / "generator", self.arguments.bf16, self.device)


def drawn(
    model: Any, tokenizer: Any, number: int, temperature: float, seed: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Return texts of a generator from the start of the sequence, their tokens, and the seconds that they took."""
    began = time.perf_counter()
    starts, limit = [start_of_sequence(tokenizer)] * number, arguments.max_completion_length
    samples = sample(model, tokenizer, starts, limit, temperature, seed, arguments.batch_size)
    return {
        "texts": samples.texts,
        "tokens": [len(row) for row in samples.completion_ids],
        "sampling_seconds": time.perf_counter() - began,
    }


def fit(
    model: Any,
    tokenizer: Any,
    texts: Dataset,
    validation: Dataset,
    folder: Path,
    seed: int,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Train a discriminator to tell texts from a generator's, calibrate it on others, and save it in a folder."""
    limit = arguments.max_completion_length
    discriminator = load_discriminator(arguments.discriminator, arguments, bf16=arguments.bf16).to(model.device)
    config = AdversarialConfig(
        str(folder),
        per_device_train_batch_size=BATCH_SIZE,
        num_generations=BATCH_SIZE,
        max_completion_length=limit,
        temperature=TEMPERATURE,
        seed=seed,
        bf16=arguments.bf16,
        **QUIET,
    )
    calibration = fit_discriminator(model, tokenizer, discriminator, texts, validation, config, arguments.updates)
    discriminator.save_pretrained(folder)
    return {"calibration": vars(calibration), "updates": discriminator.num_updates}


def ratios_of(folder: Path, texts: Sequence[str], arguments: argparse.Namespace, device: torch.device) -> list[float]:
    """Let a saved discriminator read texts; those of one length are read together, so that little is padded."""
    discriminator = load_discriminator(folder, arguments).to(device)
    order, size = sorted(range(len(texts)), key=lambda place: len(texts[place])), arguments.batch_size
    ratios = torch.empty(len(texts))
    for start in range(0, len(order), size):
        places = order[start : start + size]
        values = discriminator.log_ratio([""] * len(places), [texts[place] for place in places])
        ratios[places] = values.cpu()
    found: list[float] = ratios.tolist()
    return found


def real_nll(ratios: dict[str, Any], row: Row) -> float:
    """Return the negative log-likelihood of a real text in nats: of the generator, or of what rejection makes of it.

    What is accepted has the density q(x) min(1, exp(r(x) - c)) / Z, and 1 / Z draws are needed for a text.
    """
    logps = torch.tensor(ratios["real_logps"], dtype=torch.float64)
    if row.threshold is not None:
        logps += (torch.tensor(ratios["real"], dtype=torch.float64) - row.threshold).clamp(max=0) + math.log(row.draws)
    return -logps.mean().item()
