"""The saved generators of the tests of evaluation, for the command that evaluates them."""

from ..evaluation.conftest import folders as folders
