"""The discriminator as a reward function that TRL calls: it scores the completions of a batch, and learns from them.

In: what TRL hands to every reward function, the references of the batch among its columns. Out: one reward per
completion, made of the logits before any update, and metrics through TRL's own channel, `log_metric`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from accelerate.utils import gather, gather_object
from torch import Tensor

from ..config import AdversarialConfig
from ..data import RealBatch, RealTexts
from ..discriminator import Discriminator, DiscriminatorOutput
from ..objectives import REWARDS
from .batch_metrics import batch_metrics, length_correlation
from .update_gating import UpdateGating


NAME = "discriminator"
# TRL keeps the column `completion` from reward functions, so the trainer hands references over under this name.
REFERENCE = "discriminator_reference"


@dataclass(frozen=True)
class Round:
    """What came of one generation batch, on one process.

    Attributes:
        accuracy (`float`, *optional*): The discriminator's, before its update, of all processes; None where no update
            gating asks for it.
        real ([`~data.RealBatch`], *optional*): The real texts that the discriminator saw; None before the first batch.
        completion_ids (`list[list[int]]` of length B): Tokens of the completions.
        output ([`~discriminator.DiscriminatorOutput`], *optional*): What the discriminator reported of its first pass.
    """

    accuracy: float | None = None
    real: RealBatch | None = None
    completion_ids: list[list[int]] = field(default_factory=list)
    output: DiscriminatorOutput | None = None


class DiscriminatorReward:
    """The discriminator's reward, R(logit), with R one of [`~objectives.REWARDS`].

    In training each call is a round: the reward is taken, then the discriminator makes `discriminator_steps` updates
    on these completions, each beside other real texts. In evaluation nothing learns.

    Args:
        discriminator ([`Discriminator`]): The discriminator.
        real_texts ([`~data.RealTexts`]): Where its real texts come from.
        args ([`AdversarialConfig`]): Settings.
        is_training (`Callable`): Says whether the trainer is training or evaluating.

    Attributes:
        round ([`Round`]): The last round. It is kept since TRL calls a reward function for numbers alone, and the rest
            is needed later: the anchor on real text, update gating and checkpoints read it.
    """

    __name__ = NAME  # of the metrics `rewards/discriminator/...`

    def __init__(
        self,
        discriminator: Discriminator,
        real_texts: RealTexts,
        args: AdversarialConfig,
        is_training: Callable[[], bool],
    ) -> None:
        self.discriminator, self.real_texts = discriminator, real_texts
        self.gating = UpdateGating(**args.update_gating()) if args.update_gating() else None
        self.round = Round()
        self._args, self._is_training = args, is_training
        self._shape = REWARDS[args.discriminator_reward]

    @property
    def is_warming_up(self) -> bool:
        """Whether the discriminator learns alone, before the generator's first step."""
        return self._is_training() and self.discriminator.num_updates < self._args.discriminator_warmup_steps

    def __call__(
        self,
        prompts: list,
        completions: list,
        completion_ids: list[list[int]],
        log_metric: Callable[[str, float], None],
        log_extra: Callable[[str, list], None],
        **columns: Any,
    ) -> list[float]:
        """Return the reward of each completion, and train the discriminator if the trainer is training.

        Args:
            prompts (`list` of length B): As TRL has them, texts or messages.
            completions (`list` of length B): Texts or messages; those of a group stand together.
            completion_ids (`list[list[int]]` of length B): Their tokens.
            log_metric (`Callable`): TRL's; it averages over processes.
            log_extra (`Callable`): TRL's; it adds a column to the table of completions.
            **columns: The other columns, references under [`REFERENCE`] where the dataset has them.

        Returns:
            `list[float]` of length B.
        """
        references = columns.get(REFERENCE)
        training, accuracy = self._is_training(), self.round.accuracy
        skips = False
        if training and self.gating is not None and not self.is_warming_up:
            skips = self.gating.discriminator_skips(accuracy)
        draw = self.real_texts.draw if training else self.real_texts.held_out
        shown, texts = self.real_texts.generated(prompts, completions, completion_ids)
        outputs: list[tuple[RealBatch, DiscriminatorOutput]] = []
        for act in self._acts(training and not skips):
            real = draw(prompts, references)
            outputs.append((real, act(shown, texts, real.texts, real.prompts)))
        real, output = outputs[0]
        if training and self.gating is not None:
            accuracy = gather(output.accuracy()[None]).mean().item()
        self.round = Round(accuracy, real, completion_ids, output)
        rewards = self._shape(output.fake_logits)
        for name, value in self._metrics(output, rewards, texts, real, skips).items():
            log_metric(name, value)
        if self._args.log_completions:
            log_extra("D(completion)", output.fake_logits.sigmoid().tolist())
            log_extra("real text", real.texts)
            log_extra("D(real text)", output.real_logits.sigmoid().tolist())
        return rewards.tolist()

    def _acts(self, learns: bool) -> list[Callable[..., DiscriminatorOutput]]:
        """Return what the discriminator does in this round, in order: one evaluation, or its updates."""
        if not learns:
            return [self.discriminator.evaluate]
        updates, left = self._args.discriminator_steps, self._args.discriminator_warmup_steps
        if self.is_warming_up:
            updates = min(updates, left - self.discriminator.num_updates)
        # Completions that are shown several times are kept for replay once.
        return [partial(self.discriminator.update, remember=number == updates - 1) for number in range(updates)]

    def _metrics(
        self, output: DiscriminatorOutput, rewards: Tensor, texts: list[str], real: RealBatch, skipped: bool
    ) -> dict[str, float]:
        training = self._is_training()
        group = cast(int, self._args.num_generations)
        if not training:
            group = self._args.num_generations_eval or group
        lengths = torch.tensor([float(len(ids)) for ids in self.round.completion_ids], device=rewards.device)
        tensors = {f"{NAME}/{name}": value for name, value in output.metrics().items()}
        # Of all processes together: a group may lie on two of them.
        of_all = gather(torch.stack([rewards, lengths], 1))
        tensors[f"rewards/{NAME}/length_correlation"] = length_correlation(of_all[:, 0], of_all[:, 1], group)
        values = torch.stack([value.to(rewards) for value in tensors.values()]).tolist()  # one synchronisation for all
        metrics = dict(zip(tensors, values, strict=True))
        repeats = group if self.real_texts.are_references(training) else 1
        completions, references = zip(*gather_object([*zip(texts, real.texts, strict=True)]), strict=True)
        metrics |= batch_metrics(completions, references, repeats, self._args.unit)
        metrics["references/clipped_ratio"] = self.real_texts.clipped_ratio(real)
        if training and self.gating is not None:
            metrics |= self.gating.metrics(skipped, self.round.accuracy)
        return metrics
