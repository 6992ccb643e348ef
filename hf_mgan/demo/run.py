"""The demo: adversarial training on a small formal language, with nothing to download and the exact divergence known.

Out, in `output_dir`: for each seed a folder with both models, all metrics as `demo.json`, the curves as `demo.png`.
"""

import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import torch
import transformers
from peft import PeftModel
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from ..config import AdversarialConfig
from ..discriminator import Calibration
from ..metrics import distinct_n
from ..trainer import AdversarialTrainer
from .exact_metrics import ExactMetrics, GuidedQuality, Quality, sample_sentences
from .guidance import THRESHOLDS, caught_up, dataset_of, guided_texts, held_out_sentences
from .language import Language
from .models import MAX_TOKENS, TRAINING, adapters, make_tokenizer, train_encoder, train_generator
from .rows import table_rows


if TYPE_CHECKING:
    from .report import Bars

TEMPERATURES = (0.7, 0.8, 0.9, 1.0, 1.1)
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
# Metrics of the trainer that become the curves, under the names of the formula: V(D, G), D(x), D(G(s)).
CURVES = {
    "D(x)": "discriminator/real_prob",
    "D(G(s))": "discriminator/fake_prob",
    "V(D,G)": "discriminator/value",
    "accuracy": "discriminator/accuracy",
    "reward": "rewards/discriminator/mean",
    "length": "completions/mean_length",
}
# Steps over which the metrics at the beginning and at the end of adversarial training are averaged.
WINDOW = 5


@dataclass
class DemoArguments:
    """Arguments of `hf-mgan demo`. The defaults take a few minutes on a CPU.

    Args:
        output_dir (`str`, *optional*, defaults to `"demo"`): Where everything is saved.
        seeds (`list[int]`, *optional*, defaults to `[0]`): Each is a whole run.
        sentences (`int`, *optional*, defaults to 100000): Real sentences to train on.
        batch_size (`int`, *optional*, defaults to 256): Sentences per step, for all models.
        likelihood_steps (`int`, *optional*, defaults to 1200): Steps of maximum likelihood.
        encoder_steps (`int`, *optional*, defaults to 400): Steps of the discriminator's encoder as a masked language
            model.
        warmup_steps (`int`, *optional*, defaults to 200): Updates of the discriminator alone.
        steps (`int`, *optional*, defaults to 200): Steps of adversarial training.
        final_steps (`int`, *optional*, defaults to 300): Updates of the discriminator against each of the two
            generators as they are in the end, before it guides their sampling.
        samples (`int`, *optional*, defaults to 10000): Real sentences, and generated ones, behind each divergence.
    """

    output_dir: str = field(default="demo", metadata={"help": "Where everything is saved."})
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "Each is a whole run."})
    sentences: int = field(default=100_000, metadata={"help": "Real sentences to train on."})
    batch_size: int = field(default=256, metadata={"help": "Sentences per step, for all models."})
    likelihood_steps: int = field(default=1200, metadata={"help": "Steps of maximum likelihood."})
    encoder_steps: int = field(
        default=400, metadata={"help": "Steps of the discriminator's encoder as a masked language model."}
    )
    warmup_steps: int = field(default=200, metadata={"help": "Updates of the discriminator alone."})
    steps: int = field(default=200, metadata={"help": "Steps of adversarial training."})
    final_steps: int = field(
        default=300, metadata={"help": "Updates of the discriminator against each final generator, to guide it."}
    )
    samples: int = field(default=10_000, metadata={"help": "Real and generated sentences behind each divergence."})

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be one number or more, all different, got {self.seeds}.")
        training = {
            "likelihood_steps": 1,
            "encoder_steps": 1,
            "warmup_steps": 1,
            "steps": 2 * WINDOW,
            "final_steps": 1,
        }
        for name, least in {"batch_size": 2, "sentences": self.batch_size, "samples": 2, **training}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")


@dataclass(frozen=True)
class SeedResult:
    """The metrics and samples of one seed.

    Attributes:
        seed (`int`): The seed.
        folder (`str`): Where its models lie.
        likelihood (`list[Quality]`): Maximum likelihood at several temperatures, the best first.
        likelihood_again (`list[Quality]`): The same after training it for as many steps once more.
        adversarial (`Quality`): The adversarial model at temperature 1.
        guided (`dict[str, list[GuidedQuality]]`): Both generators with the discriminator at generation, and maximum
            likelihood with a perfect one, at several thresholds.
        discriminators (`dict[str, Calibration]`): What the discriminators know of each generator.
        before (`dict[str, float]`): D(x), D(G(s)) and V(D,G) at the first steps of adversarial training, each before
            the update on its own batch; the real sentences are of the training set.
        after (`dict[str, float]`): The same at its last steps.
        curves (`dict[str, list[float]]`): The same at every step.
        divergences (`list[tuple[int, float]]`): Step and divergence during adversarial training, on fewer samples.
        seconds (`dict[str, float]`): Duration of each part.
        samples_before (`list[str]`): Sentences of maximum likelihood at its best temperature, unpicked.
        samples_after (`list[str]`): Sentences of the adversarial model.
        samples_guided (`list[str]`): Sentences of maximum likelihood and its discriminator, at the second threshold.
    """

    seed: int
    folder: str
    likelihood: list[Quality]
    likelihood_again: list[Quality]
    adversarial: Quality
    guided: dict[str, list[GuidedQuality]]
    discriminators: dict[str, Calibration | None]
    before: dict[str, float]
    after: dict[str, float]
    curves: dict[str, list[float]]
    divergences: list[tuple[int, float]]
    seconds: dict[str, float]
    samples_before: list[str]
    samples_after: list[str]
    samples_guided: list[str]


class DivergenceCallback(TrainerCallback):
    """Computes the exact divergence ten times during training, whose random numbers stay as they are.

    Args:
        metrics ([`ExactMetrics`]): Computes it.
        count (`int`): Real sentences, and generated ones, behind each divergence.

    Attributes:
        divergences (`list[tuple[int, float]]`): Step and divergence.
    """

    def __init__(self, metrics: ExactMetrics, count: int) -> None:
        self.metrics = metrics
        self.count = count
        self.divergences: list[tuple[int, float]] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Compute the divergence after each tenth of the steps."""
        if state.global_step % max(state.max_steps // 10, 1) == 0:
            quality = self.metrics(kwargs["model"], count=self.count)
            self.divergences.append((state.global_step, quality.divergence))


def train_one_seed(arguments: DemoArguments, language: Language, seed: int, folder: Path, bars: "Bars") -> SeedResult:
    """Train maximum likelihood, the discriminator's encoder and both models together, with one seed.

    Args:
        arguments ([`DemoArguments`]): Sizes.
        language ([`Language`]): The language.
        seed (`int`): Seed of sentences, weights and samples.
        folder (`Path`): Where the models are saved.
        bars (`Bars`): Shows the progress.

    Returns:
        [`SeedResult`]: All metrics.
    """
    # No two seeds share sentences: real ones to train on and to measure with.
    sentences = [" ".join(words) for words in language.sample(arguments.sentences, 2 * seed)]
    tokenizer = make_tokenizer(language.words, adds_ends=False)
    exact_metrics = ExactMetrics(language, tokenizer, language.sample(arguments.samples, 2 * seed + 1), seed)
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[part] = round(time.perf_counter() - began, 1)

    likelihood_folder, encoder_folder = folder / "maximum_likelihood", folder / "encoder"
    sizes: dict[str, Any] = {"batch_size": arguments.batch_size, "seed": seed}
    with timed("maximum likelihood"):
        bar = bars.add("maximum likelihood", arguments.likelihood_steps)
        model = train_generator(
            sentences, tokenizer, likelihood_folder, arguments.likelihood_steps, callback=bar, **sizes
        )
    with timed("discriminator's encoder"):
        bar = bars.add("discriminator's encoder", arguments.encoder_steps)
        encoder_tokenizer = make_tokenizer(language.words, adds_ends=True)
        train_encoder(sentences, encoder_tokenizer, encoder_folder, arguments.encoder_steps, callback=bar, **sizes)
    with timed("measuring maximum likelihood"):
        likelihood = exact_metrics.best(model, TEMPERATURES)
        samples_before = _texts(model, tokenizer, likelihood[0].temperature)

    divergence = DivergenceCallback(exact_metrics, min(2000, arguments.samples))
    with timed("adversarial training"):
        trainer = AdversarialTrainer(
            model=str(likelihood_folder),
            discriminator=str(encoder_folder),
            args=adversarial_config(arguments, folder / "adversarial", seed),
            train_dataset=dataset_of(sentences),
            peft_config=adapters(),
            callbacks=[bars.add("adversarial training", arguments.steps, arguments.warmup_steps), divergence],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        trainer.save_model()
        trainer.create_model_card(dataset_name="a small formal language")
    with timed("measuring the adversarial model"):
        adversarial = exact_metrics(trainer.model)
        samples_after = _texts(trainer.model, tokenizer, 1.0)

    guided, discriminators = {}, {}
    held_out, adversarial_folder = held_out_sentences(language, seed), folder / "adversarial"
    source = adversarial_folder / "discriminator"
    for name, generator, path in (
        ("maximum likelihood + D", model, likelihood_folder),
        ("adversarial + D", trainer.model, adversarial_folder),
    ):
        with timed(f"discriminator of {path.name}"):
            bar = bars.add(f"discriminator, {path.name}".replace("_", " "), arguments.final_steps)
            given = generator, tokenizer, dataset_of(sentences), held_out, trainer.args
            discriminator = caught_up(source, *given, arguments.final_steps, bar.move)
        discriminators[name] = discriminator.calibration
        with timed(f"measuring with the discriminator of {path.name}"):
            guided[name] = exact_metrics.guided(generator, discriminator, THRESHOLDS)
        if generator is model:
            guided["maximum likelihood + perfect D"] = exact_metrics.guided(generator, None, THRESHOLDS)
            samples_guided = guided_texts(generator, tokenizer, discriminator)
        discriminator.save_pretrained(path / "discriminator")

    with timed("maximum likelihood again"):
        bar = bars.add("maximum likelihood again", arguments.likelihood_steps)
        again = train_generator(
            sentences,
            tokenizer,
            folder / "maximum_likelihood_again",
            arguments.likelihood_steps,
            callback=bar,
            start=model,
            **sizes,
        )
    with timed("measuring maximum likelihood again"):
        likelihood_again = exact_metrics.best(again, TEMPERATURES)

    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    curves = {name: [round(entry[key], 4) for entry in logged] for name, key in CURVES.items()}
    return SeedResult(
        seed=seed,
        folder=str(folder),
        likelihood=likelihood,
        likelihood_again=likelihood_again,
        adversarial=adversarial,
        guided=guided,
        discriminators=discriminators,
        before={name: sum(values[:WINDOW]) / WINDOW for name, values in curves.items()},
        after={name: sum(values[-WINDOW:]) / WINDOW for name, values in curves.items()},
        curves=curves,
        divergences=divergence.divergences,
        seconds=seconds,
        samples_before=samples_before,
        samples_after=samples_after,
        samples_guided=samples_guided,
    )


def adversarial_config(arguments: DemoArguments, folder: Path, seed: int) -> AdversarialConfig:
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


def run_demo(arguments: DemoArguments) -> list[SeedResult]:
    """Train once per seed, print tables, samples and the lines that load both models, and save everything.

    Args:
        arguments ([`DemoArguments`]): Sizes, seeds and the output folder.

    Returns:
        `list[SeedResult]`: One per seed.

    Raises:
        ImportError: If `rich` or `matplotlib` is missing.
    """
    try:
        from .report import Bars, draw, show
    except ImportError as error:
        raise ImportError("The demo draws with rich and matplotlib. Run: pip install 'hf-mgan[demo]'") from error

    folder = Path(arguments.output_dir)
    language = Language()
    with _quiet(), Bars() as bars:
        runs = [train_one_seed(arguments, language, seed, folder / f"seed_{seed}", bars) for seed in arguments.seeds]
    texts = language.sample(arguments.samples, 2 * arguments.seeds[0] + 1)
    real = {
        "grammatical": 1.0,
        "distinct_4": distinct_n(texts, 4),
        "entropy": language.entropy(),
        "mean_length": sum(map(len, texts)) / len(texts),
    }
    result = {
        "command": "hf-mgan demo --seeds " + " ".join(map(str, arguments.seeds)),
        "arguments": asdict(arguments),
        "versions": {name: version(name) for name in PACKAGES},
        "language": real,
        "rows": [asdict(row) for row in table_rows(runs, real)],
        "runs": [asdict(run) for run in runs],
    }
    (folder / "demo.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(runs, folder / "demo.png")
    show(runs, real, folder)
    return runs


def _texts(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, temperature: float) -> list[str]:
    return [" ".join(words) for words in sample_sentences(model, tokenizer, 10, temperature, seed=0)[1]]


@contextmanager
def _quiet() -> Iterator[None]:
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
