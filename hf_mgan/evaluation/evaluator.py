"""Evaluation in training: at each evaluation the generator writes, and its texts are held against unseen real ones.

In: held-out real texts and, at each evaluation, the generator as it stands. Out: the figures of
[`~evaluation.figures.text_metrics`] among the evaluation's metrics, so that they are logged, and the best checkpoint
can be kept, and training stopped, by one of them.
"""

import json
import math
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset, IterableDataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import TrainerCallback
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from ..config import AdversarialConfig
from ..data import as_completions, as_prompts, plain_text, prepare_dataset
from ..data.text_path import Text
from ..decoding.sampling import sample
from ..metrics import bleu as bleu_score
from ..metrics import encoder_features
from ..metrics.two_sample_test import PARTS
from ..safety import SafetyGate
from .text_metrics import METRICS, text_metrics


if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

SAMPLES, HELD_OUT = "samples", "held_out"
FEWEST = 2 * PARTS  # a fresh judge takes as many different texts a side
# Argument -> the figures that it brings.
BROUGHT_BY = {
    "encoder": ("encoder_c2st_auc", "mauve", "frechet"),
    "training": ("copied_share", "near_duplicates"),
    "bleu": ("bleu",),
    "reverse_perplexity": ("reverse_perplexity",),
}


class _Texts(NamedTuple):
    """What every evaluation needs, made once.

    Args:
        prompts (`list` of length N): As they stand in the prepared dataset.
        plain_prompts (`list[str]` of length N): The same without special tokens, for the safety classifier.
        real (`list[str]` of length N): The real text of each prompt, cut as completions are.
        training (`list[str]`, *optional*): Texts to look for copies of.
        max_completion_length (`int`): Where completions are cut, in tokens.
        features (`Callable`, *optional*): From texts to features; on the main process alone.
        gate ([`SafetyGate`], *optional*): This evaluation's own.
    """

    prompts: list[Text]
    plain_prompts: list[str]
    real: list[str]
    training: list[str] | None
    max_completion_length: int
    features: Callable[[Sequence[str]], Tensor] | None
    gate: SafetyGate | None


class GeneratorEvaluator(TrainerCallback):
    """Draws samples of the generator at every evaluation of [`AdversarialTrainer`] and measures them.

    `eval_strategy` and `eval_steps` say when. The figures are those of [`~evaluation.figures.text_metrics`], against
    as many held-out real texts, among the metrics as `eval_samples/<figure>`: `c2st_auc`, `self_bleu`, `distinct_4`,
    `duplicates`, `length_ratio`, `repetition` and, where they are asked for, `encoder_c2st_auc`, `mauve`, `frechet`,
    `reverse_perplexity`, `copied_share`, `near_duplicates`, `bleu` and `unsafe_rate`. Those that are neither to rise
    nor to fall but to be like the real texts' stand beside these, `eval_held_out/<figure>`.

    Neither player is trained on any of them, so that the best checkpoint can be kept (`metric_for_best_model`), or
    training be stopped ([`Watchdog`]), by one. The judges' areas are nan, which counts as no improvement, where fewer
    than 16 of the generator's texts differ from one another and from all real ones.

    The prompts and the seed are the same each time, and the random numbers of the training stay as they are. With
    `ema_decay` the average writes. Each process draws a part of the samples. With several evaluation sets, the samples
    come with the first.

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
        callbacks=[
            GeneratorEvaluator(held_out),
            Watchdog(early_stopping_metric="samples/c2st_auc", greater_is_better=False),
        ],
    )
    ```

    Args:
        held_out (`Dataset` or `IterableDataset`): Real texts that neither player is trained on, in any form that
            [`prepare_dataset`] takes; prompts are made as in training. Of a `Dataset` rows are chosen at random, of an
            `IterableDataset` the first ones are taken.
        num_samples (`int`, *optional*, defaults to 256): Samples, and real texts, at least 16. The standard error of
            the judge's area is then about 0.025 ([`~evaluation.auc_standard_error`] at 0.5). Most figures depend on
            this number, so compare only those of equal ones.
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
            prompt. Needs the extra `evaluation`.
        reverse_perplexity (`bool`, *optional*, defaults to `False`): Whether to train a small model on the samples,
            which takes longer than all else.
        words (`Callable`, *optional*, defaults to `str.split`): From a text to its words; `list` gives characters.
        seed (`int`, *optional*, defaults to 0): Seed of the choice of rows, of the samples and the measures.
        batch_size (`int`, *optional*, defaults to 64): Samples at once on each process.

    Raises:
        ImportError: If `bleu` lacks its package.
        TypeError: If a dataset is none, or when training starts, if the trainer is another one.
        ValueError: If a value is out of range or there are too few held-out texts; when training starts, if nothing is
            evaluated, real texts are missing, or `metric_for_best_model` is a figure that is not measured here.
    """

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
        words: Callable[[str], list[str]] = str.split,
        seed: int = 0,
        batch_size: int = 64,
    ) -> None:
        if not isinstance(held_out, (Dataset, IterableDataset)):
            raise TypeError(f"held_out must be a Dataset or an IterableDataset, got {type(held_out).__name__}.")
        if training is not None and not isinstance(training, Dataset):
            raise TypeError(
                f"training must be a Dataset, all of which is read at each evaluation, got {type(training).__name__}."
            )
        for name, value, least in (
            ("num_samples", num_samples, FEWEST),
            ("max_completion_length", max_completion_length, 1),
            ("batch_size", batch_size, 1),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}.")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be greater than 0 and finite, got {temperature}.")
        if isinstance(held_out, Dataset) and len(held_out) < num_samples:
            raise ValueError(_too_few(num_samples, len(held_out)))
        if bleu:
            bleu_score(["a"], ["a"])  # says what to install if that is missing
        self.held_out, self.training = held_out, training
        self.num_samples, self.temperature, self.batch_size = num_samples, temperature, batch_size
        self.max_completion_length = max_completion_length
        self.encoder = encoder
        self.safety = safety if safety is None or isinstance(safety, SafetyGate) else SafetyGate(safety)
        self.bleu, self.reverse_perplexity, self.words, self.seed = bleu, reverse_perplexity, words, seed
        self._texts: _Texts | None = None
        self._of_real: dict[str, float] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See that evaluations will come, and that they will have what is asked of them."""
        if not isinstance(args, AdversarialConfig):
            raise TypeError(
                "GeneratorEvaluator adds to the metrics of AdversarialTrainer's evaluations before they are logged, "
                f"which no other trainer lets it do; the arguments are {type(args).__name__}."
            )
        if args.eval_strategy == "no":
            raise ValueError(
                "GeneratorEvaluator measures at every evaluation, and there are none: set eval_strategy and "
                "eval_dataset, which may be small."
            )
        wanted = (args.metric_for_best_model or "").removeprefix("eval_")
        for argument, names in BROUGHT_BY.items():
            if getattr(self, argument) in (None, False) and wanted in [f"{SAMPLES}/{name}" for name in names]:
                raise ValueError(
                    f"metric_for_best_model={args.metric_for_best_model!r} is measured only where GeneratorEvaluator "
                    f"is given {argument}=."
                )
        self.prepare(kwargs["processing_class"], args)

    def prepare(self, processing_class: Any, args: AdversarialConfig) -> None:
        """Choose the held-out texts and load what measures them, the first time that this is called.

        Args:
            processing_class (`PreTrainedTokenizerBase`): The generator's tokenizer.
            args ([`AdversarialConfig`]): The trainer's arguments.
        """
        if self._texts is not None:
            return
        if not isinstance(processing_class, PreTrainedTokenizerBase):
            raise TypeError(
                "GeneratorEvaluator draws samples from prompts of text alone, and this generator has a "
                f"{type(processing_class).__name__} for more than text: leave it out."
            )
        limit = self.max_completion_length or args.max_completion_length
        if limit is None:
            raise ValueError("Neither the trainer nor GeneratorEvaluator has a max_completion_length: set one.")
        rows = cast(Dataset, prepare_dataset(self._chosen_rows(), processing_class, **args.prompt_arguments()))
        if "completion" not in rows.column_names:
            raise ValueError(
                "The held-out data has prompts but no `completion` column, so there are no real texts to compare "
                "with. Add the references as `completion`."
            )
        prompts = list(rows["prompt"])
        real = as_completions(rows["completion"], processing_class, limit)
        different = len({" ".join(text.split()) for text in real})
        if different < FEWEST:
            raise ValueError(
                f"Of the {len(real)} held-out texts, cut at {limit} tokens, {different} differ, and a fresh judge "
                f"takes at least {FEWEST}. Give more, or a greater max_completion_length."
            )
        if self.bleu and len({json.dumps(prompt) for prompt in prompts}) < 2:
            raise ValueError(
                "bleu compares each sample with the real text of its prompt, and all prompts are the same: leave it "
                "out, or give data with prompts."
            )
        learnt = None
        if self.training is not None:
            prepared = cast(Dataset, prepare_dataset(self.training, processing_class, **args.prompt_arguments()))
            learnt = [plain_text(text) for text in prepared["completion"]]
        features = None
        if self.encoder is not None and args.process_index == 0:
            with torch.random.fork_rng():  # weights that its checkpoint lacks are drawn
                features = _with_known(real, encoder_features(self.encoder, self.batch_size, device=args.device))
        gate = self.safety and self.safety.to(args.device)
        plain_prompts = as_prompts(prompts, processing_class)
        self._texts = _Texts(prompts, plain_prompts, real, learnt, limit, features, gate)

    def measure(self, trainer: GRPOTrainer, gate: SafetyGate | None = None) -> dict[str, float]:
        """Draw samples and compute their figures; every process calls this and is given the same figures.

        Args:
            trainer (`GRPOTrainer`): Whose generator writes, as it writes completions.
            gate ([`SafetyGate`], *optional*): Serves where this evaluation has none of its own.

        Returns:
            `dict[str, float]`: By their names among an evaluation's metrics; nan where there is no figure.
        """
        args = cast(AdversarialConfig, trainer.args)
        self.prepare(trainer.processing_class, args)
        texts = self._draw(trainer, args)
        # One process measures, and all decide by its figures whether to stop.
        figures = [self._figures(texts, gate) if trainer.accelerator.is_main_process else {}]
        return broadcast_object_list(figures)[0]

    def _draw(self, trainer: GRPOTrainer, args: AdversarialConfig) -> list[str]:
        """Return a sample of each prompt, of which each process draws as many as the others."""
        prompts = self._prepared.prompts
        rank, processes = trainer.accelerator.process_index, trainer.accelerator.num_processes
        # Beyond the last prompt the first ones come again: a process with fewer batches would leave the others waiting
        # where weights are gathered for each forward pass.
        turns = math.ceil(len(prompts) / processes)
        own = [prompts[(turn * processes + rank) % len(prompts)] for turn in range(turns)]
        with (
            unwrap_model_for_generation(
                cast(Any, trainer.model_wrapped),
                trainer.accelerator,
                gather_deepspeed3_params=args.ds3_gather_for_generation,
                gradient_checkpointing_kwargs=cast("dict | None", args.gradient_checkpointing_kwargs),
            ) as generator,
            trainer._dist.summon_full_params(trainer.model_wrapped, recurse=False),
        ):
            drawn = sample(
                generator,
                trainer._tokenizer,
                trainer._tokenize_prompts(own)[0],
                self._prepared.max_completion_length,
                self.temperature,
                self.seed + rank,
                self.batch_size,
            )
        texts = gather_object(drawn.texts)  # those of the first process, then those of the next one
        return [texts[place % processes * turns + place // processes] for place in range(len(prompts))]

    def _figures(self, texts: list[str], gate: SafetyGate | None) -> dict[str, float]:
        known = self._prepared
        gate = known.gate or gate

        def is_unsafe(some: Sequence[str]) -> list[bool]:
            assert gate is not None
            return gate.is_unsafe(known.plain_prompts, some).tolist()

        shared: dict[str, Any] = {
            "training": known.training,
            "is_unsafe": None if gate is None else is_unsafe,
            "words": self.words,
            "seed": self.seed,
        }
        measured = text_metrics(
            texts,
            known.real,
            references=known.real if self.bleu else None,
            features=known.features,
            reverse=self.reverse_perplexity,
            **shared,
        ).figures
        if self._of_real is None:
            real = text_metrics(known.real, known.real, reverse=False, **shared).figures
            alike = [name for name in real if METRICS[name].better == "real" and name != "length_ratio"]
            beside = [*alike, *(["unsafe_rate"] if gate is not None else [])]
            self._of_real = {f"eval_{HELD_OUT}/{name}": float(real[name].value) for name in beside}
        values = {name: float(interval.value) for name, interval in measured.items()}
        # A key that comes and goes would end a run that chooses its checkpoint by it.
        judged = ["c2st_auc", *(["encoder_c2st_auc"] if known.features is not None else [])]
        values = {**dict.fromkeys(judged, math.nan), **values}
        return {**{f"eval_{SAMPLES}/{name}": value for name, value in values.items()}, **self._of_real}

    @property
    def _prepared(self) -> _Texts:
        if self._texts is None:
            raise RuntimeError("GeneratorEvaluator.prepare comes first.")
        return self._texts

    def _chosen_rows(self) -> Dataset:
        """Return as many rows of the held-out data as there will be samples."""
        if isinstance(self.held_out, Dataset):
            return self.held_out.select(random.Random(self.seed).sample(range(len(self.held_out)), self.num_samples))
        rows = list(self.held_out.take(self.num_samples))
        if len(rows) < self.num_samples:
            raise ValueError(_too_few(self.num_samples, len(rows)))
        return Dataset.from_list(rows)


def check_generator_evaluators(callbacks: Sequence[Any], **given: Any) -> None:
    """Check that samples can be drawn as the trainer draws its completions, and that there is one evaluation of them.

    Args:
        callbacks (`Sequence`): The trainer's callbacks.
        **given: Arguments of the trainer that put text of their own into completions, by their names.

    Raises:
        ValueError: If there are two evaluations, or one beside such an argument.
    """
    found = [callback for callback in callbacks if isinstance(callback, GeneratorEvaluator)]
    if len(found) > 1:
        raise ValueError(
            f"There are {len(found)} GeneratorEvaluator callbacks, whose figures have the same names: give one."
        )
    for name, value in given.items():
        if found and value is not None:
            raise ValueError(
                f"GeneratorEvaluator draws completions that the generator alone has written, and {name} puts text of "
                "its own into completions: leave one of the two out."
            )


def _too_few(num_samples: int, count: int) -> str:
    return (
        f"GeneratorEvaluator compares {num_samples} samples with as many held-out real texts, and there are {count}: "
        "give more of them, or a smaller num_samples."
    )


def _with_known(known: list[str], features: Callable[[Sequence[str]], Tensor]) -> Callable[[Sequence[str]], Tensor]:
    """Return the function with the features of some texts computed once, since those come again each time."""
    of_known = features(known)
    return lambda texts: of_known if texts == known else features(texts)
