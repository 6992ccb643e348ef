"""The checks of settings: what each lets through, and what an error says.

The properties are tried on values of every type; the examples are the same in every run.
"""

import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mgan.checks import (
    COUNT,
    FLAG,
    INDEX,
    LABEL,
    PLACE,
    SEED,
    SHARE,
    TEXTS,
    WORDS,
    Choice,
    Dict,
    Instance,
    Items,
    Number,
    Steps,
    Template,
    Text,
    check_json,
    integer,
    optional,
)


FIXED = settings(derandomize=True, deadline=None, max_examples=100, database=None)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers()
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=5
)
CHECKS = {
    "count": COUNT,
    "share or none": optional(SHARE),
    "above": Number(above=0.5, below=2),
    "endless": Number(above=0, endless=True),
    "seed": SEED,
    "steps": Steps(),
    "flag": FLAG,
    "text": Text(),
    "label": LABEL,
    "place": PLACE,
    "choice": Choice(among=("a", "b")),
    "template": Template(fields=("source", "target"), needed="source"),
    "items": Items(each=SHARE, several="a list of shares", least=1),
    "rewards": Items(each=SHARE, several="a list of shares", single=True),
    "dict": Dict(keys={"a": COUNT}),
    "any dict": Dict(optional=True),
    "instance": Instance(of=(Path, str), what="a path", function=True),
    "texts": TEXTS,
    "words": WORDS,
}


def refusal(function, *args, **kwargs):
    """Return the message of one of the two errors of settings, None where there is none."""
    try:
        function(*args, **kwargs)
    except (TypeError, ValueError) as error:
        return str(error)


@FIXED
@given(value=ANYTHING, name=st.sampled_from(sorted(CHECKS)))
def test_a_value_passes_or_is_refused_by_name(value, name):
    """Nothing but the two errors comes out, and what passes once passes again as it is."""
    check = CHECKS[name]
    message = refusal(check, "my_setting", value)
    if message is not None:
        assert re.match(r"(\w+ in )?my_setting(\[\d+\])? must be |my_setting has the keys", message)
        return
    passed = check("my_setting", value)
    again = check("my_setting", passed)
    assert again == passed
    assert type(again) is type(passed)


@FIXED
@given(value=st.integers() | st.floats(), bounds=st.lists(st.integers(-3, 3), min_size=2, max_size=2))
def test_number_is_within_its_bounds(value, bounds):
    low, high = sorted(bounds)
    for check, expected in (
        (Number(least=low, most=high), low <= value <= high),
        (Number(above=low, below=high), low < value < high),
        (integer(low, high), isinstance(value, int) and low <= value <= high),
    ):
        assert (refusal(check, "it", value) is None) is expected


@FIXED
@given(value=st.text() | st.booleans() | st.none() | st.binary() | st.lists(st.integers()))
def test_what_is_no_number_is_none(value):
    for check in (COUNT, SHARE, Steps()):
        with pytest.raises(TypeError, match=r"^it must be an? (integer|number), at least"):
            check("it", value)


@FIXED
@given(value=ANYTHING.filter(lambda value: not isinstance(value, bool)))
def test_only_truth_values_are_flags(value):
    with pytest.raises(TypeError, match=r"^it must be True or False, got"):
        FLAG("it", value)


@pytest.mark.parametrize(
    ("check", "value", "expected"),
    [
        (COUNT, np.int64(3), 3),
        (SHARE, np.float32(0.5), 0.5),
        (SHARE, 1, 1),
        (SHARE, Fraction(1, 2), 0.5),
        (FLAG, np.bool_(True), True),
        (Text(), np.str_("a"), "a"),
        (optional(COUNT), None, None),
        (Number(above=0, endless=True), math.inf, math.inf),
        (Items(each=SHARE, several="shares"), (0, np.float64(0.5)), [0, 0.5]),
        (Items(each=SHARE, several="shares", single=True), 0.5, 0.5),
        (Dict(keys={"a": COUNT}), {"a": np.int64(1)}, {"a": 1}),
        (Steps(), 0.1, 0.1),
        (Steps(), 7.0, 7.0),
        (LABEL, 0, 0),
        (LABEL, "LABEL_1", "LABEL_1"),
        (PLACE, Path("folder"), Path("folder")),
        (Template(fields=("source", "target"), needed="source"), "{{{source!r:>3}}} =", "{{{source!r:>3}}} ="),
        (WORDS, [["a"], "b"], [["a"], "b"]),
    ],
)
def test_right_value_passes_as_pythons_own(check, value, expected):
    passed = check("it", value)
    assert passed == expected
    assert type(passed) is type(expected)


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (COUNT, 0, "it must be at least 1, got 0."),
        (COUNT, 20.0, "it must be an integer, at least 1, got 20.0. Give 20."),
        (COUNT, "8", "it must be an integer, at least 1, got '8' (str). Give it without quotation marks."),
        (COUNT, 2**70, "it must be at least 1 and less than 2**63, got 1180591620717411303424."),
        (INDEX, -(10**99), "it must be at least 0 and less than 2**63, got an integer of 329 bits."),
        (SEED, 2**32, "it must be at least 0 and at most 4294967295, got 4294967296."),
        (
            Number(least=0),
            "5e-5",
            "it must be a number, at least 0 and finite, got '5e-5' (str). Give it without quotation marks, in YAML "
            "as 5.0e-5 rather than 5e-5.",
        ),
        (Number(), math.nan, "it must be finite, got nan."),
        (Number(above=0, endless=True), -math.inf, "it must be greater than 0, got -inf."),
        (
            optional(SHARE),
            True,
            "it must be a number, at least 0 and at most 1, or None, got True (bool). In YAML, yes, no, on and off "
            "are such values too.",
        ),
        (FLAG, "no", "it must be True or False, got 'no' (str). Leave out its quotation marks."),
        (Steps(), 2.5, "it must be an integer, or a share below 1 of all steps, got 2.5."),
        (Text(), " ", "it must be a string that is not empty, got ' ' (str)."),
        (Choice(among=("a", "b")), "A", "it must be one of a, b, got 'A' (str)."),
        (Choice(among=("a", "b")), ["a"], "it must be one of a, b, got ['a'] (list)."),
        (Dict(keys={"a": COUNT}), {"b": 1}, "it has the keys b, which it does not take: a."),
        (Dict(keys={"a": COUNT}), {"a": 0}, "a in it must be at least 1, got 0."),
        (
            Dict(keys={"a": COUNT}),
            {3: 1},
            "it must be a dict (JSON on the command line) with keys among a, got {3: 1} (dict).",
        ),
        (Items(each=SHARE, several="shares"), [0, 2], "it[1] must be at least 0 and at most 1, got 2."),
        (Instance(of=(Path,), what="a Path", advice="Give one."), [], "it must be a Path, got list. Give one."),
        (TEXTS, "abc", "it must be a list of texts, got 'abc' (str)."),
        (TEXTS, ["a", None], "it must be a list of texts, and entry 1 is None."),
    ],
)
def test_error_says_what_is_allowed_and_what_was_given(check, value, message):
    with pytest.raises((TypeError, ValueError)) as raised:
        check("it", value)
    assert str(raised.value) == message


@pytest.mark.parametrize("text", ["{", "{'a': 1}", '{"a": }'])
def test_what_starts_as_json_has_to_be_some(text):
    with pytest.raises(ValueError, match=r"^it must be a dict as JSON, got"):
        check_json("it", text)
    for right in ('{"a": 1}', "no", None, {}):
        check_json("it", right)
