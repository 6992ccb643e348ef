"""MAUVE: how far real and generated texts overlap, as two clouds of features.

Its principal components and its k-means are scikit-learn's, of the extra `evaluation`.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import COUNT, SEED, Number, optional
from .extras import require_packages
from .features import check_features


SCALING = Number(above=0, advice="5 is that of the paper.")
PSEUDOCOUNT = Number(least=0, advice="0 is that of the paper.")
EXPLAINED_VARIANCE = 0.9
GRID = 25  # mixture weights at which the curve is computed
MARGIN = 1e-6  # of the first and the last weight to 0 and 1
RESTARTS = 5
MAX_ITERATIONS = 500
SAME_POINT = 6  # decimals up to which projections, of features of length 1, are those of one text


class MauveResult(NamedTuple):
    """MAUVE and what it is the summary of.

    Args:
        score (`float`): (0, 1], the area under the curve; 1 where the histograms are the same.
        curve (`Tensor` of shape `(27, 2)`): The divergence curve from (1, 0) to (0, 1). The first coordinate falls
            with the generated texts that no real text is like, the second with the real texts that no generated one is
            like.
        frontier_integral (`float`): [0, 1], 0 where the histograms are the same; it has no scaling.
    """

    score: float
    curve: Tensor
    frontier_integral: float


def mauve(
    real_features: Tensor,
    generated_features: Tensor,
    num_clusters: int | None = None,
    scaling: float = 5.0,
    pseudocount: float = 0.0,
    seed: int = 0,
) -> MauveResult:
    """Compute MAUVE of two sets of features.

    Pillutla et al. 2021, "MAUVE: measuring the gap between neural text and human text using divergence frontiers"
    ([2102.01454](https://huggingface.co/papers/2102.01454)): both sets are quantized together, and the score is the
    area under the divergence curve of the two histograms, see [`divergence_curve`]. The features are meant to be the
    last hidden states of a language model at the end of the texts.

    The score depends on the number of texts, on the features, on the number of clusters and on the seed, and chance
    alone keeps it below 1: compare sets of one size only, and beside the score of as many held-out real texts.

    Args:
        real_features (`Tensor` of shape `(N, D)`): Features of real texts.
        generated_features (`Tensor` of shape `(M, D)`): Features of generated texts.
        num_clusters (`int`, *optional*): Cells of the histograms, a tenth of the smaller set by default, as in the
            paper, and at least 2.
        scaling (`float`, *optional*, defaults to 5.0): c, above 0; it sets where scores lie in (0, 1], not their order
            (the paper's default).
        pseudocount (`float`, *optional*, defaults to 0.0): Added to each cell's count. None by default, as in the
            paper; 0.5 is the estimator of Krichevsky and Trofimov, which Pillutla et al. 2023, "MAUVE scores for
            generative models: theory and practice" ([2212.14578](https://huggingface.co/papers/2212.14578)) study.
        seed (`int`, *optional*, defaults to 0): Seed of the clusters.

    Returns:
        [`MauveResult`]: The score, its curve and the frontier integral.

    Raises:
        ImportError: If scikit-learn is missing.
        ValueError: If the features are not two sets of texts in the same space, or not finite, or an argument is out
            of range.

    Example:
        ```python
        >>> features = torch.eye(4)
        >>> mauve(features, features).score
        1.0

        ```
    """
    scaling, pseudocount = SCALING("scaling", scaling), PSEUDOCOUNT("pseudocount", pseudocount)
    real_labels, generated_labels = quantize(real_features, generated_features, num_clusters, seed)
    cells = int(torch.cat([real_labels, generated_labels]).max()) + 1
    counts = [labels.bincount(minlength=cells).double() + pseudocount for labels in (real_labels, generated_labels)]
    p, q = (count / count.sum() for count in counts)
    curve = divergence_curve(p, q, scaling)
    # The first coordinate falls along the curve.
    return MauveResult(-torch.trapezoid(curve[:, 1], curve[:, 0]).item(), curve, frontier_integral(p, q))


def divergence_curve(p: Tensor, q: Tensor, scaling: float = 5.0) -> Tensor:
    """Compute the divergence curve of two histograms.

    Its points are (exp(-c KL(Q, R)), exp(-c KL(P, R))) in nats, with R = w P + (1 - w) Q for 25 weights w at equal
    steps from 1e-6 to 1 - 1e-6, between the ends (1, 0) and (0, 1) (Pillutla et al. 2021,
    [2102.01454](https://huggingface.co/papers/2102.01454)). The area under it is 1 where P = Q, and 0.0041 where they
    have no cell in common and c = 5.

    Args:
        p (`Tensor` of shape `(K,)`): Histogram of real texts, of sum 1.
        q (`Tensor` of shape `(K,)`): Histogram of generated texts, of sum 1.
        scaling (`float`, *optional*, defaults to 5.0): c.

    Returns:
        `Tensor` of shape `(27, 2)`: In [0, 1], float64.
    """
    p, q = p.double(), q.double()
    weights = torch.linspace(MARGIN, 1 - MARGIN, GRID, dtype=torch.float64)[:, None]
    mixtures = weights * p + (1 - weights) * q

    def similarity(histogram: Tensor) -> Tensor:
        # 0 log 0 = 0 in both terms
        divergences = (torch.xlogy(histogram, histogram) - torch.xlogy(histogram, mixtures)).sum(1)
        return (-scaling * divergences.clamp(min=0)).exp()

    points = torch.stack([similarity(q), similarity(p)], dim=1)
    ends = torch.tensor([[1, 0], [0, 1]], dtype=torch.float64)
    return torch.cat([ends[:1], points, ends[1:]])


def frontier_integral(p: Tensor, q: Tensor) -> float:
    """Compute the frontier integral of two histograms, a summary of the curve that needs no scaling.

    FI = 2 int_0^1 w KL(P, R) + (1 - w) KL(Q, R) dw with R = w P + (1 - w) Q, which is the sum over cells of
    (p + q)/2 - pq log(p/q)/(p - q), Liu et al. 2021, "Divergence frontiers for generative models"
    ([2106.07898](https://huggingface.co/papers/2106.07898)).

    Args:
        p (`Tensor` of shape `(K,)`): Histogram of real texts, of sum 1.
        q (`Tensor` of shape `(K,)`): Histogram of generated texts, of sum 1.

    Returns:
        `float`: [0, 1], 0 where P = Q and 1 where they have no cell in common.
    """
    p, q = p.double(), q.double()
    mean = (p + q) / 2
    # log(p/q)/(p - q) = atanh(d)/(d mean) with d = (p - q)/(p + q), which goes to 1/mean as d goes to 0.
    d = torch.where(mean > 0, (p - q) / (2 * mean), 0)
    ratio = torch.where(d.abs() < 1e-4, 1 + d.square() / 3, d.atanh() / d)
    # A cell that one side lacks adds p/2 or q/2.
    common = torch.where((p > 0) & (q > 0), p * q / mean * ratio, 0)
    return max(0.0, (mean - common).sum().item())


def quantize(
    real_features: Tensor, generated_features: Tensor, num_clusters: int | None = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Sort two sets of features into the cells of one clustering.

    The steps are those of Pillutla et al. 2021 ([2102.01454](https://huggingface.co/papers/2102.01454)): each feature
    is scaled to length 1; both sets together are projected on the fewest principal components that hold 90 % of their
    variance, without whitening; k-means clusters the projections. Its centres start from k-means++ (Arthur and
    Vassilvitskii 2007, "k-means++: the advantages of careful seeding"), it goes on until no text changes its cell, and
    of 5 such starts the one with the smallest sum of squared distances is kept.

    Starts at random texts, which the authors' program has, end at larger sums. The scores agree where both sets are
    equally wide; where one is half as wide, careful starts give more cells to the outskirts, and a lower score.

    Args:
        real_features (`Tensor` of shape `(N, D)`): Features of real texts.
        generated_features (`Tensor` of shape `(M, D)`): Features of generated texts.
        num_clusters (`int`, *optional*): Number of cells, a tenth of the smaller set by default and at least 2; fewer
            where there are fewer different texts.
        seed (`int`, *optional*, defaults to 0): Seed of the starts.

    Returns:
        `tuple[Tensor, Tensor]`: The cells of the real texts, of shape `(N,)`, and of the generated ones, of shape
        `(M,)`, int64. Computed in float64 on the CPU, so that a seed means the same cells on every device.

    Raises:
        ImportError: If scikit-learn is missing.
        ValueError: If the features are not two sets of texts in the same space, or not finite, or `num_clusters` is
            out of range.
    """
    require_packages("MAUVE", "scikit-learn")
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # of scikit-learn

    num_clusters, seed = optional(COUNT)("num_clusters", num_clusters), SEED("seed", seed)
    check_features(real_features, generated_features)
    shapes = real_features.shape, generated_features.shape
    smaller, texts = min(shapes[0][0], shapes[1][0]), shapes[0][0] + shapes[1][0]
    if not smaller:
        raise ValueError(f"mauve compares two sets of texts, but got {shapes[0][0]} and {shapes[1][0]} of them.")
    clusters = max(2, round(smaller / 10)) if num_clusters is None else num_clusters
    if not 1 <= clusters <= texts:
        raise ValueError(f"num_clusters must be at least 1 and at most the {texts} texts, got {clusters}.")
    points = _project(
        torch.cat([features.detach().cpu().double() for features in (real_features, generated_features)])
    )
    different = len(points.round(decimals=SAME_POINT).unique(dim=0))
    k_means = KMeans(
        min(clusters, different), n_init=RESTARTS, max_iter=MAX_ITERATIONS, tol=0, random_state=seed, copy_x=False
    )
    with threadpool_limits(1):  # the same cells on every machine, whatever its cores
        labels = torch.from_numpy(k_means.fit_predict(points.numpy())).long()
    return labels[: shapes[0][0]], labels[shapes[0][0] :]


def _project(features: Tensor) -> Tensor:
    """Project features of length 1 on their first principal components, of shape `(N, K)`."""
    from sklearn.decomposition import PCA

    features = F.normalize(features, dim=1)
    if features.std(0, correction=0).max() < 10**-SAME_POINT:  # one text, which has no components
        return torch.zeros(len(features), 1, dtype=features.dtype)
    return torch.from_numpy(PCA(EXPLAINED_VARIANCE).fit_transform(features.numpy()))
