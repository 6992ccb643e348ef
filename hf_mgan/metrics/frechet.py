"""The Frechet distance between real and generated texts, as clouds of features."""

import torch
from torch import Tensor

from .features import check_features


def frechet_distance(real_features: Tensor, generated_features: Tensor) -> float:
    """Compute the squared Frechet distance between the Gaussians of two sets of features.

    d^2 = |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)), with m the mean and C the covariance of a set, of Heusel et al.
    2017, "GANs trained by a two time-scale update rule converge to a local Nash equilibrium"
    ([1706.08500](https://huggingface.co/papers/1706.08500)). Semeniuta et al. 2018, "On accurate evaluation of GANs
    for language generation" ([1806.04936](https://huggingface.co/papers/1806.04936)), apply it to embeddings of texts.

    With C = R^T R, the trace of (C C')^(1/2) is the sum of the singular values of R R'^T. R is the triangle of the
    centred features, so that no square root is taken of a matrix, and fewer texts than dimensions do no harm to the
    numbers. They do harm to the meaning: the distance of finite samples is too large, by an amount in inverse
    proportion to their size (Chong and Forsyth 2020, [1911.07023](https://huggingface.co/papers/1911.07023)), so
    compare sets of one size only, and beside the distance of as many held-out real texts.

    Args:
        real_features (`Tensor` of shape `(N, D)`): Features of real texts, N at least 2.
        generated_features (`Tensor` of shape `(M, D)`): Features of generated texts, M at least 2.

    Returns:
        `float`: [0, inf), in squared units of the features; 0 where mean and covariance are the same. Computed in
        float64.

    Raises:
        ValueError: If the features are not two sets of at least two texts in the same space, or not finite.

    Example:
        ```python
        >>> frechet_distance(torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.0], [6.0]]))  # 3^2 + (3 - 1)^2 * 2
        17.0

        ```
    """
    check_features(real_features, generated_features)
    shapes = real_features.shape, generated_features.shape
    if min(shapes[0][0], shapes[1][0]) < 2:
        raise ValueError(f"A covariance needs at least 2 texts per side, got {shapes[0][0]} and {shapes[1][0]}.")
    means, roots = [], []
    for features in (real_features, generated_features):
        features = features.detach().double()
        means.append(features.mean(0))
        centred = (features - means[-1]) / (len(features) - 1) ** 0.5
        roots.append(torch.linalg.qr(centred, mode="r").R)
    squares = (means[0] - means[1]).square().sum() + roots[0].square().sum() + roots[1].square().sum()
    overlap = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    return max(0.0, (squares - 2 * overlap).item())  # a distance of 0 may be rounded below
