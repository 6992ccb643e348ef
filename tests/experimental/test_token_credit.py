"""The credit of a token: tokens matched by characters, returns worked by hand, and gradients enumerated."""

import itertools
import math

import pytest
import torch
from tokenizers import Tokenizer, models
from torch.testing import assert_close
from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

from hf_mgan.discriminator.prefixes import PrefixScorer
from hf_mgan.experimental.token_credit import (
    _common_lengths,
    token_advantages,
    token_ends,
    token_values,
    with_sequence_advantages,
)
from hf_mgan.objectives import REWARDS, logit, minimax

from ..conftest import VOCABULARY, causal_classifier
from ..discriminator.test_prefixes import END, byte_level_tokenizer


def ids(tokenizer, words):
    return tokenizer.convert_tokens_to_ids(words.split())


# --- where tokens end


def test_token_ends_of_words(tokenizer):
    completions = [ids(tokenizer, words) for words in (f"the dog runs {END}", "a cat", END)] + [[]]
    # "the dog runs" has 12 characters and what comes last ends behind them; "a cat" was cut and ends as well.
    assert token_ends(tokenizer, completions) == [[3, 7, 12, 13], [1, 6], [1], []]


def test_token_ends_of_special_tokens(tokenizer):
    completion = ids(tokenizer, f"<s> the <pad> dog {END} {END}")
    assert token_ends(tokenizer, [completion]) == [[0, 3, 3, 7, 7, 8]]


def test_token_ends_within_a_character():
    tokenizer = byte_level_tokenizer(["the dog the dog"])
    completion = tokenizer("the é 好😀a")["input_ids"] + [tokenizer.eos_token_id]
    # "the", " " + 2 bytes of é, " " + 3 bytes of 好, 4 bytes of the emoji, "a", the end
    expected = [3, 4, 4, 5, 6, 6, 6, 7, 7, 7, 7, 8, 9, 10]
    assert token_ends(tokenizer, [completion]) == [expected]


def test_token_ends_of_cut_characters():
    tokenizer = byte_level_tokenizer(["the dog the dog"])
    first, second, _ = tokenizer("好")["input_ids"]
    after = tokenizer("ab")["input_ids"]
    # One byte of a character and then an "a": a replacement, "a", "b".
    assert token_ends(tokenizer, [[first, *after]]) == [[1, 2, 4]]
    # Cut within the character: what is left of it is one replacement.
    assert token_ends(tokenizer, [[*after, first, second]]) == [[1, 2, 3, 4]]


def test_token_ends_of_a_decoder_that_tidies_up():
    """Tidying up turns "a a ' b" into "a a'b", of which "a a '" is no beginning: the quote's place is not settled."""
    words = {"a": 0, "'": 1, "b": 2, "<unk>": 3, END: 4}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")),
        eos_token=END,
        clean_up_tokenization_spaces=True,
    )
    assert [tokenizer.decode([0, 0, 1, 2][:count]) for count in (2, 3, 4)] == ["a a", "a a '", "a a'b"]
    assert token_ends(tokenizer, [[0, 0, 1, 2, 4]]) == [[1, 3, 3, 5, 6]]
    # What was settled stays so, whatever a longer beginning looks like.
    assert _common_lengths(["ab", "a", "abc"], "abc") == [2, 2, 3]


def one_by_one(tokenizer, completion):
    """The definition: how far the text of the tokens so far agrees with the whole."""
    text = tokenizer.decode(completion, skip_special_tokens=True)
    agreed = []
    for at in range(len(completion)):
        beginning = tokenizer.decode(completion[: at + 1], skip_special_tokens=True)
        both = itertools.takewhile(lambda two: two[0] == two[1], zip(text, beginning, strict=False))
        agreed.append(len(list(both)))
    return [*agreed[:-1], len(text) + 1]


def test_token_ends_of_long_texts(tokenizer):
    draw = torch.randint(6, len(VOCABULARY), (150,), generator=torch.Generator().manual_seed(0)).tolist()
    assert token_ends(tokenizer, [draw]) == [one_by_one(tokenizer, draw)]
    of_bytes = byte_level_tokenizer(["the dog the dog"])
    completion = of_bytes("the 好é😀" * 20)["input_ids"]
    assert len(completion) > 200
    assert token_ends(of_bytes, [completion]) == [one_by_one(of_bytes, completion)]


def test_token_ends_where_a_window_does_not_add_up(tokenizer):
    """After a window of nothing but special tokens a decoder of words puts no space before the next."""
    completion = ids(tokenizer, " ".join(["the", *["<pad>"] * 80, "dog", "runs"]))
    assert token_ends(tokenizer, [completion]) == [[3] * 81 + [7, 13]]


# --- which prefix a token is given


def test_token_values_take_the_longest_prefix():
    # The discriminator reads tokens that end after 3, 5 and 9 characters, and the end.
    logits, ends = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[3, 5, 9, 10]])
    # 2: nothing read yet. 3 and 4: the first. 9 is the third and not the end, which only the last token has reached.
    values = token_values(logits, ends, [[2, 3, 4, 8, 9, 10]], 8)
    assert_close(values, torch.tensor([[0.0, 1, 1, 2, 3, 4, 4, 4]]))
    assert_close(token_values(logits.bfloat16(), ends, [[2, 3, 4, 8, 9, 10]], 8), values)


def test_token_values_of_repeated_ends():
    logits, ends = torch.tensor([[1.0, 2.0, 3.0, 3.0]]), torch.tensor([[2, 2, 3, 3]])
    assert_close(token_values(logits, ends, [[1, 2, 3]], 3), torch.tensor([[0.0, 2, 3]]))


@pytest.fixture(scope="module")
def readers():
    """A discriminator of words and one of bytes, with the tokenizers of both."""
    own = byte_level_tokenizer(["the dog sees a bird"], model_max_length=48)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=300, n_embd=8, n_layer=1, n_head=1, num_labels=1, initializer_range=0.3)
    return GPT2ForSequenceClassification(config).eval(), own


def values_of(model, own, other, prompts, completion_ids):
    texts = other.batch_decode(completion_ids, skip_special_tokens=True)
    scorer = PrefixScorer(model, own, 48)
    batch = scorer.encode(prompts, texts)
    with torch.no_grad():
        logits = scorer.logits(model, batch)[..., 0]
    width = max(len(row) for row in completion_ids)
    return token_values(logits, batch["prefix_ends"], token_ends(other, completion_ids), width)


def logit_of(model, own, text):
    with torch.no_grad():
        return model(input_ids=torch.tensor([own(text)["input_ids"]])).logits[0, 0]


def test_token_values_of_words_from_bytes(readers, tokenizer):
    model, own = readers
    model.config.pad_token_id = own.pad_token_id
    words = ["the", "dog", "sees", "a", "bird"]
    completions = [ids(tokenizer, " ".join([*words, END])), ids(tokenizer, f"dog {END}")]
    values = values_of(model, own, tokenizer, ["", "the "], completions)
    for count in range(1, 6):
        assert_close(values[0, count - 1], logit_of(model, own, " ".join(words[:count])))
    assert_close(values[0, 5], logit_of(model, own, " ".join(words) + END))
    # Padding repeats the sequence's logit.
    expected = [logit_of(model, own, "the dog"), *[logit_of(model, own, "the dog" + END)] * 5]
    assert_close(values[1], torch.stack(expected))


def test_token_values_of_bytes_from_words(readers, tokenizer):
    _, other = readers
    model = causal_classifier().eval()
    model.config.pad_token_id = 0
    completion = other("dog é near")["input_ids"]
    pieces = other.convert_ids_to_tokens(completion)
    assert pieces == ["do", "g", "Ġ", "Ã", "©", "Ġ", "n", "e", "a", "r"]
    values = values_of(model, tokenizer, other, ["the "], [[*completion, other.eos_token_id]])[0]
    dog, accent, near, end = (
        logit_of(model, tokenizer, text)
        for text in ("the dog", "the dog é", "the dog é near", f"the dog é near {END}")
    )
    assert VOCABULARY["<unk>"] in tokenizer("é")["input_ids"]
    nothing = torch.zeros(())
    assert_close(values, torch.stack([nothing, dog, dog, dog, *[accent] * 5, near, end]))


# --- returns and advantages


def test_token_advantages_worked_by_hand():
    values, mask = torch.tensor([[1.0, 3.0, 2.0], [4.0, 4.0, 4.0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    # Rewards 1, 2, -1. At 1/2: -1; 2 - 1/2; 1 + 3/4. The second text has one token, of 4.
    expected = torch.tensor([[1.75, 1.5, -1.0], [4.0, 0.0, 0.0]])
    assert_close(token_advantages(values, mask, logit, 0.5, baseline=False), expected)
    # At 1, what is left to gain: 2 - 0, 2 - 1, 2 - 3. At 0, the token's own reward.
    assert_close(token_advantages(values, mask, logit, 1.0, baseline=False)[0], torch.tensor([2.0, 1.0, -1.0]))
    assert_close(token_advantages(values, mask, logit, 0.0, baseline=False)[0], torch.tensor([1.0, 2.0, -1.0]))


def test_baseline_is_the_mean_of_the_other_living_texts():
    values = torch.tensor([[1.0, 3.0, 2.0], [4.0, 4.0, 4.0], [6.0, 5.0, 5.0], [9.0, 9.0, 9.0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
    # Returns at a discount of 1: (2, 1, -1), (4), (5, -1); the last text does not count. At the third place nobody
    # else lives.
    expected = torch.tensor([[2 - 4.5, 1 - -1, -1], [4 - 3.5, 0, 0], [5 - 3, -1 - 1, 0], [0, 0, 0]])
    assert_close(token_advantages(values, mask, logit), expected)


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_token_rewards_add_up_to_the_sequences(name):
    reward = REWARDS[name]
    values = torch.randn(3, 7)
    mask = torch.ones(3, 7)
    own = token_advantages(values, mask, reward, 0.0, baseline=False)
    assert_close(own.sum(1), reward(values[:, -1]) - reward(torch.zeros(3)))


@pytest.mark.parametrize("name", sorted(REWARDS))
@pytest.mark.parametrize("discount", [0.23, 1.0])
def test_token_rewards_of_undecided_logits_are_zero(name, discount):
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]])
    advantages = token_advantages(torch.zeros(2, 4), mask, REWARDS[name], discount, baseline=False)
    assert_close(advantages, torch.zeros(2, 4))


def test_token_advantages_in_bfloat16():
    values, mask = torch.tensor([[0.5, -2.0]]), torch.ones(1, 2, dtype=torch.int64)
    advantages = token_advantages(values.bfloat16(), mask, minimax)
    assert advantages.dtype == torch.float32
    assert_close(advantages, token_advantages(values, mask, minimax))


def test_sequence_advantages_reach_every_token():
    credit, mask = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[1, 1], [1, 0]])
    total = with_sequence_advantages(credit, 0.5, torch.tensor([10.0, -1.0]), mask)
    assert_close(total, torch.tensor([[10.5, 11.0], [0.5, 0.0]]))


# --- the expected policy gradient


class Toy:
    """Two places, and at each the words 0 and 1, of which 0 ends the text if `ends`; every text by enumeration."""

    def __init__(self, ends, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.theta = torch.randn(3, 2, generator=generator, dtype=torch.float64, requires_grad=True)
        texts = [(0,), (1, 0), (1, 1)] if ends else list(itertools.product((0, 1), repeat=2))
        # The policy's states: 0 at the beginning, then 1 or 2 behind the words 0 and 1.
        self.texts = [[(0, text[0]), *((1 + text[0], word) for word in text[1:])] for text in texts]
        worth = {}  # any value a prefix, the same for every text that begins with it
        draw = iter(torch.randn(16, generator=generator, dtype=torch.float64))
        for text in texts:
            for length in (1, 2):
                worth.setdefault(text[:length], next(draw))
        self.values = torch.stack([torch.stack([worth[text[:length]] for length in (1, 2)]) for text in texts])
        self.mask = torch.tensor([[1, 1] if len(text) == 2 else [1, 0] for text in texts])
        logps = self.theta.log_softmax(1)
        zero = torch.zeros((), dtype=torch.float64)
        steps = [[logps[state, word] for state, word in text] for text in self.texts]
        self.logps = torch.stack([torch.stack([*row, zero][:2]) for row in steps])  # Shape (texts, 2)
        self.probs = self.logps.sum(1).exp().detach()

    def gradient(self, objective):
        return torch.autograd.grad(objective, self.theta, retain_graph=True)[0]

    def of_sequences(self, reward):
        rewards = reward(self.values[:, -1]).double()
        return self.gradient((self.probs[:, None] * rewards[:, None] * self.logps).sum())

    def of_tokens(self, reward, discount, baseline):
        """The mean over all pairs of texts, each pair a batch."""
        total = torch.zeros((), dtype=torch.float64)
        for pair in itertools.product(range(len(self.texts)), repeat=2):
            batch = list(pair)
            advantages = token_advantages(self.values[batch], self.mask[batch], reward, discount, baseline)
            total = total + self.probs[batch].prod() * (advantages.double() * self.logps[batch]).sum() / 2
        return self.gradient(total)


@pytest.mark.parametrize("name", sorted(REWARDS))
@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("ends", [False, True])
def test_expected_gradient_at_a_discount_of_one(name, baseline, ends):
    toy = Toy(ends)
    assert_close(toy.probs.sum(), torch.tensor(1.0, dtype=torch.float64))
    expected = toy.of_sequences(REWARDS[name])
    assert expected.abs().max() > 1e-2
    assert_close(toy.of_tokens(REWARDS[name], 1.0, baseline), expected, atol=1e-6, rtol=1e-5)


def test_expected_gradient_with_baseline_and_discount():
    toy = Toy(ends=True)
    discounted = toy.of_tokens(minimax, 0.23, baseline=False)
    assert_close(toy.of_tokens(minimax, 0.23, baseline=True), discounted, atol=1e-6, rtol=1e-5)
    assert (discounted - toy.of_sequences(minimax)).abs().max() > 1e-2


def test_prefix_odds_are_a_martingale():
    """Why the discriminator is a critic: with v = log p - log q, e^v is a martingale, so the return of e^v is 0 in
    expectation behind every prefix. On the toy, where p has other parameters than q.
    """
    toy, real = Toy(ends=True), Toy(ends=True, seed=1)
    values = (real.logps - toy.logps).detach().cumsum(1)
    returns = token_advantages(values, toy.mask, lambda value: value.exp().float(), 1.0, baseline=False).double()
    for place, living in ((0, [0, 1, 2]), (1, [1, 2])):
        mean = (toy.probs[living] * returns[living, place]).sum() / toy.probs[living].sum()
        assert mean.abs() < 1e-6
        assert returns[living, place].abs().max() > 0.05
    assert math.isclose(toy.probs.sum().item(), 1)
