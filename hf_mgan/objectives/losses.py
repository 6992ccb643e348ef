"""Discriminator losses: pure functions of the logits of real and of generated text.

Notation, shared with `rewards`: `logit` is the raw output of the discriminator, higher means more real; D =
sigmoid(logit) is the probability that the text is real; label 1 is real. Every loss is to be minimised, is a scalar of
dtype float32 whatever the dtype of the logits, and is a mean over texts, so that it does not depend on the size of the
batch.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor


Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def bce(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Compute the loss of the original game, binary cross-entropy with one term a side.

    L = -E_t[log D(t)] - E_s[log(1 - D(G(s)))] = -V(D, G), equation 1 of Goodfellow et al. 2014, "Generative
    Adversarial Nets" ([1406.2661](https://huggingface.co/papers/1406.2661)). The minimum over D is log 4 - 2 JS(real,
    generated).

    Args:
        real_logits (`Tensor` of shape `(R,)`): Logits of real texts.
        fake_logits (`Tensor` of shape `(B,)`): Logits of generated texts; R and B may differ.

    Returns:
        `Tensor` of shape `()`: In nats, [0, inf); log 4 = 1.386 for a discriminator that always says 1/2.

    Example:
        ```python
        >>> bce(torch.zeros(4), torch.zeros(4))
        tensor(1.3863)
        ```
    """
    return F.softplus(-real_logits.float()).mean() + F.softplus(fake_logits.float()).mean()


def bradley_terry(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Compute the paired loss: each completion against the reference of its own prompt.

    L = -E[log sigmoid(logit(reference) - logit(completion))], the relativistic loss (equation 3 with its choice of f)
    of Jolicoeur-Martineau 2018, "The relativistic discriminator"
    ([1807.00734](https://huggingface.co/papers/1807.00734)), which is the preference model of Bradley and Terry 1952.
    Only the difference within a pair counts, so the logits are free to shift from prompt to prompt.

    Args:
        real_logits (`Tensor` of shape `(B,)`): Logits of the references.
        fake_logits (`Tensor` of shape `(B,)`): Logits of the completions, in the same order.

    Returns:
        `Tensor` of shape `()`: In nats, [0, inf); log 2 = 0.693 where no pair can be told apart.

    Raises:
        ValueError: If the two sides do not pair up.

    Example:
        ```python
        >>> bradley_terry(torch.zeros(4), torch.zeros(4))
        tensor(0.6931)
        ```
    """
    if real_logits.shape != fake_logits.shape:
        raise ValueError(
            f"bradley_terry compares each completion with its own reference, but got {tuple(real_logits.shape)} real "
            f"and {tuple(fake_logits.shape)} generated logits. Give one reference a completion, or use "
            "relativistic_average."
        )
    return F.softplus(fake_logits.float() - real_logits.float()).mean()


def relativistic_average(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Compute the unpaired relativistic loss: each text against the mean of the other side.

    L = -E_t[log sigmoid(logit(t) - m_fake)] - E_s[log(1 - sigmoid(logit(G(s)) - m_real))] with m the mean logit of a
    side, section 4.2 of Jolicoeur-Martineau 2018 ([1807.00734](https://huggingface.co/papers/1807.00734)).

    Args:
        real_logits (`Tensor` of shape `(R,)`): Logits of real texts.
        fake_logits (`Tensor` of shape `(B,)`): Logits of generated texts; R and B may differ.

    Returns:
        `Tensor` of shape `()`: In nats, [0, inf); log 4 = 1.386 where the two sides cannot be told apart.

    Example:
        ```python
        >>> relativistic_average(torch.full((4,), 7.0), torch.full((4,), 7.0))
        tensor(1.3863)
        ```
    """
    real, fake = real_logits.float(), fake_logits.float()
    return F.softplus(-(real - fake.mean())).mean() + F.softplus(fake - real.mean()).mean()


LOSSES: dict[str, Loss] = {
    "bce": bce,
    "bradley_terry": bradley_terry,
    "relativistic_average": relativistic_average,
}
"""Discriminator losses by the name that `discriminator_loss` takes."""

PAIRED = frozenset({"bradley_terry"})
"""Losses that compare a completion with the reference of its own prompt; the others draw real texts freely."""
