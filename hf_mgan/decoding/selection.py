"""Which of several candidates is kept: the family of samplers that correct a generator by its discriminator.

In: log-ratios r = log p(x) - log q(x) of the candidates x of each prompt, drawn from q, with p the real texts and q
the generator; -inf for a candidate that a filter refuses. Out: one candidate per prompt. With a perfect discriminator
each of the four comes nearer to p than q is, and goes to p as the number k of candidates grows (rejection: as c grows
too), but for best of k, which goes to the texts that q writes too seldom.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Choice(NamedTuple):
    """Which candidates are kept.

    Args:
        kept (`Tensor` of shape `(N,)`): Candidate of each prompt, int64; -1 where a filter refuses all of them.
        tries (`Tensor` of shape `(N,)`): Candidates that were looked at, int64.
        accepted (`Tensor` of shape `(N,)`): bool; False where the bound on the tries was met, so that the candidate is
            the best that there was and not one of the distribution aimed at.
    """

    kept: Tensor
    tries: Tensor
    accepted: Tensor


def rejection(log_ratios: Tensor, uniforms: Tensor, threshold: float = 0.0) -> Choice:
    """Keep the first candidate that is accepted, each with probability min(1, exp(r - c)).

    Discriminator rejection sampling (Azadi et al. 2019, [1810.06758](https://huggingface.co/papers/1810.06758)). What
    is accepted has the density q(x) min(1, exp(r(x) - c)) / Z, whatever the discriminator; 1 / Z candidates are drawn
    for it on average. The greater c, the nearer to p and the more draws. Where none of the k candidates is accepted,
    one of them is kept by [`resampling`] and counts as not accepted.

    Args:
        log_ratios (`Tensor` of shape `(N, k)`): r of each candidate, -inf where a filter refuses it.
        uniforms (`Tensor` of shape `(N, k)`): Random numbers in [0, 1).
        threshold (`float`, *optional*, defaults to 0.0): c in nats.

    Returns:
        [`Choice`]: The candidates kept.

    Example:
        ```python
        >>> ratios = torch.tensor([[-1.0, 0.5], [0.0, 9.0]])
        >>> rejection(ratios, torch.tensor([[0.9, 0.9], [0.9, 0.9]])).kept
        tensor([1, 0])

        ```
    """
    accepts = is_accepted(log_ratios, uniforms, threshold)
    accepted, first = accepts.any(1), accepts.float().argmax(1)
    # The random numbers of what is not accepted lie above its chance; stretched to [0, 1) they are uniform again.
    chances = (log_ratios - threshold).exp().clamp(max=1)
    rest = resampling(log_ratios, ((uniforms - chances) / (1 - chances)).clamp(min=0))
    return Choice(
        torch.where(accepted, first, rest.kept),
        torch.where(accepted, first + 1, log_ratios.size(1)),
        accepted,
    )


def is_accepted(log_ratios: Tensor, uniforms: Tensor, threshold: float) -> Tensor:
    """Return what [`rejection`] accepts, bool, of the shape of the log-ratios."""
    return uniforms.log() < log_ratios - threshold


def threshold_for(log_ratios: Tensor, draws: float) -> float:
    """Return c at which [`rejection`] takes so many draws per text kept: the mean of min(1, exp(r - c)) is 1 / draws.

    Args:
        log_ratios (`Tensor` of shape `(N,)`): r of candidates, in nats.
        draws (`float`): More than 1.

    Returns:
        `float`: In nats.
    """
    low, high = log_ratios.min().item(), log_ratios.max().item() + math.log(draws)
    for _ in range(60):
        middle = (low + high) / 2
        share = (log_ratios - middle).clamp(max=0).exp().mean().item()
        low, high = (middle, high) if share > 1 / draws else (low, middle)
    return high


def resampling(log_ratios: Tensor, uniforms: Tensor, threshold: float = 0.0) -> Choice:
    """Keep one of the k candidates with probability proportional to exp(r): sampling importance resampling.

    So residual energy-based models of text are sampled (Deng et al. 2020,
    [2004.11714](https://huggingface.co/papers/2004.11714)).

    Args:
        log_ratios (`Tensor` of shape `(N, k)`): r of each candidate, -inf where a filter refuses it.
        uniforms (`Tensor` of shape `(N, k)`): Random numbers in [0, 1).
        threshold (`float`, *optional*, defaults to 0.0): Without effect: only differences of log-ratios count.

    Returns:
        [`Choice`]: The candidates kept.
    """
    # The Gumbel trick: the greatest of r + Gumbel noise is a draw from the softmax of r.
    noise = -(-uniforms.clamp(min=torch.finfo(uniforms.dtype).tiny).log()).log()
    return best_of_k(log_ratios + noise, uniforms)


def best_of_k(log_ratios: Tensor, uniforms: Tensor, threshold: float = 0.0) -> Choice:
    """Keep the candidate of the greatest log-ratio; it needs no calibration, and is the least diverse of the four.

    Args:
        log_ratios (`Tensor` of shape `(N, k)`): r of each candidate, -inf where a filter refuses it.
        uniforms (`Tensor` of shape `(N, k)`): Without effect.
        threshold (`float`, *optional*, defaults to 0.0): Without effect.

    Returns:
        [`Choice`]: The candidates kept.
    """
    best = log_ratios.max(1)
    is_there = best.values > -torch.inf
    return Choice(torch.where(is_there, best.indices, -1), torch.full_like(best.indices, log_ratios.size(1)), is_there)


def metropolis_hastings(log_ratios: Tensor, uniforms: Tensor, threshold: float = 0.0) -> Choice:
    """Keep the last state of a chain that moves from x to the next candidate y with probability min(1, e^(r(y)-r(x))).

    The independence sampler of MH-GAN (Turner et al. 2019, [1811.11357](https://huggingface.co/papers/1811.11357)).
    It starts at the first candidate, since there is no real text for a prompt to start from.

    Args:
        log_ratios (`Tensor` of shape `(N, k)`): r of each candidate, -inf where a filter refuses it.
        uniforms (`Tensor` of shape `(N, k)`): Random numbers in [0, 1).
        threshold (`float`, *optional*, defaults to 0.0): Without effect: only differences of log-ratios count.

    Returns:
        [`Choice`]: The candidates kept.
    """
    state = torch.zeros(len(log_ratios), dtype=torch.int64)
    current = log_ratios[:, 0]
    for place in range(1, log_ratios.size(1)):
        proposed = log_ratios[:, place]
        # From a candidate that is refused to another one the difference is nan, and the chain stays.
        moves = uniforms[:, place].log() < proposed - current
        state, current = torch.where(moves, place, state), torch.where(moves, proposed, current)
    is_there = current > -torch.inf
    return Choice(torch.where(is_there, state, -1), torch.full_like(state, log_ratios.size(1)), is_there)


METHODS: dict[str, Callable[[Tensor, Tensor, float], Choice]] = {
    "rejection": rejection,
    "resampling": resampling,
    "best_of_k": best_of_k,
    "metropolis_hastings": metropolis_hastings,
}
