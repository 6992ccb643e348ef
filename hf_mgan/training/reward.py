"""The discriminator's turn in a generation batch: it meets the completions and real texts, and in training it learns.

In: the rows of a batch and the completions. Out: the reward of each completion, from the logits before any step, and
the figures of the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..config import AdversarialConfig
from ..data import RealTexts
from ..discriminator import Discriminator, DiscriminatorOutput
from ..experimental.token_credit import token_advantages, token_ends, token_values, with_sequence_advantages
from ..objectives import REWARDS, length_correlation, length_neutral
from .batch_metrics import batch_metrics
from .update_gating import UpdateGating


@dataclass(frozen=True)
class Texts:
    """The completions of a generation batch, on one process.

    Attributes:
        rows (`list[dict]` of length B): The rows of the dataset that they belong to.
        prompts (`list` of length B): Their prompts, as TRL has them.
        completions (`list[str]` of length B): Plain texts.
        completion_ids (`list[list[int]]` of length B): Their tokens.
        group_size (`int`): Completions a group; those of a group stand together.
    """

    rows: list[dict[str, Any]]
    prompts: list
    completions: list[str]
    completion_ids: list[list[int]]
    group_size: int


class DiscriminatorTurn:
    """Brings the discriminator together with both kinds of text.

    Args:
        discriminator ([`Discriminator`]): The discriminator.
        real_texts ([`~data.RealTexts`]): Where its real texts come from.
        args ([`AdversarialConfig`]): The shape of the reward, and whether it is neutral to length, are read.
        balance ([`~balance.UpdateGating`]): Says whether the discriminator rests, and is told its accuracy.
        accelerator (`Accelerator`): Gathers from all processes.
        tokenizer (`PreTrainedTokenizerBase`): The generator's.
        offsets (`Callable`, *optional*): From prompts and completions (as tokens) or references (as texts) to what is
            known of their logits beforehand, shape `(B,)`.

    Attributes:
        references (`list[str]`): The real texts of the last turn.
        reference_prompts (`list`): Their prompts as the dataset has them; "" where they have none.
        texts ([`Texts`]): The completions of the last turn.
        output ([`~discriminator.DiscriminatorOutput`]): What came of it, before any step.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        real_texts: RealTexts,
        args: AdversarialConfig,
        balance: UpdateGating,
        accelerator: Accelerator,
        tokenizer: PreTrainedTokenizerBase,
        offsets: Callable[[list, list], Tensor] | None = None,
    ) -> None:
        self.discriminator, self.real_texts, self.balance = discriminator, real_texts, balance
        self._args, self._accelerator, self._tokenizer, self._offsets = args, accelerator, tokenizer, offsets
        self.references: list[str] = []
        self.reference_prompts: list = []
        self.texts: Texts
        self.output: DiscriminatorOutput

    def play(self, texts: Texts, updates: int, warming_up: bool) -> tuple[Tensor, dict[str, float]]:
        """Show the discriminator completions and real texts, once an update, and value the completions.

        Args:
            texts ([`Texts`]): The completions.
            updates (`int`): How often the discriminator learns from them, each time beside other real texts; 0 in
                evaluation, where it meets held-out texts.
            warming_up (`bool`): Whether the discriminator is alone: it does not rest then, and the generator has not
                moved, so that the change of its density is 0.

        Returns:
            `tuple[Tensor, dict[str, float]]`: The rewards, shape `(B,)`, made of the logits before any step, and the
            figures of the batch over all processes, under the names of the metrics.
        """
        rested = updates > 0 and self.balance.discriminator_rests and not warming_up
        offsets = None if warming_up else self._offsets
        self.texts, self.output = texts, self._meet(texts, updates, updates > 0 and not rested, offsets)
        output = self.output
        rewards = REWARDS[self._args.discriminator_reward](output.fake_logits)
        rewards, correlation = self._related_to_length(rewards, texts)
        figures = self._means({f"discriminator/{name}": value for name, value in output.figures().items()})
        repeated = texts.group_size if self.real_texts.are_references(training=updates > 0) else 1
        figures |= self._means(batch_metrics(texts.completions, self.references, repeated))
        figures["rewards/discriminator/length_correlation"] = correlation
        if updates:
            self.balance.accuracy = figures["discriminator/accuracy"]
            figures |= self.balance.figures(rested)
        return rewards, figures

    def _meet(
        self, texts: Texts, updates: int, learns: bool, offsets: Callable[[list, list], Tensor] | None
    ) -> DiscriminatorOutput:
        """Let both kinds of text meet as often as there are updates; return what came of the first time."""
        fake_offsets = offsets(texts.prompts, texts.completion_ids) if offsets else None
        shown = self.real_texts.shown_prompts(texts.prompts)
        outputs = []
        for number in range(updates if learns else 1):
            references, prompts = (self.real_texts.draw if updates else self.real_texts.held_out)(texts.rows)
            if number == 0:
                self.references, self.reference_prompts = references, prompts
            act = self.discriminator.evaluate
            if learns:  # what is shown several times is kept for replay once
                act = partial(self.discriminator.update, remember=number == updates - 1)
            output = act(
                shown,
                texts.completions,
                references,
                self.real_texts.shown_prompts(prompts),
                completion_offsets=fake_offsets,
                reference_offsets=offsets(prompts, references) if offsets else None,
            )
            outputs.append(output)
        return outputs[0]

    def advantages_of_tokens(self, advantages: Tensor, mask: Tensor) -> Tensor:
        """Put the credit of tokens in the place of the discriminator's part of the last turn's advantages.

        Args:
            advantages (`Tensor` of shape `(B,)`): TRL's, of all rewards: sums of weighted rewards less the mean of the
                group, undivided.
            mask (`Tensor` of shape `(B, T)`): 1 for the tokens of the completions.

        Returns:
            `Tensor` of shape `(B, T)`: See [`~credit.token_advantages`].
        """
        logits, prefix_ends = self.output.fake_prefix_logits, self.output.fake_prefix_ends
        assert logits is not None
        assert prefix_ends is not None  # the discriminator is made to judge prefixes where tokens are paid
        weight, reward = self._args.discriminator_weight, REWARDS[self._args.discriminator_reward]
        groups = self._accelerator.gather(reward(self.output.fake_logits)).view(-1, self.texts.group_size)
        own = (groups - groups.mean(1, keepdim=True)).flatten()
        own = own[len(advantages) * self._accelerator.process_index :][: len(advantages)]
        ends = token_ends(self._tokenizer, self.texts.completion_ids)
        values = token_values(logits, prefix_ends, ends, mask.size(1)).to(mask.device)
        credit = token_advantages(values, mask, reward, self._args.discriminator_credit_discount)
        return with_sequence_advantages(credit, weight, advantages - weight * own.to(advantages), mask)

    def _related_to_length(self, rewards: Tensor, texts: Texts) -> tuple[Tensor, float]:
        """Return the rewards, without what goes along with length if asked for, and their correlation with length."""
        lengths = torch.tensor([float(len(ids)) for ids in texts.completion_ids], device=rewards.device)
        all_rewards, all_lengths = self._accelerator.gather(torch.stack([rewards, lengths], 1)).unbind(1)
        correlation = length_correlation(all_rewards, all_lengths, texts.group_size).item()
        if self._args.discriminator_length_neutral:
            neutral = length_neutral(all_rewards, all_lengths, texts.group_size)
            rewards = neutral[len(rewards) * self._accelerator.process_index :][: len(rewards)]
        return rewards, correlation

    def _means(self, figures: dict[str, Tensor] | dict[str, float]) -> dict[str, float]:
        """Average figures over processes."""
        device = self._accelerator.device
        values: Sequence = list(figures.values())
        stacked = torch.stack([torch.as_tensor(value, dtype=torch.float32, device=device) for value in values])
        means = self._accelerator.gather(stacked[None]).mean(0).tolist()
        return dict(zip(figures, means, strict=True))
