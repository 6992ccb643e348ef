"""Rows as people have them: what is none of its shape is told by its number, with the line that mends it."""

import warnings

import pytest
from datasets import Dataset, DatasetDict, IterableDataset, load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from hf_mgan import prepare_dataset

from ..kinds_of_tokenizers import gpt2, qwen


TOKENIZER = qwen()
USER, ANSWER = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "The dog."}
# What cannot stand for a text, but for what a corpus may have in its place: nothing.
NO_TEXTS = [3, 2.5, True, float("nan"), ["a", "b"], [], {"a": 1}, b"bytes", [["a"]]]
NO_CONVERSATIONS = [
    *NO_TEXTS,
    "plain",
    '[{"role": "user", "content": "Who?"}]',
    [USER],
    [ANSWER],
    [USER, {"role": "assistant", "content": ""}],
    [USER, {"role": "assistant", "content": None}],
    [USER, {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}],
    [USER, {"role": "assistant", "content": " \n"}],
    [USER, {"role": "assistant", "content": 3}],
    [USER, {"role": "assistant"}],
    [USER, {"content": "no role"}],
    [USER, "The dog."],
    [USER, ANSWER, USER],
    None,
]
NO_TRANSLATIONS = [
    *NO_TEXTS,
    "plain",
    None,
    {"en": "one"},
    {"en": None, "fr": "deux"},
    {"en": "one", "fr": None},
    {"en": "", "fr": "deux"},
    {"en": "one", "fr": " "},
    {"en": 1, "fr": "deux"},
    {},
]
GOOD = {
    "text": {"text": "The dog sees a cat."},
    "prompt": {"prompt": "The dog", "completion": " sees."},
    "chat": {"prompt": [USER], "completion": [ANSWER]},
    "messages": {"messages": [USER, ANSWER]},
    "translation": {"translation": {"en": "one", "fr": "un"}},
}
BAD = [
    *(("text", {"text": value}) for value in NO_TEXTS),
    *(("messages", {"messages": value}) for value in NO_CONVERSATIONS),
    *(("translation", {"translation": value}) for value in NO_TRANSLATIONS),
    *(("prompt", {"prompt": value, "completion": "x"}) for value in [*NO_TEXTS, None]),
    *(("prompt", {"prompt": "x", "completion": value}) for value in [*NO_TEXTS[:4], *NO_TEXTS[5:8], None, "", " \n"]),
    ("prompt", {"prompt": "x", "completion": ["", "b"]}),
    ("prompt", {"prompt": [USER], "completion": "plain"}),
    ("prompt", {"prompt": "plain", "completion": [ANSWER]}),
    *(
        ("chat", {"prompt": [USER], "completion": value})
        for value in ([], [{"role": "assistant", "content": ""}], None, 3)
    ),
    ("chat", {"prompt": [], "completion": [ANSWER]}),
]


def streamed(rows):
    return IterableDataset.from_generator(lambda: iter(rows))


def names(form, row):
    return f"{form} {list(row.values())!r}"[:70]


@pytest.mark.parametrize(("form", "row"), BAD, ids=[names(*case) for case in BAD])
def test_row_that_is_none_is_told_by_its_number(form, row):
    """A stream can hold rows of different types; of a map-style dataset Arrow refuses most before we see them."""
    prepared = prepare_dataset(streamed([GOOD[form], GOOD[form], row]), TOKENIZER)
    with pytest.raises(ValueError, match=r"^Row 2 (has|must be) .*\."):
        list(prepared)


@pytest.mark.parametrize(
    "columns",
    [
        {"text": [1, 2]},
        {"text": [["a"], ["b"]]},
        {"prompt": ["a", None], "completion": ["b", "c"]},
        {"prompt": ["a", "b"], "completion": ["b", None]},
        {"prompt": ["a", "b"], "completion": ["b", ""]},
        {"prompt": [1, 2], "completion": ["b", "c"]},
        {"translation": [{"en": "a", "fr": "b"}, {"en": None, "fr": "c"}]},
        {"translation": ["a", "b"]},
        {"messages": [[USER, ANSWER], [USER]]},
        {"messages": ["[]", "[]"]},
        {"messages": [[USER, ANSWER], []]},
    ],
    ids=str,
)
def test_row_of_a_map_style_dataset_is_told_at_once(columns):
    with pytest.raises(ValueError, match=r"^Row [01] (has|must be) .*\."):
        prepare_dataset(Dataset.from_dict(columns), TOKENIZER)


@pytest.mark.parametrize("empty", [None, "", " ", "\n\t ", "\u3000"])
def test_empty_text_of_a_corpus_is_left_out_and_told(empty):
    rows = [{"text": "one", "n": 0}, {"text": empty, "n": 1}, {"text": "two", "n": 2}]
    with pytest.warns(UserWarning, match="1 of 3 rows have an empty text and are left out"):
        prepared = prepare_dataset(Dataset.from_list(rows), TOKENIZER)
    assert prepared["n"][:] == [0, 2]
    with pytest.warns(UserWarning, match="Row 1 of the stream has an empty text"):
        assert [row["n"] for row in prepare_dataset(streamed(rows), TOKENIZER)] == [0, 2]


def test_draw_of_a_row_does_not_depend_on_rows_left_out():
    rows = [{"text": f"The dog sees cat number {n} near the old house."} for n in range(20)]
    whole = prepare_dataset(Dataset.from_list(rows), TOKENIZER, (0, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with_gap = prepare_dataset(Dataset.from_list([rows[0], {"text": ""}, *rows[2:]]), TOKENIZER, (0, 6))
    assert list(with_gap) == [whole[0], *list(whole)[2:]]


@pytest.mark.parametrize(
    "dataset", [Dataset.from_dict({"text": []}), Dataset.from_dict({"text": ["", None]})], ids=str
)
def test_dataset_without_any_text_is_refused(dataset):
    with pytest.raises(ValueError, match=r"no rows|All 2 rows of the dataset have an empty text"):
        prepare_dataset(dataset, TOKENIZER)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        (DatasetDict({"train": Dataset.from_dict({"text": ["a"]})}), r"dataset=dataset\['train'\]"),
        ([{"text": "a"}], r"Dataset\.from_list"),
        ("stories", "load_dataset"),
        ({"text": ["a"]}, r"Dataset\.from_dict"),
        (3, "must be a datasets.Dataset"),
    ],
)
def test_what_is_no_dataset_is_refused(given_, message):
    with pytest.raises(TypeError, match=message):
        prepare_dataset(given_, TOKENIZER)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"], "completion": ["b"]}, "text, completion, each of which could be the real text"),
        ({"text": ["a"], "messages": [[USER, ANSWER]]}, "text, messages, each of which"),
        ({"text": ["a"], "prompts": ["b"]}, "columns prompts, and reward functions"),
        ({"text": ["a"], "completions": ["b"]}, "columns completions, and reward functions"),
        ({"story": ["a"]}, "needs one of"),
    ],
)
def test_columns_that_cannot_stand_together_are_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        prepare_dataset(Dataset.from_dict(columns), TOKENIZER)


def test_empty_prompt_becomes_the_start_of_the_sequence():
    """GPT-2 would generate from padding alone."""
    data = Dataset.from_dict({"prompt": ["", "The dog", " "], "completion": ["a", " sees", "b"]})
    assert prepare_dataset(data, gpt2())["prompt"][:] == ["<|endoftext|>", "The dog", "<|endoftext|>"]


def test_several_references_become_rows_of_their_own():
    data = Dataset.from_dict({"prompt": ["x", "y"], "completion": [["a", "b"], ["c"]], "n": [0, 1]})
    prepared = prepare_dataset(data, TOKENIZER)
    assert list(prepared) == [
        {"n": 0, "prompt": "x", "completion": "a"},
        {"n": 0, "prompt": "x", "completion": "b"},
        {"n": 1, "prompt": "y", "completion": "c"},
    ]
    rows = [{"prompt": [USER], "completion": [[ANSWER], [ANSWER]]}]
    assert len(list(prepare_dataset(streamed(rows), TOKENIZER))) == 2


def test_conversations_of_sharegpt_are_read():
    talk = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "The dog."}]
    row = prepare_dataset(Dataset.from_dict({"conversations": [talk]}), TOKENIZER)[0]
    assert row == {"prompt": [USER], "completion": [ANSWER]}


def test_rows_of_one_shape_stay_the_same_dataset():
    data = Dataset.from_dict({"prompt": [[USER]] * 3, "completion": [[ANSWER]] * 3})
    assert prepare_dataset(data, TOKENIZER) is data


def test_rows_are_split_by_several_processes_alike(tmp_path):
    data = Dataset.from_list([{"text": f"The dog sees cat number {n} near the house."} for n in range(30)])
    alone, both = (list(prepare_dataset(data, TOKENIZER, (0, 5), num_proc=number)) for number in (None, 2))
    assert alone == both


def test_rows_are_prepared_once(tmp_path):
    """What comes of the same file and settings has the same fingerprint, whatever the tokenizer did in between."""
    (tmp_path / "rows.jsonl").write_text('{"text": "The dog sees a cat."}\n' * 3)
    data = load_dataset("json", data_files=str(tmp_path / "rows.jsonl"), split="train", cache_dir=str(tmp_path))
    qwen().save_pretrained(tmp_path / "tokenizer")
    one, other = (AutoTokenizer.from_pretrained(tmp_path / "tokenizer") for _ in range(2))
    one(["a b c"] * 2, truncation=True, max_length=2)
    made, again, others = (
        prepare_dataset(data, tokenizer, (0, most))._fingerprint
        for tokenizer, most in ((one, 4), (other, 4), (other, 5))
    )
    assert made == again
    assert made != others


@pytest.mark.parametrize("template", ["no field", "{source} {other}", "{source", "{0}", 3, None, ""])
def test_translation_template_that_cannot_be_filled_is_refused(template):
    data = Dataset.from_dict({"translation": [{"en": "one", "fr": "un"}]})
    with pytest.raises(
        (TypeError, ValueError), match=r"translation_template must be a string with the field {source}"
    ):
        prepare_dataset(data, TOKENIZER, translation_template=template)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "en", "fr"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def prepared_or_told(rows):
    """Return the prepared rows and no error, or none and the error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return list(prepare_dataset(streamed(rows), TOKENIZER)), ""
        except ValueError as error:
            return [], str(error)


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(form=st.sampled_from(list(GOOD)), value=VALUES, other=VALUES)
def test_any_row_is_prepared_or_told(form, value, other):
    """Whatever stands in a row: a pair of two texts, or of two conversations; or it is left out; or it is told."""
    row = dict.fromkeys(GOOD[form], value)
    if len(row) == 2:
        row["completion"] = other
    prepared, told = prepared_or_told([row])
    assert not told or told.startswith("Row 0 ")
    for made in prepared:
        assert type(made["prompt"]) is type(made["completion"])
        assert made["prompt"]
        assert made["completion"]
