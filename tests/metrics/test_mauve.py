import itertools
import math

import pytest
import torch

from hf_mgan.metrics.mauve import divergence_curve, frontier_integral, mauve, quantize


def histogram(*probs):
    return torch.tensor(probs, dtype=torch.float64)


def area(p, q, scaling=5.0):
    curve = divergence_curve(p, q, scaling)
    return -torch.trapezoid(curve[:, 1], curve[:, 0]).item()


def normal(count, width, seed):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def clouds(counts):
    """Texts in four directions, a little apart and of every length, so many a direction."""
    rows = []
    for direction, count in enumerate(counts):
        for index in range(count):
            row = 0.01 * torch.sin(torch.arange(4.0, dtype=torch.float64) * 1.7 + index + direction)
            row[direction] += 1
            rows.append(row * (1 + index))
    return torch.stack(rows)


# mauve-text 0.4.0, its curve at its own 25 weights and the area under it; its frontier integral.
HISTOGRAMS = [
    (histogram(0.5, 0.3, 0.2, 0), histogram(0.1, 0.3, 0.2, 0.4), 5, 0.29269685703322657, 0.2988202609457375),
    (histogram(0.7, 0.2, 0.1), histogram(0.6, 0.3, 0.1), 5, 0.9969267349245579, 0.009288079860616472),
    (histogram(1, 0), histogram(0.5, 0.5), 2, 0.7081886582753363, 0.3068528194400547),
    (histogram(1, 0), histogram(0, 1), 5, 0.0040720962619612555, 1.0),
    (histogram(0.5, 0.5), histogram(0.5, 0.5), 5, 1.0, 0.0),
]


@pytest.mark.parametrize(("p", "q", "scaling", "expected", "integral"), HISTOGRAMS)
def test_mauve_agrees_with_mauve_text_on_histograms(p, q, scaling, expected, integral):
    assert area(p, q, scaling) == pytest.approx(expected, abs=1e-12)
    assert frontier_integral(p, q) == pytest.approx(integral, abs=1e-12)


def test_mauve_agrees_with_mauve_text_on_features():
    """mauve-text 0.4.0 with num_buckets=4 on the same features: mauve, mauve_star and frontier_integral, any seed.

    The four directions are far apart, so that every clustering finds (20, 12, 8, 0) and (4, 12, 8, 16) of 40.
    """
    real, generated = clouds([20, 12, 8, 0]), clouds([4, 12, 8, 16])
    result = mauve(real, generated)
    assert result.score == pytest.approx(0.29269685703322657, abs=1e-12)
    assert result.frontier_integral == pytest.approx(0.2988202609457375, abs=1e-12)
    assert mauve(real, generated, pseudocount=0.5).score == pytest.approx(0.38322126330917594, abs=1e-12)


def test_divergence_curve_by_hand():
    """P = (1, 0), Q = (1/2, 1/2), w = 1/2: R = (3/4, 1/4); KL(P, R) = log 4/3, KL(Q, R) = 1/2 log 4/3.

    With c = 2 the point in the middle is (3/4, 9/16).
    """
    curve = divergence_curve(histogram(1, 0), histogram(0.5, 0.5), 2)
    assert curve.shape == (27, 2)
    assert curve[13].tolist() == pytest.approx([3 / 4, 9 / 16])
    assert curve[0].tolist() == [1, 0]
    assert curve[-1].tolist() == [0, 1]


def test_mauve_area_by_hand():
    """The same histograms: x = 1 - w^2 and y = (1 + w)^2/4, int_0^1 (1 + w)^2/4 2w dw = 17/24, but for the grid."""
    assert area(histogram(1, 0), histogram(0.5, 0.5), 2) == pytest.approx(17 / 24, abs=2e-4)


def test_mauve_of_disjoint_histograms_by_hand():
    """x = (1 - w)^5, y = w^5: int w^5 5 (1 - w)^4 dw = 5 * 5! 4!/10! = 1/252, and a little more on the grid."""
    assert area(histogram(1, 0), histogram(0, 1)) == pytest.approx(1 / 252, abs=2e-4)


def test_frontier_integral_by_hand():
    """(1, 1/2): 3/4 - 1/2 log 2/(1/2) = 3/4 - log 2; (0, 1/2): 1/4. Together 1 - log 2."""
    assert frontier_integral(histogram(1, 0), histogram(0.5, 0.5)) == pytest.approx(1 - math.log(2))
    near = frontier_integral(histogram(0.5, 0.5), histogram(0.5 + 1e-5, 0.5 - 1e-5))
    # With p - q = 2 m d a cell is m - m (1 - d^2) (1 + d^2/3) = 2/3 m d^2 = (p - q)^2/(6 m) to the second order.
    assert near == pytest.approx(2 * (1e-5) ** 2 / (6 * 0.5), rel=1e-3)


def test_mauve_is_symmetric_in_histograms():
    p, q = histogram(0.5, 0.3, 0.2, 0), histogram(0.1, 0.3, 0.2, 0.4)
    assert area(p, q) == pytest.approx(area(q, p), abs=1e-12)
    assert divergence_curve(p, q).flip(0, 1) == pytest.approx(divergence_curve(q, p))


def test_mauve_falls_with_the_scaling():
    real, generated = normal(100, 4, 0), normal(100, 4, 1) + 0.5
    scores = [mauve(real, generated, scaling=scaling).score for scaling in (1, 5, 10)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[2] + 0.1


def test_quantize_finds_the_best_clusters():
    """Seven points on the circle in three cells, against all 3^6 ways to sort them: 5 starts miss the best one seldom.

    Of 40 such problems they solve 36 or more; one start, or starts at random points, solve fewer.
    """
    sortings = torch.tensor([[0, *labels] for labels in itertools.product(range(3), repeat=6)])

    def sums_of_squares(points, labels):
        members = torch.nn.functional.one_hot(labels, 3).double()
        sums = torch.einsum("bnk,nd->bkd", members, points)
        return points.square().sum() - (sums.square().sum(2) / members.sum(1).clamp(min=1)).sum(1)

    solved = 0
    for seed in range(40):
        points = torch.nn.functional.normalize(normal(7, 2, seed).double(), dim=1)
        found = sums_of_squares(points, torch.cat(quantize(points[:4], points[4:], num_clusters=3))[None])
        solved += bool(found <= sums_of_squares(points, sortings).min() + 1e-9)
    assert solved >= 36


def test_quantize_ignores_the_length_of_a_feature():
    real, generated = normal(40, 4, 0), normal(40, 4, 1)
    factors = torch.linspace(0.1, 10, 40)[:, None]
    scaled, plain = quantize(real * factors, generated * factors), quantize(real, generated)
    assert scaled[0].equal(plain[0])
    assert scaled[1].equal(plain[1])


def test_quantize_keeps_nine_tenths_of_the_variance():
    """Two directions that part the texts and, at right angles, a small one that parts them otherwise.

    Its share of the variance is 0.05 in one case, 0.2 in the other: two cells of the four follow it there alone.
    """
    large = torch.tensor([1.0, -1.0]).repeat(8)
    small = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(4)

    def cells(share):
        ratio = (share / (1 - share)) ** 0.5
        features = torch.stack([large, ratio * small], dim=1)
        return len(torch.cat(quantize(features[:8], features[8:], num_clusters=4)).unique())

    assert cells(0.05) == 2
    assert cells(0.2) == 4


def test_quantize_makes_a_tenth_as_many_cells_as_texts():
    labels = torch.cat(quantize(normal(60, 3, 0), normal(90, 3, 1)))
    assert sorted(labels.unique().tolist()) == list(range(6))
    assert len(torch.cat(quantize(normal(5, 3, 0), normal(5, 3, 1))).unique()) == 2


def test_mauve_depends_on_the_seed_alone():
    real, generated = normal(200, 8, 0), normal(200, 8, 1)
    assert mauve(real, generated, seed=1).score == mauve(real, generated, seed=1).score
    assert mauve(real, generated, seed=1).score != mauve(real, generated, seed=2).score
    state = torch.get_rng_state()
    mauve(real, generated)
    assert torch.get_rng_state().equal(state)


def test_quantize_fewer_different_texts_than_cells():
    features = torch.eye(3).repeat(20, 1)
    labels = quantize(features[:30], features[30:], num_clusters=10)
    assert len(torch.cat(labels).unique()) == 3
    assert mauve(features[:30], features[30:], num_clusters=10).score == pytest.approx(1)


def test_quantize_rounding_makes_no_other_text():
    direction = normal(1, 5, 0)
    lengths = torch.linspace(0.1, 3, 40)[:, None]
    assert len(torch.cat(quantize(direction * lengths[:20], direction * lengths[20:])).unique()) == 1
    assert mauve(direction * lengths[:20], direction * lengths[20:]).score == pytest.approx(1)


def test_mauve_of_collapse_and_lost_modes_is_lower():
    centres = 2 * normal(8, 6, 0)

    def sample(seed, modes=8):
        generator = torch.Generator().manual_seed(seed)
        which = torch.randint(modes, (400,), generator=generator)
        return centres[which] + 0.5 * torch.randn(400, 6, generator=generator)

    real, other = sample(1), sample(2)
    score = mauve(real, other).score
    assert score > 0.9
    assert mauve(real, sample(3, modes=4)).score < 0.6
    assert mauve(real, other + 2).score < 0.5
    assert mauve(real, other[:1].repeat(400, 1)).score < 0.05


def test_mauve_refuses_values_out_of_range():
    features = torch.eye(4)
    with pytest.raises(ValueError, match=r"got \(4, 4\) and \(3, 2\)"):
        mauve(features, torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"shapes \(N, D\)"):
        mauve(features[0], features)
    with pytest.raises(ValueError, match="those of 4 of 4 real texts are not, first those of text 0"):
        mauve(features / 0, features)
    with pytest.raises(ValueError, match="got 0 and 4 of them"):
        mauve(features[:0], features)
    with pytest.raises(ValueError, match="at most the 8 texts, got 9"):
        mauve(features, features, num_clusters=9)
    with pytest.raises(ValueError, match="num_clusters must be at least 1"):
        mauve(features, features, num_clusters=0)
    with pytest.raises(ValueError, match="scaling must be greater than 0 and finite, got 0"):
        mauve(features, features, scaling=0)
    with pytest.raises(ValueError, match="pseudocount must be at least 0 and finite, got -1"):
        mauve(features, features, pseudocount=-1)
