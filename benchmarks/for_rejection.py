"""Adversarial training for the sampler that rejects: the generator's gradient is that of what is kept.

In: the discriminator's logits of a batch of the generator's texts. Out: rewards with that gradient.
"""

import math
from typing import Any

import torch
from torch import Tensor

from hf_mgan import AdversarialTrainer
from hf_mgan.decoding.selection import threshold_for
from hf_mgan.objectives import REWARDS


def rewards_of_kept(log_ratios: Tensor, draws: float) -> Tensor:
    """Return rewards of a batch so that the generator descends V(D, G) of what rejection makes of it at equal cost.

    A text x of the generator q is kept with probability a(x) = min(1, exp(r(x) - c)), so that p = q a / Z is sampled,
    Z = E_q[a] = 1 / draws. The reward R is that of V, -log(1 - D), of the discriminator of what is kept: its logit
    log(real / p) is r - log a + log Z = max(r, c) + log Z, so that no second discriminator is needed. Let r be held
    fixed and c follow q so that Z stays: from 0 = E_q[a grad log q] - grad c E_q[a; r < c],

        grad log p = grad log q - [r < c] E_p[grad log q] / P_p(r < c),

    and since R is one number R_c wherever r < c, the policy gradient is

        E_p[R grad log p] = E_p[(R - R_c) grad log q] = E_q[draws (R - R_c) grad log q],

    to which only texts with r > c contribute, and these are always kept. What the generator writes too seldom earns,
    and it does not matter how badly it writes the rest.

    Args:
        log_ratios (`Tensor` of shape `(B,)`): r, the discriminator's logits, of texts of the generator.
        draws (`float`): Per text kept, more than 1.

    Returns:
        `Tensor` of shape `(B,)`: draws (R - R_c), in nats; at least 0.
    """
    threshold = threshold_for(log_ratios, draws)
    most, least = log_ratios.clamp(min=threshold), torch.full_like(log_ratios, threshold)
    of_most, of_least = (REWARDS["minimax"](one - math.log(draws)) for one in (most, least))
    return draws * (of_most - of_least)


class ForRejectionTrainer(AdversarialTrainer):
    """Adversarial training whose generator learns to be sampled by rejection.

    With a batch of one group and rewards that are not divided by their deviation, as the demo has them.

    Attributes:
        draws (`float`): Per text kept, more than 1.

    Raises:
        ValueError: If the reward is not the logit.
    """

    draws = 2.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.discriminator_reward != "logit":
            raise ValueError(f"discriminator_reward must be 'logit', got {self.args.discriminator_reward!r}.")

    def _calculate_rewards(self, *args: Any) -> Tensor:
        """Turn the logits into the rewards of what is kept; while the discriminator warms up, all are 0."""
        rewards = super()._calculate_rewards(*args)
        return torch.stack([rewards_of_kept(logits, self.draws) for logits in rewards.unbind(1)], 1)


class ForFourDrawsTrainer(ForRejectionTrainer):
    """The same at four draws per text kept."""

    draws = 4.0
