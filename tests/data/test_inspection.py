"""What a sample of the references says: what cannot be written, what is cut, how prompts and references meet."""

import warnings

import pytest
from datasets import Dataset, IterableDataset

from hf_mgan import prepare_dataset
from hf_mgan.data import TextPath, inspected
from hf_mgan.data.inspection import boundary_of

from ..kinds_of_tokenizers import gpt2


def rows(prompts, completions):
    return Dataset.from_dict({"prompt": prompts, "completion": completions})


def silently(path, data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return inspected(path, data)


def test_references_that_the_tokenizer_cannot_write_are_refused(tokenizer):
    data = rows(["<s>"] * 4, ["\u72d7\u770b\u89c1", "\u4e00\u53ea", "\u732b", "\u4f60\u597d"])
    with pytest.raises(ValueError, match=r"cannot write the references of train_dataset.*nothing is left of any"):
        inspected(TextPath(tokenizer), data)


def test_some_references_that_it_cannot_write_are_told(tokenizer):
    data = rows(["<s>"] * 5, ["the dog", "a cat", "this king", "\u72d7\u770b\u89c1 a", "one two"])
    with pytest.warns(UserWarning, match="of 1 of 5 it keeps less than half"):
        inspected(TextPath(tokenizer), data)
    few = rows(["<s>"] * 20, ["the dog"] * 19 + ["\u72d7\u770b\u89c1"])  # a twentieth is no reason to warn
    assert silently(TextPath(tokenizer), few).boundary == ""


def test_references_that_are_cut_are_counted(tokenizer):
    """ "a dog" has two tokens and an end, which may fall behind the limit."""
    data = rows(["<s>"] * 4, ["a dog", "a dog", "a dog", "a dog runs"])
    with pytest.warns(
        UserWarning, match=r"1 of 4 references .*\(25%\) .*max_completion_length=2 tokens, the longest 3"
    ):
        inspected(TextPath(tokenizer, 2), data)
    silently(TextPath(tokenizer, 3), data)


@pytest.mark.parametrize(
    ("prompts", "completions", "message"),
    [
        (["Who sees?"] * 3, ["The dog"] * 3, "3 of 3 completions of train_dataset follow their prompts without"),
        (["Who sees? "] * 3, ["The dog"] * 3, "3 of 3 prompts of train_dataset end in a space"),
        (["Who sees?"] * 3, [" The dog"] * 3, None),
        (["Who sees?\n"] * 3, ["The dog"] * 3, None),
        (["\u72d7\u770b\u89c1\uff1f"] * 3, ["\u4e00\u53ea\u732b"] * 3, None),
        (["Who sees"] * 3, ["?"] * 3, None),
        ([""] * 3, ["The dog"] * 3, None),
    ],
)
def test_prompts_and_completions_that_meet_unlike_text_are_told(prompts, completions, message):
    data = rows(prompts, completions)
    if message is None:
        silently(TextPath(gpt2()), prepare_dataset(data, gpt2()))
    else:
        with pytest.warns(UserWarning, match=message):
            inspected(TextPath(gpt2()), data)


def test_boundary_is_that_of_nearly_all_texts():
    assert boundary_of([" a"] * 99 + ["a"]) == " "
    assert boundary_of([" a"] * 98 + ["a"] * 2) is None
    assert boundary_of(["a"] * 3 + ["", " "]) == ""  # texts of white space alone do not count
    assert boundary_of(["\n a", "\n b"]) == "\n "
    assert boundary_of([" "]) is None


def test_beginnings_of_texts_have_no_boundary():
    data = Dataset.from_dict({"text": ["The dog, the cat and a king.", "Birds sleep; trees do not."] * 3})
    prepared = prepare_dataset(data, gpt2(), (1, 8))
    assert silently(TextPath(gpt2()), prepared).boundary is None


def test_stream_is_inspected_in_its_first_rows():
    stream = IterableDataset.from_generator(lambda: ({"prompt": "Who?", "completion": " The dog"} for _ in range(5)))
    assert inspected(TextPath(gpt2()), stream).boundary == " "
    assert len(list(stream)) == 5


def test_rows_without_references_are_left_alone():
    assert inspected(TextPath(gpt2()), Dataset.from_dict({"prompt": ["Who?"]})).boundary is None
