import pytest
import torch

from hf_mgan.metrics.frechet import frechet_distance


def cross(across, along):
    """Four points of mean 0 and covariance diag(2 across^2 / 3, 2 along^2 / 3)."""
    return torch.tensor([[across, 0.0], [-across, 0.0], [0.0, along], [0.0, -along]])


def normal(count, width, seed):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_frechet_distance_on_a_line_by_hand():
    """Mean 0 and variance 2; mean 3 and variance 18: 3^2 + (sqrt 18 - sqrt 2)^2 = 9 + (2 sqrt 2)^2 = 17."""
    assert frechet_distance(torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.0], [6.0]])) == pytest.approx(17)


def test_frechet_distance_on_axes_by_hand():
    """Standard deviations (1, 2) and (3, 1) times sqrt(2/3): (4 + 1) * 2/3, and the shift of (1, -2) adds 5."""
    real, generated = cross(1.0, 2.0), cross(3.0, 1.0)
    assert frechet_distance(real, generated) == pytest.approx(10 / 3)
    assert frechet_distance(real, generated + torch.tensor([1.0, -2.0])) == pytest.approx(10 / 3 + 5)


def test_frechet_distance_across_axes_by_hand():
    """C = diag(2, 0) and C' = 2 (1, 1)(1, 1)^T do not commute, and neither has an inverse.

    The eigenvalues of C C' = ((4, 4), (0, 0)) are 4 and 0, so the trace of its root is 2: 2 + 4 - 2 * 2 = 2.
    """
    real = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    generated = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    assert frechet_distance(real, generated) == pytest.approx(2, abs=1e-12)


def test_frechet_distance_agrees_with_a_matrix_root():
    """tr M^(1/2) = sqrt(tr M + 2 sqrt(det M)) for M = C C' with positive eigenvalues."""
    real, generated = (
        normal(50, 2, 0).double(),
        normal(40, 2, 1).double() @ torch.tensor([[2.0, 1.0], [0.0, 0.3]]).double(),
    )
    first, second = real.T.cov(), generated.T.cov()
    product = first @ second
    root = (product.trace() + 2 * product.det().sqrt()).sqrt()
    expected = (real.mean(0) - generated.mean(0)).square().sum() + first.trace() + second.trace() - 2 * root
    assert frechet_distance(real, generated) == pytest.approx(expected.item(), abs=1e-12)


def test_frechet_distance_of_fewer_texts_than_dimensions():
    few = normal(5, 64, 0)
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(few, few + 1) == pytest.approx(64, rel=1e-6)


def test_frechet_distance_is_never_negative():
    assert all(frechet_distance(normal(9, 4, seed), normal(9, 4, seed)) >= 0 for seed in range(40))


def test_frechet_distance_is_symmetric_and_changes_nothing():
    real, generated = normal(30, 8, 0), 2 * normal(20, 8, 1)
    before = real.clone()
    assert frechet_distance(real, generated) == pytest.approx(frechet_distance(generated, real))
    assert real.equal(before)


def test_frechet_distance_of_half_precision_is_in_double():
    real, generated = normal(30, 8, 0).bfloat16(), normal(30, 8, 1).bfloat16()
    assert frechet_distance(real, generated) == frechet_distance(real.double(), generated.double())


def test_frechet_distance_of_collapse_and_shift_is_greater():
    real, other = normal(400, 8, 0), normal(400, 8, 1)
    collapsed = other[:1].repeat(400, 1)
    distance = frechet_distance(real, other)
    assert distance < 0.2
    assert frechet_distance(real, collapsed) > 7  # the trace of the covariance, 8, and more
    assert frechet_distance(real, other + 0.5) > distance + 1  # 8 * 0.5^2 = 2, and a little either way


def test_frechet_distance_refuses_mismatched_sets():
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(3, 4\)"):
        frechet_distance(torch.zeros(3, 2), torch.zeros(3, 4))
    for real, generated in ((torch.zeros(3), torch.zeros(3, 2)), (torch.zeros(3, 2), torch.zeros(3))):
        with pytest.raises(ValueError, match=r"shapes \(N, D\)"):
            frechet_distance(real, generated)
    unknown = torch.tensor([[0.0, 0.0], [0.0, torch.nan], [torch.inf, 0.0]])
    with pytest.raises(ValueError, match="those of 2 of 3 generated texts are not, first those of text 1"):
        frechet_distance(torch.zeros(3, 2), unknown)
    with pytest.raises(ValueError, match="at least 2 texts per side, got 1 and 3"):
        frechet_distance(torch.zeros(1, 2), torch.zeros(3, 2))
