"""Evaluation in training: the generator writes, and its texts are compared with held-out real ones.

In: held-out real texts and, at each evaluation, the generator as it stands. Out: the metrics of
[`~evaluation.text_metrics.text_metrics`], which the trainer adds to those of its evaluation, so that they are logged,
and the best checkpoint can be kept, and training stopped, by one of them.
"""

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset, IterableDataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..checks import (
    COUNT,
    FLAG,
    PLACE,
    POSITIVE,
    SEED,
    Check,
    Instance,
    checked,
    integer,
    optional,
)
from ..config import AdversarialConfig
from ..data import TextPath, answer_text, as_prompts, inspected
from ..data.text_path import with_boundary
from ..decoding.sampling import sample
from ..metrics import encoder_features
from ..metrics.extras import require_packages
from ..metrics.two_sample_test import NUM_PARTS
from ..safety import SafetyGate, as_gate
from .rows import check_real, first_with_text, places_with_text, prepared_rows
from .text_metrics import METRICS, OF_GENERATOR, SAMPLES_PREFIX, text_metrics


if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

HELD_OUT_PREFIX = "held_out/"
MIN_DIFFERENT = 2 * NUM_PARTS  # texts per side that the two-sample test takes
# Of a whole evaluation: what takes the generator, and a test that takes minutes.
NOT_IN_TRAINING = (*OF_GENERATOR, "fine_tuned_c2st_auc")
# Argument -> the metrics that it brings.
BROUGHT_BY = {
    "encoder": ("encoder_c2st_auc", "mauve", "frechet"),
    "training": ("copied_share", "near_duplicates"),
    "bleu": ("bleu", "chrf"),
    "reverse_perplexity": ("reverse_perplexity",),
}
ARGUMENTS: dict[str, Check] = {
    "held_out": Instance(of=(Dataset, IterableDataset), what="a Dataset or an IterableDataset"),
    "num_samples": integer(MIN_DIFFERENT),
    "temperature": POSITIVE,
    "max_completion_length": optional(COUNT),
    "encoder": optional(PLACE),
    "training": Instance(
        of=(Dataset,), what="a Dataset", optional=True, advice="All of it is read at each evaluation."
    ),
    "bleu": FLAG,
    "reverse_perplexity": FLAG,
    "seed": SEED,
    "batch_size": COUNT,
}


@dataclass(frozen=True)
class HeldOutTexts:
    """What every evaluation needs of the held-out data, made once.

    Args:
        prompt_ids (`list[list[int]]` of length N): The prompts in the generator's tokens.
        plain_prompts (`list[str]` of length N): The same without special tokens, for the safety classifier.
        real (`list[str]` of length N): The real text of each prompt, cut as completions are.
        training (`list[str]`, *optional*): Texts to look for copies of.
        max_completion_length (`int`): Where completions are cut, in tokens.
        boundary (`str`, *optional*): White space that the real texts begin with, and that samples are given too.
    """

    prompt_ids: list[list[int]]
    plain_prompts: list[str]
    real: list[str]
    training: list[str] | None
    max_completion_length: int
    boundary: str | None


class GeneratorEvaluator:
    """Draws samples of the generator at every evaluation of [`AdversarialTrainer`] and compares them with real texts.

    Give it to the trainer as `evaluator=`; `eval_strategy` and `eval_steps` say when. The metrics are those of
    [`~evaluation.text_metrics.text_metrics`], against as many held-out real texts, and stand among the trainer's as
    `eval_samples/<metric>`: `c2st_auc`, `self_bleu`, `distinct_4`, `duplicates`, `length_ratio`, `repetition` and,
    where they are asked for, `encoder_c2st_auc`, `mauve`, `frechet`, `reverse_perplexity`, `copied_share`,
    `near_duplicates`, `bleu`, `chrf` and `unsafe_rate`. Those that are neither to rise nor to fall but to be like the
    real texts' stand beside these, `eval_held_out/<metric>`.

    Neither model is trained on any of them, so that the best checkpoint can be kept (`metric_for_best_model`), or
    training be stopped (transformers' `EarlyStoppingCallback`), by one. The areas of the two-sample tests are nan,
    which counts as no improvement, where fewer than 16 of the generator's texts differ from one another and from all
    real ones.

    The prompts and the seed are the same each time, and the random numbers of the training stay as they are. Each
    process draws a part of the samples. With several evaluation sets, the samples come with the first.

    Attributes:
        primary_metric (`str`): The metric to keep the best checkpoint by, `"samples/c2st_auc"`.
        greater_is_better (`bool`): Which way it improves: False.

    Example:
    ```python
    trainer = AdversarialTrainer(
        ...,
        args=AdversarialConfig(
            "out",
            eval_strategy="steps",
            eval_steps=50,
            save_steps=50,
            load_best_model_at_end=True,
            metric_for_best_model="samples/c2st_auc",
            greater_is_better=False,
        ),
        eval_dataset=held_out.select(range(64)),
        evaluator=GeneratorEvaluator(held_out),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=3)],
    )
    ```

    Args:
        held_out (`Dataset` or `IterableDataset`): Real texts that neither model is trained on, in any form that
            [`prepare_dataset`] takes; prompts are made as in training. Of a `Dataset` rows are chosen at random, of an
            `IterableDataset` the first ones are taken.
        num_samples (`int`, *optional*, defaults to 256): Samples, and real texts, at least 16. The standard error of
            the area of the two-sample test is then about 0.025 ([`~metrics.auc_standard_error`] at 0.5). Most metrics
            depend on this number, so compare only those of equal ones.
        temperature (`float`, *optional*, defaults to 1.0): Temperature of the samples, which come from the whole
            distribution, without top-k or top-p.
        max_completion_length (`int`, *optional*): Tokens at which samples and real texts are cut; the trainer's by
            default.
        encoder (`str`, *optional*): Id or folder of an encoder for `encoder_c2st_auc`, `mauve` and `frechet`, at best
            another one than the discriminator.
        training (`Dataset`, *optional*): Texts of the training, in the same form, for `copied_share` and
            `near_duplicates`. All of them are read at each evaluation, so give a few thousand.
        safety ([`SafetyGate`], `str`, `PreTrainedModel`, `PeftModel` or `Callable`, *optional*): What tells unsafe
            texts, for `unsafe_rate`. The trainer's `safety_gate` by default.
        bleu (`bool`, *optional*, defaults to `False`): Whether to compare each sample with the real text of its
            prompt, for `bleu` and `chrf`.
        reverse_perplexity (`bool`, *optional*, defaults to `False`): Whether to train a small model on the samples,
            which takes longer than all else.
        seed (`int`, *optional*, defaults to 0): Seed of the choice of rows, of the samples and of the metrics.
        batch_size (`int`, *optional*, defaults to 64): Samples at once on each process.

    Raises:
        ImportError: If a package of the extra `evaluation` is missing.
        TypeError: If a dataset is none, or a value is of another type.
        ValueError: If a value is out of range or there are too few held-out texts.
    """

    primary_metric = f"{SAMPLES_PREFIX}c2st_auc"
    greater_is_better = False

    def __init__(
        self,
        held_out: Dataset | IterableDataset,
        num_samples: int = 256,
        temperature: float = 1.0,
        max_completion_length: int | None = None,
        *,
        encoder: str | None = None,
        training: Dataset | None = None,
        safety: "SafetyGate | str | PreTrainedModel | PeftModel | Callable | None" = None,
        bleu: bool = False,
        reverse_perplexity: bool = False,
        seed: int = 0,
        batch_size: int = 64,
    ) -> None:
        given = checked(ARGUMENTS, locals())
        if isinstance(held_out, Dataset) and len(held_out) < num_samples:
            raise ValueError(_too_few(num_samples, len(held_out)))
        require_packages("GeneratorEvaluator", "scikit-learn", "scipy", *(["sacrebleu"] if bleu else []))
        self.held_out, self.training = held_out, training
        self.num_samples, self.seed, self.batch_size = given["num_samples"], given["seed"], given["batch_size"]
        self.temperature: float = given["temperature"]
        self.max_completion_length: int | None = given["max_completion_length"]
        self.encoder = encoder
        self.safety = None if safety is None else as_gate("safety", safety)
        self.bleu, self.reverse_perplexity = bleu, reverse_perplexity
        self._held_out_texts: HeldOutTexts | None = None
        self._features: Callable[[Sequence[str]], Tensor] | None = None  # on the main process alone
        self._gate: SafetyGate | None = None

    def check(self, args: AdversarialConfig, **given: Any) -> None:
        """Refuse what no evaluation can follow, before anything is loaded.

        Args:
            args ([`AdversarialConfig`]): The trainer's arguments.
            **given: Arguments of the trainer that put text of their own into completions, by their names.

        Raises:
            ValueError: If nothing is evaluated, `metric_for_best_model` is a metric of samples that this evaluator
                does not bring, or one of `given` is there.
        """
        if args.eval_strategy == "no":
            raise ValueError(
                "evaluator draws samples at every evaluation, and there are none: set eval_strategy and eval_dataset, "
                "which may be small."
            )
        wanted = (args.metric_for_best_model or "").removeprefix("eval_")
        for argument, brought in BROUGHT_BY.items():
            if getattr(self, argument) in (None, False) and wanted in [f"{SAMPLES_PREFIX}{name}" for name in brought]:
                raise ValueError(
                    f"metric_for_best_model={args.metric_for_best_model!r} is there only where GeneratorEvaluator is "
                    f"given {argument}=."
                )
        names = [f"{SAMPLES_PREFIX}{name}" for name in METRICS if name not in NOT_IN_TRAINING]
        if wanted.startswith(SAMPLES_PREFIX) and wanted not in names:
            raise ValueError(
                f"metric_for_best_model={args.metric_for_best_model!r} is no metric of GeneratorEvaluator, which has "
                f"{', '.join(names)}."
            )
        for name, value in given.items():
            if value is not None:
                raise ValueError(
                    f"evaluator draws completions that the generator alone has written, and {name} puts text of its "
                    "own into completions: leave one of the two out."
                )

    def prepare(self, processing_class: Any, args: AdversarialConfig, safety_gate: SafetyGate | None = None) -> None:
        """Choose the held-out texts, and refuse what could not be evaluated; the trainer calls this once.

        Args:
            processing_class (`PreTrainedTokenizerBase`): The generator's tokenizer.
            args ([`AdversarialConfig`]): The trainer's arguments.
            safety_gate ([`SafetyGate`], *optional*): The trainer's, which serves where this one has none of its own.

        Raises:
            TypeError: If the generator has a processor of more than text.
            ValueError: As [`check`] does, or if real texts are missing, too few of them differ, or no length is set.
        """
        self.check(args)
        self._gate = self.safety.to(args.device) if self.safety is not None else safety_gate
        if self._gate is None and (args.metric_for_best_model or "").endswith(f"{SAMPLES_PREFIX}unsafe_rate"):
            raise ValueError(
                f"metric_for_best_model={args.metric_for_best_model!r} is there only where GeneratorEvaluator is "
                "given safety=, or the trainer safety_gate=."
            )
        if not isinstance(processing_class, PreTrainedTokenizerBase):
            raise TypeError(
                "evaluator draws samples from prompts of text alone, and this generator has a "
                f"{type(processing_class).__name__} for more than text: leave it out."
            )
        limit = self.max_completion_length or args.max_completion_length
        if limit is None:
            raise ValueError("Neither the trainer nor GeneratorEvaluator has a max_completion_length: set one.")
        data, places = self._chosen_rows()
        prepared = prepared_rows(data, places, "held_out", processing_class, args.prompt_arguments())
        rows = prepared.select(range(self.num_samples))  # several references make several rows
        prompts = list(rows["prompt"])
        template_kwargs = cast("dict", args.chat_template_kwargs or {})  # a string only before TRL reads it
        path = inspected(TextPath(processing_class, limit, template_kwargs=template_kwargs), rows, "held_out")
        real = path.as_completions(prompts, list(rows["completion"]))
        check_real(real, rows, "held_out", limit)
        different = len({" ".join(text.split()) for text in real})
        if different < MIN_DIFFERENT:
            raise ValueError(
                f"Of the {len(real)} held_out texts, cut at {limit} tokens, {different} differ, and the two-sample "
                f"test takes at least {MIN_DIFFERENT}. Give more, or a greater max_completion_length."
            )
        if self.bleu and len({json.dumps(prompt) for prompt in prompts}) < 2:
            raise ValueError(
                "bleu compares each sample with the real text of its prompt, and all prompts are the same: leave it "
                "out, or give data with prompts."
            )
        training = None
        if self.training is not None:
            places = places_with_text(self.training, "training")
            data = self.training.select(places)
            prepared = prepared_rows(data, places, "training", processing_class, args.prompt_arguments())
            training = [answer_text(text) for text in prepared["completion"]]
            check_real(training, prepared, "training")
        prompt_ids = path.encode_prompts(prompts)
        self._held_out_texts = HeldOutTexts(
            prompt_ids, as_prompts(prompts, processing_class), real, training, limit, path.boundary
        )
        self._tokenizer, self._unit = processing_class, args.unit
        self.__dict__.pop("_of_held_out", None)  # of another trainer
        if self.encoder is not None and args.process_index == 0:
            with torch.random.fork_rng():  # weights that its checkpoint lacks are drawn
                features = encoder_features(self.encoder, self.batch_size, device=args.device)
            self._features = _with_known(real, features)

    def __call__(self, model: "PreTrainedModel | PeftModel") -> dict[str, float]:
        """Draw samples and compute their metrics; every process calls this and is given the same metrics.

        Args:
            model (`PreTrainedModel` or `PeftModel`): The generator, unwrapped and ready to generate.

        Returns:
            `dict[str, float]`: By `samples/<metric>` and `held_out/<metric>`; nan where there is no value.
        """
        texts = self._draw(model)
        # One process computes, and all decide by its metrics whether to stop.
        metrics = [self._metrics(texts) if PartialState().is_main_process else {}]
        return broadcast_object_list(metrics)[0]

    def _draw(self, model: "PreTrainedModel | PeftModel") -> list[str]:
        """Return a sample of each prompt, of which each process draws as many as the others."""
        prompts = self._prepared.prompt_ids
        rank, processes = PartialState().process_index, PartialState().num_processes
        # Beyond the last prompt the first ones come again: a process with fewer batches would leave the others waiting
        # where weights are gathered for each forward pass.
        share = math.ceil(len(prompts) / processes)
        own = [prompts[(place * processes + rank) % len(prompts)] for place in range(share)]
        limit = self._prepared.max_completion_length
        drawn = sample(model, self._tokenizer, own, limit, self.temperature, self.seed + rank, self.batch_size)
        own_texts = with_boundary(drawn.texts, self._prepared.boundary)
        texts = gather_object(own_texts)  # those of the first process, then those of the next one
        return [texts[place % processes * share + place // processes] for place in range(len(prompts))]

    def _metrics(self, texts: list[str]) -> dict[str, float]:
        held_out = self._prepared
        measured = text_metrics(
            texts,
            held_out.real,
            references=held_out.real if self.bleu else None,
            features=self._features,
            reverse=self.reverse_perplexity,
            **self._settings,
        ).metrics
        values = {name: float(interval.value) for name, interval in measured.items()}
        # A key that comes and goes would end a run that chooses its checkpoint by it.
        areas = ["c2st_auc", *(["encoder_c2st_auc"] if self.encoder is not None else [])]
        values = {**dict.fromkeys(areas, math.nan), **values}
        return {**{f"{SAMPLES_PREFIX}{name}": value for name, value in values.items()}, **self._of_held_out}

    @cached_property
    def _of_held_out(self) -> dict[str, float]:
        """What the real texts have themselves, of the metrics that are to be like theirs."""
        real = self._prepared.real
        measured = text_metrics(real, real, reverse=False, **self._settings).metrics
        alike = [name for name in measured if METRICS[name].better == "real" and name != "length_ratio"]
        beside = [*alike, *(["unsafe_rate"] if self._gate is not None else [])]
        return {f"{HELD_OUT_PREFIX}{name}": float(measured[name].value) for name in beside}

    @property
    def _settings(self) -> dict[str, Any]:
        """The arguments of [`text_metrics`] that are the same for samples and real texts."""
        gate, prompts = self._gate, self._prepared.plain_prompts
        return {
            "training": self._prepared.training,
            "is_unsafe": None if gate is None else lambda texts: gate.is_unsafe(prompts, texts).tolist(),
            "unit": self._unit,
            "seed": self.seed,
        }

    @property
    def _prepared(self) -> HeldOutTexts:
        if self._held_out_texts is None:
            raise RuntimeError("GeneratorEvaluator.prepare comes first.")
        return self._held_out_texts

    def _chosen_rows(self) -> tuple[Dataset, Sequence[int]]:
        """Return as many rows of the held-out data as there will be samples, and their places in it."""
        places: Sequence[int]
        if isinstance(self.held_out, Dataset):
            places = places_with_text(self.held_out, "held_out")
        else:
            data, places = first_with_text(self.held_out, self.num_samples, "held_out")
        if len(places) < self.num_samples:
            raise ValueError(_too_few(self.num_samples, len(places)))
        if isinstance(self.held_out, Dataset):
            places = random.Random(self.seed).sample(places, self.num_samples)
            data = self.held_out.select(places)
        return data, places


def _too_few(num_samples: int, count: int) -> str:
    return (
        f"GeneratorEvaluator compares {num_samples} samples with as many held_out real texts, and there are {count}: "
        "give more of them, or a smaller num_samples."
    )


def _with_known(known: list[str], features: Callable[[Sequence[str]], Tensor]) -> Callable[[Sequence[str]], Tensor]:
    """Return the function with the features of some texts computed once, since those come again each time."""
    of_known = features(known)
    return lambda texts: of_known if texts == known else features(texts)
