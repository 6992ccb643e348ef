"""What is too long: the prompt loses its beginning, then the completion is cut, special tokens stay."""

import warnings

import pytest
import torch
from transformers import ByT5Tokenizer, CanineTokenizer

from hf_mgan.discriminator.encoding import TextEncoder


def encode(tokenizer, max_length, prompts, completions):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TextEncoder(tokenizer, max_length).encode(prompts, completions)


def tokens(tokenizer, encoded, row):
    length = encoded["attention_mask"][row].sum()
    return " ".join(tokenizer.convert_ids_to_tokens(encoded["input_ids"][row][:length]))


@pytest.mark.parametrize(
    ("max_length", "expected"),
    [
        (9, "[CLS] the old dog sees [SEP] a cat [SEP]"),
        (8, "[CLS] old dog sees [SEP] a cat [SEP]"),
        (6, "[CLS] sees [SEP] a cat [SEP]"),
        (5, "[CLS] [SEP] a cat [SEP]"),
        (4, "[CLS] [SEP] a [SEP]"),
    ],
)
def test_pair_loses_prompt_start_then_completion_end(pair_tokenizer, max_length, expected):
    pair_tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    encoded = encode(pair_tokenizer, max_length, ["the old dog sees"], ["a cat"])
    assert tokens(pair_tokenizer, encoded, 0) == expected
    # The types of the tokens are cut at the same places: 1 from the first token after the middle [SEP].
    words = expected.split()
    first = words.index("[SEP]") + 1
    assert encoded["token_type_ids"][0].tolist() == [0] * first + [1] * (len(words) - first)


def test_pair_is_not_cut_longest_first(pair_tokenizer):
    """The order "longest first" would take from the completion here and leave the prompt whole."""
    encoded = encode(pair_tokenizer, 8, ["the dog"], ["sees a small old cat"])
    assert tokens(pair_tokenizer, encoded, 0) == "[CLS] [SEP] sees a small old cat [SEP]"


def test_completion_without_a_prompt_loses_its_end(pair_tokenizer):
    encoded = encode(pair_tokenizer, 4, ["", ""], ["sees a small cat", "runs"])
    assert tokens(pair_tokenizer, encoded, 0) == "[CLS] sees a [SEP]"
    assert tokens(pair_tokenizer, encoded, 1) == "[CLS] runs [SEP]"


def test_row_is_encoded_alike_in_any_batch(pair_tokenizer):
    prompts, completions = ["the dog", "", "near this old king"], ["runs", "a bird sees the small cat", "sleeps ."]
    together = encode(pair_tokenizer, 6, prompts, completions)
    assert together["input_ids"].shape == (3, 6)
    expected = ["[CLS] the dog [SEP] runs [SEP]", "[CLS] a bird sees the [SEP]", "[CLS] king [SEP] sleeps . [SEP]"]
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        assert tokens(pair_tokenizer, together, row) == expected[row]
        alone = encode(pair_tokenizer, 6, [prompt], [completion])
        for name, values in alone.items():
            assert torch.equal(values[0], together[name][row, : values.size(1)]), name


def test_single_text_loses_its_beginning(tokenizer):
    encoded = encode(tokenizer, 4, ["the old dog "], ["sees a cat"])
    assert tokens(tokenizer, encoded, 0) == "sees a cat </s>"
    encoded = encode(tokenizer, 3, ["the old dog "], ["sees a cat"])
    assert tokens(tokenizer, encoded, 0) == "a cat </s>"


@pytest.mark.parametrize("family", [CanineTokenizer, ByT5Tokenizer])
def test_slow_tokenizer_is_cut_alike(family):
    """Neither can say which token belongs to which text. The first is [CLS] A [SEP] B [SEP], the second A </s> B </s>,
    a token per character.
    """
    tokenizer = family()
    specials = tokenizer.num_special_tokens_to_add(pair=True)
    uncut = tokenizer(["f"], ["gh"])["input_ids"][0]
    assert len(uncut) == 3 + specials
    encoded = encode(tokenizer, len(uncut), ["abcdef", "xf"], ["gh", "gh"])
    assert encoded["input_ids"].tolist() == [uncut, uncut]


def test_texts_that_fit_are_tokenised_in_one_call(pair_tokenizer, monkeypatch):
    encoder = TextEncoder(pair_tokenizer, 16)
    calls = []
    inner = type(pair_tokenizer).__call__
    monkeypatch.setattr(
        type(pair_tokenizer), "__call__", lambda self, *args, **kwargs: calls.append(1) or inner(self, *args, **kwargs)
    )
    encoder.encode(["the dog"] * 8, ["runs"] * 8)
    assert len(calls) == 1


def test_cut_texts_are_warned_of_once(pair_tokenizer):
    encoder = TextEncoder(pair_tokenizer, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(["the dog"] * 4, ["runs"] * 4)
    with pytest.warns(UserWarning, match=r"1 of 4 texts \(25%\).*discriminator_max_length"):
        encoder.encode(["the dog"] * 4, ["runs", "sees a cat", "sleeps", "eats"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(["the dog"] * 2, ["sees a cat"] * 2)


def test_max_length_without_room_is_refused(pair_tokenizer):
    with pytest.raises(ValueError, match="discriminator_max_length is 3"):
        TextEncoder(pair_tokenizer, 3)
