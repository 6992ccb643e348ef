"""What the examples of docstrings find: `torch`, and fences of Markdown that end what an example prints."""

import doctest
import re

import pytest
import torch


FENCE = re.compile(r"^[ ]*```\w*$", re.MULTILINE)


class FencedExampleParser(doctest.DocTestParser):
    """Reads an example up to the fence that closes it, where the standard library expects a blank line."""

    def parse(self, string: str, name: str = "<string>") -> "list[str | doctest.Example]":
        """Split a docstring into text and examples."""
        return super().parse(FENCE.sub("", string), name)


# pytest makes its own finder, which takes the parser that stands among the defaults of the standard library's.
doctest.DocTestFinder.__init__.__defaults__ = tuple(
    FencedExampleParser() if isinstance(default, doctest.DocTestParser) else default
    for default in doctest.DocTestFinder.__init__.__defaults__
)


@pytest.fixture(autouse=True)
def _names_of_examples(doctest_namespace: "dict[str, object]") -> None:
    doctest_namespace["torch"] = torch
