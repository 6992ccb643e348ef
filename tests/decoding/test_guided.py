import pytest
import torch

from hf_mgan.decoding import DecodingConfig, guided_sample, sample

from .conftest import END, FEW_WORDS, METHODS, exact, misfit, with_none


PROMPT = "<s> dog"
IDS = [FEW_WORDS["<s>"], FEW_WORDS["dog"]]
COUNT = 6000


def settings(**changes):
    return DecodingConfig(**{"max_new_tokens": 2, "batch_size": COUNT, **changes})


def guided(pair, prompts=(PROMPT,), keep=None, discriminator=None, on_text=None, **changes):
    chosen = pair.discriminator if discriminator is None else discriminator
    return guided_sample(pair.model, pair.tokenizer, chosen, list(prompts), settings(**changes), keep, on_text)


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 1.0])
def test_guided_sample_by_rejection_is_exact(pair, threshold):
    """What is accepted has the density q(x) min(1, e^(r - c)) / Z, from the probabilities of both models."""
    drawn = guided(pair, [IDS] * COUNT, threshold=threshold, num_candidates=40)
    q, r = pair.q(PROMPT, 2), pair.r(PROMPT, 2)
    accepted = q * (r - threshold).exp().clamp(max=1)
    assert q.sum().item() == pytest.approx(1)
    counts = pair.counts(drawn.completion_ids, 2)
    assert misfit(counts, with_none(accepted / accepted.sum())) < 4
    assert threshold < 0 or misfit(counts, with_none(q)) > 10
    assert drawn.draws == pytest.approx(1 / accepted.sum().item(), rel=0.05)
    assert drawn.accepted == [True] * COUNT
    numbers = {tuple(row): number for number, row in enumerate(pair.ids(2))}
    assert drawn.log_ratios == pytest.approx([r[numbers[tuple(row)]].item() for row in drawn.completion_ids], abs=1e-4)


@pytest.mark.parametrize(("method", "k"), [("rejection", 2), *((method, k) for method in METHODS[1:] for k in (2, 3))])
def test_guided_sample_of_every_method_is_exact(pair, method, k):
    """With k candidates, the bound of rejection included; r of one of seven words is -inf, which the filter refuses."""
    threshold = 1.0 if method == "rejection" else 0.0
    drawn = guided(
        pair,
        [IDS] * COUNT,
        lambda _, texts: ["cat" not in text for text in texts],
        method=method,
        num_candidates=k,
        threshold=threshold,
    )
    refused = torch.tensor([FEW_WORDS["cat"] in row for row in pair.ids(2)])
    q, r = pair.q(PROMPT, 2), pair.r(PROMPT, 2).masked_fill(refused, -torch.inf)
    assert misfit(pair.counts(drawn.completion_ids, 2), exact(method, q, r, k, threshold)) < 4


def test_guided_choice_is_independent_of_the_texts(pair):
    """With as many candidates as tokens, random numbers of the same seed would stand at the same places."""
    drawn = guided(pair, [IDS] * COUNT, num_candidates=len(FEW_WORDS), threshold=1.0)
    at_once = [
        row
        for row, tries, is_accepted in zip(drawn.completion_ids, drawn.tries, drawn.accepted, strict=True)
        if tries == 1 and is_accepted
    ]
    accepted = pair.q(PROMPT, 2) * (pair.r(PROMPT, 2) - 1).exp().clamp(max=1)
    assert misfit(pair.counts(at_once, 2), with_none(accepted / accepted.sum())) < 4
