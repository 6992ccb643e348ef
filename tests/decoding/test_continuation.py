"""Texts written in segments, from which rows leave, against `generate` alone; at 1e-4 nothing is left to chance."""

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from hf_mgan.decoding import continuation
from hf_mgan.decoding.continuation import complete, inverse_cdf, keeps_cache, read_prompts, until_end
from hf_mgan.decoding.sampling import PLAIN

from ..conftest import VOCABULARY, causal_generator


SETTINGS = {**PLAIN, "temperature": 1e-4, "pad_token_id": 0}
DOG, CAT, KING = (VOCABULARY[word] for word in ("dog", "cat", "king"))
PROMPTS = [[1, DOG, CAT], [1], [1, DOG, CAT], [1, KING, DOG, CAT, KING], [1], [1, DOG, CAT], [DOG], [KING, KING]]
SIZES = {
    "vocab_size": len(VOCABULARY),
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.5,
}
LAYERS = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES = {
    "gpt2": lambda: causal_generator(),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, **LAYERS, num_key_value_heads=1)),
    # A window of four tokens, shorter than what is written.
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, **LAYERS, num_key_value_heads=1, sliding_window=4)),
    # No positions but those of its attention's bias.
    "bloom": lambda: BloomForCausalLM(BloomConfig(**SIZES, hidden_size=16, n_layer=2, n_head=2)),
    # A state that is no cache of keys and values.
    "mamba": lambda: MambaForCausalLM(MambaConfig(**SIZES, hidden_size=16, num_hidden_layers=2, state_size=4)),
}


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    monkeypatch.setattr(continuation, "FIRST_SEGMENT", 2)


@pytest.fixture
def calls(monkeypatch):
    """Return how many rows and new tokens `generate` of GPT-2 was asked for, call after call."""
    asked = []
    generate = continuation.GenerationMixin.generate

    def watched(self, *args, **kwargs):
        asked.append((len(kwargs["input_ids"]), kwargs["max_new_tokens"]))
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(continuation.GenerationMixin, "generate", watched)
    return asked


def built(family):
    torch.manual_seed(0)
    return FAMILIES[family]().eval()


@torch.no_grad()
def drawn(model, prompts, length, ends=frozenset(), **changes):
    return complete(model, prompts, length, set(ends), {**SETTINGS, **changes})


@torch.no_grad()
def alone(model, prompt, length, ends=frozenset()):
    """Return the likeliest continuation by `generate` itself, of one prompt and without padding."""
    ids = torch.tensor([prompt])
    row = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=length,
        eos_token_id=sorted(ends) or None,
        **SETTINGS,
    )
    return row[0, len(prompt) :].tolist()


def ends_of(model, prompts, length):
    """Return end tokens at which some of the continuations stop early, at different places, and others do not."""
    free = [alone(model, prompt, length) for prompt in prompts]
    for token in range(len(VOCABULARY)):
        places = {row.index(token) if token in row else length for row in free}
        if len(places) > 2 and length in places:
            return {token, VOCABULARY["four"]}
    raise AssertionError("no token ends some of the texts")


@pytest.mark.parametrize("family", FAMILIES)
def test_complete_writes_what_generate_writes(family):
    """Prompts of several lengths, some of them equal; rows end at different places and leave."""
    model = built(family)
    ends = ends_of(model, PROMPTS, 14)
    found = drawn(model, PROMPTS, 14, ends)
    assert found == [alone(model, prompt, 14, ends) for prompt in PROMPTS]
    assert len({len(row) for row in found}) > 2
    assert all(not ends & set(row[:-1]) for row in found)
    assert keeps_cache(model) is (family != "mamba")


def test_complete_asks_for_rows_that_go_on(calls):
    """A batch costs what its texts cost: segments of 2, 2, 2, 3, ... tokens, of the rows that have not ended."""
    model = built("gpt2")
    ends = ends_of(model, PROMPTS, 14)
    calls.clear()
    lengths = [len(row) for row in drawn(model, PROMPTS, 14, ends)]
    segments, written = [], 0
    while (rows := sum(length > written or (length == written == 0) for length in lengths)) and written < 14:
        segments.append((rows, min(max(2, written // 2), 14 - written)))
        written += segments[-1][1]
    assert calls == segments
    assert calls[0] == (len(PROMPTS), 2)
    assert calls[-1][0] < len(PROMPTS)


def test_complete_stops_when_all_rows_have_ended(calls):
    model = built("gpt2")
    first = {alone(model, prompt, 1)[0] for prompt in PROMPTS}
    calls.clear()
    assert {len(row) for row in drawn(model, PROMPTS, 14, first)} == {1}
    assert calls == [(len(PROMPTS), 2)]


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_complete_without_an_end_writes_to_the_limit(length):
    model = built("llama")
    model.generation_config.eos_token_id = VOCABULARY["dog"]  # which `sample` passes on, and nobody else
    found = drawn(model, PROMPTS, length)
    assert [len(row) for row in found] == [length] * len(PROMPTS)
    assert found == [alone(model, prompt, length) for prompt in PROMPTS]


def test_complete_keeps_the_distribution_over_segments():
    """The third token of equal prompts, of which all that ended have left, is drawn from the model's distribution."""
    model = built("gpt2")
    count, end = 6000, VOCABULARY["."]
    rows = drawn(model, [[1, DOG]] * count, 3, {end}, temperature=2.0)
    found = torch.tensor([row[2] for row in rows if len(row) == 3]).bincount(minlength=len(VOCABULARY)) / count
    prefixes = [[1, DOG, first, second] for first in range(26) for second in range(26) if end not in (first, second)]
    with torch.no_grad():
        probs = (model(torch.tensor(prefixes)).logits / 2.0).softmax(2)
    of_prefix = [probs[row, 1, ids[2]] * probs[row, 2, ids[3]] for row, ids in enumerate(prefixes)]
    expected = (torch.stack(of_prefix)[:, None] * probs[:, 3]).sum(0)
    assert 0.5 * (found - expected).abs().sum().item() < 0.04  # 0.025 of fair draws
    assert 0.5 * (found - probs[0, 0]).abs().sum().item() > 0.1


def test_read_prompts_reads_equal_ones_once(monkeypatch):
    model = built("llama")
    read = []
    forward = model.model.forward
    monkeypatch.setattr(
        model.model, "forward", lambda *args, **kw: read.append(len(kw["input_ids"])) or forward(*args, **kw)
    )
    rows = torch.tensor([[0, 1, DOG], [1, KING, DOG], [0, 1, DOG], [0, 1, DOG]])
    cache = read_prompts(model, rows, (rows != 0).long())
    assert read == [2]
    assert cache.get_seq_length() == 2  # all but the last token
    keys = cache.layers[0].keys
    assert len(keys) == 4
    assert keys[0].equal(keys[2])
    assert keys[0].equal(keys[3])
    assert not keys[0].allclose(keys[1])


@pytest.mark.parametrize("rows", [[[1], [1]], [[1, DOG], [1, CAT]]])
def test_read_prompts_leaves_the_cache_empty(rows):
    """Where a prompt has one token, or none stands there twice, there is nothing to save."""
    rows = torch.tensor(rows)
    assert read_prompts(built("llama"), rows, torch.ones_like(rows)).get_seq_length() == 0


def test_complete_tells_padding_from_equal_tokens():
    """A prompt that begins with the padding token is not the shorter one that is padded."""
    model = built("gpt2")
    prompts = [[0, DOG, CAT], [DOG, CAT], [0, DOG, CAT], [DOG, CAT]]
    found = drawn(model, prompts, 6)
    assert found[0] == found[2] == alone(model, prompts[0], 6)
    assert found[1] == found[3] == alone(model, prompts[1], 6)
    assert found[0] != found[1]


ADAPTERS = {
    "lora": LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["c_attn"], fan_in_fan_out=True),
    "prompt": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "prefix": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_complete_with_adapters(name):
    """Models with virtual tokens before the prompt write all tokens at once. (Padding moves those away from it.)"""
    prompts = [[1, DOG], [1, CAT], [1, DOG]]
    before = drawn(built("gpt2"), prompts, 9)
    torch.manual_seed(1)
    model = get_peft_model(built("gpt2"), ADAPTERS[name]).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_()
    found = drawn(model, prompts, 9)
    assert found == [drawn(model, [prompt], 9)[0] for prompt in prompts]
    assert found != before
    assert keeps_cache(model) is (name == "lora")


@pytest.mark.parametrize("name", ["prompt", "prefix"])
def test_virtual_tokens_stand_before_every_token(name):
    """The likeliest token of a forward pass over all that stands before it, one after the other."""
    torch.manual_seed(1)
    model = get_peft_model(built("gpt2"), ADAPTERS[name]).eval()
    expected = [1, DOG]
    with torch.no_grad():
        for _ in range(9):
            ids = torch.tensor([expected])
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            expected.append(logits[0, -1].argmax().item())
    assert complete(model, [[1, DOG]], 9, set(), SETTINGS) == [expected[2:]]


def test_until_end_cuts_behind_the_first_end():
    assert until_end([5, 2, 0, 2], {2}) == [5, 2]
    assert until_end([2, 7], {2, 7}) == [2]
    assert until_end([5, 6], {2}) == [5, 6]
    assert until_end([5, 6], set()) == [5, 6]


def test_inverse_cdf_draws_by_probability():
    torch.manual_seed(0)
    probs = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    drawn = inverse_cdf(probs.repeat(40_000, 1) * 7)  # up to a factor
    assert drawn.shape == (40_000, 1)
    shares = torch.bincount(drawn[:, 0], minlength=6) / len(drawn)
    assert shares[probs == 0].sum() == 0
    assert torch.allclose(shares, probs, atol=4 * 0.0025)  # four standard errors


@pytest.fixture
def uniform(monkeypatch):
    """Return a function that says which number is drawn from now on."""

    def draw(value):
        monkeypatch.setattr(torch, "rand", lambda *size, **kwargs: torch.full(size, value, dtype=torch.float64))

    return draw


@pytest.mark.parametrize(("number", "index"), [(0.0, 1), (1.0, 3)])
def test_inverse_cdf_at_either_end_is_possible(uniform, number, index):
    uniform(number)
    assert inverse_cdf(torch.tensor([[0.0, 0.4, 0.2, 0.4, 0.0]])).item() == index


def test_inverse_cdf_tells_what_is_rare_apart(uniform):
    # Beside 1 single precision has steps of 6e-8, which six of these words share.
    probs = torch.cat([torch.tensor([1 - 1e-6]), torch.full((100,), 1e-8)])
    often, rare = probs[0].double(), probs[1].double()
    uniform(((often + 47.5 * rare) / probs.double().sum()).item())
    assert inverse_cdf(probs[None]).item() == 48


def test_complete_draws_one_number_per_token(monkeypatch):
    drawn = []

    def counting(probs):
        drawn.append(len(probs))
        return inverse_cdf(probs)

    monkeypatch.setattr(continuation, "inverse_cdf", counting)
    monkeypatch.setattr(continuation, "LARGE_VOCABULARY", 2)
    rows = complete(causal_generator().eval(), [[1]] * 4, 3, set(), {**SETTINGS, "temperature": 1.0})
    assert [len(row) for row in rows] == [3] * 4
    assert drawn == [4] * 3
