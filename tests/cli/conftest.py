"""The command line, and the saved generators of the tests of evaluation for the command that evaluates them."""

from pathlib import Path

import pytest

from ..evaluation.conftest import folders as folders


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark every test of this folder as `commands`, a part of CI by itself."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.commands)
