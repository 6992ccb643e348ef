"""Exact metrics of models whose divergence is known, and the sentences that they are computed from."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hf_mgan.decoding.continuation import FIRST_SEGMENT
from hf_mgan.demo.exact_metrics import BATCH_SIZE, ExactMetrics, sample_sentences
from hf_mgan.demo.language import Language
from hf_mgan.demo.models import MAX_TOKENS, SPECIAL_TOKENS, make_tokenizer
from tests.conftest import GPT2Config, GPT2LMHeadModel


LANGUAGE = Language()
TOKENIZER = make_tokenizer(LANGUAGE.words, adds_ends=False)


class Truth(nn.Module):
    """A generator that is the language itself."""

    def __init__(self, language):
        super().__init__()
        self.language = language
        self.generation_config = SimpleNamespace(eos_token_id=TOKENIZER.eos_token_id)
        self.weight = nn.Parameter(torch.zeros(1))

    def next_states(self, states, ids):
        """Return the states after these tokens; -1 once the sentence is over."""
        over = (ids < len(SPECIAL_TOKENS)) | (states < 0)
        words = (ids - len(SPECIAL_TOKENS)).clamp(min=0)
        return torch.where(over, -1, self.language.following[states.clamp(min=0), words])

    def logits(self, states):
        """Return the logits of the next token, of shape `(B, V)`."""
        probs = self.language.probs[states.clamp(min=0)].float()
        logits = torch.full((len(states), len(TOKENIZER)), -math.inf)
        logits[:, len(SPECIAL_TOKENS) :] = probs[:, :-1].log()
        logits[:, TOKENIZER.eos_token_id] = probs[:, -1].log()
        return logits

    def forward(self, input_ids, attention_mask=None):
        states = torch.zeros(len(input_ids), dtype=torch.int64)
        logits = [self.logits(states)]
        for ids in input_ids[:, 1:].T:
            states = self.next_states(states, ids)
            logits.append(self.logits(states))
        return SimpleNamespace(logits=torch.stack(logits, 1))

    def generate(self, input_ids, temperature, max_new_tokens, **_):
        states = torch.zeros(len(input_ids), dtype=torch.int64)
        drawn = []
        for _ in range(max_new_tokens):
            ids = torch.multinomial((self.logits(states) / temperature).softmax(-1), 1)[:, 0]
            drawn.append(torch.where(states < 0, TOKENIZER.pad_token_id, ids))
            states = self.next_states(states, drawn[-1])
        return torch.cat([input_ids, torch.stack(drawn, 1)], 1)


@pytest.fixture(scope="module")
def metrics():
    return ExactMetrics(LANGUAGE, TOKENIZER, LANGUAGE.sample(400, 1), seed=0)


def test_metrics_of_the_language_itself_have_no_divergence(metrics):
    model = Truth(LANGUAGE).train()
    quality = metrics(model)
    assert model.training  # as it was
    assert quality.divergence == pytest.approx(0, abs=1e-5)
    assert quality.grammatical == 1
    # Both are means over 400 sentences whose log-probability has a deviation of about 5 nats.
    assert quality.entropy == pytest.approx(LANGUAGE.entropy(), abs=1)
    assert quality.real_nll == pytest.approx(LANGUAGE.entropy(), abs=1)
    assert quality.forward_kl == pytest.approx(0, abs=1e-4)
    assert quality.reverse_kl == pytest.approx(0, abs=1e-4)
    assert quality.best_value == pytest.approx(-math.log(4), abs=1e-4)


def test_metrics_of_a_colder_language_diverge(metrics):
    cold = metrics(Truth(LANGUAGE), temperature=0.5)
    assert cold.grammatical == 1
    assert cold.entropy < LANGUAGE.entropy() - 2
    assert cold.divergence > 0.1
    # What is rare in the language is rarer still in the cold one, which costs the language's own sentences most.
    assert cold.forward_kl > cold.reverse_kl > 1
    assert -math.log(4) + 2 * math.log(2) * 0.1 < cold.best_value < 0
    assert metrics.best(Truth(LANGUAGE), (0.5, 1.0, 2.0))[0].temperature == 1.0


def test_metrics_of_noise_diverge_by_one_bit(metrics):
    config = GPT2Config(vocab_size=len(TOKENIZER), n_embd=8, n_layer=1, n_head=1, n_positions=32)
    quality = metrics(GPT2LMHeadModel(config))
    assert quality.divergence == pytest.approx(1, abs=1e-3)
    assert quality.best_value == pytest.approx(0, abs=2e-3)
    assert quality.forward_kl > 20
    assert quality.reverse_kl is None  # no sentence is grammatical
    assert quality.grammatical < 0.02


def test_sample_sentences_repeats_and_keeps_the_random_state():
    state = torch.get_rng_state()
    ids, words = sample_sentences(Truth(LANGUAGE), TOKENIZER, 600, 1.0, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert sample_sentences(Truth(LANGUAGE), TOKENIZER, 600, 1.0, seed=3)[0] == ids
    assert len(ids) == len(words) == 600
    assert all(
        row[-1] == TOKENIZER.eos_token_id and len(row) == len(text) + 1 for row, text in zip(ids, words, strict=True)
    )
    assert LANGUAGE.logps(words).isfinite().all()


def test_sample_sentences_keeps_special_tokens_as_words():
    """One text per draw: a start token, a word and the end; and a sentence that is cut at the limit."""

    class Scripted(Truth):
        def generate(self, input_ids, max_new_tokens, **_):
            word = TOKENIZER.convert_tokens_to_ids("dog")
            ended = [TOKENIZER.bos_token_id, word, TOKENIZER.eos_token_id]
            rows = [ended + [TOKENIZER.pad_token_id] * (max_new_tokens - 3), [word] * max_new_tokens]
            return torch.cat([input_ids, torch.tensor(rows)], 1)

    ids, words = sample_sentences(Scripted(LANGUAGE), TOKENIZER, 2, 1.0, seed=0)
    assert words == [["<s>", "dog"], ["dog"] * MAX_TOKENS]
    assert [len(row) for row in ids] == [3, MAX_TOKENS]
    assert LANGUAGE.logps(words).tolist() == [-math.inf, -math.inf]


def test_sample_sentences_draws_as_transformers_does():
    """The whole distribution at a temperature, from the start token; rows that end leave after the first segment."""
    config = GPT2Config(vocab_size=len(TOKENIZER), n_embd=8, n_layer=1, n_head=1, n_positions=32)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 0
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config)
    ids, _ = sample_sentences(model, TOKENIZER, BATCH_SIZE, 0.8, seed=5)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        start = torch.full((BATCH_SIZE, 1), TOKENIZER.bos_token_id)
        settings = {"do_sample": True, "temperature": 0.8, "top_k": 0, "max_new_tokens": FIRST_SEGMENT}
        expected = model.eval().generate(start, **settings)[:, 1:].tolist()
    assert [row[:FIRST_SEGMENT] for row in ids] == [row[: row.index(2) + 1] if 2 in row else row for row in expected]
    assert max(map(len, ids)) == MAX_TOKENS
