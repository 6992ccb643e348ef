"""What all tests share: cheap garbage collection, and what the examples of docstrings find.

Examples find `torch`, and fences of Markdown that end what an example prints.
"""

import doctest
import gc
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


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave out of garbage collection what is imported by now.

    accelerate collects garbage whenever a training begins, and looks at every object of every module each time: 0.3 s,
    more than a tiny training takes.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _names_of_examples(doctest_namespace: "dict[str, object]") -> None:
    doctest_namespace["torch"] = torch
