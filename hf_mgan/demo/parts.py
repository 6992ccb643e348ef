"""The parts of a run of the demo: what they share, and those that run in a process of their own.

In: sizes and a seed. Out: models in their folders, and metrics.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import datasets
import torch
import transformers
from peft import PeftModel
from transformers import (
    GPTNeoForCausalLM,
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from ..config import AdversarialConfig
from ..discriminator import Calibration, Discriminator
from .exact_metrics import ExactMetrics, GuidedQuality, Quality
from .guidance import THRESHOLDS, caught_up, dataset_of, guided_texts, held_out_sentences
from .language import Language
from .models import MAX_TOKENS, TRAINING, make_tokenizer, train_generator


if TYPE_CHECKING:
    from .run import DemoArguments

LIKELIHOOD, ADVERSARIAL = "maximum_likelihood", "adversarial"  # folders
TEMPERATURES = (0.7, 0.8, 0.9, 1.0, 1.1)


class Parts:
    """What all parts of a seed have in common: its sentences, how they are measured, and folders.

    Args:
        arguments ([`DemoArguments`]): Sizes.
        seed (`int`): Seed of sentences, weights and samples.

    Attributes:
        sentences (`list[str]`): Real ones to learn from; no two seeds share any, nor those to measure with.
        tokenizer (`PreTrainedTokenizerBase`): The generator's.
        metrics ([`ExactMetrics`]): Of generators.
        folder (`Path`): Where the models of the seed are saved.
        seconds (`dict[str, float]`): Duration of each part.
    """

    def __init__(self, arguments: "DemoArguments", seed: int) -> None:
        self.arguments, self.seed = arguments, seed
        self.language = Language()
        self.sentences = [" ".join(words) for words in self.language.sample(arguments.sentences, 2 * seed)]
        self.tokenizer = make_tokenizer(self.language.words, adds_ends=False)
        unseen = self.language.sample(arguments.samples, 2 * seed + 1)
        self.metrics = ExactMetrics(self.language, self.tokenizer, unseen, seed)
        self.folder = Path(arguments.output_dir) / f"seed_{seed}"
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Note how long a part takes."""
        began = time.perf_counter()
        yield
        self.seconds[part] = round(time.perf_counter() - began, 1)

    def likelihood(
        self, name: str, callback: TrainerCallback, start: PreTrainedModel | None = None
    ) -> PreTrainedModel:
        """Train a generator by maximum likelihood, in the folder `name`."""
        arguments = self.arguments
        return train_generator(
            self.sentences,
            self.tokenizer,
            self.folder / name,
            arguments.likelihood_steps,
            arguments.batch_size,
            self.seed,
            callback,
            start,
        )

    def guided(
        self, model: PreTrainedModel | PeftModel, name: str, on_update: Callable[[int], Any]
    ) -> tuple[Discriminator, list[GuidedQuality]]:
        """Let the discriminator catch up on the generator of the folder `name`, save it there, and measure both."""
        config = adversarial_config(self.arguments, self.folder / ADVERSARIAL, self.seed)
        data, held_out = dataset_of(self.sentences), held_out_sentences(self.language, self.seed)
        with self.timed(f"discriminator of {name}"):
            discriminator = caught_up(
                self.folder / ADVERSARIAL / "discriminator",
                model,
                self.tokenizer,
                data,
                held_out,
                config,
                self.arguments.final_steps,
                on_update,
            )
        with self.timed(f"measuring with the discriminator of {name}"):
            qualities = self.metrics.guided(model, discriminator, THRESHOLDS)
        return discriminator, qualities


class GuidedLikelihood(NamedTuple):
    """What the generator of maximum likelihood is with its discriminator."""

    learned: list[GuidedQuality]
    perfect: list[GuidedQuality]
    calibration: Calibration | None
    samples: list[str]
    seconds: dict[str, float]


def guided_likelihood(arguments: "DemoArguments", seed: int, on_update: Callable[[int], Any]) -> GuidedLikelihood:
    """Measure maximum likelihood with a discriminator that catches up on it, and with a perfect one."""
    with quiet():
        parts = Parts(arguments, seed)
        folder = parts.folder / LIKELIHOOD
        model = GPTNeoForCausalLM.from_pretrained(folder)
        discriminator, qualities = parts.guided(model, LIKELIHOOD, on_update)
        with parts.timed("measuring with a perfect discriminator"):
            perfect = parts.metrics.guided(model, None, THRESHOLDS)
        texts = guided_texts(model, parts.tokenizer, discriminator)
        discriminator.save_pretrained(folder / "discriminator")
    return GuidedLikelihood(qualities, perfect, discriminator.calibration, texts, parts.seconds)


def likelihood_again(
    arguments: "DemoArguments", seed: int, on_step: Callable[[int], Any]
) -> tuple[list[Quality], dict[str, float]]:
    """Train maximum likelihood for as many steps once more, and measure it."""
    with quiet():
        parts = Parts(arguments, seed)
        start = GPTNeoForCausalLM.from_pretrained(parts.folder / LIKELIHOOD)
        with parts.timed("maximum likelihood again"):
            model = parts.likelihood(f"{LIKELIHOOD}_again", StepCallback(on_step), start)
        with parts.timed("measuring maximum likelihood again"):
            return parts.metrics.best(model, TEMPERATURES), parts.seconds


class StepCallback(TrainerCallback):
    """Tells of every step."""

    def __init__(self, on_step: Callable[[int], Any]) -> None:
        self.on_step = on_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell of it."""
        self.on_step(state.global_step)


def adversarial_config(arguments: "DemoArguments", folder: Path, seed: int) -> AdversarialConfig:
    """Return the settings of adversarial training.

    The reward is the one of V itself, -log(1 - D), without division by its deviation, so that the expected step is the
    gradient of V; each batch is one group. Both learning rates fall to 0: the discriminator has to follow a generator
    that moves, and stands nearer to the best discriminator when both slow down.

    Args:
        arguments ([`DemoArguments`]): Sizes.
        folder (`Path`): Output folder.
        seed (`int`): Seed.
    """
    shared = {name: value for name, value in TRAINING.items() if name != "logging_strategy"}
    return AdversarialConfig(
        str(folder),
        max_steps=arguments.steps,
        per_device_train_batch_size=arguments.batch_size,
        num_generations=arguments.batch_size,
        max_completion_length=MAX_TOKENS,
        top_k=0,
        learning_rate=7e-4,
        warmup_steps=10,
        scale_rewards="none",
        loss_type="dr_grpo",
        discriminator_learning_rate=1e-3,
        discriminator_optim_kwargs={"lr_scheduler_type": "linear", "weight_decay": 0.01},
        discriminator_warmup_steps=arguments.warmup_steps,
        model_init_kwargs={"dtype": "float32"},
        gradient_checkpointing=False,
        logging_steps=1,
        seed=seed,
        **shared,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries' own bars and notes, and use one thread: these models are too small for several."""
    threads, verbosity = torch.get_num_threads(), transformers.logging.get_verbosity()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of TRL's defaults, which transformers has renamed since
            yield
    finally:
        torch.set_num_threads(threads)
        transformers.logging.set_verbosity(verbosity)
        transformers.logging.enable_progress_bar()
        datasets.enable_progress_bars()
