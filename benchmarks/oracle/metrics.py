"""How far two models of texts of one length are apart, from their densities: pure functions of log-probabilities.

Notation: p is the oracle, q the generator. Every expectation is over samples, and has its standard error.
"""

import math

from torch import Tensor

from hf_mgan.metrics import best_value, distinct_n, duplicates, jensen_shannon, self_bleu


# The divergence of whole texts of 20 words is near its bound of 1 bit. That of their beginnings still tells how far.
PREFIXES = (1, 2, 5, 10)
# Self-BLEU grows with the set, so it is always taken over as many texts.
SELF_BLEU_TEXTS = 1000


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Return the mean of independent values, of shape `(N,)`, and its standard error."""
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item()


def compare(real_p: Tensor, real_q: Tensor, fake_p: Tensor, fake_q: Tensor) -> dict[str, float]:
    """Compare a generator with the oracle.

    Args:
        real_p (`Tensor` of shape `(N, T)`): log p of every word of the oracle's texts given those before it, in nats.
        real_q (`Tensor` of shape `(N, T)`): log q of the same words.
        fake_p (`Tensor` of shape `(M, T)`): log p of every word of the generator's texts.
        fake_q (`Tensor` of shape `(M, T)`): log q of the same words.

    Returns:
        `dict[str, float]`: In nats per word `nll_oracle` = -E_q[log p] / T, `nll_gen` = -E_p[log q] / T and `entropy`
        = -E_q[log q] / T; in nats per text `forward_kl` = KL(p, q) and `reverse_kl` = KL(q, p); in bits per text
        `divergence` = JS(p, q), and `divergence_of_k` for the first k words alone; in nats `best_value`, see
        [`~metrics.best_value`]. All but the last have a standard error, under the same name with `_error`.
    """
    measured = {
        "nll_oracle": mean_and_error(-fake_p.mean(1)),
        "nll_gen": mean_and_error(-real_q.mean(1)),
        "entropy": mean_and_error(-fake_q.mean(1)),
        "forward_kl": mean_and_error((real_p - real_q).sum(1)),
        "reverse_kl": mean_and_error((fake_q - fake_p).sum(1)),
    }
    length = real_p.size(1)
    for name, words in {"divergence": length, **{f"divergence_of_{k}": k for k in PREFIXES if k < length}}.items():
        measured[name] = jensen_shannon(*(logps[:, :words].sum(1) for logps in (real_p, real_q, fake_p, fake_q)))
    means = {name: mean for name, (mean, _) in measured.items()}
    errors = {f"{name}_error": error for name, (_, error) in measured.items()}
    return {**means, **errors, "best_value": best_value(means["divergence"])}


def diversity(texts: Tensor) -> dict[str, float]:
    """Return distinct-1 to -4, self-BLEU-2 and -4 of the first 1000 texts, and the share of duplicates.

    Args:
        texts (`Tensor` of shape `(N, T)`, int64): Words as numbers.
    """
    words = [[str(word) for word in row] for row in texts.tolist()]
    return {
        **{f"distinct_{n}": distinct_n(words, n) for n in (1, 2, 3, 4)},
        **{f"self_bleu_{n}": self_bleu(words[:SELF_BLEU_TEXTS], n) for n in (2, 4)},
        "duplicates": duplicates([" ".join(row) for row in words]),
    }
