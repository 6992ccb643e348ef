"""What a text is counted in: words, or characters where a script is written without spaces between words.

In: plain texts. Out: the units of each, which n-grams, lengths and copies are made of. Training, its watchdog and
evaluation split texts here, real and generated ones by the same rule.
"""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, get_args

import regex


Unit: TypeAlias = Literal["auto", "word", "character"]

# Scripts without spaces between words: those of East Asia, those that UAX #14 breaks by a dictionary (class SA), and
# others of South-East Asia and Tibet. Korean has spaces.
SCRIPTS_WITHOUT_SPACES = (
    *("Han", "Hiragana", "Katakana", "Bopomofo", "Yi"),
    *("Thai", "Lao", "Khmer", "Myanmar", "Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet", "Ahom"),
    *("Tibetan", "Javanese", "Balinese"),
)
# To be used in a set of the package regex.
WITHOUT_SPACES = "".join(rf"\p{{Script={name}}}" for name in SCRIPTS_WITHOUT_SPACES)
# `\X` is a character as a reader sees it, with its marks. A zero-width space parts words of Thai and Khmer.
HAS_NO_SPACES = regex.compile(f"[{WITHOUT_SPACES}]")
_CHARACTER_OR_RUN = regex.compile(rf"(?=[{WITHOUT_SPACES}])\X|[^\u200b{WITHOUT_SPACES}]+")
_CHARACTER = regex.compile(r"\X")


def split_into_units(texts: Sequence[str], unit: Unit = "auto") -> list[list[str]]:
    """Split texts into what they are counted in.

    Args:
        texts (`Sequence[str]` of length N): Plain texts.
        unit (`str`, *optional*, defaults to `"auto"`): `"word"` splits at white space. `"character"` gives the
            characters as a reader sees them (extended grapheme clusters of Unicode), without white space. `"auto"`
            splits at white space, and within a word gives each character of a script that is written without spaces,
            such as Chinese, Japanese, Thai, Lao, Khmer, Burmese and Tibetan, on its own. What it does to a character
            depends on that character alone, so it is the same for real and for generated texts, and texts that mix
            scripts keep the words of the one and the characters of the other.

    Returns:
        `list[list[str]]` of length N: The units of each text, none where it is white space.

    Raises:
        TypeError: If a text is none.
        ValueError: If there is no such unit.

    Example:
        ```python
        >>> split_into_units(["a small dog", "我用iPhone手机", "ข้าว"])
        [['a', 'small', 'dog'], ['我', '用', 'iPhone', '手', '机'], ['ข้', 'า', 'ว']]

        ```
    """
    if unit not in SPLITTERS:
        raise ValueError(f"unit must be one of {list(SPLITTERS)}, got {unit!r}.")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"Text {index} is {text!r}, and a metric of texts takes strings: leave it out.")
    return list(map(SPLITTERS[unit], texts))


def _auto(text: str) -> list[str]:
    if text.isascii() or not HAS_NO_SPACES.search(text):
        return text.split()
    return [
        part
        for word in text.split()
        for part in (_CHARACTER_OR_RUN.findall(word) if HAS_NO_SPACES.search(word) else [word])
    ]


def _characters(text: str) -> list[str]:
    return _CHARACTER.findall("".join(text.split()))


SPLITTERS: dict[Unit, Callable[[str], list[str]]] = {"auto": _auto, "word": str.split, "character": _characters}
assert set(SPLITTERS) == set(get_args(Unit))
