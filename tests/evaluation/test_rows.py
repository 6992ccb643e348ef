"""Rows as people have them: left out and counted, or refused by their place, before anything is loaded."""

import warnings

import pytest
from datasets import Dataset, IterableDataset

from hf_mgan import GeneratorEvaluator
from hf_mgan.evaluation import evaluate_generator
from hf_mgan.evaluation import evaluated_model as model_module
from hf_mgan.evaluation.rows import check_real, first_with_text, places_with_text, prepared_rows

from ..conftest import texts
from .conftest import new_tokenizer
from .test_run import few, nothing_is_drawn  # noqa: F401  # a fixture


TEXTS = texts(40, seed=1)
CHATS = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": text}] for text in TEXTS]
BLANK = ["", " \n", None]
# What stands in row 7, in place of the column's value.
NO_ROWS = {
    "number": ("text", 3),
    "list": ("text", ["a dog"]),
    "reference None": ("completion", None),
    "reference number": ("completion", 3),
    "reference empty": ("completion", ""),
    "reference white space": ("completion", " \n"),
    "answer empty": ("messages", [CHATS[0][0], {"role": "assistant", "content": ""}]),
    "conversation without an answer": ("messages", CHATS[0][:1]),
}


def rows(column, place=None, value=None):
    """Return 40 rows, one of which has another value."""
    values = {"text": TEXTS, "completion": TEXTS, "messages": CHATS}[column]
    found = [value if at == place else one for at, one in enumerate(values)]
    if not isinstance(value, (str, list, type(None))) or (column == "text" and isinstance(value, list)):
        # A column has one type: all of them are of the odd one's, which is met first in row 0.
        found = [value] * len(values)
    return Dataset.from_dict({column: found, **({"prompt": ["<s>"] * len(found)} if column == "completion" else {})})


def with_blanks(count=3):
    """Return rows of text, the first of which are empty."""
    return Dataset.from_dict({"text": [*BLANK[:count], *TEXTS]})


@pytest.fixture
def no_generator(monkeypatch):
    def loaded(*_, **__):
        raise AssertionError("the generator was loaded first")

    monkeypatch.setattr(model_module, "load_generator", loaded)


@pytest.mark.parametrize(("column", "value"), NO_ROWS.values(), ids=NO_ROWS)
@pytest.mark.parametrize("side", ["held_out", "training"])
def test_evaluate_names_a_row_that_is_none(folders, tmp_path, no_generator, side, column, value):
    given = {"held_out": rows("text"), "training": None, side: rows(column, 7, value)}
    # Of the training texts all are looked at, in a random order.
    config = few(tmp_path / "out", num_samples=20)
    with pytest.raises((ValueError, TypeError), match=rf"Row \d+ of {side} "):
        evaluate_generator(folders["start"], **given, config=config)


def test_evaluate_leaves_empty_texts_out_and_says_so(folders, tmp_path):
    config = few(tmp_path / "blank", num_samples=20)
    with pytest.warns(UserWarning, match="3 of 43 rows of held_out have an empty text and are left out"):
        report = evaluate_generator(folders["start"], with_blanks(), config, training=with_blanks(2))
    assert report.settings["samples_each"] == 20
    clean = Dataset.from_dict({"text": TEXTS})
    same = evaluate_generator(folders["start"], clean, few(tmp_path / "clean", num_samples=20), training=clean)
    assert report.parts["real"]["texts"] == same.parts["real"]["texts"]
    assert {name: part["metrics"] for name, part in report.parts.items()} == {
        name: part["metrics"] for name, part in same.parts.items()
    }


def test_evaluate_says_that_there_are_fewer_samples(folders, tmp_path):
    with pytest.warns(UserWarning, match=r"num_samples=30 .* there are 40: 20 samples are drawn"):
        report = evaluate_generator(folders["start"], rows("text"), few(tmp_path, num_samples=30))
    assert report.settings["samples_each"] == 20
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        evaluate_generator(folders["start"], rows("text"), few(tmp_path / "enough", num_samples=20))


@pytest.mark.parametrize(
    ("held_out", "training", "message"),
    [
        ([], None, "^held_out has no rows"),
        (TEXTS[:1], None, "two halves, .* got 1. Give at least 6"),
        ([*TEXTS[:5], "", " "], None, "two halves, .* got 5. Give at least 6"),
        (["", " ", None], None, "^All 3 rows of held_out have an empty text"),
        (TEXTS, [], "^training has no rows"),
        (TEXTS, ["", ""], "^All 2 rows of training have an empty text"),
    ],
)
def test_evaluate_refuses_too_few_rows(tmp_path, no_generator, held_out, training, message):
    held_out, training = (one if one is None else Dataset.from_dict({"text": one}) for one in (held_out, training))
    with pytest.raises(ValueError, match=message):
        evaluate_generator("start", held_out, few(tmp_path / "out"), training=training)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("side", ["held_out", "training"])
@pytest.mark.parametrize("given", [TEXTS, rows("text").to_iterable_dataset()], ids=["list", "streaming"])
def test_evaluate_refuses_what_is_no_dataset(tmp_path, side, given):
    said = rf"^{side} must be a Dataset(, or None)?, got .* Give one split, not streaming"
    with pytest.raises(TypeError, match=said):
        evaluate_generator("start", **{"held_out": rows("text"), side: given}, config=few(tmp_path / "out"))


def prepared(make_trainer, make_config, held_out, **changes):
    evaluator = GeneratorEvaluator(held_out, num_samples=20, **changes)
    make_trainer(
        make_config(eval_strategy="steps", per_device_eval_batch_size=4),
        evaluator=evaluator,
        eval_dataset=Dataset.from_dict({"text": texts(4)}),
    )
    return evaluator._held_out_texts


@pytest.mark.parametrize("streaming", [False, True])
def test_evaluator_leaves_empty_texts_out_and_says_so(make_trainer, make_config, streaming):
    given, clean = with_blanks(), Dataset.from_dict({"text": TEXTS})
    if streaming:
        given, clean = given.to_iterable_dataset(), clean.to_iterable_dataset()
    with pytest.warns(UserWarning, match=r"3 of \d+ rows of held_out have an empty text and are left out"):
        found = prepared(make_trainer, make_config, given)
    assert found.real == prepared(make_trainer, make_config, clean).real


@pytest.mark.parametrize("streaming", [False, True])
def test_evaluator_counts_rows_with_a_text(make_trainer, make_config, streaming):
    given = Dataset.from_dict({"text": [*TEXTS[:19], *BLANK]})
    with pytest.warns(UserWarning, match="left out"), pytest.raises(ValueError, match=r"20 samples .* there are 19"):
        prepared(make_trainer, make_config, given.to_iterable_dataset() if streaming else given)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("column", "value"), NO_ROWS.values(), ids=NO_ROWS)
def test_evaluator_names_a_held_out_row_that_is_none(make_trainer, make_config, column, value, streaming):
    given = rows(column, 7, value)
    given = given.select(range(20))
    with pytest.raises((ValueError, TypeError), match=r"Row \d+ of held_out "):
        prepared(make_trainer, make_config, given.to_iterable_dataset() if streaming else given)


@pytest.mark.parametrize(("column", "value"), NO_ROWS.values(), ids=NO_ROWS)
def test_evaluator_names_a_training_row_that_is_none(make_trainer, make_config, column, value):
    with pytest.raises((ValueError, TypeError), match=r"Row \d+ of training "):
        prepared(make_trainer, make_config, rows("text"), training=rows(column, 7, value))


def test_places_are_those_of_the_data():
    """Rows 0 and 3 are empty; the second of those that are left is row 2, and that of a stream too."""
    data = Dataset.from_dict({"text": ["", "a dog", "a cat", " ", "a king"]})
    with pytest.warns(UserWarning, match="2 of 5 rows of data"):
        assert places_with_text(data, "data") == [1, 2, 4]
    with pytest.warns(UserWarning, match="1 of 3 rows of data"):
        kept, places = first_with_text(data.to_iterable_dataset(), 2, "data")
    assert (kept["text"], places) == (["a dog", "a cat"], [1, 2])
    assert first_with_text(IterableDataset.from_generator(lambda: iter(())), 2, "data")[1] == []


def test_error_names_the_place_in_the_data():
    chats = Dataset.from_dict({"messages": [*CHATS[:7], CHATS[0][:1], *CHATS[8:]]})
    with pytest.raises(ValueError, match=r"^Row 7 of data .*its roles are \['user'\]"):
        prepared_rows(chats.select([9, 7]), [9, 7], "data", new_tokenizer(), {})
    pairs = Dataset.from_dict({"prompt": ["<s>"] * 3, "completion": ["a dog", None, "a cat"]})
    with pytest.raises(ValueError, match=r"^Row 1 of data has None "):
        prepared_rows(pairs.select([2, 1]), [2, 1], "data", new_tokenizer(), {})


def test_real_text_of_which_the_cut_leaves_white_space():
    pairs = Dataset.from_dict({"prompt": ["<s>"] * 3, "completion": ["a dog", "a", "a cat"]})
    found = prepared_rows(pairs.select([2, 1]), [2, 1], "data", new_tokenizer(), {})
    check_real(["a", "b"], found, "data", 4)
    with pytest.raises(ValueError, match=r"^Row 1 of data has an empty real text, or one of which 4 tokens"):
        check_real(["a", "\n"], found, "data", 4)
