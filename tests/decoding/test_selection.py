"""Each rule against its exact distribution on a language of seven texts, one of which a filter refuses."""

import pytest
import torch

from hf_mgan.decoding.selection import METHODS, best_of_k, metropolis_hastings, rejection, resampling, threshold_for

from .conftest import exact, misfit, with_none


Q = torch.tensor([0.3, 0.05, 0.2, 0.1, 0.15, 0.05, 0.15], dtype=torch.float64)
R = torch.tensor([-1.2, 1.5, 0.4, -2.0, 0.9, -0.3, -torch.inf], dtype=torch.float64)
REVERSED = torch.where(R.isfinite(), -R, R)
COUNT = 100_000
NAMES = ["rejection", "resampling", "best_of_k", "metropolis_hastings"]
CONDITIONS = [("rejection", k, c) for k in (2, 4) for c in (0.0, 1.0, -1.0)] + [
    (method, k, 0.0) for k in (2, 4) for method in NAMES[1:]
]


def candidates(k, seed=0):
    """Return draws from q, their log-ratios and random numbers, each of shape (COUNT, k)."""
    generator = torch.Generator().manual_seed(seed)
    texts = Q.multinomial(COUNT * k, replacement=True, generator=generator).view(COUNT, k)
    return texts, R[texts], torch.rand(COUNT, k, generator=generator, dtype=torch.float64)


def counts(texts, kept):
    """Count the texts that are kept; the last number is that of none."""
    chosen = texts.gather(1, kept.clamp(min=0)[:, None]).squeeze(1)
    return torch.where(kept < 0, len(Q), chosen).bincount(minlength=len(Q) + 1)


@pytest.mark.parametrize(("method", "k", "threshold"), CONDITIONS)
def test_rule_follows_its_exact_distribution(method, k, threshold):
    """And no other rule's, nor its own with the ratios reversed: those would be seen."""
    texts, ratios, uniforms = candidates(k)
    found = counts(texts, METHODS[method](ratios, uniforms, threshold).kept)
    assert misfit(found, exact(method, Q, R, k, threshold)) < 4
    others = [exact(one, Q, R, size, c) for one, size, c in CONDITIONS if (one, size, c) != (method, k, threshold)]
    assert min(misfit(found, probs) for probs in [*others, exact(method, Q, REVERSED, k, threshold)]) > 10


@pytest.mark.parametrize(("k", "threshold"), [(3, 0.0), (5, 1.0)])
def test_rejection_counts_its_tries(k, threshold):
    """With Z accepted of each try, (1 - Z)^k end without one, and there are (1 - (1 - Z)^k) / Z tries on average."""
    texts, ratios, uniforms = candidates(k)
    choice = rejection(ratios, uniforms, threshold)
    of_accepted = Q * (R - threshold).exp().clamp(max=1)
    share = of_accepted.sum().item()
    assert choice.accepted.double().mean().item() == pytest.approx(1 - (1 - share) ** k, abs=0.005)
    assert choice.tries.double().mean().item() == pytest.approx((1 - (1 - share) ** k) / share, abs=0.02)
    assert choice.tries[~choice.accepted].unique().tolist() == [k]
    kept = texts[choice.accepted].gather(1, choice.kept[choice.accepted][:, None]).squeeze(1)
    assert misfit(kept.bincount(minlength=len(Q)), of_accepted / share) < 4


def test_rejection_at_the_greatest_ratio_gives_real_texts():
    """Where c is the greatest r, all of q e^(r - c) is below q, and what is accepted is p itself."""
    texts, ratios, uniforms = candidates(40)
    choice = rejection(ratios, uniforms, R.max().item())
    p = Q * R.exp() / (Q * R.exp()).sum()
    assert choice.accepted.double().mean() > 0.9999
    assert misfit(counts(texts, choice.kept)[:-1], p) < 4


@pytest.mark.statistics
@pytest.mark.parametrize("method", ["resampling", "metropolis_hastings"])
def test_many_candidates_come_nearer_to_real_texts(method):
    p = with_none(Q * R.exp() / (Q * R.exp()).sum())
    found = []
    for k in (1, 4, 16, 64):
        texts, ratios, uniforms = candidates(k)
        frequencies = counts(texts, METHODS[method](ratios, uniforms, 0.0).kept) / COUNT
        found.append(0.5 * (frequencies - p).abs().sum().item())
    assert found[0] > 3 * found[1] > 6 * found[2]
    assert found[-1] < 0.02


def ratios_of(*rows):
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("method", NAMES)
def test_refused_candidates_are_never_kept(method):
    """Whatever the random numbers, the greatest and the least among them."""
    ratios = ratios_of([-torch.inf, -50.0, -torch.inf], [-torch.inf] * 3)
    for number in (0.0, 0.5, 1 - 2**-53):
        choice = METHODS[method](ratios, torch.full_like(ratios, number), 0.0)
        assert choice.kept.tolist() == [1, -1]
        assert choice.accepted.tolist() == [method != "rejection" or number == 0.0, False]
        assert choice.tries.tolist() == [2 if method == "rejection" and number == 0.0 else 3, 3]


@pytest.mark.parametrize("method", NAMES)
def test_one_candidate_is_kept_as_it_is(method):
    ratios = ratios_of([-3.0], [0.0], [2.0])
    choice = METHODS[method](ratios, torch.full_like(ratios, 0.5), 0.0)
    assert choice.kept.tolist() == [0, 0, 0]
    assert choice.tries.tolist() == [1, 1, 1]


def test_rejection_accepts_below_the_ratio():
    """exp(-0.5 - 0.5) = 0.368: a random number of 0.36 accepts, and one of 0.37 does not."""
    ratios = ratios_of([-0.5, 3.0], [-0.5, 3.0])
    choice = rejection(ratios, torch.tensor([[0.36, 0.1], [0.37, 0.1]], dtype=torch.float64), 0.5)
    assert choice.kept.tolist() == [0, 1]
    assert choice.tries.tolist() == [1, 2]
    assert choice.accepted.tolist() == [True, True]


def test_best_of_k_takes_the_first_of_equals():
    assert best_of_k(ratios_of([1.0, 2.0, 2.0]), torch.zeros(1, 3)).kept.tolist() == [1]


def test_chain_moves_by_the_difference_of_ratios():
    """From 0 to -1 with probability e^-1 = 0.368, from there back for certain."""
    ratios = ratios_of([0.0, -1.0], [0.0, -1.0], [-1.0, 0.0])
    uniforms = torch.tensor([[0.9, 0.36], [0.9, 0.37], [0.9, 0.99]], dtype=torch.float64)
    assert metropolis_hastings(ratios, uniforms).kept.tolist() == [1, 0, 1]


def test_resampling_depends_on_differences_alone():
    _, ratios, uniforms = candidates(3)
    kept = resampling(ratios, uniforms).kept
    assert resampling(ratios + 7.0, uniforms).kept.equal(kept)


@pytest.mark.parametrize("draws", [1.5, 2.0, 8.0])
def test_threshold_for_takes_so_many_draws(draws):
    ratios = torch.randn(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    threshold = threshold_for(ratios, draws)
    assert 1 / (ratios - threshold).exp().clamp(max=1).mean().item() == pytest.approx(draws)
