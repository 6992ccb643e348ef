import math

import pytest
import torch
from torch import nn

from hf_mgan.demo.exact_metrics import ExactMetrics, generate
from hf_mgan.demo.language import Language
from hf_mgan.demo.models import SPECIAL_TOKENS, make_tokenizer
from tests.conftest import GPT2Config, GPT2LMHeadModel


LANGUAGE = Language()
TOKENIZER = make_tokenizer(LANGUAGE.words, adds_ends=False)


class Truth(nn.Module):
    """A generator that is the language itself."""

    def __init__(self, language):
        super().__init__()
        self.language = language
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, attention_mask=None):
        states = torch.zeros(len(input_ids), dtype=torch.int64)
        offset = len(SPECIAL_TOKENS)
        logits = torch.full((*input_ids.shape, len(TOKENIZER)), -math.inf)
        for place in range(input_ids.size(1)):
            if place:
                words = (input_ids[:, place] - offset).clamp(min=0)
                over = (input_ids[:, place] < offset) | (states < 0)
                states = torch.where(over, -1, self.language.following[states.clamp(min=0), words])
            probs = self.language.probs[states.clamp(min=0)].float()
            logits[:, place, offset:] = probs[:, :-1].log()
            logits[:, place, TOKENIZER.eos_token_id] = probs[:, -1].log()
        return type("Output", (), {"logits": logits})

    def generate(self, input_ids, temperature, max_new_tokens, **_):
        ids = input_ids
        for _ in range(max_new_tokens):
            probs = (self(ids).logits[:, -1] / temperature).softmax(-1)
            done = (ids == TOKENIZER.eos_token_id).any(1)
            drawn = torch.multinomial(probs, 1)[:, 0]
            ids = torch.cat([ids, torch.where(done, TOKENIZER.pad_token_id, drawn)[:, None]], 1)
        return ids


@pytest.fixture(scope="module")
def measure():
    return ExactMetrics(LANGUAGE, TOKENIZER, LANGUAGE.sample(400, 1), seed=0)


def test_the_language_itself_has_no_divergence(measure):
    model = Truth(LANGUAGE).train()
    quality = measure(model)
    assert model.training  # as it was
    assert quality.divergence == pytest.approx(0, abs=1e-5)
    assert quality.grammatical == 1
    # Both are means over 400 sentences whose log-probability has a deviation of about 5 nats.
    assert quality.entropy == pytest.approx(LANGUAGE.entropy(), abs=1)
    assert quality.real_nll == pytest.approx(LANGUAGE.entropy(), abs=1)
    assert quality.forward_kl == pytest.approx(0, abs=1e-4)
    assert quality.reverse_kl == pytest.approx(0, abs=1e-4)
    assert quality.best_value == pytest.approx(-math.log(4), abs=1e-4)


def test_a_colder_language_is_grammatical_and_diverges(measure):
    cold = measure(Truth(LANGUAGE), temperature=0.5)
    assert cold.grammatical == 1
    assert cold.entropy < LANGUAGE.entropy() - 2
    assert cold.divergence > 0.1
    # What is rare in the language is rarer still in the cold one, which costs the language's own sentences most.
    assert cold.forward_kl > cold.reverse_kl > 1
    assert -math.log(4) + 2 * math.log(2) * 0.1 < cold.best_value < 0
    assert measure.best(Truth(LANGUAGE), (0.5, 1.0, 2.0))[0].temperature == 1.0


def test_noise_diverges_by_one_bit(measure):
    config = GPT2Config(vocab_size=len(TOKENIZER), n_embd=8, n_layer=1, n_head=1, n_positions=32)
    quality = measure(GPT2LMHeadModel(config))
    assert quality.divergence == pytest.approx(1, abs=1e-3)
    assert quality.best_value == pytest.approx(0, abs=2e-3)
    assert quality.forward_kl > 20
    assert quality.reverse_kl is None  # no sentence is grammatical
    assert quality.grammatical < 0.02


def test_generating_is_repeatable_and_leaves_the_random_numbers_alone():
    state = torch.get_rng_state()
    ids, words = generate(Truth(LANGUAGE), TOKENIZER, 600, 1.0, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert generate(Truth(LANGUAGE), TOKENIZER, 600, 1.0, seed=3)[0] == ids
    assert len(ids) == len(words) == 600
    assert all(
        row[-1] == TOKENIZER.eos_token_id and len(row) == len(text) + 1 for row, text in zip(ids, words, strict=True)
    )
    assert LANGUAGE.logps(words).isfinite().all()
