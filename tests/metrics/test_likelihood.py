import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hf_mgan.metrics.intervals import bootstrap_interval
from hf_mgan.metrics.likelihood import (
    ReversePerplexity,
    TextNll,
    nll_per_token,
    perplexity,
    reverse_perplexity,
    small_language_model,
    token_nlls,
)


class Bigrams(nn.Module):
    """A language model that looks at the last token alone: its logits are the rows of a table."""

    def __init__(self, table):
        super().__init__()
        self.table = nn.Embedding.from_pretrained(table, freeze=False)

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(logits=self.table(input_ids))


# From 0 to each token 1/4; from 1 to 2 1/2, to 3 1/2; from 2 to 3 for sure, nearly; from 3 to 0 1/8 and to 1 7/8.
TABLE = torch.tensor(
    [
        [1 / 4, 1 / 4, 1 / 4, 1 / 4],
        [1e-30, 1e-30, 1 / 2, 1 / 2],
        [1e-30, 1e-30, 1e-30, 1],
        [1 / 8, 7 / 8, 1e-30, 1e-30],
    ]
).log()


def test_the_sums_by_hand():
    """0 | 1 2 3: 1/4, 1/2, 1: log 8 of three tokens. 1 3 | 0: log 8 of one: the prompt is given and does not count."""
    nlls = token_nlls(Bigrams(TABLE), [[0], [1, 3]], [[1, 2, 3], [0]])
    assert [text.tokens for text in nlls] == [3, 1]
    assert [text.nll for text in nlls] == pytest.approx([math.log(8), math.log(8)], rel=1e-6)
    assert nll_per_token(nlls) == pytest.approx(2 * math.log(8) / 4, rel=1e-6)
    assert perplexity(nlls) == pytest.approx(8 ** (1 / 2), rel=1e-6)


def test_the_mean_is_over_tokens_and_not_over_texts():
    """(6 + 0)/(2 + 1) = 2; the mean of 3 and 0 would be 1.5."""
    assert nll_per_token([TextNll(6.0, 2), TextNll(0.0, 1)]) == 2.0
    assert perplexity([TextNll(6.0, 2), TextNll(0.0, 1)]) == pytest.approx(math.exp(2))
    assert math.isnan(perplexity([]))
    assert math.isnan(nll_per_token([TextNll(0.0, 0)]))


def test_texts_are_what_an_interval_draws():
    nlls = [TextNll(2.0, 2), TextNll(9.0, 3)] * 10
    interval = bootstrap_interval(nlls, perplexity)
    assert interval.value == pytest.approx(math.exp(11 / 5))
    assert math.exp(1) < interval.low < interval.value < interval.high < math.exp(3)


def test_neither_batches_nor_padding_change_it(generator):
    prompts, texts = [[1], [1, 7, 8], [1, 6]], [[9, 10, 11, 2], [12], [13, 14, 2]]
    one, all_of_them = token_nlls(generator, prompts, texts, 1), token_nlls(generator, prompts, texts, 3)
    assert [text.nll for text in one] == pytest.approx([text.nll for text in all_of_them], rel=1e-5)
    turned = token_nlls(generator, prompts[::-1], texts[::-1], 2)[::-1]
    assert [text.nll for text in turned] == pytest.approx([text.nll for text in one], rel=1e-5)


def test_it_is_the_loss_that_transformers_computes(generator):
    generator.eval()
    ids = torch.tensor([[1, 9, 10, 11, 2]])
    labels = ids.masked_fill(torch.arange(5) < 2, -100)
    expected = generator(input_ids=ids, labels=labels).loss.item()
    nlls = token_nlls(generator, [[1, 9]], [[10, 11, 2]])
    assert nll_per_token(nlls) == pytest.approx(expected, rel=1e-5)


def test_dropout_is_off_and_the_mode_is_given_back(generator):
    generator.train()
    first, second = (token_nlls(generator, [[1]], [[9, 10]]) for _ in range(2))
    assert first == second
    assert generator.training
    generator.eval()
    token_nlls(generator, [[1]], [[9, 10]])
    assert not generator.training


def test_no_gradient_is_kept():
    class Watched(Bigrams):
        def forward(self, input_ids, attention_mask):
            assert not torch.is_grad_enabled()
            return super().forward(input_ids, attention_mask)

    assert len(token_nlls(Watched(TABLE), [[0]], [[1]])) == 1


def test_logits_of_half_precision_are_summed_in_full():
    """1000 tokens of log 4: bfloat16 would sum to a multiple of 8."""
    nlls = token_nlls(Bigrams(torch.zeros(4, 4).bfloat16()), [[0]], [[1] * 1000])
    assert nlls[0].nll == pytest.approx(1000 * math.log(4), rel=1e-6)


def test_a_text_without_tokens_adds_nothing():
    assert token_nlls(Bigrams(TABLE), [[0], [0]], [[], [1]])[0] == TextNll(0.0, 0)


def test_shuffled_words_are_less_likely_and_what_is_likely_may_be_collapse():
    """1 2 3 1 3 is one way of the table: 1/4 1/2 1 7/8 1/2. Turned round, steps have chances of 1e-30.

    The same likely text many times has the perplexity of one: this measure does not see collapse.
    """
    model = Bigrams(TABLE)
    text = [1, 2, 3, 1, 3]
    whole, shuffled = (token_nlls(model, [[0]], [ids]) for ids in (text, text[::-1]))
    assert perplexity(whole) < 2
    assert perplexity(shuffled) > 1e6
    assert perplexity(token_nlls(model, [[0]] * 8, [text] * 8)) == pytest.approx(perplexity(whole))


def test_prompts_that_predict_nothing_are_refused():
    with pytest.raises(ValueError, match="got 1 prompts and 2 texts"):
        token_nlls(Bigrams(TABLE), [[0]], [[1], [2]])
    with pytest.raises(ValueError, match="Prompt 1 is empty"):
        token_nlls(Bigrams(TABLE), [[0], []], [[1], [2]])


def mixture(count, seed, kinds=8):
    """Texts that say one of eight words three times and end: log 8 nats in four tokens."""
    draws = torch.randint(kinds, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [[2 + kind] * 3 + [1] for kind in draws]


def reverse(generated, real=None, test=None, **changes):
    settings = {"model": Bigrams(torch.zeros(10, 10)), "start_token_id": 0, "learning_rate": 0.2, "epochs": 10}
    return reverse_perplexity(generated, real or mixture(128, 1), test or mixture(64, 2), **{**settings, **changes})


def test_reverse_perplexity_of_real_texts_is_that_of_the_source():
    """A table that has learnt the source: 1/8, then the word again with 2/3 each time but the last, when 1/3 ends it.

    (1/8 * 2/3 * 2/3 * 1/3)^(-1/4) = 54^(1/4) = 2.711.
    """
    result = reverse(mixture(128, 0), epochs=20)
    assert result.generated == pytest.approx(54 ** (1 / 4), rel=0.03)
    assert result.real == pytest.approx(54 ** (1 / 4), rel=0.03)


def test_collapse_shows_in_reverse_perplexity():
    """With two kinds of eight, six of eight real texts meet rows that nothing has taught, and a wrong start."""
    collapsed, fresh = reverse(mixture(128, 0, kinds=2)), reverse(mixture(128, 0))
    assert collapsed.generated > 3 * collapsed.real
    assert fresh.generated < 1.1 * fresh.real
    assert collapsed.real == fresh.real


def test_shuffled_words_show_in_reverse_perplexity():
    words = torch.randperm(3 * 128, generator=torch.Generator().manual_seed(0))
    pool = [word for text in mixture(128, 0) for word in text[:3]]
    shuffled = [[*(pool[index] for index in row), 1] for row in words.view(128, 3).tolist()]
    result = reverse(shuffled)
    assert result.generated > 1.5 * result.real


def test_the_same_texts_on_both_sides_teach_the_same():
    texts = mixture(64, 0)
    result = reverse(texts, texts)
    assert result.generated == result.real


def test_both_sides_learn_from_as_many_texts():
    texts = mixture(16, 0)
    junk = [[9, 8, 7, 6]] * 16
    assert reverse(texts, texts + junk) == reverse(texts + junk, texts) == reverse(texts, texts)


def test_the_seed_decides_it_and_nothing_else_moves():
    model = small_language_model(10, max_length=8)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    texts = mixture(16, 0)
    settings = {"model": model, "epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
    state = torch.get_rng_state()
    first, second, third = (reverse(texts, **settings, seed=seed) for seed in (0, 0, 1))
    assert torch.get_rng_state().equal(state)
    assert first == second != third
    assert all(weight.equal(weights[name]) for name, weight in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_small_model_is_as_large_as_it_says():
    """A layer has 12 * 128^2 weights, 13 * 128 biases and norms; two of them and the last norm are 396 800."""
    state = torch.get_rng_state()
    model = small_language_model(50, max_length=32)
    assert sum(parameter.numel() for parameter in model.parameters()) == 396_800 + (50 + 32) * 128
    assert torch.get_rng_state().equal(state)
    same, other = small_language_model(50, 32), small_language_model(50, 32, seed=1)
    assert model.lm_head.weight.equal(same.lm_head.weight)
    assert not model.lm_head.weight.equal(other.lm_head.weight)


def test_texts_of_each_kind_are_needed():
    with pytest.raises(ValueError, match="'generated': 0"):
        reverse([])


def test_the_two_perplexities_have_names():
    assert reverse(mixture(4, 0), epochs=1)._fields == ReversePerplexity._fields == ("generated", "real")
