"""The discriminator's last updates, with the generator frozen: it catches up, and is calibrated, to guide generation.

A discriminator that followed a moving generator is behind it at the end, and for generation it has to know the one
that is sampled, at the temperature at which it is sampled. In: both models, real texts to learn from and held-out
ones. Out: the discriminator as it was best on held-out texts, with its [`Calibration`]. It is also how a discriminator
is trained for a generator that nobody trains, and how a second one is for what the first one keeps of it.
"""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

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

from ..checks import COUNT, Instance
from ..config import AdversarialConfig
from ..discriminator import Calibration, Discriminator, calibrate, trainable_parameters
from ..discriminator.calibration import LEAST_TEXTS
from ..metrics.extras import require_packages
from .text_source import LEAST_AT_ONCE, MOST_HELD_OUT, Pairs, TextSource


if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

EVALUATIONS = 10  # during the updates
PATIENCE = 3  # evaluations in a row without a lower loss
PREVIOUS = Instance(of=(Discriminator,), what="a Discriminator", optional=True)


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
    previous: Discriminator | None = None,
) -> Calibration:
    """Train a discriminator against a generator that stays as it is, and calibrate it.

    Updates see fresh samples of the generator, drawn as `args` says, beside the references of their prompts; each
    sample serves `discriminator_steps` of them. The learning rate falls linearly to 0. The loss on held-out texts is
    computed ten times; training stops when it has not fallen three times in a row, and the weights of the lowest one
    are kept. Other held-out texts calibrate the logit.

    With a `previous` discriminator the generated texts are those that rejection with it keeps of the generator's, at
    four draws per text. The new one learns what it has missed, and takes it along: its log-ratio is that of both, see
    [`~discriminator.Calibration.log_ratio`].

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
        previous ([`Discriminator`], *optional*): Another one, which this function has calibrated for the same
            generator and settings.

    Returns:
        [`Calibration`]: That of `discriminator.calibration`.

    Raises:
        ImportError: If scikit-learn is missing.
        TypeError: If a dataset is streamed.
        ValueError: If there are too few held-out texts, `num_updates` is less than 1, or `previous` is the
            discriminator itself or not calibrated for these texts.
    """
    num_updates = COUNT("num_updates", num_updates)
    check_final_updates(train_dataset, held_out)
    source = TextSource(generator, tokenizer, train_dataset, args, real_dataset)
    PREVIOUS("previous", previous)
    if previous is not None:
        if previous.model is discriminator.model:
            raise ValueError(
                "previous is the discriminator that is to be trained: train another one, such as a fresh one from the "
                "same id, and give the one that is calibrated as previous."
            )
        source.choose_by(previous.to(discriminator.model.device), held_out)
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
    real_logits, fake_logits = _logits(discriminator, calibrating, size)
    discriminator.calibration = calibrate(
        real_logits,
        fake_logits,
        label=discriminator.label,
        prefixes=discriminator.prefixes is not None,
        **source.form,
        **source.choice,
    )
    discriminator.previous = previous
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
