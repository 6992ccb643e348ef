"""The models that all runs of a seed in `benchmarks.recipe` begin with, made as the demo makes them.

In: a seed. Out: a folder with a generator trained by maximum likelihood, an encoder trained on masked words, a causal
language model of the encoder's size, and the generator's metrics.
"""

import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    DataCollatorForLanguageModeling,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from hf_mgan.demo.exact_metrics import ExactMetrics, Quality
from hf_mgan.demo.language import Language
from hf_mgan.demo.models import TRAINING, make_tokenizer, train_encoder, train_generator
from hf_mgan.demo.parts import TEMPERATURES
from hf_mgan.demo.run import DemoArguments

from ..sweep.stopwatch import Stopwatch


FOLDERS = ("maximum_likelihood", "encoder", "causal")
METRICS = "metrics.json"


class RealSentences:
    """The language and the sentences of a seed, which are the demo's, with the exact metrics of generators.

    Args:
        sizes ([`DemoArguments`]): Sizes.
        seed (`int`): The seed.

    Attributes:
        language ([`Language`]): The language.
        tokenizer (`PreTrainedTokenizerBase`): The generator's.
        sentences (`list[str]`): Real sentences to train on.
        measure ([`ExactMetrics`]): The metrics of generators, on others.
    """

    def __init__(self, sizes: DemoArguments, seed: int) -> None:
        self.language = Language()
        self.tokenizer = make_tokenizer(self.language.words, adds_ends=False)
        self.sentences = [" ".join(words) for words in self.language.sample(sizes.sentences, 2 * seed)]
        unseen = self.language.sample(sizes.samples, 2 * seed + 1)
        self.measure = ExactMetrics(self.language, self.tokenizer, unseen, seed)
        self.mean_length = sum(map(len, unseen)) / len(unseen)

    def metrics(self, quality: Quality) -> dict[str, float]:
        """Return a generator's metrics, with its mean length as a share of the language's."""
        return asdict(quality) | {"length_ratio": quality.mean_length / self.mean_length}


def train_causal(
    sentences: list[str], tokenizer: PreTrainedTokenizerBase, folder: Path, steps: int, batch_size: int, seed: int
) -> None:
    """Train a GPT-2 of the encoder's size as a language model, by the encoder's schedule, and save it.

    Args:
        sentences (`list[str]`): Real sentences.
        tokenizer (`PreTrainedTokenizerBase`): One that adds both ends.
        folder (`Path`): Where model and tokenizer are saved, as a Hub folder.
        steps (`int`): Steps; the learning rate falls linearly to 0 over them.
        batch_size (`int`): Sentences per step.
        seed (`int`): Seed of the weights and of the order.

    """
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=32,
            n_embd=64,
            n_layer=2,
            n_head=4,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    arguments = TrainingArguments(
        str(folder),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=3e-3,
        weight_decay=0.01,
        warmup_steps=50,
        seed=seed,
        **TRAINING,
    )
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    data = Dataset.from_dict({"input_ids": tokenizer(sentences)["input_ids"]})
    trainer = Trainer(model, arguments, collator, data, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model()


def make_initial_models(sizes: DemoArguments, seed: int, folder: Path) -> dict[str, Any]:
    """Make the initial models of a seed, unless they are there already, and return what was measured on them.

    Args:
        sizes ([`DemoArguments`]): Sizes.
        seed (`int`): The seed.
        folder (`Path`): Folder of the models of this seed; there is none until all of them are made.

    Returns:
        `dict`: `likelihood`, the generator at several temperatures, the best first, and `seconds`.
    """
    if not (folder / METRICS).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as name:
            new = Path(name) / "models"
            metrics = _train_initial_models(sizes, seed, new)
            (new / METRICS).write_text(json.dumps(metrics, indent=1) + "\n")
            for rest in new.rglob("training_args.bin"):
                rest.unlink()
            try:
                os.replace(new, folder)
            except OSError:  # another process was faster
                if not (folder / METRICS).exists():
                    raise
    return json.loads((folder / METRICS).read_text())


def _train_initial_models(sizes: DemoArguments, seed: int, folder: Path) -> dict[str, Any]:
    reals, stopwatch = RealSentences(sizes, seed), Stopwatch()
    ends = make_tokenizer(reals.language.words, adds_ends=True)
    shared: dict[str, Any] = {"batch_size": sizes.batch_size, "seed": seed}
    nobody = TrainerCallback()
    with stopwatch.part("maximum_likelihood"):
        model = train_generator(
            reals.sentences,
            reals.tokenizer,
            folder / "maximum_likelihood",
            sizes.likelihood_steps,
            callback=nobody,
            **shared,
        )
    with stopwatch.part("encoder"):
        train_encoder(reals.sentences, ends, folder / "encoder", sizes.encoder_steps, callback=nobody, **shared)
    with stopwatch.part("causal"):
        train_causal(reals.sentences, ends, folder / "causal", sizes.encoder_steps, **shared)
    with stopwatch.part("measurement"):
        likelihood = reals.measure.best(model, TEMPERATURES)
    return {
        "likelihood": [reals.metrics(one) for one in likelihood],
        "seconds": stopwatch.seconds,
    }


def digest(folder: Path) -> str:
    """Return what tells these models from others: a hash of their weights, 12 hexadecimal digits."""
    whole = hashlib.sha256()
    for name in FOLDERS:
        whole.update((folder / name / "model.safetensors").read_bytes())
    return whole.hexdigest()[:12]
