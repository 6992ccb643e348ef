"""Evaluation of generators on held-out text: every model at every temperature, part after part, to one report.

In: models, held-out real texts, at best the training texts. Out: `report.json`, `report.md`, three plots, and in
`parts/` a file for each model and temperature with its samples and figures: an evaluation that was stopped goes on
from there.
"""

import hashlib
import json
import math
import os
import platform
import random
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..data import prepare_dataset
from ..data.text_path import as_completions, plain_text
from ..density import sequence_logps
from ..evaluation import Interval, bootstrap_interval, encoder_features
from ..evaluation.figures import TextFigures, text_figures
from ..safety import SafetyGate
from ..sampling import sample
from .models import Model, fingerprint, load_generator, named_models
from .plots import draw
from .report import REAL, Report, part_name, write_report


PACKAGES = ("hf-mgan", "torch", "transformers", "trl", "peft", "datasets")
# What a part depends on: neither where it lies, nor the other temperatures, nor the baseline.
SETTINGS = (
    "num_samples",
    "max_completion_length",
    "batch_size",
    "encoder",
    "reverse_perplexity",
    "unit",
    "num_training_texts",
    "level",
    "dtype",
    "seed",
)
UNITS: dict[str, Callable[[str], list[str]]] = {
    "word": str.split,
    "character": lambda text: list("".join(text.split())),
}


@dataclass
class Evaluation:
    """Settings of [`evaluate_generator`].

    Args:
        output_dir (`str`, *optional*, defaults to `"evaluation"`): Folder of the report and of all that it is made of.
        num_samples (`int`, *optional*, defaults to 1000): Completions of each model at each temperature, at most half
            of the held-out texts: one half is what they are compared with, the other the row of real texts.
        temperatures (`list[float]`, *optional*, defaults to `[0.7, 0.8, 0.9, 1.0, 1.1]`): Temperatures of every model.
        max_completion_length (`int`, *optional*, defaults to 256): Tokens at which completions and real texts are cut;
            that of the training.
        batch_size (`int`, *optional*, defaults to 64): Texts a forward pass.
        encoder (`str`, *optional*): Id or folder of the encoder behind MAUVE and Frechet distance, at best another one
            than the discriminator; without it both are left out.
        reverse_perplexity (`bool`, *optional*, defaults to `True`): Whether a small model is trained on each set of
            texts.
        unit (`str`, *optional*, defaults to `"word"`): `"word"` for texts with spaces between words, `"character"` for
            others, such as Chinese.
        num_training_texts (`int`, *optional*, defaults to 50000): Training texts that copies are looked for in, the
            first ones of a random order.
        baseline (`str`, *optional*): Name of the model that the others are compared with, the first by default.
        level (`float`, *optional*, defaults to 0.95): Level of all intervals and of the verdicts.
        dtype (`str`, *optional*, defaults to `"auto"`): Precision of the loaded models.
        seed (`int`, *optional*, defaults to 0): Seed of the order of the real texts, of the samples and the measures.
    """

    output_dir: str = field(default="evaluation", metadata={"help": "Folder of the report."})
    num_samples: int = field(default=1000, metadata={"help": "Completions of each model at each temperature."})
    temperatures: list[float] = field(
        default_factory=lambda: [0.7, 0.8, 0.9, 1.0, 1.1], metadata={"help": "Temperatures of every model."}
    )
    max_completion_length: int = field(default=256, metadata={"help": "Tokens at which texts are cut."})
    batch_size: int = field(default=64, metadata={"help": "Texts a forward pass."})
    encoder: str | None = field(default=None, metadata={"help": "Encoder behind MAUVE and Frechet distance."})
    reverse_perplexity: bool = field(default=True, metadata={"help": "Whether to train a small model on each set."})
    unit: str = field(default="word", metadata={"help": "`word`, or `character` for texts without spaces."})
    num_training_texts: int = field(default=50_000, metadata={"help": "Training texts that copies are looked for in."})
    baseline: str | None = field(default=None, metadata={"help": "Model that the others are compared with."})
    level: float = field(default=0.95, metadata={"help": "Level of all intervals."})
    dtype: str = field(default="auto", metadata={"help": "Precision of the loaded models."})
    seed: int = field(default=0, metadata={"help": "Seed of the samples and of the measures."})

    def check(self) -> None:
        """Check the settings.

        Raises:
            ValueError: If one is out of range.
        """
        if self.num_samples < 2 or self.max_completion_length < 1 or self.batch_size < 1:
            raise ValueError(
                f"num_samples must be at least 2, max_completion_length and batch_size at least 1, got "
                f"{self.num_samples}, {self.max_completion_length} and {self.batch_size}."
            )
        if not self.temperatures or min(self.temperatures) <= 0:
            raise ValueError(f"temperatures must be numbers above 0, at least one, got {self.temperatures}.")
        if len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError(f"temperatures must differ from one another, got {self.temperatures}.")
        if self.unit not in UNITS:
            raise ValueError(f"unit must be one of {list(UNITS)}, got {self.unit!r}.")
        if not 0 < self.level < 1:
            raise ValueError(f"level must be more than 0 and less than 1, got {self.level}. 0.95 is common.")


def evaluate_generator(
    models: Model | list[str] | Mapping[str, Model],
    held_out: Dataset,
    evaluation: Evaluation | None = None,
    *,
    training: Dataset | None = None,
    safety: SafetyGate | None = None,
    processing_classes: Mapping[str, PreTrainedTokenizerBase] | None = None,
    prepare: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> Report:
    """Measure generators on held-out text at every temperature, and compare them at matched diversity.

    Samples are drawn at each temperature from the whole distribution. All figures of [`text_figures`] are computed
    beside the likelihood of the held-out texts and the entropy of the samples; where a dataset has prompts,
    completions follow them and BLEU against the references is among the figures. Real texts that nothing was trained
    on stand in the first row: what no generator can be asked to beat.

    Args:
        models (`str`, model, `list[str]` or `Mapping`): The generators by name: Hub ids, folders, models with or
            without adapters. The first one is the baseline unless `evaluation` names another.
        held_out (`Dataset`): Real texts that no model was trained on, in any form that [`prepare_dataset`] takes; at
            least twice `num_samples` of them, or there will be fewer samples.
        evaluation ([`Evaluation`], *optional*): Settings.
        training (`Dataset`, *optional*): The training texts, in the same form, to look for copies in.
        safety ([`SafetyGate`], *optional*): The classifier behind the unsafe rate.
        processing_classes (`Mapping`, *optional*): Tokenizers by the names of the models; each is loaded from where
            its model was by default.
        prepare (`Mapping`, *optional*): Further arguments of [`prepare_dataset`], those of the training.
        command (`str`, *optional*): What was called, for the report.

    Returns:
        [`Report`]: All that the files hold.

    Raises:
        ValueError: If a setting is out of range, there are too few held-out texts, two models share a name, or the
            folder holds parts of an evaluation with other settings.
    """
    evaluation = evaluation or Evaluation()
    evaluation.check()
    named = named_models(models)
    baseline = evaluation.baseline or next(iter(named))
    if baseline not in named:
        raise ValueError(f"baseline is {baseline!r}, and the models are {list(named)}.")
    count = min(evaluation.num_samples, len(held_out) // 2)
    if count < 2:
        raise ValueError(
            f"Held-out texts are split in two halves, one to compare with and one as the row of real texts; got "
            f"{len(held_out)}. Give at least 4, and 2000 for intervals that decide something."
        )
    folder = Path(evaluation.output_dir)
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    told = _told(evaluation, named, held_out, training, safety, prepare, count)
    _check_same(folder / "settings.json", told)
    order = random.Random(evaluation.seed).sample(range(len(held_out)), 2 * count)
    features = _remembered(encoder_features(evaluation.encoder, device=_device())) if evaluation.encoder else None
    began = time.perf_counter()

    def part(name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what a part's file holds, which is made if it is not there."""
        path = parts / f"{name}.json"
        if not path.exists():
            start = time.perf_counter()
            made = {**make(), "seconds": round(time.perf_counter() - start, 1), "peak_memory_gib": _peak_memory()}
            unfinished = path.with_suffix(f".{os.getpid()}")
            unfinished.write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n")
            os.replace(unfinished, path)
        return json.loads(path.read_text())

    results: dict[str, dict[str, Any]] = {}
    total = count * len(evaluation.temperatures) * len(named)
    with tqdm(total=total, unit="text", desc="evaluation") as bar:
        for name, model in named.items():
            wanted = [part_name(name, temperature) for temperature in evaluation.temperatures]
            missing = [one for one in (REAL, *wanted) if not (parts / f"{one}.json").exists()]
            setting: _Setting | None = None
            if missing:
                bar.set_postfix_str(f"loading {name}")
                generator, tokenizer = load_generator(
                    model, (processing_classes or {}).get(name), dtype=evaluation.dtype
                )
                setting = _setting(generator, tokenizer, held_out, training, order, evaluation, prepare)
            if REAL not in results:
                results[REAL] = part(REAL, partial(_real_part, setting, evaluation, features, safety))
            for temperature, one in zip(evaluation.temperatures, wanted, strict=True):
                bar.set_postfix_str(f"{name} at T = {temperature:g}")
                done = bar.n
                make = partial(_part, setting, temperature, evaluation, features, safety, bar.update)
                results[one] = part(one, make)
                bar.update(done + count - bar.n)
            del setting
    report = Report(
        command=command,
        settings={**told, "samples_each": count},
        baseline=baseline,
        models=list(named),
        temperatures=list(evaluation.temperatures),
        level=evaluation.level,
        parts=results,
        seconds=round(time.perf_counter() - began, 1),
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {platform.machine()}",
        threads=torch.get_num_threads(),
        versions={name: version(name) for name in PACKAGES},
    )
    write_report(report, folder)
    draw(report, folder)
    return report


@dataclass(frozen=True)
class _Setting:
    """A loaded generator and the texts as it has them.

    Real texts pass through the generator's tokenizer, as completions do, so they belong to it.
    """

    generator: Any
    tokenizer: PreTrainedTokenizerBase
    prompts: list[Any]
    real: list[str]
    further: list[str]
    training: list[str] | None
    has_prompts: bool


def _setting(
    generator: Any,
    tokenizer: PreTrainedTokenizerBase,
    held_out: Dataset,
    training: Dataset | None,
    order: list[int],
    evaluation: Evaluation,
    prepare: Mapping[str, Any] | None,
) -> _Setting:
    rows = cast(Dataset, prepare_dataset(held_out.select(order), tokenizer, **(prepare or {})))
    if "completion" not in rows.column_names:
        raise ValueError(
            "The held-out data has prompts but no `completion` column, so there are no real texts to compare with. "
            "Add the references as `completion`."
        )
    texts = as_completions(rows["completion"], tokenizer, evaluation.max_completion_length)
    half = len(order) // 2
    prompts = list(rows["prompt"])
    learnt = None
    if training is not None:
        places = random.Random(evaluation.seed).sample(
            range(len(training)), min(len(training), evaluation.num_training_texts)
        )
        chosen = cast(Dataset, prepare_dataset(training.select(places), tokenizer, **(prepare or {})))
        learnt = [plain_text(text) for text in chosen["completion"]]
    has_prompts = len({json.dumps(prompt) for prompt in prompts}) > 1
    return _Setting(generator, tokenizer, prompts[:half], texts[:half], texts[half:], learnt, has_prompts)


def _real_part(
    at: _Setting | None,
    evaluation: Evaluation,
    features: Callable[[Sequence[str]], Tensor] | None,
    safety: SafetyGate | None,
) -> dict[str, Any]:
    """Measure the other half of the real texts as if it were generated."""
    assert at is not None  # the part is missing, so a model was loaded
    figures = _text_figures(at, at.further, evaluation, features, safety, None)
    return _kept(figures, dict(figures.figures), at.further)


def _part(
    at: _Setting | None,
    temperature: float,
    evaluation: Evaluation,
    features: Callable[[Sequence[str]], Tensor] | None,
    safety: SafetyGate | None,
    on_batch: Callable[[int], Any],
) -> dict[str, Any]:
    """Draw completions at a temperature and measure them."""
    assert at is not None
    start = time.perf_counter()
    samples = sample(
        at.generator,
        at.tokenizer,
        at.prompts,
        evaluation.max_completion_length,
        temperature,
        evaluation.seed,
        evaluation.batch_size,
        on_batch,
    )
    seconds = time.perf_counter() - start
    figures = _text_figures(at, samples.texts, evaluation, features, safety, at.real if at.has_prompts else None)
    own = dict(figures.figures)
    own["entropy"] = _nats_a_token(at, samples.prompt_ids, samples.completion_ids, temperature, evaluation)
    real_ids = _reference_ids(at, evaluation)
    own["real_nll"] = _nats_a_token(at, samples.prompt_ids, real_ids, temperature, evaluation)
    made = _kept(figures, own, samples.texts)
    return {**made, "sampling_seconds": round(seconds, 1), "tokens": sum(map(len, samples.completion_ids))}


def _text_figures(
    at: _Setting,
    texts: list[str],
    evaluation: Evaluation,
    features: Callable[[Sequence[str]], Tensor] | None,
    safety: SafetyGate | None,
    references: list[str] | None,
) -> TextFigures:
    def is_unsafe(texts: Sequence[str]) -> list[bool]:
        assert safety is not None
        return safety.is_unsafe(at.prompts, texts).tolist()

    return text_figures(
        texts,
        at.real,
        training=at.training,
        references=references,
        features=features,
        is_unsafe=None if safety is None else is_unsafe,
        words=UNITS[evaluation.unit],
        reverse=evaluation.reverse_perplexity,
        seed=evaluation.seed,
        level=evaluation.level,
    )


def _reference_ids(at: _Setting, evaluation: Evaluation) -> list[list[int]]:
    """Return the tokens of the real texts, with the end token where the text ends within the limit."""
    rows = at.tokenizer(at.real, add_special_tokens=False)["input_ids"]
    end = at.tokenizer.eos_token_id
    limit = evaluation.max_completion_length
    return [[*row, end][:limit] if end is not None else row[:limit] for row in rows]


def _nats_a_token(
    at: _Setting, prompt_ids: list[list[int]], ids: list[list[int]], temperature: float, evaluation: Evaluation
) -> Interval:
    """Compute -log q a token at a temperature, with a bootstrap over texts."""
    pairs = [(prompt, row) for prompt, row in zip(prompt_ids, ids, strict=True) if row]
    if not pairs:
        return Interval(math.nan, math.nan, math.nan)
    logps = sequence_logps(
        at.generator, [pair[0] for pair in pairs], [pair[1] for pair in pairs], temperature, evaluation.batch_size
    ).tolist()
    entries = [(-logp, len(pair[1])) for logp, pair in zip(logps, pairs, strict=True)]
    return bootstrap_interval(
        entries,
        lambda rows: sum(row[0] for row in rows) / sum(row[1] for row in rows),
        level=evaluation.level,
        seed=evaluation.seed,
    )


def _kept(made: TextFigures, figures: dict[str, Interval], texts: list[str]) -> dict[str, Any]:
    """Return what a part's file holds."""
    numbers = {
        name: [round(value, 6) if math.isfinite(value) else None for value in interval]
        for name, interval in figures.items()
    }
    calibration = [] if made.judge is None else [list(one) for one in made.judge.calibration]
    return {"figures": numbers, "calibration": calibration, "lengths": made.lengths, "texts": texts}


def _remembered(features: Callable[[Sequence[str]], Tensor]) -> Callable[[Sequence[str]], Tensor]:
    """Return the function that computes the features of a set of texts once: real ones come with every part."""
    known: dict[tuple[str, ...], Tensor] = {}

    def remembered(texts: Sequence[str]) -> Tensor:
        key = tuple(texts)
        if key not in known:
            if len(known) > 1:
                known.pop(list(known)[-1])  # the first one, the real texts, comes again
            known[key] = features(texts)
        return known[key]

    return remembered


def _told(
    evaluation: Evaluation,
    named: dict[str, Model],
    held_out: Dataset,
    training: Dataset | None,
    safety: SafetyGate | None,
    prepare: Mapping[str, Any] | None,
    count: int,
) -> dict[str, Any]:
    """Return all that the parts depend on, as JSON has it."""
    settings = {name: value for name, value in asdict(evaluation).items() if name in SETTINGS}
    told = {
        **settings,
        "models": {
            name: {"from": model if isinstance(model, str) else type(model).__name__, "known_by": fingerprint(model)}
            for name, model in named.items()
        },
        "held_out": _rows_told(held_out),
        "training": None if training is None else _rows_told(training),
        "safety": None if safety is None else {"threshold": safety.threshold, "with_prompt": safety.with_prompt},
        "prepare": {
            name: list(value) if isinstance(value, tuple) else value for name, value in (prepare or {}).items()
        },
    }
    return json.loads(json.dumps(told))


def _rows_told(rows: Dataset) -> dict[str, Any]:
    """Return by what a dataset is known again: its content, wherever it lies."""
    content = hashlib.sha256()
    for row in rows:
        content.update(json.dumps(row, sort_keys=True, default=str).encode())
    return {"rows": len(rows), "content": content.hexdigest()[:16]}


def _check_same(path: Path, told: dict[str, Any]) -> None:
    """Write what the parts depend on, or see that it is what those in the folder were made with."""
    if not path.exists():
        path.write_text(json.dumps(told, indent=1) + "\n")
        return
    kept = json.loads(path.read_text())
    # More models may join an evaluation; those that are there already must be the same.
    both = set(kept["models"]) & set(told["models"])
    differ = [name for name in told if name != "models" and kept.get(name) != told[name]]
    differ += [f"model {name}" for name in sorted(both) if kept["models"][name] != told["models"][name]]
    if differ:
        raise ValueError(
            f"{path.parent} holds parts of an evaluation with other settings ({', '.join(differ)}), and one report "
            "cannot compare them. Choose another output_dir, or remove that folder."
        )
    path.write_text(json.dumps({**told, "models": {**kept["models"], **told["models"]}}, indent=1) + "\n")


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _peak_memory() -> float:
    """Return the peak memory in GiB: on the GPU if there is one, or else of this process."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
