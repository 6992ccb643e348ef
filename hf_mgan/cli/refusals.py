"""What the command says in one line: what was refused. What is a bug keeps its traceback.

A refusal is an error that was raised on purpose, by this package or a library below it: what was given, what is
allowed, what to do. So are the errors of files and of the network. All else is a bug, of this package or of the
user's functions, and its traceback says where.
"""

import dis
from pathlib import Path
from types import TracebackType

import accelerate
import datasets
import huggingface_hub
import peft
import transformers
import trl
from huggingface_hub.errors import HTTPError  # of the HTTP client that it has


OURS = Path(__file__).parents[1]
THEIRS = (accelerate, datasets, huggingface_hub, peft, transformers, trl)
FOLDERS = (OURS, *(Path(library.__file__ or "").parent for library in THEIRS))
REFUSALS = (ValueError, TypeError, ImportError, RuntimeError, FloatingPointError)
RAISE = dis.opmap["RAISE_VARARGS"]


def is_refusal(error: BaseException) -> bool:
    """Return whether an error says all in its message.

    Args:
        error (`BaseException`): As it was caught, with its traceback.

    Returns:
        `bool`: Whether its last frame is a `raise` statement of this package or of a library below it, or it comes
            from a file or the network.
    """
    if isinstance(error, (OSError, HTTPError)):
        return True
    frame = _last(error.__traceback__)
    if not isinstance(error, REFUSALS) or frame is None:
        return False
    code = frame.tb_frame.f_code
    is_raised = code.co_code[frame.tb_lasti] == RAISE
    return is_raised and any(Path(code.co_filename).is_relative_to(folder) for folder in FOLDERS)


def in_one_line(error: BaseException) -> str:
    """Return the message of an error without line breaks, or its name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _last(frame: TracebackType | None) -> TracebackType | None:
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame
