"""Names and texts in Markdown, so that they come out as they were written.

In: what a user or a model has written. Out: Markdown that shows it character by character, within a paragraph, a
list, a heading or the cell of a table. What has a meaning of its own becomes a character reference or takes a
backslash, which CommonMark, GitHub and MyST read alike.
"""

import re


# By a reference: what ends a cell or a line, and what HTML begins with.
REFERENCES = {character: f"&#{ord(character)};" for character in "|\n\r\t\f\u2028\u2029"}
REFERENCES |= {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
MEANINGFUL = re.compile(
    r"[|\n\r\t\f\u2028\u2029&<>]"
    r"|[\\`*{}\[\]#~$]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # within a word it means nothing
    r"|^[-+=]|^\d+(?=[.)])|^ +| +$"  # lists, rules and indented code begin a line
)


def escaped(text: str) -> str:
    """Escape a text for one line of Markdown.

    Args:
        text (`str`): Anything.

    Returns:
        `str`: Markdown without a line break, whose rendered text is the one given.

    Example:
        ```python
        >>> print(escaped("a|b <script> my_model"))
        a&#124;b &lt;script&gt; my_model

        ```
    """
    return MEANINGFUL.sub(_escape, text)


def fenced(text: str, language: str = "") -> str:
    """Put a text into a block of code that it cannot end.

    Args:
        text (`str`): Anything.
        language (`str`, *optional*, defaults to `""`): Of the code.

    Returns:
        `str`: The block, with a fence longer than any row of backticks in the text.
    """
    fence = _backticks(text, 3)
    return f"{fence}{language}\n{text}\n{fence}"


def code(text: str) -> str:
    """Put a text into a span of code, or into a block where it has several lines; not for the cell of a table.

    Args:
        text (`str`): Anything but nothing.

    Returns:
        `str`: Markdown.
    """
    if len(text.splitlines()) > 1:
        return fenced(text)
    fence, space = _backticks(text, 1), " " if text[0] in "` " or text[-1] in "` " else ""
    return f"{fence}{space}{text}{space}{fence}"


def _backticks(text: str, least: int) -> str:
    """Return more backticks than stand in a row in the text."""
    return "`" * max(least, *(len(row) + 1 for row in re.findall("`+", text)), 1)


def _escape(match: re.Match[str]) -> str:
    found = match[0]
    if found[0].isdigit():
        return f"&#{ord(found[0])};{found[1:]}"
    if found[0] == " ":
        return "&#32;" * len(found)
    return REFERENCES.get(found) or f"\\{found}"
