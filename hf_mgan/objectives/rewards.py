"""Reward shapes: what a logit of the discriminator is worth to the generator.

Notation as in `losses`: `logit` is raw, higher means more real, D = sigmoid(logit). Every shape grows with the logit,
works element by element, and returns float32. They differ in how much they pay at the two ends, and so in which
divergence the generator descends against the best discriminator. The divergences named here are those of the loss
`bce`, for which logit = log p_real(x) - log p_G(x); `losses` says of each other loss what its logit is.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor


RewardShape: TypeAlias = Callable[[Tensor], Tensor]


def log_d(fake_logits: Tensor) -> Tensor:
    """Compute the non-saturating reward, log D.

    The generator's objective that Goodfellow et al. 2014 ([1406.2661](https://huggingface.co/papers/1406.2661),
    section 3) train with in practice: bounded above by 0, and steep where the discriminator is confident that a text
    is generated.

    Args:
        fake_logits (`Tensor` of any shape): Logits of generated texts.

    Returns:
        `Tensor` of the same shape: In nats, (-inf, 0).

    Example:
        ```python
        >>> log_d(torch.zeros(1))
        tensor([-0.6931])
        ```
    """
    return F.logsigmoid(fake_logits.float())


def minimax(fake_logits: Tensor) -> Tensor:
    """Compute the minimax reward, -log(1 - D).

    The generator's part of equation 1 of Goodfellow et al. 2014
    ([1406.2661](https://huggingface.co/papers/1406.2661)). Against the best discriminator its policy gradient is the
    gradient of the Jensen-Shannon divergence, up to a factor. It is bounded below by 0, so that one hopeless text
    cannot dominate a batch.

    Args:
        fake_logits (`Tensor` of any shape): Logits of generated texts.

    Returns:
        `Tensor` of the same shape: In nats, (0, inf).

    Example:
        ```python
        >>> minimax(torch.zeros(1))
        tensor([0.6931])
        ```
    """
    return F.softplus(fake_logits.float())


def logit(fake_logits: Tensor) -> Tensor:
    """Compute the log-odds reward, log D/(1 - D).

    Against the best discriminator its expectation is -KL(generated, real), the reverse divergence, which seeks modes;
    it is the reward of AIRL, Fu et al. 2017 ([1710.11248](https://huggingface.co/papers/1710.11248), section 4).

    Args:
        fake_logits (`Tensor` of any shape): Logits of generated texts.

    Returns:
        `Tensor` of the same shape: In nats, (-inf, inf).

    Example:
        ```python
        >>> logit(torch.tensor([2.0]))
        tensor([2.])
        ```
    """
    return fake_logits.float()


def probability(fake_logits: Tensor) -> Tensor:
    """Compute the probability reward, D, as in SeqGAN (Yu et al. 2016, equation 4 at the last token).

    [1609.05473](https://huggingface.co/papers/1609.05473). Bounded on both sides; its gradient with respect to the
    logit vanishes at both.

    Args:
        fake_logits (`Tensor` of any shape): Logits of generated texts.

    Returns:
        `Tensor` of the same shape: (0, 1).

    Example:
        ```python
        >>> probability(torch.zeros(1))
        tensor([0.5000])
        ```
    """
    return fake_logits.float().sigmoid()


REWARDS: dict[str, RewardShape] = {"log_d": log_d, "minimax": minimax, "logit": logit, "probability": probability}
"""Reward shapes by the name that `discriminator_reward` takes."""
