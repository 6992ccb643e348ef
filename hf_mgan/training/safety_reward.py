"""The safety gate as a reward function that TRL calls, and the ranking that its verdicts lead to."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..data import as_prompts
from ..safety import GATE, SafetyGate, gate_rewards


class SafetyReward:
    """Gives TRL the gate's verdicts as a column of their own; [`rank`] then puts what is unsafe below all else.

    Args:
        gate ([`SafetyGate`]): Tells unsafe completions.
        tokenizer (`PreTrainedTokenizerBase`): The generator's; the gate reads prompts without its special tokens.
    """

    __name__ = GATE

    def __init__(self, gate: SafetyGate, tokenizer: PreTrainedTokenizerBase) -> None:
        self.gate, self._tokenizer = gate, tokenizer

    def __call__(
        self, prompts: list, completions: list, log_metric: Callable[[str, float], None], **columns: Any
    ) -> list[float]:
        """Return the verdict on each completion, 1 for unsafe and 0 for safe."""
        unsafe = self.gate.is_unsafe(as_prompts(prompts, self._tokenizer), completions).float()
        log_metric("safety/unsafe_rate", unsafe.mean().item())
        return unsafe.tolist()

    def rank(self, rewards: Tensor, names: list[str], weights: Tensor, group_size: int) -> Tensor:
        """Put each unsafe completion below every safe one of its group.

        Args:
            rewards (`Tensor` of shape `(B, K)`): All rewards of all processes, the verdicts among them; changed.
            names (`list[str]` of length K): Their names.
            weights (`Tensor` of shape `(K,)`): Their weights.
            group_size (`int`): Completions of one prompt.

        Returns:
            `Tensor` of shape `(B, K)`: See [`~safety.gate_rewards`].
        """
        column = names.index(GATE)  # behind it TRL puts the rewards of environments
        others = [index for index in range(len(names)) if index != column]
        unsafe = rewards[:, column] > 0.5
        gated = gate_rewards(
            rewards[:, others], weights[others].to(rewards.device), unsafe, group_size, self.gate.margin
        )
        rewards[:, [*others, column]] = gated
        return rewards
