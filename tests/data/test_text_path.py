import pytest

from hf_mgan.data import encode_completions


@pytest.mark.parametrize(("limit", "expected"), [(None, [6, 8, 2]), (3, [6, 8, 2]), (2, [6, 8])])
def test_completion_ids_end_unless_they_are_cut(tokenizer, limit, expected):
    """ "a dog" has the ids 6 and 8, the end token 2."""
    assert encode_completions(["a dog"], tokenizer, limit) == [expected]


def test_completion_ids_without_an_end_token(tokenizer):
    tokenizer.eos_token = None
    assert encode_completions(["a dog"], tokenizer, None) == [[6, 8]]
    assert encode_completions([], tokenizer, None) == []
