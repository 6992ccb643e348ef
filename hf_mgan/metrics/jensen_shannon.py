"""The Jensen-Shannon divergence between two distributions whose densities can be computed, by Monte Carlo."""

import math

import torch
from torch import Tensor


def jensen_shannon(
    p_logps_of_p: Tensor, q_logps_of_p: Tensor, p_logps_of_q: Tensor, q_logps_of_q: Tensor
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

    Returns:
        `tuple[float, float]`: The divergence in bits, about [0, 1], and its standard error.

    Example:
        ```python
        >>> same = torch.tensor([-1.0, -2.0])
        >>> jensen_shannon(same, same, same, same)
        (0.0, 0.0)
        ```
    """
    # log2 2p/(p + q) = 1 - log2(1 + q/p)
    of_p = 1 - torch.nn.functional.softplus((q_logps_of_p - p_logps_of_p).double()) / math.log(2)
    of_q = 1 - torch.nn.functional.softplus((p_logps_of_q - q_logps_of_q).double()) / math.log(2)
    variance = of_p.var() / len(of_p) + of_q.var() / len(of_q)
    return ((of_p.mean() + of_q.mean()) / 2).item(), (variance.sqrt() / 2).item()
