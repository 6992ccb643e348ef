"""Discriminator losses: pure functions of the logits of real and of generated text.

Notation, shared with `rewards`: `logit` is the raw output of the discriminator, higher means more real; D =
sigmoid(logit); label 1 is real; p and q are the densities of real and of generated text. Every loss is to be
minimised, is a scalar of dtype float32 whatever the dtype of the logits, and is a mean over texts, so that it does not
depend on the size of the batch.

Each docstring says which logit is the best, and so what the reward shapes mean with the loss. The best logit of `bce`
is the log-odds log p - log q, and D the probability that the text is real. With `hinge`, `least_squares` and
`wasserstein` it is another growing function of p/q, or none at all: D is then a score between 0 and 1 that puts texts
in the same order as the logit, and no probability.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor


Loss: TypeAlias = Callable[..., Tensor]
"""From real and fake logits to a scalar; a loss in `SMOOTHABLE` also takes the keyword `label_smoothing`."""


def _check_label_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(
            f"label_smoothing must be at least 0 and less than 0.5, got {label_smoothing}. The target of a real text "
            "is 1 - label_smoothing, and 0.1 is common; 0 sets it off."
        )


def bce(real_logits: Tensor, fake_logits: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Compute the original loss, binary cross-entropy with one term each for real and generated text.

    L = -E_t[log D(t)] - E_s[log(1 - D(G(s)))] = -V(D, G), equation 1 of Goodfellow et al. 2014, "Generative
    Adversarial Nets" ([1406.2661](https://huggingface.co/papers/1406.2661)). The minimum over D is log 4 - 2 JS(real,
    generated), at the logit log p - log q: the reward shapes mean what they say.

    One-sided label smoothing moves the target of real texts, and of them alone, from 1 to 1 - eps, section 3.4 of
    Salimans et al. 2016, "Improved techniques for training GANs"
    ([1606.03498](https://huggingface.co/papers/1606.03498)): the real term becomes -(1 - eps) E_t[log D(t)] -
    eps E_t[log(1 - D(t))]. The best D is then (1 - eps) p / (p + q), and the best logit log((1 - eps) p) -
    log(q + eps p). The reward shapes keep the order of the texts, but no logit pays beyond log((1 - eps) / eps), and
    where real and generated text are alike D says (1 - eps) / 2 rather than 1/2.

    Args:
        real_logits (`Tensor` of shape `(R,)`): Logits of real texts.
        fake_logits (`Tensor` of shape `(B,)`): Logits of generated texts; R and B may differ.
        label_smoothing (`float`, *optional*, defaults to 0.0): eps, in [0, 0.5).

    Returns:
        `Tensor` of shape `()`: In nats, [0, inf); log 4 = 1.386 for a discriminator that always says 1/2, however the
        labels are smoothed.

    Raises:
        ValueError: If `label_smoothing` is out of range.

    Example:
        ```python
        >>> bce(torch.zeros(4), torch.zeros(4))
        tensor(1.3863)
        ```
    """
    _check_label_smoothing(label_smoothing)
    real, fake = real_logits.float(), fake_logits.float()
    # softplus(-x) + eps x = (1 - eps) softplus(-x) + eps softplus(x), the cross-entropy of the target 1 - eps
    return (F.softplus(-real) + label_smoothing * real).mean() + F.softplus(fake).mean()


def bradley_terry(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Compute the paired loss: each completion against the reference of its own prompt.

    L = -E[log sigmoid(logit(reference) - logit(completion))], the relativistic loss (equation 3 with its choice of f)
    of Jolicoeur-Martineau 2018, "The relativistic discriminator"
    ([1807.00734](https://huggingface.co/papers/1807.00734)), which is the preference model of Bradley and Terry 1952.
    Only the difference within a pair counts, so the logits are free to shift from prompt to prompt: the best one is
    log p - log q up to a constant of the prompt. Among completions of one prompt the shape `logit` therefore pays what
    it pays with `bce`, up to that constant; D compares completions of one prompt and is no probability.

    Args:
        real_logits (`Tensor` of shape `(B,)`): Logits of the references.
        fake_logits (`Tensor` of shape `(B,)`): Logits of the completions, in the same order.

    Returns:
        `Tensor` of shape `()`: In nats, [0, inf); log 2 = 0.693 where no pair can be told apart.

    Raises:
        ValueError: If real and generated texts do not pair up.

    Example:
        ```python
        >>> bradley_terry(torch.zeros(4), torch.zeros(4))
        tensor(0.6931)
        ```
    """
    if real_logits.shape != fake_logits.shape:
        raise ValueError(
            f"bradley_terry compares each completion with its own reference, but got {tuple(real_logits.shape)} real "
            f"and {tuple(fake_logits.shape)} generated logits. Give one reference per completion, or use "
            "relativistic_average."
        )
    return F.softplus(fake_logits.float() - real_logits.float()).mean()


def relativistic_average(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Compute the unpaired relativistic loss: each text against the mean of the other side.

    L = -E_t[log sigmoid(logit(t) - m_fake)] - E_s[log(1 - sigmoid(logit(G(s)) - m_real))] with m the mean logit of a
    side, section 4.2 of Jolicoeur-Martineau 2018 ([1807.00734](https://huggingface.co/papers/1807.00734)). The losses
    of two halves of a batch do not average to that of the batch. A common shift of all logits changes nothing, so D =
    sigmoid(logit) is a score, and its level says nothing.

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


def hinge(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Compute the hinge loss: texts count until they are on their side of the margin.

    L = E_t[relu(1 - logit(t))] + E_s[relu(1 + logit(G(s)))], the loss of a support vector machine, of Lim and Ye 2017,
    "Geometric GAN" ([1705.02894](https://huggingface.co/papers/1705.02894)). The minimum over the discriminator is
    2 (1 - TV(real, generated)), with TV the total variation, at the logit sign(p - q).

    The logit is no log-odds, so D = sigmoid(logit) is only a score, between 0.27 and 0.73 for the best logit. With the
    shape `logit` the generator descends 2 TV(real, generated) against the best discriminator; the other shapes then
    pay two values as well, and differ from it by a scale and a constant.

    Args:
        real_logits (`Tensor` of shape `(R,)`): Logits of real texts.
        fake_logits (`Tensor` of shape `(B,)`): Logits of generated texts; R and B may differ.

    Returns:
        `Tensor` of shape `()`: [0, inf), 0 beyond the margins; 2 for a discriminator that always says 0.

    Example:
        ```python
        >>> hinge(torch.tensor([0.5]), torch.tensor([-2.0]))
        tensor(0.5000)
        ```
    """
    return F.relu(1 - real_logits.float()).mean() + F.relu(1 + fake_logits.float()).mean()


def least_squares(real_logits: Tensor, fake_logits: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Compute the least-squares loss: the logit as a regression onto +1 for real and -1 for generated text.

    L = 1/2 E_t[(logit(t) - 1)^2] + 1/2 E_s[(logit(G(s)) + 1)^2], of Mao et al. 2017, "Least squares generative
    adversarial networks" ([1611.04076](https://huggingface.co/papers/1611.04076)), with the targets a = -1 and b = 1
    of their equation 8, so that the logit 0 is undecided as in every other loss. The best logit is (p - q) / (p + q),
    in [-1, 1]. A logit beyond its target is drawn back, so that the logits stay small.

    The logit is no log-odds, so D = sigmoid(logit) is only a score, between 0.27 and 0.73 for the best logit; the
    probability that the text is real is (1 + logit) / 2. With the shape `logit` the generator descends 2 KL(real, m)
    against the best discriminator, with m = (p + q) / 2 the mixture of real and generated text.

    One-sided label smoothing (section 3.4 of Salimans et al. 2016,
    [1606.03498](https://huggingface.co/papers/1606.03498)) moves the target of real texts alone, by eps on the scale
    of that probability: b = 1 - 2 eps. The best logit is then ((1 - 2 eps) p - q) / (p + q).

    Args:
        real_logits (`Tensor` of shape `(R,)`): Logits of real texts.
        fake_logits (`Tensor` of shape `(B,)`): Logits of generated texts; R and B may differ.
        label_smoothing (`float`, *optional*, defaults to 0.0): eps, in [0, 0.5).

    Returns:
        `Tensor` of shape `()`: [0, inf); 1 for a discriminator that always says 0, with no smoothing.

    Raises:
        ValueError: If `label_smoothing` is out of range.

    Example:
        ```python
        >>> least_squares(torch.zeros(4), torch.zeros(4))
        tensor(1.)
        ```
    """
    _check_label_smoothing(label_smoothing)
    target = 1 - 2 * label_smoothing
    return ((real_logits.float() - target).square().mean() + (fake_logits.float() + 1).square().mean()) / 2


def wasserstein(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Compute the loss of the Wasserstein critic: the mean logit of generated text less that of real text.

    L = E_s[logit(G(s))] - E_t[logit(t)], equation 2 of Arjovsky et al. 2017, "Wasserstein GAN"
    ([1701.07875](https://huggingface.co/papers/1701.07875)), with the sign of a loss. It has no minimum of its own: a
    critic that is twice as steep has twice the loss. With a slope of at most 1 (`gradient_penalty` and `noise_penalty`
    hold the slope down, but set no such limit) the minimum is -W(real, generated), the distance of the earth mover.
    With lambda times `logit_penalty` alone the best logit is that of `least_squares` over lambda.

    The logit is no log-odds and its scale is that of the penalty, so D = sigmoid(logit) is only a score. The shape
    `logit` is the one that the distance is made of; the others bend it.

    Args:
        real_logits (`Tensor` of shape `(R,)`): Logits of real texts.
        fake_logits (`Tensor` of shape `(B,)`): Logits of generated texts; R and B may differ.

    Returns:
        `Tensor` of shape `()`: (-inf, inf); 0 where the two sides have the same mean.

    Example:
        ```python
        >>> wasserstein(torch.tensor([3.0]), torch.tensor([1.0]))
        tensor(-2.)
        ```
    """
    return fake_logits.float().mean() - real_logits.float().mean()


LOSSES: dict[str, Loss] = {
    "bce": bce,
    "bradley_terry": bradley_terry,
    "relativistic_average": relativistic_average,
    "hinge": hinge,
    "least_squares": least_squares,
    "wasserstein": wasserstein,
}
"""Discriminator losses by the name that `discriminator_loss` takes."""

PAIRED = frozenset({"bradley_terry"})
"""Losses that compare a completion with the reference of its own prompt; the others draw real texts freely."""

SMOOTHABLE = frozenset({"bce", "least_squares"})
"""Losses with a target that the keyword `label_smoothing` can move."""

NEEDS_PENALTY = frozenset({"wasserstein"})
"""Losses without a minimum unless a penalty bounds the discriminator's slope or the size of its logits."""

FREE_TO_SHIFT = frozenset({"bradley_terry", "relativistic_average", "wasserstein"})
"""Losses that compare logits with one another only, so that adding a constant to all of them changes nothing."""
