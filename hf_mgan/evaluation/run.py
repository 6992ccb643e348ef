"""Evaluation of generators on held-out text: every model at every temperature, part after part, to one report.

In: models, held-out real texts, at best the training texts. Out: `report.json`, `report.md`, three plots, and a file
for each model and temperature with its completions (`samples/`) and one with their metrics (`parts/`): an evaluation
that was stopped goes on from there. All completions are drawn first, so that models are in memory one after the other
and never beside the encoder.
"""

import json
import math
import os
import platform
import random
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..checks import Check, Dict, Instance, checked
from ..decoding.sampling import sample
from ..metrics import Interval, TextNll, bootstrap_interval, encoder_features, nll_per_token
from ..metrics.extras import require_packages
from ..metrics.fine_tuning import refuse_discriminator
from ..safety import SafetyGate
from .description import check_same, describe
from .evaluated_model import EvaluatedModel
from .models import Model, named_models, saved_discriminator
from .plots import draw
from .report import REAL, Report, part_name, write_report
from .rows import places_with_text
from .settings import EvaluationConfig
from .text_metrics import METRICS, TextMetrics, text_metrics


PACKAGES = ("hf-mgan", "torch", "transformers", "trl", "peft", "datasets")
SAMPLES_FOLDER, PARTS_FOLDER = "samples", "parts"
ONE_SPLIT = "Give one split, not streaming."
ARGUMENTS: dict[str, Check] = {
    "held_out": Instance(of=(Dataset,), what="a Dataset", advice=ONE_SPLIT),
    "config": Instance(of=(EvaluationConfig,), what="an EvaluationConfig", optional=True),
    "training": Instance(of=(Dataset,), what="a Dataset", optional=True, advice=ONE_SPLIT),
    "safety": Instance(of=(SafetyGate,), what="a SafetyGate", optional=True),
    "prepare": Dict(optional=True),
}


def evaluate_generator(
    models: Model | list[str] | Mapping[str, Model],
    held_out: Dataset,
    config: EvaluationConfig | None = None,
    *,
    training: Dataset | None = None,
    safety: SafetyGate | None = None,
    processing_classes: Mapping[str, PreTrainedTokenizerBase] | None = None,
    prepare: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> Report:
    """Evaluate generators on held-out text at every temperature, and compare them at matched diversity.

    Samples are drawn at each temperature from the whole distribution. All metrics of [`text_metrics`] are computed
    beside the likelihood of the held-out texts and the entropy of the samples; where a dataset has prompts,
    completions follow them and BLEU and chrF against the references are among the metrics. Real texts that nothing was
    trained on stand in the first row: what no generator can be asked to beat.

    Args:
        models (`str`, model, `list[str]` or `Mapping`): The generators by name: Hub ids, folders, models with or
            without adapters, [`GuidedModel`]s. The first one is the baseline unless `config` names another.
        held_out (`Dataset`): Real texts that no model was trained on, in any form that [`prepare_dataset`] takes; at
            least twice `num_samples` of them, or there will be fewer samples.
        config ([`EvaluationConfig`], *optional*): Settings.
        training (`Dataset`, *optional*): The training texts, in the same form, to look for copies in.
        safety ([`SafetyGate`], *optional*): The classifier behind the unsafe rate.
        processing_classes (`Mapping`, *optional*): Tokenizers by the names of the models; each is loaded from where
            its model was by default.
        prepare (`Mapping`, *optional*): Further arguments of [`prepare_dataset`], those of the training.
        command (`str`, *optional*): What was called, for the report.

    Returns:
        [`Report`]: All that the files hold.

    Raises:
        ImportError: If a package of the extra `evaluation` is missing.
        TypeError: If an argument is of another type, such as data that are no `Dataset`.
        ValueError: If a setting is out of range, a row has no text, there are too few held-out texts, two models share
            a name, a name is that of no model, the encoder has the weights of a discriminator that lies beside a
            model, or the folder holds parts of an evaluation with other settings.
    """
    require_packages("An evaluation", "matplotlib", "sacrebleu", "scikit-learn", "scipy")
    checked(ARGUMENTS, locals())
    config = config or EvaluationConfig()
    config.check()
    named = named_models(models)
    baseline = config.baseline or next(iter(named))
    for argument, names in (("baseline", [baseline]), ("processing_classes", list(processing_classes or ()))):
        if not named.keys() >= set(names):
            raise ValueError(f"{argument} names {', '.join(names)}, and the models are {', '.join(named)}.")
    places, count = _halves(held_out, config.num_samples)
    if training is not None:
        places_with_text(training, "training")  # what is wrong with it is said before hours of sampling
    for discriminator in filter(None, map(saved_discriminator, named.values())):
        if config.encoder is not None:
            refuse_discriminator(config.encoder, discriminator)
    folder = Path(config.output_dir)
    for kind in (SAMPLES_FOLDER, PARTS_FOLDER):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    described = describe(config, named, held_out, training, safety, prepare)
    check_same(folder / "settings.json", described)
    order = random.Random(config.seed).sample(places, 2 * count)
    began = time.perf_counter()
    evaluated = {
        name: EvaluatedModel(
            model, (processing_classes or {}).get(name), held_out, training, order, config, dict(prepare or {})
        )
        for name, model in named.items()
    }
    cells = [(name, temperature) for name in named for temperature in evaluated[name].temperatures]
    with tqdm(total=count * len(cells), unit="text", desc="samples") as bar:
        for number, (name, temperature) in enumerate(cells, 1):
            bar.set_postfix_str(f"{name} at T = {temperature:g}")
            _load_or_make(
                folder / SAMPLES_FOLDER,
                part_name(name, temperature),
                partial(_draw, evaluated[name], temperature, bar.update),
            )
            bar.update(number * count - bar.n)
            if temperature == evaluated[name].temperatures[-1]:
                evaluated[name].free()
    features = None if config.encoder is None else _encoder_features(config.encoder)
    parts: dict[str, dict[str, Any]] = {}
    with tqdm(total=1 + len(cells), unit="set", desc="metrics") as bar:
        first = evaluated[cells[0][0]]
        parts[REAL] = _load_or_make(folder / PARTS_FOLDER, REAL, partial(_compute_of_real, first, features, safety))
        bar.update()
        for name, temperature in cells:
            one = part_name(name, temperature)
            samples = json.loads((folder / SAMPLES_FOLDER / f"{one}.json").read_text())
            made = _load_or_make(
                folder / PARTS_FOLDER, one, partial(_compute, evaluated[name], samples, features, safety)
            )
            parts[one] = {**made, **{key: samples[key] for key in ("texts", "prompts", "tokens") if key in samples}}
            parts[one]["sampling_seconds"] = samples["seconds"]
            parts[one]["peak_memory_gib"] = max(made["peak_memory_gib"], samples["peak_memory_gib"])
            bar.update()
    report = Report(
        command=command,
        settings={**described, "samples_each": count},
        baseline=baseline,
        models=list(named),
        temperatures=sorted({temperature for _, temperature in cells}),
        level=config.level,
        parts=parts,
        seconds=round(time.perf_counter() - began, 1),
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {platform.machine()}",
        threads=torch.get_num_threads(),
        versions={name: _installed(name) for name in PACKAGES},
    )
    write_report(report, folder)
    draw(report, folder)
    return report


def _halves(held_out: Dataset, num_samples: int) -> tuple[Sequence[int], int]:
    """Return the places of the held-out texts, and the number of texts of each half."""
    places = places_with_text(held_out, "held_out")
    count = min(num_samples, len(places) // 2)
    if count < 3:
        raise ValueError(
            f"Held-out texts are split in two halves, one to compare with and one as the row of real texts; got "
            f"{len(places)}. Give at least 6, and 2000 for intervals that decide something."
        )
    if count < num_samples:
        warnings.warn(
            f"num_samples={num_samples} takes as many held-out texts for each of two halves, and there are "
            f"{len(places)}: {count} samples are drawn. Give more texts, since most metrics depend on the number.",
            stacklevel=3,
        )
    return places, count


def _installed(name: str) -> str:
    """Return a package's version; a source tree on the path has none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _load_or_make(folder: Path, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a part's file holds, which is made if it is not there."""
    path = folder / f"{name}.json"
    if not path.exists():
        start = time.perf_counter()
        made = make()
        made.update(seconds=round(time.perf_counter() - start, 1), peak_memory_gib=_peak_memory())
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n")
        os.replace(unfinished, path)
    return json.loads(path.read_text())


def _draw(model: EvaluatedModel, temperature: float, on_batch: Callable[[int], Any]) -> dict[str, Any]:
    """Draw completions at a temperature, and compute the likelihoods that take the generator."""
    config = model.config
    model.prepare()
    if model.guided is not None:
        guided = model.guided.sample(model.generator, model.tokenizer, model.prompts, config)
        on_batch(len(guided.texts))
        # Its likelihoods are known up to a number per prompt, so they are left out. A refused text is an empty one.
        metrics = {"draws": exactly(guided.draws), "tokens_per_text": exactly(guided.tokens_per_text)}
        texts = model.shown([text or "" for text in guided.texts])
        return {
            "metrics": _as_json(metrics),
            "tokens": sum(guided.tokens),
            "texts": texts,
            "prompts": model.shown_prompts,
        }
    drawn = sample(
        model.generator,
        model.tokenizer,
        model.prompts,
        config.max_completion_length,
        temperature,
        config.seed,
        config.batch_size,
        on_batch,
    )
    tokens = sum(map(len, drawn.completion_ids))
    metrics = {
        "entropy": _nll_interval(model.nlls(drawn.prompt_ids, drawn.completion_ids, [temperature])[0], config),
        "real_nll": _nll_interval(model.real_nlls[config.temperatures.index(temperature)], config),
        "draws": exactly(1.0),
        "tokens_per_text": exactly(tokens / len(drawn.texts)),
    }
    texts = model.shown(drawn.texts)
    return {"metrics": _as_json(metrics), "tokens": tokens, "texts": texts, "prompts": model.shown_prompts}


def _compute_of_real(
    model: EvaluatedModel, features: Callable[[Sequence[str]], Tensor] | None, safety: SafetyGate | None
) -> dict[str, Any]:
    """Compute the metrics of the other half of the real texts as if it were generated."""
    texts = model.further
    return {
        **_as_part(_text_metrics(model, texts, model.further_prompts, features, safety, None), {}),
        "texts": texts,
        "prompts": model.further_shown_prompts,
    }


def _compute(
    model: EvaluatedModel,
    samples: dict[str, Any],
    features: Callable[[Sequence[str]], Tensor] | None,
    safety: SafetyGate | None,
) -> dict[str, Any]:
    """Compute the metrics of completions."""
    references = model.real if model.has_prompts else None
    return _as_part(
        _text_metrics(model, samples["texts"], model.prompts, features, safety, references), samples["metrics"]
    )


def _text_metrics(
    model: EvaluatedModel,
    texts: list[str],
    prompts: list[Any],
    features: Callable[[Sequence[str]], Tensor] | None,
    safety: SafetyGate | None,
    references: list[str] | None,
) -> TextMetrics:
    config = model.config
    return text_metrics(
        texts,
        model.real,
        training=model.training,
        references=references,
        encoder=config.encoder if config.fine_tuned_test else None,
        features=features,
        is_unsafe=None if safety is None else partial(model.unsafe, safety, prompts),
        unit=config.unit,
        reverse=config.reverse_perplexity,
        seed=config.seed,
        level=config.level,
    )


def exactly(value: float) -> Interval:
    """Return a value that has no interval."""
    return Interval(value, math.nan, math.nan)


def _nll_interval(nlls: list[TextNll], config: EvaluationConfig) -> Interval:
    """Compute -log q per token, with a bootstrap over texts."""
    if not nlls:
        return Interval(math.nan, math.nan, math.nan)
    return bootstrap_interval(nlls, nll_per_token, level=config.level, seed=config.seed)


def _as_part(made: TextMetrics, of_generator: dict[str, Any]) -> dict[str, Any]:
    """Return what a part's file holds of metrics, in the order of the tables."""
    metrics = {**_as_json(made.metrics), **of_generator}
    calibration = [] if made.c2st is None else [list(one) for one in made.c2st.calibration]
    ordered = {name: metrics[name] for name in METRICS if name in metrics}
    return {"metrics": ordered, "calibration": calibration, "lengths": made.lengths}


def _as_json(metrics: dict[str, Interval]) -> dict[str, list[float | None]]:
    """Return values and ends of intervals as JSON has them: None for nan."""
    return {
        name: [round(value, 6) if math.isfinite(value) else None for value in interval]
        for name, interval in metrics.items()
    }


def _encoder_features(encoder: str) -> Callable[[Sequence[str]], Tensor]:
    """Return the function from texts to features; it loads the encoder when it is first called."""
    loaded = cache(partial(encoder_features, encoder, device="cuda" if torch.cuda.is_available() else "cpu"))
    known: dict[tuple[str, ...], Tensor] = {}

    def features(texts: Sequence[str]) -> Tensor:
        key = tuple(texts)
        if key not in known:
            if len(known) > 1:
                known.pop(list(known)[-1])  # the first set, the real texts, comes again with every part
            known[key] = loaded()(texts)
        return known[key]

    return features


def _peak_memory() -> float:
    """Return the peak memory in GiB: on the GPU if there is one, or else of this process."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**30, 2)
    if sys.platform == "win32":
        import psutil  # which accelerate requires

        return round(psutil.Process().memory_info().peak_wset / 2**30, 2)
    import resource  # which Windows lacks

    units = 2**30 if sys.platform == "darwin" else 2**20  # it counts bytes there, and KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / units, 2)
