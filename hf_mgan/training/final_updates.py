"""The discriminator's last updates, with the generator frozen: it catches up, and is calibrated, to guide generation.

A discriminator that followed a moving generator is behind it at the end, and for generation it has to know the one
that is sampled, at the temperature at which it is sampled. In: both models, real texts to learn from and held-out
ones. Out: the discriminator as it was best on held-out texts, with its [`Calibration`]. It is also how a discriminator
is trained for a generator that nobody trains.
"""

import copy
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from accelerate.utils import gather
from datasets import Dataset
from torch import Tensor
from tqdm.auto import tqdm
from transformers import (
    PreTrainedTokenizerBase,
    SchedulerType,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from ..checks import COUNT
from ..config import AdversarialConfig
from ..data import RealBatch, RealSampler, RealTexts, TextPath, form_of, inspected, prepare_dataset
from ..decoding import sample
from ..decoding.sampling import end_tokens
from ..discriminator import Calibration, Discriminator, calibrate, trainable_parameters
from ..discriminator.calibration import LEAST_TEXTS
from ..metrics.extras import require_packages


if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

MOST_HELD_OUT = 2000  # held-out texts that are used: a half stops the training, a half calibrates
EVALUATIONS = 10  # during the updates
PATIENCE = 3  # evaluations in a row without a lower loss
LEAST_AT_ONCE = 64  # completions that are drawn, and texts that are scored, at a time
HELD_OUT_SEED = 7_919  # added to the run's seed, as PROMPT_SEED
PROMPT_SEED = 104_729


class Pairs(NamedTuple):
    """Generated texts and as many real ones, as the discriminator reads them.

    Args:
        prompts (`list[str]` of length B): "" where the discriminator sees none.
        completions (`list[str]` of length B): Generated.
        references (`list[str]` of length B): Real.
    """

    prompts: list[str]
    completions: list[str]
    references: list[str]


def fit_discriminator(
    generator: "PreTrainedModel | PeftModel",
    tokenizer: PreTrainedTokenizerBase,
    discriminator: Discriminator,
    train_dataset: Dataset,
    held_out: Dataset,
    args: AdversarialConfig,
    num_updates: int,
    real_dataset: Dataset | None = None,
    on_update: Callable[[int], Any] | None = None,
) -> Calibration:
    """Train a discriminator against a generator that stays as it is, and calibrate it.

    Updates see fresh samples of the generator, drawn as `args` says, beside the references of their prompts; each
    sample serves `discriminator_steps` of them. The learning rate falls linearly to 0. The loss on held-out texts is
    computed ten times; training stops when it has not fallen three times in a row, and the weights of the lowest one
    are kept. Other held-out texts calibrate the logit.

    Args:
        generator (`PreTrainedModel` or `PeftModel`): A causal language model; not changed.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        discriminator ([`Discriminator`]): Is trained, wherever it starts from.
        train_dataset (`Dataset`): Rows as [`AdversarialTrainer`] takes them.
        held_out (`Dataset`): Rows of the same form that neither model was trained on; the first 2000 are used.
        args ([`AdversarialConfig`]): The sampling parameters, `max_completion_length`, `generation_batch_size`
            (completions per update of all processes, and as many real texts), `discriminator_steps`, the seed, and the
            optimizer of the discriminator.
        num_updates (`int`): Updates, at most.
        real_dataset (`Dataset`, *optional*): Real texts (column `text`) that belong to no prompt, in place of the
            references; the discriminator then sees no prompts.
        on_update (`Callable`, *optional*): Called with the number of updates done after each.

    Returns:
        [`Calibration`]: That of `discriminator.calibration`.

    Raises:
        ImportError: If scikit-learn is missing.
        TypeError: If a dataset is streamed.
        ValueError: If there are too few held-out texts, or `num_updates` is less than 1.
    """
    num_updates = COUNT("num_updates", num_updates)
    check_final_updates(train_dataset, held_out)
    source = TextSource(generator, tokenizer, train_dataset, args, real_dataset)
    stopping, calibrating = source.held_out(held_out)
    optimizer_args = copy.copy(args.discriminator_training_args())
    optimizer_args.lr_scheduler_type = SchedulerType.LINEAR
    discriminator.create_optimizer(optimizer_args, num_updates)
    size = cast(int, args.generation_batch_size)
    best, weights, failures = float("inf"), _weights(discriminator), 0
    batches = source.batches(size // args.world_size, num_updates)
    for number in tqdm(range(1, num_updates + 1), desc="discriminator", unit="update", disable=args.disable_tqdm):
        discriminator.update(*next(batches), remember=False)
        if on_update is not None:
            on_update(number)
        if number % max(num_updates // EVALUATIONS, 1) == 0 or number == num_updates:
            # One decision of all processes: their texts may differ, and their rounding.
            own = torch.tensor([held_out_loss(discriminator, stopping, size)], device=discriminator.model.device)
            loss = gather(own).mean().item()
            failures = 0 if loss < best else failures + 1
            if loss < best:
                best, weights = loss, _weights(discriminator)
            if failures == PATIENCE:
                break
    for parameter, value in zip(trainable_parameters(discriminator.model), weights, strict=True):
        parameter.data.copy_(value)
    discriminator.calibration = calibrate(
        *_logits(discriminator, calibrating, size),
        label=discriminator.label,
        with_prompt=source.real_texts.shows_prompts,
        temperature=args.temperature,
        max_new_tokens=cast(int, args.max_completion_length),
        generation_kwargs=source.generation_kwargs,
        prefixes=discriminator.prefixes is not None,
        boundary=source.real_texts.path.boundary,
        are_whole=source.real_texts.are_whole,
    )
    return discriminator.calibration


def check_final_updates(train_dataset: Any, held_out: Any) -> None:
    """Check that there is what the final updates need: prompts to draw from, and texts to stop by and to calibrate on.

    Raises:
        ImportError: If scikit-learn is missing.
        TypeError: If a dataset is missing, streamed, or several.
        ValueError: If the held-out texts are too few.
    """
    require_packages("A calibration", "scikit-learn")
    for name, data in (("train_dataset", train_dataset), ("held-out real texts (eval_dataset)", held_out)):
        if not isinstance(data, Dataset):
            raise TypeError(
                f"The discriminator's final updates need {name} as one map-style Dataset, got {type(data).__name__}. "
                "Of a stream take some first: Dataset.from_list(list(stream.take(2000)))."
            )
    if len(held_out) < 2 * LEAST_TEXTS:
        raise ValueError(
            f"The discriminator's final updates need at least {2 * LEAST_TEXTS} held-out real texts, half to stop by "
            f"and half to calibrate on, got {len(held_out)}. {MOST_HELD_OUT} are used where there are as many."
        )


class FinalUpdates(TrainerCallback):
    """Lets the discriminator catch up when training has ended, and logs what it then knows of held-out texts.

    Args:
        fit (`Callable`): [`AdversarialTrainer.fit_discriminator`].
        log (`Callable`): The trainer's.
    """

    def __init__(self, fit: Callable[[int], Calibration], log: Callable[[dict[str, float]], None]) -> None:
        self._fit, self._log = fit, log

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the final updates."""
        calibration = self._fit(cast(AdversarialConfig, args).discriminator_final_steps)
        self._log(
            {
                "discriminator/held_out_auc": calibration.auc[0],
                "discriminator/held_out_loss": calibration.loss,
                "discriminator/calibration_error": calibration.error,
            }
        )


class TextSource:
    """Where both kinds of text come from: fresh samples of a generator, and the references of their prompts.

    Args:
        generator (`PreTrainedModel` or `PeftModel`): See [`fit_discriminator`], as all that follow.
        tokenizer (`PreTrainedTokenizerBase`): See there.
        rows (`Dataset`): The training set.
        args ([`AdversarialConfig`]): See there.
        real_dataset (`Dataset`, *optional*): See there.

    Attributes:
        real_texts ([`~data.RealTexts`]): The real ones.
        generation_kwargs (`dict`): What beside the temperature shapes the samples.
    """

    def __init__(
        self,
        generator: "PreTrainedModel | PeftModel",
        tokenizer: PreTrainedTokenizerBase,
        rows: Dataset,
        args: AdversarialConfig,
        real_dataset: Dataset | None = None,
    ) -> None:
        self._generator, self._tokenizer, self._args = generator, tokenizer, args
        self._rows = self._prepared(rows)
        self._seed, self._share = args.seed + PROMPT_SEED, (args.process_index, args.world_size)
        template = cast("dict[str, Any]", args.chat_template_kwargs or {})
        path = TextPath(tokenizer, args.max_completion_length, end_tokens(generator, tokenizer), template)
        self.real_texts = RealTexts(
            self._rows,
            real_dataset,
            paired=False,
            path=inspected(path, self._rows),
            seed=self._seed,
            rank=args.process_index,
            world_size=args.world_size,
            begins_with_prompt=form_of(rows.column_names) in ("text", "prompt"),
        )
        defaults = {"top_k": 0, "top_p": 1.0, "min_p": None, "repetition_penalty": 1.0}
        given = {name: getattr(args, name) for name in defaults}
        self.generation_kwargs = {name: value for name, value in given.items() if value != defaults[name]}
        self.generation_kwargs |= cast("dict[str, Any]", args.generation_kwargs or {})

    def batches(self, size: int, count: int) -> Iterator[Pairs]:
        """Yield batches of `size` texts of each kind for this process, at least `count`.

        Texts are drawn for several batches at once, which is faster, and serve `discriminator_steps` times, each time
        beside other real texts if these belong to no prompt.
        """
        prompts = RealSampler(len(self._rows), self._seed, *self._share)
        rank, processes = self._share
        count = math.ceil(count / self._args.discriminator_steps)
        at_once = max(1, LEAST_AT_ONCE // size)
        for start in range(0, count, at_once):
            texts = min(at_once, count - start) * size
            rows = self._rows[prompts.draw(texts)]
            pairs = self._pairs(rows["prompt"], self._real(rows), self._seed + start * processes + rank)
            for use in range(self._args.discriminator_steps):
                if use and not self.real_texts.shows_prompts:
                    pairs = pairs._replace(references=self._real(rows).texts)
                for first in range(0, texts, size):
                    yield Pairs(*(side[first : first + size] for side in pairs))

    def _real(self, rows: dict[str, list[Any]]) -> RealBatch:
        """Return the references of the prompts themselves, whatever the loss: each is drawn as often as others."""
        if self.real_texts.shows_prompts:
            return self.real_texts.held_out(rows["prompt"], rows["completion"])
        return self.real_texts.draw(rows["prompt"], None)

    def held_out(self, rows: Dataset) -> tuple[Pairs, Pairs]:
        """Return held-out texts of each kind in two halves."""
        used = self._prepared(rows.select(range(min(len(rows), MOST_HELD_OUT))))[:]
        real = self.real_texts.held_out(used["prompt"], used.get("completion"))
        pairs = self._pairs(used["prompt"], real, self._args.seed + HELD_OUT_SEED)
        return Pairs(*(texts[::2] for texts in pairs)), Pairs(*(texts[1::2] for texts in pairs))

    def _prepared(self, rows: Dataset) -> Dataset:
        return cast(Dataset, prepare_dataset(rows, self._tokenizer, **self._args.prompt_arguments()))

    def _pairs(self, prompts: list[Any], real: RealBatch, seed: int) -> Pairs:
        limit = cast(int, self._args.max_completion_length)
        drawn = sample(
            self._generator,
            self._tokenizer,
            prompts,
            limit,
            self._args.temperature,
            seed,
            max(cast(int, self._args.generation_batch_size), LEAST_AT_ONCE),
            generation_kwargs=self.generation_kwargs,
        )
        texts = self.real_texts.path.decode(drawn.prompt_ids, drawn.completion_ids)
        shown, completions = self.real_texts.shown(prompts, texts)
        return Pairs(shown, completions, real.texts)


def _weights(discriminator: Discriminator) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in trainable_parameters(discriminator.model)]


def held_out_loss(discriminator: Discriminator, pairs: Pairs, size: int) -> float:
    """Compute the discriminator's loss on texts, at least `size` at a time."""
    return discriminator.loss(*_logits(discriminator, pairs, size)).item()


def _logits(discriminator: Discriminator, pairs: Pairs, size: int) -> tuple[Tensor, Tensor]:
    """Return the logits of the real and of the generated texts, at least `size` at a time."""
    sides, size = [], max(size, LEAST_AT_ONCE)
    for texts in (pairs.references, pairs.completions):
        starts = range(0, len(texts), size)
        parts = [discriminator.score(pairs.prompts[at : at + size], texts[at : at + size]) for at in starts]
        sides.append(torch.cat(parts))
    return sides[0], sides[1]
