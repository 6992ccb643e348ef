"""The demo: adversarial training on a small formal language, with nothing to download and the exact divergence known.

Out, in `output_dir`: for each seed a folder with both models, all metrics as `demo.json`, the curves as `demo.png`.
"""

import json
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

from ..discriminator import Calibration
from ..metrics import distinct_n
from ..trainer import AdversarialTrainer
from .aside import Aside
from .exact_metrics import ExactMetrics, GuidedQuality, Quality, sample_sentences
from .guidance import dataset_of
from .language import Language
from .models import adapters, make_tokenizer, train_encoder
from .parts import (
    ADVERSARIAL,
    LIKELIHOOD,
    TEMPERATURES,
    GuidedLikelihood,
    Parts,
    adversarial_config,
    guided_likelihood,
    likelihood_again,
    quiet,
)
from .rows import table_rows


if TYPE_CHECKING:
    from .report import Bars

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


def train_one_seed(arguments: DemoArguments, seed: int, bars: "Bars") -> SeedResult:
    """Train maximum likelihood, the discriminator's encoder and both models together, with one seed.

    What depends on nothing but models that are done runs beside the rest, in a process of its own.

    Args:
        arguments ([`DemoArguments`]): Sizes.
        seed (`int`): Seed of sentences, weights and samples.
        bars (`Bars`): Shows the progress.

    Returns:
        [`SeedResult`]: All metrics.
    """
    parts = Parts(arguments, seed)
    folder, exact_metrics, tokenizer = parts.folder, parts.metrics, parts.tokenizer
    with parts.timed("maximum likelihood"):
        model = parts.likelihood(LIKELIHOOD, bars.add("maximum likelihood", arguments.likelihood_steps))
    with Aside(likelihood_again, arguments, seed) as beside:
        bars.follow("maximum likelihood again", arguments.likelihood_steps, beside)
        with parts.timed("discriminator's encoder"):
            bar = bars.add("discriminator's encoder", arguments.encoder_steps)
            train_encoder(
                parts.sentences,
                make_tokenizer(parts.language.words, adds_ends=True),
                folder / "encoder",
                arguments.encoder_steps,
                arguments.batch_size,
                seed,
                bar,
            )
        with parts.timed("measuring maximum likelihood"):
            likelihood = exact_metrics.best(model, TEMPERATURES)
            samples_before = _texts(model, tokenizer, likelihood[0].temperature)
        with parts.timed("adversarial training"):
            divergence = DivergenceCallback(exact_metrics, min(2000, arguments.samples))
            bar = bars.add("adversarial training", arguments.steps, arguments.warmup_steps)
            trainer = AdversarialTrainer(
                model=str(folder / LIKELIHOOD),
                discriminator=str(folder / "encoder"),
                args=adversarial_config(arguments, folder / ADVERSARIAL, seed),
                train_dataset=dataset_of(parts.sentences),
                peft_config=adapters(),
                callbacks=[bar, divergence],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            trainer.save_model()
            trainer.create_model_card(dataset_name="a small formal language")
        again, seconds_again = beside.result()
    with Aside(guided_likelihood, arguments, seed) as beside:
        bars.follow("discriminator, maximum likelihood", arguments.final_steps, beside)
        with parts.timed("measuring the adversarial model"):
            adversarial = exact_metrics(trainer.model)
            samples_after = _texts(trainer.model, tokenizer, 1.0)
        bar = bars.add("discriminator, adversarial", arguments.final_steps)
        discriminator, guided_adversarial = parts.guided(trainer.model, ADVERSARIAL, bar.move)
        of_likelihood: GuidedLikelihood = beside.result()
    discriminator.save_pretrained(folder / ADVERSARIAL / "discriminator")  # both begin with the one that was there

    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    curves = {name: [round(entry[key], 4) for entry in logged] for name, key in CURVES.items()}
    return SeedResult(
        seed=seed,
        folder=str(folder),
        likelihood=likelihood,
        likelihood_again=again,
        adversarial=adversarial,
        guided={
            "maximum likelihood + D": of_likelihood.learned,
            "maximum likelihood + perfect D": of_likelihood.perfect,
            "adversarial + D": guided_adversarial,
        },
        discriminators={
            "maximum likelihood + D": of_likelihood.calibration,
            "adversarial + D": discriminator.calibration,
        },
        before={name: sum(values[:WINDOW]) / WINDOW for name, values in curves.items()},
        after={name: sum(values[-WINDOW:]) / WINDOW for name, values in curves.items()},
        curves=curves,
        divergences=divergence.divergences,
        seconds=parts.seconds | seconds_again | of_likelihood.seconds,
        samples_before=samples_before,
        samples_after=samples_after,
        samples_guided=of_likelihood.samples,
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
    with quiet(), Bars() as bars:
        runs = [train_one_seed(arguments, seed, bars) for seed in arguments.seeds]
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
