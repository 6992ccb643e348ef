"""Every kind of tokenizer: prompt and completion are the text, and their tokens are those of the text."""

from dataclasses import replace

import pytest
from datasets import Dataset

from hf_mgan import prepare_dataset
from hf_mgan.data import RealTexts, TextPath, inspected, plain_text, start_of_sequence
from hf_mgan.data.prompts import encode_beginnings

from ..kinds_of_tokenizers import KINDS, SENTENCES, byt5


@pytest.fixture(params=list(KINDS))
def kind(request):
    return KINDS[request.param]()


# Of the words too, some of which no piece was made of.
TEXTS = [*SENTENCES, "unseen Wörter \u6c34\u706b \U0001f40d", "  leading spaces", "a"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 9])
def test_prompt_and_completion_are_the_text(kind, count):
    prepared = prepare_dataset(Dataset.from_dict({"text": TEXTS}), kind, prompt_tokens=(count, count))
    start = start_of_sequence(kind)
    path = TextPath(kind)
    for text, row in zip(TEXTS, prepared, strict=True):
        if kind is byt5() and text.startswith(" "):
            continue  # a tokenizer in Python drops white space behind a special token
        assert row["prompt"] + row["completion"] == start + text
        [whole] = encode_beginnings([start + text], kind)
        [prompt_ids], [ids] = path.encode_prompts([row["prompt"]]), path.encode([row["prompt"]], [row["completion"]])
        assert prompt_ids + ids == [*whole, kind.eos_token_id]
        assert path.decode([prompt_ids], [ids]) == [row["completion"]]
        assert len(prompt_ids) <= len(encode_beginnings([start], kind)[0]) + count


@pytest.mark.parametrize("window", [4, 7, 100])
def test_windows_make_up_the_text(kind, window):
    """Each is cut between two characters, and has at most as many tokens, but for those of a cut that was moved."""
    data = Dataset.from_dict({"text": TEXTS, "number": list(range(len(TEXTS)))})
    prepared = prepare_dataset(data, kind, max_text_tokens=window)
    start = start_of_sequence(kind)
    for number, text in enumerate(TEXTS):
        parts = [row["completion"] for row in prepared if row["number"] == number]
        assert "".join(parts) == text
        size = len(kind.encode(text, add_special_tokens=False))
        assert len(parts) >= 1
        assert len(parts) == 1 or size > window
        assert len(parts) <= -(-size // window)
    assert set(prepared["prompt"]) == {start}


def test_windows_have_prompts_of_their_own(kind):
    data = Dataset.from_dict({"text": [SENTENCES[0] * 4]})
    prepared = prepare_dataset(data, kind, prompt_tokens=(2, 2), max_text_tokens=12)
    assert len(prepared) > 2
    wholes = [row["prompt"].removeprefix(start_of_sequence(kind)) + row["completion"] for row in prepared]
    assert "".join(wholes) == SENTENCES[0] * 4
    assert sum(bool(row["prompt"].removeprefix(start_of_sequence(kind))) for row in prepared) > 1


def test_prompt_has_as_many_tokens_as_asked_for(kind):
    """Of English, where a token ends with a character, and in most places its tokens are those of the text."""
    data = Dataset.from_dict({"text": SENTENCES[:3]})
    start = len(TextPath(kind).encode_prompts([start_of_sequence(kind)])[0])
    counts = [
        len(ids) - start
        for count in range(1, 9)
        for ids in TextPath(kind).encode_prompts(list(prepare_dataset(data, kind, (count, count))["prompt"]))
    ]
    expected = [count for count in range(1, 9) for _ in range(3)]
    assert sum(one == other for one, other in zip(counts, expected, strict=True)) >= 0.7 * len(expected)


# A "generator" that writes real texts: the null test with equality in place of a trained discriminator, which could
# tell two sides of equal strings apart in nothing. (tests/test_null.py trains one.)
TALKS = [
    [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": text},
    ]
    for text in ("The dog.", "A king\nand a cat.", "\u72d7\u3002", "I do \U0001f680")
]
SHAPES = {
    "texts": {"text": SENTENCES},
    "beginnings of texts": {"text": SENTENCES},
    "completions with a space": {"prompt": ["What sees?", "Who runs,"] * 3, "completion": [" The dog.", " A cat"] * 3},
    "completions without": {"prompt": ["What sees?", "Who runs,"] * 3, "completion": ["The dog.", "A cat"] * 3},
    "prompts with a space": {"prompt": ["What sees? ", "Who runs, "] * 3, "completion": ["The dog.", "A cat"] * 3},
    "Chinese": {"prompt": ["\u72d7\u770b\u89c1"] * 3, "completion": ["\u4e00\u53ea\u5c0f\u732b\u3002"] * 3},
    "translation": {
        "translation": [{"en": "The dog.", "fr": "Tr\u00e8s bon"}, {"en": "A cat", "fr": "Caf\u00e9"}] * 3
    },
    "messages": {"messages": TALKS},
}
NEW_LINE = "\n"


def prepared_rows(kind, shape):
    rows = Dataset.from_dict(SHAPES[shape])
    tokens = (3, 3) if shape == "beginnings of texts" else (0, 0)
    return prepare_dataset(rows, kind, prompt_tokens=tokens)


def written(kind, path, prompt, reference, space, end):
    """The tokens of a generator that writes a reference, with a space of its own before it if `space` says so."""
    if isinstance(prompt, str):
        text = plain_text(reference)
        text = f" {text.lstrip()}" if space else text
        before, whole = encode_beginnings([prompt, prompt + text], kind)
        ids = whole[len(before) :] if whole[: len(before)] == before else kind.encode(text, add_special_tokens=False)
        return [*ids, end]
    before = kind.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
    whole = kind.apply_chat_template([*prompt, *reference], return_dict=True)["input_ids"][len(before) :]
    return whole[: next(place for place, token in enumerate(whole) if token in path.ends) + 1]


def sides(kind, shape, space=False, end=None, limit=64, change=lambda reals: None):
    rows = prepared_rows(kind, shape)
    ends = [] if end is None else [end]
    reals = RealTexts(rows, None, True, inspected(TextPath(kind, limit, ends), rows), seed=0)
    prompts, references = list(rows["prompt"]), list(rows["completion"])
    ids = [
        written(kind, reals.path, prompt, reference, space, kind.eos_token_id if end is None else end)[:limit]
        for prompt, reference in zip(prompts, references, strict=True)
    ]
    texts = kind.batch_decode(ids, skip_special_tokens=True)  # as TRL does
    completions = [
        text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    real = reals.draw(prompts, references)
    change(reals)
    return reals.generated(prompts, completions, ids), (real.prompts, real.texts)


def takes(kind, shape):
    return shape != "messages" or kind.chat_template is not None


@pytest.mark.parametrize("limit", [64, 5])
@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.filterwarnings("ignore:.*references of train_dataset")
@pytest.mark.filterwarnings("ignore:.*completions of train_dataset follow")
@pytest.mark.filterwarnings("ignore:.*prompts of train_dataset end in a space")
def test_null_sides_are_equal(kind, shape, limit):
    if not takes(kind, shape):
        pytest.skip("no chat template")
    generated, real = sides(kind, shape, limit=limit)
    assert generated == real
    assert "\ufffd" not in "".join(generated[1])
    if limit == 64:
        references = [plain_text(reference) for reference in prepared_rows(kind, shape)["completion"]]
        assert real[1] == references


@pytest.mark.parametrize("shape", ["completions without", "completions with a space", "prompts with a space"])
@pytest.mark.filterwarnings("ignore:.*completions of train_dataset follow")
@pytest.mark.filterwarnings("ignore:.*prompts of train_dataset end in a space")
def test_null_generator_with_a_space_of_its_own(kind, shape):
    generated, real = sides(kind, shape, space=True)
    assert generated == real

    def without_boundary(reals):
        reals.path = replace(reals.path, boundary=None)

    if shape == "completions without":
        assert sides(kind, shape, space=True, change=without_boundary)[0] != real


@pytest.mark.parametrize("shape", ["texts", "completions with a space"])
def test_null_generator_that_ends_at_a_new_line(kind, shape):
    """A plain token as an end: texts end before it, and real ones that have one end there too."""
    end = kind.encode("a\n", add_special_tokens=False)[-1]
    if kind.decode([end]) != NEW_LINE:
        pytest.skip("the new line is no token")
    generated, real = sides(kind, shape, end=end)
    assert [text.partition(NEW_LINE)[0] for text in generated[1]] == real[1]
    assert not any(NEW_LINE in text for text in real[1])

    def without_ends(reals):
        reals.path = replace(reals.path, end_ids=())

    changed = sides(kind, shape, end=end, change=without_ends)
    assert changed[0] != real


def test_null_step_on_one_side_alone_shows(kind):
    def cut(reals):
        reals.path = replace(reals.path, boundary="#")

    generated, real = sides(kind, "beginnings of texts", change=cut)
    assert generated != real


def test_decoding_without_the_prompt_would_lose_spaces():
    """SentencePiece drops the space that a text begins with, and byte-level tokenizers keep it."""
    path, tokenizer = TextPath(KINDS["llama"]()), KINDS["llama"]()
    [prompt], [ids] = path.encode_prompts(["The dog"]), path.encode(["The dog"], [" sees"])
    assert path.decode([prompt], [ids]) == [" sees"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "sees"
