import pytest
import torch
from torch.testing import assert_close

from hf_mgan import Discriminator
from hf_mgan.discriminator import Regularization
from hf_mgan.discriminator.token_dropout import TokenDropout

from ..conftest import SPECIAL, VOCABULARY, WORDS, bert_classifier, causal_classifier, texts
from .test_discriminator import COMPLETIONS, PROMPTS, parameters, with_optimizer


def shown(discriminator):
    """What the model is shown from now on, a dict of inputs each time."""
    seen = []
    discriminator.model.register_forward_pre_hook(lambda _, __, kwargs: seen.append(kwargs), with_kwargs=True)
    return seen


def test_token_dropout_replaces_a_share_of_the_words(pair_tokenizer):
    """20000 tokens at p = 0.3, of which 1 in 22 is drawn to be itself: 0.286 change, deviation 0.0032."""
    torch.manual_seed(0)
    one = Discriminator(bert_classifier(), pair_tokenizer)
    batch = one.encode([""] * 2001, [*texts(2000, length=10), "a the dog cat bird king sees eats runs sleeps near"])
    before = batch["input_ids"].clone()
    after = TokenDropout(one.processing_class, 0.3)(batch)["input_ids"]
    assert torch.equal(batch["input_ids"], before)
    special = torch.isin(before, torch.tensor([VOCABULARY[token] for token in SPECIAL]))
    assert {"<pad>", "[CLS]", "[SEP]"} == set(pair_tokenizer.convert_ids_to_tokens(before[special].unique()))
    assert torch.equal(after[special], before[special])
    changed = after[~special] != before[~special]
    assert changed.float().mean() == pytest.approx(0.3 * 21 / 22, abs=0.012)
    substitutes, counts = after[~special][changed].unique(return_counts=True)
    # Two of the names are words like others to this tokenizer.
    assert set(pair_tokenizer.convert_ids_to_tokens(substitutes)) == {*WORDS, "<s>", "</s>"}
    assert counts.min() > 0.6 * counts.max()  # uniform, about 260 each, deviation 16


def test_token_dropout_takes_the_mask_token(pair_tokenizer):
    pair_tokenizer.mask_token = "near"  # a word of the vocabulary, since the model has no other
    one = Discriminator(bert_classifier(), pair_tokenizer)
    batch = one.encode([""] * 200, ["a dog sees the cat"] * 200)
    after = TokenDropout(one.processing_class, 0.5)(batch)["input_ids"]
    changed = after != batch["input_ids"]
    assert set(after[changed].tolist()) == {VOCABULARY["near"]}
    assert changed[:, 1:6].float().mean() == pytest.approx(0.5, abs=0.08)
    assert not changed[:, [0, 6]].any()


def test_token_dropout_leaves_eos_as_padding(tokenizer):
    tokenizer.pad_token = None
    one = Discriminator(causal_classifier(), tokenizer)
    batch = one.encode(["", ""], ["a", "a dog sees the cat"])
    after = TokenDropout(one.processing_class, 0.9)(batch)["input_ids"]
    assert (after[0, 1:] == VOCABULARY["</s>"]).all()
    assert after[1, -1] == VOCABULARY["</s>"]


@pytest.mark.parametrize("batch_size", [None, 3])
def test_update_takes_logits_of_texts_with_noise(pair_tokenizer, tmp_path, batch_size):
    settings = Regularization(token_dropout=0.5)
    one = Discriminator(bert_classifier(), pair_tokenizer, regularization=settings, batch_size=batch_size)
    with_optimizer(one, tmp_path, learning_rate=0.0)
    fakes, reals = texts(40, 1, 10), texts(40, 2, 10)
    clean = one.encode([""] * 80, [*fakes, *reals])["input_ids"]
    seen = shown(one)
    output = one.update([""] * 40, fakes, reals)
    passes = [torch.cat([inputs["input_ids"] for inputs in seen])]
    if batch_size:  # a pass without gradients and one with: the same noise
        passes = passes[0].split(80)
        assert torch.equal(*passes)
    changed = (passes[-1] != clean)[:, 1:-1].float()
    for side in changed.split(40):
        assert side.mean() == pytest.approx(0.5 * 21 / 22, abs=0.1)
    with torch.no_grad():
        logits = one.model(input_ids=passes[-1], attention_mask=torch.ones_like(passes[-1])).logits[:, 0]
    assert_close(output.fake_logits, logits[:40], atol=1e-5, rtol=1e-5)
    assert_close(output.real_logits, logits[40:], atol=1e-5, rtol=1e-5)


def test_scores_and_evaluations_are_without_noise(pair_tokenizer, tmp_path):
    quiet, noisy = (
        Discriminator(bert_classifier(), pair_tokenizer, regularization=Regularization(token_dropout=p))
        for p in (0.0, 0.9)
    )
    state = torch.get_rng_state()
    assert torch.equal(noisy.score(PROMPTS, COMPLETIONS), quiet.score(PROMPTS, COMPLETIONS))
    for one, other in zip(
        noisy.evaluate(PROMPTS, COMPLETIONS, texts(4)).metrics().values(),
        quiet.evaluate(PROMPTS, COMPLETIONS, texts(4)).metrics().values(),
        strict=True,
    ):
        assert_close(one, other, equal_nan=True, rtol=0, atol=0)
    with_optimizer(quiet, tmp_path).update(PROMPTS, COMPLETIONS, texts(4))  # off, an update draws nothing either
    assert torch.equal(torch.get_rng_state(), state)


def test_token_dropout_follows_the_random_state(pair_tokenizer, tmp_path):
    results = []
    for seed in (1, 1, 2):
        one = Discriminator(bert_classifier(), pair_tokenizer, regularization=Regularization(token_dropout=0.5))
        torch.manual_seed(seed)
        with_optimizer(one, tmp_path).update(PROMPTS, COMPLETIONS, texts(4))
        results.append(parameters(one))
    first, same, other = results
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
