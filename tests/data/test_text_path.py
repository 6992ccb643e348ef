import pytest

from hf_mgan.data import TextPath, answer_text, as_prompts, plain_text


def test_as_completions_cuts_and_drops_special_tokens(tokenizer):
    # Unknown words become <unk>, which is a special token and drops out; three tokens are left of five.
    assert TextPath(tokenizer, 4).as_completions([""], ["the unknown dog sees a cat"]) == ["the dog sees"]


def test_as_prompts_of_a_bare_start_of_sequence(tokenizer):
    assert as_prompts(["<s>", "<s>the dog"], tokenizer) == ["", "the dog"]


def test_plain_text_of_messages():
    blocks = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    assert plain_text([{"role": "user", "content": blocks}]) == "a b"
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None}]
    assert plain_text(talk) == "user: hi\nassistant: "


def test_answer_text_is_what_the_assistant_says():
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "look", "arguments": {}}}]}
    found, answer = {"role": "tool", "content": "nothing"}, {"role": "assistant", "content": "not there"}
    assert answer_text([call, found, answer]) == "not there"
    assert answer_text([answer, found, answer]) == "not there\nnot there"
    assert answer_text([answer]) == answer_text("not there") == "not there"
    assert answer_text([{"role": "user", "content": "where"}]) == "where"
    assert answer_text([call, found]) == ""


@pytest.mark.parametrize(("limit", "expected"), [(None, [6, 8, 2]), (3, [6, 8, 2]), (2, [6, 8])])
def test_completion_ids_end_unless_they_are_cut(tokenizer, limit, expected):
    """ "a dog" has the ids 6 and 8, the end token 2."""
    assert TextPath(tokenizer, limit).encode([""], ["a dog"]) == [expected]


def test_completion_ids_without_an_end_token(tokenizer):
    tokenizer.eos_token = None
    assert TextPath(tokenizer).encode([""], ["a dog"]) == [[6, 8]]
    assert TextPath(tokenizer).encode([], []) == []
