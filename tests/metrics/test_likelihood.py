import math
from types import SimpleNamespace

import pytest
import torch
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from torch import nn
from torch.testing import assert_close

from hf_mgan.metrics.intervals import bootstrap_interval
from hf_mgan.metrics.likelihood import (
    ReversePerplexity,
    TextNll,
    completion_losses,
    nll_per_token,
    padded_batch,
    perplexity,
    reverse_perplexity,
    sequence_logps,
    small_language_model,
    tempered_logps,
    token_losses,
    token_nlls,
)

from ..conftest import causal_generator


class Bigrams(nn.Module):
    """A language model that looks at the last token alone: its logits are the rows of a table."""

    def __init__(self, table):
        super().__init__()
        self.table = nn.Embedding.from_pretrained(table, freeze=False)

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(logits=self.table(input_ids))


# From 0 to each token 1/4; from 1 to 2 1/2, to 3 1/2; from 2 to 3 nearly always; from 3 to 0 1/8 and to 1 7/8.
TABLE = torch.tensor(
    [
        [1 / 4, 1 / 4, 1 / 4, 1 / 4],
        [1e-30, 1e-30, 1 / 2, 1 / 2],
        [1e-30, 1e-30, 1e-30, 1],
        [1 / 8, 7 / 8, 1e-30, 1e-30],
    ]
).log()


class Coins(torch.nn.Module):
    """A language model over four tokens that gives token t after token s the probability (t + 1 + s) / (10 + 4 s)."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, attention_mask):
        logits = (torch.arange(4) + 1 + input_ids[..., None]).log()
        return type("Output", (), {"logits": logits})


def test_sequence_logps_by_hand():
    # "2 | 0 3": p(0 after 2) = 3/18, p(3 after 0) = 4/10. "1 1 | 2": p(2 after 1) = 4/14.
    logps = sequence_logps(Coins(), [[2], [1, 1]], [[0, 3], [2]])
    assert_close(logps, torch.tensor([math.log(3 / 18 * 4 / 10), math.log(4 / 14)]))


def test_sequence_logps_at_a_temperature_by_hand():
    # At temperature 1/2 probabilities go with their squares: after 0 they are (1, 4, 9, 16) / 30.
    assert_close(sequence_logps(Coins(), [[0]], [[3]], temperature=0.5), torch.tensor([math.log(16 / 30)]))


def test_sequence_logps_are_batch_and_padding_invariant(generator):
    prompts, completions = [[1], [1, 7], [8, 9, 10]], [[7, 8, 2], [9], [11, 2]]
    whole = sequence_logps(generator.eval(), prompts, completions)
    assert_close(sequence_logps(generator, prompts, completions, batch_size=1), whole)


def test_tempered_logps_take_the_passes_of_one_temperature(generator):
    prompts, completions = [[8, 9, 10], [1], [1, 7]], [[11, 2], [7, 8, 2], [9]]
    generator.eval()
    expected = torch.stack([sequence_logps(generator, prompts, completions, t) for t in (0.5, 1.0, 2.0)])
    passes = []
    generator.register_forward_hook(lambda *_: passes.append(1))
    assert_close(tempered_logps(generator, prompts, completions, [0.5, 1.0, 2.0], batch_size=2), expected)
    assert len(passes) == 2
    assert (expected[0] - expected[1]).abs().min() > 1e-3


def test_sequence_logps_batch_by_length_and_keep_order():
    widths = []

    class Watched(Coins):
        def forward(self, input_ids, attention_mask):
            widths.append(input_ids.size(1))
            return super().forward(input_ids, attention_mask)

    prompts, completions = [[0], [0], [0], [0]], [[1, 1, 1, 1], [3], [2, 2, 2, 2], [2]]
    logps = sequence_logps(Watched(), prompts, completions, batch_size=2)
    assert widths == [2, 5]
    assert_close(logps[[1, 3]], torch.tensor([math.log(4 / 10), math.log(3 / 10)]))
    assert_close(logps[0], torch.tensor(math.log(2 / 10) + 3 * math.log(3 / 14)).squeeze())
    assert_close(logps[2], torch.tensor(math.log(3 / 10) + 3 * math.log(5 / 18)).squeeze())


def test_padded_batch_by_hand():
    """Two rows of three tokens; the labels are -100 on prompts and padding."""
    batch = padded_batch([[1], [4, 5]], [[7, 8], []])
    assert {name: rows.tolist() for name, rows in batch.items()} == {
        "input_ids": [[1, 7, 8], [4, 5, 0]],
        "attention_mask": [[1, 1, 1], [1, 1, 0]],
        "labels": [[-100, 7, 8], [-100, -100, -100]],
    }


def test_completion_losses_by_hand():
    """0 | 1 2: log 4 and log 2; 1 3 | 0: log 8 at its place; 0 where there is no token of a completion."""
    losses = completion_losses(Bigrams(TABLE), padded_batch([[0], [1, 3]], [[1, 2], [0]]))
    expected = torch.tensor([[math.log(4), math.log(2)], [0.0, math.log(8)]])
    assert_close(losses.detach(), expected)


def test_completion_losses_gradient_is_that_of_cross_entropy(generator):
    """softmax - one-hot at each token of a completion, over the number of tokens; none elsewhere."""
    batch = padded_batch([[1], [1, 7, 8]], [[9, 10, 2], [11]])
    logits = generator.eval()(input_ids=batch["input_ids"]).logits.detach().requires_grad_()
    losses = token_losses(logits, batch["labels"])
    (losses.sum() / 4).backward()
    other = logits.detach().clone().requires_grad_()
    torch.nn.functional.cross_entropy(other[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()).backward()
    assert_close(logits.grad, other.grad)
    assert logits.grad[1, :2].abs().max() == 0 < logits.grad[1, 2].abs().max()


def test_completion_losses_keep_the_mode_and_the_gradient(generator):
    generator.train()
    completion_losses(generator, padded_batch([[1]], [[7, 2]])).sum().backward()
    assert generator.training
    assert generator.transformer.wte.weight.grad.abs().max() > 0


def test_every_likelihood_is_the_same_number(generator):
    """Losses, sums and sums at temperature 1 of the same two texts."""
    given = [[1], [1, 7]], [[7, 8, 2], [9]]
    generator.eval()
    sums = -completion_losses(generator, padded_batch(*given)).sum(1).detach()
    assert sequence_logps(generator, *given).equal(sums)
    assert tempered_logps(generator, *given, [1.0, 2.0])[0].equal(sums)
    assert [text.nll for text in token_nlls(generator, *given)] == (-sums).tolist()


def test_token_nlls_by_hand():
    """0 | 1 2 3: 1/4, 1/2, 1: log 8 of three tokens. 1 3 | 0: log 8 of one: the prompt is given and does not count."""
    nlls = token_nlls(Bigrams(TABLE), [[0], [1, 3]], [[1, 2, 3], [0]])
    assert [text.tokens for text in nlls] == [3, 1]
    assert [text.nll for text in nlls] == pytest.approx([math.log(8), math.log(8)], rel=1e-6)
    assert nll_per_token(nlls) == pytest.approx(2 * math.log(8) / 4, rel=1e-6)
    assert perplexity(nlls) == pytest.approx(8 ** (1 / 2), rel=1e-6)


def test_nll_per_token_is_a_mean_over_tokens():
    """(6 + 0)/(2 + 1) = 2; the mean of 3 and 0 would be 1.5."""
    assert nll_per_token([TextNll(6.0, 2), TextNll(0.0, 1)]) == 2.0
    assert perplexity([TextNll(6.0, 2), TextNll(0.0, 1)]) == pytest.approx(math.exp(2))
    assert math.isnan(perplexity([]))
    assert math.isnan(nll_per_token([TextNll(0.0, 0)]))


def test_perplexity_bootstrap_draws_texts():
    nlls = [TextNll(2.0, 2), TextNll(9.0, 3)] * 10
    interval = bootstrap_interval(nlls, perplexity)
    assert interval.value == pytest.approx(math.exp(11 / 5))
    assert math.exp(1) < interval.low < interval.value < interval.high < math.exp(3)


def test_token_nlls_are_batch_and_padding_invariant(generator):
    prompts, texts = [[1], [1, 7, 8], [1, 6]], [[9, 10, 11, 2], [12], [13, 14, 2]]
    one, all_of_them = token_nlls(generator, prompts, texts, 1), token_nlls(generator, prompts, texts, 3)
    assert [text.nll for text in one] == pytest.approx([text.nll for text in all_of_them], rel=1e-5)
    reverted = token_nlls(generator, prompts[::-1], texts[::-1], 2)[::-1]
    assert [text.nll for text in reverted] == pytest.approx([text.nll for text in one], rel=1e-5)


def test_token_nlls_agree_with_transformers_loss(generator):
    generator.eval()
    ids = torch.tensor([[1, 9, 10, 11, 2]])
    labels = ids.masked_fill(torch.arange(5) < 2, -100)
    expected = generator(input_ids=ids, labels=labels).loss.item()
    nlls = token_nlls(generator, [[1, 9]], [[10, 11, 2]])
    assert nll_per_token(nlls) == pytest.approx(expected, rel=1e-5)


def test_token_nlls_without_dropout_restore_the_mode(generator):
    generator.train()
    first, second = (token_nlls(generator, [[1]], [[9, 10]]) for _ in range(2))
    assert first == second
    assert generator.training
    generator.eval()
    token_nlls(generator, [[1]], [[9, 10]])
    assert not generator.training


def test_token_nlls_keep_no_gradient():
    class Watched(Bigrams):
        def forward(self, input_ids, attention_mask):
            assert not torch.is_grad_enabled()
            return super().forward(input_ids, attention_mask)

    assert len(token_nlls(Watched(TABLE), [[0]], [[1]])) == 1


def test_token_nlls_of_bf16_logits_are_summed_in_float32():
    """1000 tokens of log 4: bfloat16 would sum to a multiple of 8."""
    nlls = token_nlls(Bigrams(torch.zeros(4, 4).bfloat16()), [[0]], [[1] * 1000])
    assert nlls[0].nll == pytest.approx(1000 * math.log(4), rel=1e-6)


def test_token_nlls_of_an_empty_text_are_zero():
    assert token_nlls(Bigrams(TABLE), [[0], [0]], [[], [1]])[0] == TextNll(0.0, 0)


def test_perplexity_sees_shuffled_words_but_no_collapse():
    """1 2 3 1 3 is one way of the table: 1/4 1/2 1 7/8 1/2. Turned round, steps have chances of 1e-30.

    The same likely text many times has the perplexity of one: this measure does not see collapse.
    """
    model = Bigrams(TABLE)
    text = [1, 2, 3, 1, 3]
    whole, shuffled = (token_nlls(model, [[0]], [ids]) for ids in (text, text[::-1]))
    assert perplexity(whole) < 2
    assert perplexity(shuffled) > 1e6
    assert perplexity(token_nlls(model, [[0]] * 8, [text] * 8)) == pytest.approx(perplexity(whole))


def test_token_nlls_refuse_unpaired_and_empty_prompts():
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


def test_reverse_perplexity_of_real_texts_by_hand():
    """A table that has learnt the source: 1/8, then the word again with 2/3 each time but the last, when 1/3 ends it.

    (1/8 * 2/3 * 2/3 * 1/3)^(-1/4) = 54^(1/4) = 2.711.
    """
    result = reverse(mixture(128, 0), epochs=20)
    assert result.generated == pytest.approx(54 ** (1 / 4), rel=0.03)
    assert result.real == pytest.approx(54 ** (1 / 4), rel=0.03)


def test_reverse_perplexity_sees_collapse():
    """With two kinds of eight, six of eight real texts meet rows that nothing has taught, and a wrong start."""
    collapsed, other = reverse(mixture(128, 0, kinds=2)), reverse(mixture(128, 0))
    assert collapsed.generated > 3 * collapsed.real
    assert other.generated < 1.1 * other.real
    assert collapsed.real == other.real


def test_reverse_perplexity_sees_shuffled_words():
    words = torch.randperm(3 * 128, generator=torch.Generator().manual_seed(0))
    pool = [word for text in mixture(128, 0) for word in text[:3]]
    shuffled = [[*(pool[index] for index in row), 1] for row in words.view(128, 3).tolist()]
    result = reverse(shuffled)
    assert result.generated > 1.5 * result.real


def test_reverse_perplexity_of_equal_sides_is_equal():
    texts = mixture(64, 0)
    result = reverse(texts, texts)
    assert result.generated == result.real


def test_reverse_perplexity_learns_from_equal_numbers():
    texts = mixture(16, 0)
    junk = [[9, 8, 7, 6]] * 16
    assert reverse(texts, texts + junk) == reverse(texts + junk, texts) == reverse(texts, texts)


def test_reverse_perplexity_depends_on_the_seed_alone():
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


def test_small_language_model_size_by_hand():
    """A layer has 12 * 128^2 weights, 13 * 128 biases and norms; two of them and the last norm are 396 800."""
    state = torch.get_rng_state()
    model = small_language_model(50, max_length=32)
    assert sum(parameter.numel() for parameter in model.parameters()) == 396_800 + (50 + 32) * 128
    assert torch.get_rng_state().equal(state)
    same, other = small_language_model(50, 32), small_language_model(50, 32, seed=1)
    assert model.lm_head.weight.equal(same.lm_head.weight)
    assert not model.lm_head.weight.equal(other.lm_head.weight)


def test_reverse_perplexity_sees_its_steps_under_autocast():
    """Autocast keeps weights as it has cast them until its outermost block ends, unless told not to."""
    results = []
    for kept in (True, False):
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=kept):
            model = small_language_model(10, max_length=8)
            results.append(reverse(mixture(16, 0), model=model, epochs=2, batch_size=8, learning_rate=1e-2))
    assert results[0] == results[1]


def test_reverse_perplexity_refuses_an_empty_set():
    with pytest.raises(ValueError, match="'generated': 0"):
        reverse([])


def test_reverse_perplexity_fields_are_named():
    assert reverse(mixture(4, 0), epochs=1)._fields == ReversePerplexity._fields == ("generated", "real")


VIRTUAL = [
    PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, encoder_hidden_size=8),
    PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
]


@pytest.mark.parametrize("virtual", VIRTUAL, ids=["prompt tuning", "p-tuning", "prefix tuning"])
def test_virtual_tokens_are_no_part_of_a_text(virtual):
    torch.manual_seed(0)
    model = get_peft_model(causal_generator(), virtual).eval()
    prompts, texts = [[1, 7], [1]], [[8, 9, 2], [6, 2]]
    by_hand = []
    for prompt, text in zip(prompts, texts, strict=True):
        total = 0.0
        for written, token in enumerate(text):
            ids = torch.tensor([prompt + text[:written]])
            with torch.no_grad():
                last = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1]
            total += last.log_softmax(-1)[token].item()
        by_hand.append(total)
    assert_close(sequence_logps(model, prompts, texts), torch.tensor(by_hand), rtol=1e-4, atol=1e-4)
