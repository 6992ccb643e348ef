import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import WatermarkingConfig

from hf_mgan import Discriminator
from hf_mgan.decoding import DecodingConfig, guided_sample
from hf_mgan.decoding.sampling import encode_prompts, sample
from hf_mgan.metrics.likelihood import sequence_logps

from ..conftest import VOCABULARY, causal_classifier, causal_generator, generators_tokenizer, texts


END = VOCABULARY["</s>"]
NAMES = list(VOCABULARY)
PROMPTS = ["<s>", "<s> dog", "<s> the old king", "<s> two", "<s> a cat sees the", "<s> bird"]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] == 'user' and 'one' or 'two' }} {{ message['content'] }} "
    "{% endfor %}{% if add_generation_prompt %}three{% endif %}"
)


def test_sample_is_padding_invariant(generator, tokenizer):
    """At a temperature of 1e-4 the likeliest token is drawn for certain, so chance has no part."""
    together = sample(generator, tokenizer, PROMPTS, 12, temperature=1e-4, batch_size=6)
    alone = [sample(generator, tokenizer, [prompt], 12, temperature=1e-4) for prompt in PROMPTS]
    assert together.completion_ids == [one.completion_ids[0] for one in alone]
    assert together.texts == [one.texts[0] for one in alone]
    assert together.prompt_ids == [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    assert len(set(together.texts)) > 3  # prompts decide


def test_sample_padding_keeps_the_distribution(generator, tokenizer):
    """Two prompts, one padded by three tokens: the frequencies of the next token are those of the model."""
    prompts = ["<s> dog", "<s> a cat sees the"] * 4000
    drawn = sample(generator, tokenizer, prompts, 1, batch_size=2000)
    for first in (0, 1):
        ids = torch.tensor(drawn.completion_ids[first::2]).squeeze(1)
        expected = next_token_probs(generator, tokenizer, prompts[first])
        assert distance(ids, expected) < 0.04


def next_token_probs(model, tokenizer, prompt, temperature=1.0):
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    with torch.no_grad():
        return (model.eval()(ids).logits[0, -1] / temperature).softmax(0)


def distance(ids, probs):
    """Return the total variation; that of 4000 fair draws among 26 tokens is about 0.03."""
    return 0.5 * (ids.bincount(minlength=len(probs)) / len(ids) - probs).abs().sum().item()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_sample_temperature_divides_the_logits(generator, tokenizer, temperature):
    drawn = sample(generator, tokenizer, ["<s> dog"] * 4000, 1, temperature, batch_size=4000)
    ids = torch.tensor(drawn.completion_ids).squeeze(1)
    assert distance(ids, next_token_probs(generator, tokenizer, "<s> dog", temperature)) < 0.04
    for other in {0.5, 1.0, 3.0} - {temperature}:
        assert distance(ids, next_token_probs(generator, tokenizer, "<s> dog", other)) > 0.08


def test_sample_completions_follow_the_models_distribution(generator, tokenizer):
    """The mean of 1 / q over completions of two tokens counts those there are: 26 * 25 + 1, as an end ends.

    It holds where completions are drawn from q and from nothing else.
    """
    drawn = sample(generator.eval(), tokenizer, ["<s>"] * 4000, 2, temperature=4.0, batch_size=4000)
    weights = (-sequence_logps(generator, drawn.prompt_ids, drawn.completion_ids, temperature=4.0).double()).exp()
    error = weights.std().item() / 4000**0.5
    assert error < 20
    assert weights.mean().item() == pytest.approx(26 * 25 + 1, abs=3 * error)


NARROWING = {
    "do_sample": False,
    "num_beams": 3,
    "temperature": 0.1,
    "top_k": 1,
    "top_p": 0.1,
    "top_h": 0.1,
    "min_p": 0.9,
    "typical_p": 0.1,
    "epsilon_cutoff": 0.3,
    "eta_cutoff": 0.3,
    "repetition_penalty": 5.0,
    "encoder_repetition_penalty": 5.0,
    "no_repeat_ngram_size": 1,
    "encoder_no_repeat_ngram_size": 1,
    "min_new_tokens": 8,
    "min_length": 12,
    "max_length": 3,
    "max_new_tokens": 2,
    "bad_words_ids": [[id] for id in range(6, 24)],
    "suppress_tokens": list(range(6, 24)),
    "begin_suppress_tokens": list(range(6, 24)),
    "sequence_bias": [[[8], 10.0]],
    "guidance_scale": 3.0,
    "forced_bos_token_id": 5,
    "forced_eos_token_id": END,
    "exponential_decay_length_penalty": (1, 5.0),
    "watermarking_config": WatermarkingConfig(bias=20.0),
    "num_return_sequences": 2,
    "return_dict_in_generate": True,
    "max_time": 1e-6,
    "stop_strings": ["dog"],
    "renormalize_logits": True,
    "use_cache": False,
}


@pytest.mark.parametrize("name", NARROWING)
def test_sample_ignores_the_generation_config(generator, tokenizer, name):
    prompts = ["<s> dog near a dog", "<s>"] * 8
    plain = sample(generator, tokenizer, prompts, 8, temperature=1.5, batch_size=8)
    generator.generation_config.do_sample = True  # or several sequences would be refused
    setattr(generator.generation_config, name, NARROWING[name])
    assert sample(generator, tokenizer, prompts, 8, temperature=1.5, batch_size=8) == plain
    assert getattr(generator.generation_config, name) == NARROWING[name]  # and stays as it is


def test_sample_ends_with_the_first_end_token(generator, tokenizer):
    """At temperature 8 all 26 tokens are about as likely: of 200 completions of 20 tokens half end by themselves."""
    drawn = sample(generator, tokenizer, ["<s>"] * 200, 20, temperature=8.0)
    ended = [ids for ids in drawn.completion_ids if END in ids]
    assert 50 < len(ended) < 170
    assert all(ids.index(END) == len(ids) - 1 for ids in ended)
    assert all(len(ids) == 20 for ids in drawn.completion_ids if END not in ids)
    for text, ids in zip(drawn.texts, drawn.completion_ids, strict=True):
        assert text == " ".join(NAMES[id] for id in ids if NAMES[id][0] != "<")  # the special ones of this tokenizer


def test_sample_ends_at_every_end_token(generator, tokenizer):
    ends = {VOCABULARY["."], VOCABULARY["dog"], END}
    generator.generation_config.eos_token_id = [VOCABULARY["."], VOCABULARY["dog"]]
    drawn = sample(generator, tokenizer, ["<s>"] * 200, 20, temperature=8.0)
    assert {ids[-1] for ids in drawn.completion_ids if len(ids) < 20} == ends
    assert not any(ends & set(ids[:-1]) for ids in drawn.completion_ids)
    generator.generation_config.eos_token_id = VOCABULARY["."]
    tokenizer.eos_token = None
    drawn = sample(generator, tokenizer, ["<s>"] * 200, 20, temperature=8.0)
    assert {ids[-1] for ids in drawn.completion_ids if len(ids) < 20} == {VOCABULARY["."]}


def test_sample_without_an_end_token_writes_to_the_limit(generator, tokenizer):
    generator.generation_config.eos_token_id = tokenizer.eos_token = None
    drawn = sample(generator, tokenizer, PROMPTS, 20, temperature=8.0)
    assert [len(ids) for ids in drawn.completion_ids] == [20] * len(PROMPTS)


def test_sample_without_a_padding_token(generator, tokenizer):
    padded = sample(generator, tokenizer, PROMPTS, 12, temperature=1e-4)
    tokenizer.pad_token = None
    assert sample(generator, tokenizer, PROMPTS, 12, temperature=1e-4) == padded


def test_sample_depends_on_the_seed_alone(generator, tokenizer):
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = sample(generator, tokenizer, PROMPTS, 8, seed=1)
    assert torch.random.get_rng_state().equal(state)
    torch.rand(7)
    assert sample(generator, tokenizer, PROMPTS, 8, seed=1) == first
    assert sample(generator, tokenizer, PROMPTS, 8, seed=2) != first


def test_sample_of_equal_prompts_differs(generator, tokenizer):
    """In one batch, and in the next ones, which do not begin the random numbers anew."""
    drawn = sample(generator, tokenizer, ["<s>"] * 40, 8, batch_size=10)
    assert len(set(drawn.texts)) > 35


@pytest.mark.parametrize("training", [True, False])
def test_sample_without_dropout_restores_the_mode(generator, tokenizer, training):
    expected = sample(generator.eval(), tokenizer, PROMPTS, 8)
    assert generator.config.resid_pdrop > 0
    generator.train(training)
    assert sample(generator, tokenizer, PROMPTS, 8) == expected
    assert generator.training is training


def test_sample_restores_the_mode_after_an_error(generator, tokenizer):
    def interrupt(_):
        raise KeyboardInterrupt

    generator.train()
    with pytest.raises(KeyboardInterrupt):
        sample(generator, tokenizer, PROMPTS, 2, on_batch=interrupt)
    assert generator.training


def test_sample_of_a_peft_model(generator, tokenizer):
    before = sample(generator, tokenizer, PROMPTS, 8)
    model = get_peft_model(generator, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    assert sample(model, tokenizer, PROMPTS, 8) == before
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    assert sample(model, tokenizer, PROMPTS, 8) != before


def test_sample_calls_on_batch(generator, tokenizer):
    batches = []
    sample(generator, tokenizer, PROMPTS, 2, batch_size=4, on_batch=batches.append)
    assert batches == [4, 2]


def test_sample_keeps_the_order_of_prompts(generator, tokenizer):
    prompts = [f"<s> {text}" for text in texts(20, length=3)] + ["<s>"] + [f"<s> {text}" for text in texts(20)]
    drawn = sample(generator, tokenizer, prompts, 6, temperature=1e-4, batch_size=7)
    back = sample(generator, tokenizer, prompts[::-1], 6, temperature=1e-4, batch_size=7)
    assert drawn.texts == back.texts[::-1]
    assert drawn.prompt_ids == [tokenizer(prompt)["input_ids"] for prompt in prompts]


def test_sample_of_no_prompts(generator, tokenizer):
    assert sample(generator, tokenizer, [], 6) == ([], [], [])


def test_encode_prompts_applies_the_chat_template(generator, tokenizer):
    tokenizer.chat_template = TEMPLATE
    talk = [{"role": "user", "content": "the dog"}, {"role": "assistant", "content": "a cat"}]
    expected = tokenizer("one the dog two a cat three")["input_ids"]
    assert encode_prompts([talk, "<s> one"], tokenizer) == [expected, tokenizer("<s> one")["input_ids"]]
    drawn = sample(generator, tokenizer, [talk], 6, temperature=1e-4)
    assert drawn == sample(generator, tokenizer, ["one the dog two a cat three"], 6, temperature=1e-4)


def test_encode_prompts_keeps_tokens(generator, tokenizer):
    ids = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    assert encode_prompts([*ids, "<s> one"], tokenizer) == [*ids, tokenizer("<s> one")["input_ids"]]
    assert sample(generator, tokenizer, ids, 6) == sample(generator, tokenizer, PROMPTS, 6)


def test_sample_takes_prompts_as_tokens(generator, tokenizer):
    prompts = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    assert encode_prompts(prompts, tokenizer) == prompts
    assert sample(generator, tokenizer, prompts, 8) == sample(generator, tokenizer, PROMPTS, 8)


@pytest.mark.parametrize("empty", ["", []])
def test_encode_prompts_refuses_a_prompt_without_a_token(generator, tokenizer, empty):
    with pytest.raises(ValueError, match=r"Prompt 1 is .* and has no token"):
        sample(generator, tokenizer, ["<s>", empty], 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "temperature must be greater than 0 and finite, got 0.0"),
        ({"temperature": -1.0}, "temperature must be greater than 0 and finite, got -1.0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_sample_refuses_numbers_out_of_range(generator, tokenizer, changes, message):
    with pytest.raises(ValueError, match=message):
        sample(generator, tokenizer, PROMPTS, **{"max_new_tokens": 4, **changes})


@pytest.mark.parametrize("method", ["rejection", "token_rejection"])
def test_more_tokens_than_positions_are_refused(method):
    """64 positions, of which the longest prompt takes three: 61 tokens fit, 62 do not."""
    model, tokenizer = causal_generator(), generators_tokenizer()
    prompts = [[1], [1, 6, 8]]
    assert len(sample(model, tokenizer, prompts, 61).texts) == 2
    with pytest.raises(ValueError, match=r"is 62, and the generator has 64 positions, 3 of .* at most 61"):
        sample(model, tokenizer, prompts, 62)
    with pytest.raises(ValueError, match="shorten the prompts"):
        sample(model, tokenizer, [[1] * 64], 1)
    discriminator = Discriminator(causal_classifier(), generators_tokenizer(), prefixes=True)
    config = DecodingConfig(method=method, max_new_tokens=62)
    with pytest.raises(ValueError, match="64 positions"), warnings.catch_warnings(action="ignore"):
        guided_sample(model, tokenizer, discriminator, prompts, config)
