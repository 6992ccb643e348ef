"""The Kullback-Leibler divergence of two densities that can be computed, and what the best discriminator would get.

In: log-probabilities of samples under both. Out: nats.
"""

import math

from torch import Tensor


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
        >>> kullback_leibler(torch.tensor([-1.0, -1.0]), torch.tensor([-2.0, -4.0]))  # 1 and 3 nats
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
