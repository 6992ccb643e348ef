"""Divergences of two distributions whose densities can be computed, by Monte Carlo, and the best possible V(D, G).

In: log-probabilities of samples under both, in nats. Out: the Jensen-Shannon divergence in bits, the others in nats.
"""

import math

import torch.nn.functional as F
from torch import Tensor


def jensen_shannon(
    p_logps_of_p: Tensor,
    q_logps_of_p: Tensor,
    p_logps_of_q: Tensor,
    q_logps_of_q: Tensor,
    q_weights: Tensor | None = None,
) -> tuple[float, float]:
    """Estimate JS(P, Q) from samples of both, each with its log-probability under both.

    JS = 1/2 E_P[log2 2p/(p + q)] + 1/2 E_Q[log2 2q/(p + q)], Lin 1991, "Divergence measures based on the Shannon
    entropy", equation 3.1 with equal weights. The terms are bounded, so the estimate has a finite variance whatever P
    and Q are.

    Args:
        p_logps_of_p (`Tensor` of shape `(N,)`): log p of the samples of P, in nats.
        q_logps_of_p (`Tensor` of shape `(N,)`): log q of the same samples; `-inf` where Q cannot produce one.
        p_logps_of_q (`Tensor` of shape `(M,)`): log p of the samples of Q; `-inf` where P cannot produce one.
        q_logps_of_q (`Tensor` of shape `(M,)`): log q of the same samples.
        q_weights (`Tensor` of shape `(M,)`, *optional*): Where the samples are of another distribution than Q, a
            number proportional to the density of Q over that one, at least 0 (importance sampling, self-normalised).

    Returns:
        `tuple[float, float]`: The divergence in bits, about [0, 1], and its standard error.

    Example:
        ```python
        >>> from torch import tensor
        >>> same = tensor([-1.0, -2.0])
        >>> jensen_shannon(same, same, same, same)
        (0.0, 0.0)

        ```
    """
    # log2 2p/(p + q) = 1 - log2(1 + q/p)
    of_p = 1 - F.softplus((q_logps_of_p - p_logps_of_p).double()) / math.log(2)
    of_q = 1 - F.softplus((p_logps_of_q - q_logps_of_q).double()) / math.log(2)
    weights = of_q.new_ones(len(of_q)) if q_weights is None else q_weights.double()
    of_q = of_q.where(weights > 0, 0.0)  # what has no weight may have no density
    mean_of_q = (weights * of_q).sum() / weights.sum()
    # The delta method's; with equal weights the variance of a mean.
    variance_of_q = (weights * (of_q - mean_of_q)).square().sum() / weights.sum().square()
    variance_of_q *= len(of_q) / (len(of_q) - 1)
    variance = of_p.var() / len(of_p) + variance_of_q
    return ((of_p.mean() + mean_of_q) / 2).item(), (variance.sqrt() / 2).item()


def kullback_leibler(p_logps: Tensor, q_logps: Tensor) -> tuple[float, float]:
    """Estimate KL(P, Q) = E_P[log p - log q] from samples of P, each with its log-probability under both.

    Kullback and Leibler 1951, "On information and sufficiency", equation 2.4. With P the real texts and Q a generator
    it is what maximum likelihood lowers, and punishes a text that the generator cannot write; the other way round it
    punishes a text that is none of the real ones. Unlike the Jensen-Shannon divergence it has no bound, and neither
    has the variance of the estimate.

    Args:
        p_logps (`Tensor` of shape `(N,)`): log p of the samples of P, in nats.
        q_logps (`Tensor` of shape `(N,)`): log q of the same samples; `-inf` where Q cannot produce one.

    Returns:
        `tuple[float, float]`: The divergence in nats, at least 0 but for the error of the sample, and its standard
        error; `inf` and `nan` where Q cannot produce a sample.

    Raises:
        ValueError: If the samples are fewer than two or do not pair up.

    Example:
        ```python
        >>> from torch import tensor
        >>> kullback_leibler(tensor([-1.0, -1.0]), tensor([-2.0, -4.0]))  # 1 and 3 nats
        (2.0, 1.0)

        ```
    """
    if p_logps.shape != q_logps.shape or p_logps.ndim != 1 or len(p_logps) < 2:
        raise ValueError(
            f"Each sample has a log-probability under P and one under Q, and a standard error takes two samples; got "
            f"shapes {tuple(p_logps.shape)} and {tuple(q_logps.shape)}."
        )
    ratios = p_logps.double() - q_logps.double()
    return ratios.mean().item(), (ratios.var() / len(ratios)).sqrt().item()


def best_value(divergence: float) -> float:
    """Compute V(D, G) of the best possible discriminator from the Jensen-Shannon divergence.

    V(D*, G) = 2 JS - log 4, Goodfellow et al. 2014, "Generative adversarial nets", theorem 1
    ([1406.2661](https://huggingface.co/papers/1406.2661)). No discriminator can get more, and one that gets less does
    not see all that there is to see.

    Args:
        divergence (`float`): The divergence between real and generated texts in bits, [0, 1].

    Returns:
        `float`: In nats, from -log 4 = -1.386 where nothing tells the two apart to 0 where everything does.

    Raises:
        ValueError: If the divergence is more than one bit by more than an estimate's error, or is no number.

    Example:
        ```python
        >>> best_value(1.0)
        0.0

        ```
    """
    if not -0.1 <= divergence <= 1.1:
        raise ValueError(f"A Jensen-Shannon divergence is between 0 and 1 bit, got {divergence}.")
    return 2 * math.log(2) * (divergence - 1)
