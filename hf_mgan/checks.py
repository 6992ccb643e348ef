"""Checks of settings: the type and the range of each, said once, in the table of the settings that it belongs to.

In: the name of a setting and what was given. Out: the value, one of numpy's as Python's own, or an error that says
what was given, what is allowed and what to do: `TypeError` for a type, `ValueError` for a value. Nothing is guessed:
a string is no number, and True is none either.

Example:
    ```python
    >>> COUNT("batch_size", 8)
    8
    >>> COUNT("batch_size", "8")
    Traceback (most recent call last):
    ...
    TypeError: batch_size must be an integer, at least 1, got '8' (str). Give it without quotation marks.

    ```
"""

import json
import math
import os
import re
import string
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sized
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np


LARGEST = 2**63 - 1  # of the integers that torch knows

Checked = TypeVar("Checked", bound="Check")


@dataclass(frozen=True, kw_only=True)
class Check(ABC):
    """What a setting may be. Called with its name and a value, it returns the value or raises.

    Args:
        optional (`bool`, *optional*, defaults to `False`): Whether None is allowed.
        advice (`str`, *optional*): What to do instead, the last sentence of an error.
    """

    optional: bool = False
    advice: str = ""

    def __call__(self, name: str, value: Any) -> Any:
        """Return a value that is allowed, one of numpy's as Python's own.

        Args:
            name (`str`): Of the setting, as the user writes it.
            value: What was given.

        Raises:
            TypeError: If it is of another type.
            ValueError: If it is out of range.
        """
        if value is None and self.optional:
            return None
        return self._check(name, value.item() if isinstance(value, np.generic) else value)

    @abstractmethod
    def _check(self, name: str, value: Any) -> Any:
        """Return a value that is not None, checked."""

    def _refusal(self, name: str, allowed: str, value: Any, advice: str = "") -> str:
        allowed = f"{allowed}, or None" if self.optional else allowed
        return " ".join(filter(None, (f"{name} must be {allowed}, got {shown(value)}.", advice, self.advice)))


def shown(value: Any) -> str:
    """Return a value as an error shows it: in short, and with its type where that is not plain."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, float) or value is None or type(value) is int:
        return repr(value)
    text = repr(value) if isinstance(value, (str, bytes, bool, list, tuple, dict, complex)) else ""
    return f"{text[:100]} ({type(value).__name__})" if text else type(value).__name__


@dataclass(frozen=True, kw_only=True)
class Number(Check):
    """A number, as a rule a finite one.

    Args:
        least (`float`, *optional*): The least that is allowed.
        above (`float`, *optional*): All that is allowed is greater.
        most (`float`, *optional*): The most that is allowed.
        below (`float`, *optional*): All that is allowed is less.
        whole (`bool`, *optional*, defaults to `False`): Whether it is an integer.
        endless (`bool`, *optional*, defaults to `False`): Whether infinity is allowed.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    whole: bool = False
    endless: bool = False

    def _check(self, name: str, value: Any) -> int | float:
        kind = "an integer" if self.whole else "a number"
        if isinstance(value, bool) or not isinstance(value, Integral if self.whole else Real):
            raise TypeError(self._refusal(name, f"{kind}, {self._range()}", value, _number_advice(value, self.whole)))
        if isinstance(value, Integral) and self.whole and abs(int(value)) > LARGEST:
            raise ValueError(self._refusal(name, f"{self._range()} and less than 2**63", value))
        if not self._is_within(value):
            raise ValueError(self._refusal(name, self._range(), value))
        return int(value) if isinstance(value, Integral) else float(value)

    def _is_within(self, value: Any) -> bool:
        try:
            number = float(value)
        except OverflowError:
            return False
        if math.isnan(number) or (math.isinf(number) and not self.endless):
            return False
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def _range(self) -> str:
        bounds = [
            f"{words} {bound:g}" if abs(bound) < 1e6 else f"{words} {bound:.0f}"
            for words, bound in (
                ("at least", self.least),
                ("greater than", self.above),
                ("at most", self.most),
                ("less than", self.below),
            )
            if bound is not None
        ]
        if not (self.endless or self.whole or self.most is not None or self.below is not None):
            bounds.append("finite")
        return " and ".join(bounds or ["finite"])


@dataclass(frozen=True, kw_only=True)
class Steps(Check):
    """A number of steps, or a share of all of them: an integer, or a number below 1."""

    def _check(self, name: str, value: Any) -> int | float:
        number = NOT_NEGATIVE(name, value)
        if number > 1 and number != int(number):
            raise ValueError(self._refusal(name, "an integer, or a share below 1 of all steps", value))
        return number


def _number_advice(value: Any, whole: bool) -> str:
    if isinstance(value, str):
        try:
            int(value) if whole else float(value)
        except ValueError:
            return ""
        dotless = "e" in value.lower() and "." not in value
        return "Give it without quotation marks" + (", in YAML as 5.0e-5 rather than 5e-5." if dotless else ".")
    if isinstance(value, bool):
        return "In YAML, yes, no, on and off are such values too."
    return f"Give {int(value)}." if isinstance(value, float) and value.is_integer() else ""


@dataclass(frozen=True, kw_only=True)
class Flag(Check):
    """True or False; a string such as "no" would count as true."""

    def _check(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            advice = "Leave out its quotation marks." if isinstance(value, str) else ""
            raise TypeError(self._refusal(name, "True or False", value, advice))
        return value


@dataclass(frozen=True, kw_only=True)
class Text(Check):
    """A string with something in it.

    Args:
        what (`str`, *optional*): What it is, with an article, for errors.
        pattern (`str`, *optional*): What it matches as a whole.
        path (`bool`, *optional*, defaults to `False`): Whether a `Path` will do.
        index (`bool`, *optional*, defaults to `False`): Whether an integer of at least 0 will do.
    """

    what: str = "a string that is not empty"
    pattern: str = r"(?s).*\S.*"
    path: bool = False
    index: bool = False

    def _check(self, name: str, value: Any) -> Any:
        if self.index and isinstance(value, int) and not isinstance(value, bool):
            return INDEX(name, value)
        if not isinstance(value, (str, os.PathLike) if self.path else str):
            raise TypeError(self._refusal(name, self.what, value))
        if not re.fullmatch(self.pattern, str(value)):
            raise ValueError(self._refusal(name, self.what, value))
        return value


@dataclass(frozen=True, kw_only=True)
class Template(Check):
    """A format string, such as "{source} =".

    Args:
        fields (`Collection[str]`): The fields that it may have.
        needed (`str`): The one that it must have.
    """

    fields: Collection[str]
    needed: str

    def _check(self, name: str, value: Any) -> str:
        allowed = f"a string with the field {{{self.needed}}} and no others than {', '.join(self.fields)}"
        if not isinstance(value, str):
            raise TypeError(self._refusal(name, allowed, value))
        try:
            fields = {field for _, field, _, _ in string.Formatter().parse(value) if field is not None}
        except ValueError as error:
            raise ValueError(self._refusal(name, allowed, value, "Write braces of the text twice.")) from error
        if self.needed not in fields or not fields <= {*self.fields}:
            raise ValueError(self._refusal(name, allowed, value, "Write braces of the text twice."))
        return value


@dataclass(frozen=True, kw_only=True)
class Choice(Check):
    """One of a few strings.

    Args:
        among (`Collection[str]`): All of them.
    """

    among: Collection[str]

    def _check(self, name: str, value: Any) -> str:
        allowed = f"one of {', '.join(self.among)}"
        if not isinstance(value, str):
            raise TypeError(self._refusal(name, allowed, value))
        if value not in self.among:
            raise ValueError(self._refusal(name, allowed, value))
        return value


@dataclass(frozen=True, kw_only=True)
class Items(Check):
    """A list or a tuple, each entry of which is checked; it becomes a list.

    Args:
        each (`Check`): What the entries may be.
        several (`str`): What it is a list of, such as "a list of numbers", for errors.
        least (`int`, *optional*, defaults to 0): How many there have to be.
        single (`bool`, *optional*, defaults to `False`): Whether an entry alone will do in place of the list.
    """

    each: Check
    several: str
    least: int = 0
    single: bool = False

    def _check(self, name: str, value: Any) -> Any:
        if self.single and not isinstance(value, (list, tuple)):
            return self.each(name, value)
        if not isinstance(value, (list, tuple)):
            raise TypeError(self._refusal(name, self.several, value))
        if len(value) < self.least:
            raise ValueError(self._refusal(name, f"{self.several}, at least {self.least} of them", value))
        return [self.each(f"{name}[{place}]", one) for place, one in enumerate(value)]


@dataclass(frozen=True, kw_only=True)
class Dict(Check):
    """A dict with names as keys, in the settings of the command line as JSON.

    Args:
        keys (`Mapping[str, Check]`, *optional*): The keys that it takes, and what they may be; any by default.
    """

    keys: Mapping[str, Check] | None = None

    def _check(self, name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            known = "" if self.keys is None else f" with keys among {', '.join(self.keys)}"
            raise TypeError(self._refusal(name, f"a dict (JSON on the command line){known}", value))
        if self.keys is None:
            return dict(value)
        if unknown := [key for key in value if key not in self.keys]:
            raise ValueError(
                f"{name} has the keys {', '.join(unknown)}, which it does not take: {', '.join(self.keys)}."
            )
        return {key: self.keys[key](f"{key} in {name}", one) for key, one in value.items()}


@dataclass(frozen=True, kw_only=True)
class Instance(Check):
    """An object of some classes.

    Args:
        of (`tuple[type, ...]`): The classes.
        what (`str`): What they are, with an article, for errors.
        function (`bool`, *optional*, defaults to `False`): Whether a function will do.
    """

    of: tuple[type, ...]
    what: str
    function: bool = False

    def _check(self, name: str, value: Any) -> Any:
        if isinstance(value, self.of) or (self.function and callable(value)):
            if isinstance(value, str) and not value.strip():
                raise ValueError(self._refusal(name, self.what, value))
            return value
        allowed = f"{self.what}, or None" if self.optional else self.what
        raise TypeError(f"{name} must be {allowed}, got {type(value).__name__}. {self.advice}".rstrip())


@dataclass(frozen=True, kw_only=True)
class Texts(Check):
    """Texts in a list or what is like one; a single string would be a text per letter.

    Args:
        of (`type`, *optional*, defaults to `str`): What each of them is.
        what (`str`, *optional*, defaults to `"a list of texts"`): What they are, for errors.
    """

    of: type = str
    what: str = "a list of texts"

    def _check(self, name: str, value: Any) -> Any:
        is_list = isinstance(value, Iterable) and isinstance(value, Sized)
        if not is_list or isinstance(value, (str, bytes, Mapping)):
            raise TypeError(self._refusal(name, self.what, value))
        for place, one in enumerate(value):
            if not isinstance(one, self.of):
                raise TypeError(f"{name} must be {self.what}, and entry {place} is {shown(one)}.")
        return value


def integer(least: int | None = None, most: int | None = None, **others: Any) -> Number:
    """Return the check of an integer; `**others` are fields of [`Number`]."""
    return Number(least=least, most=most, whole=True, **others)


def optional(check: Checked) -> Checked:
    """Return the same check that allows None too."""
    return replace(check, optional=True)


def checked(checks: Mapping[str, Check], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that have a check, checked."""
    return {name: check(name, values[name]) for name, check in checks.items() if name in values}


def check_fields(settings: Any, checks: Mapping[str, Check], where: str = "") -> None:
    """Check fields of a dataclass, and put Python's own types in the place of numpy's.

    Args:
        settings: The dataclass, frozen or not.
        checks (`Mapping[str, Check]`): By the names of the fields.
        where (`str`, *optional*): What follows the name in an error, such as " in discriminator_regularization".
    """
    for name, check in checks.items():
        object.__setattr__(settings, name, check(f"{name}{where}", getattr(settings, name)))


def check_json(name: str, value: Any) -> None:
    """Check that what starts as JSON is some: that of the command line, which transformers reads.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(value, str) and value.startswith("{"):
        try:
            json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"{name} must be a dict as JSON, got {value!r}: {error}.") from error


COUNT, COUNT_OR_NONE = integer(1), integer(1, optional=True)
INDEX = integer(0)
SEED = integer(0, 2**32 - 1)  # those that numpy takes, as `set_seed` needs
FLAG = Flag()
TEXTS = Texts()
WORDS = Texts(of=Sized, what="a list of texts, each a list of its words")
NOT_NEGATIVE, POSITIVE = Number(least=0), Number(above=0)
SHARE = Number(least=0, most=1)
LEVEL = Number(above=0, below=1, advice="0.95 is common.")  # of an interval
LABEL = Text(what="a name or an index", index=True)
PLACE = Text(what="a Hub id or a folder", path=True)
