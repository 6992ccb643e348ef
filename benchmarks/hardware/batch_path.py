"""The way of a batch through the package, counted: files, calls between them, settings and lines.

    python -m benchmarks.hardware.batch_path
    python -m benchmarks.hardware.batch_path --root OTHER_CHECKOUT
    python -m benchmarks.hardware.batch_path --list

A tiny GPT-2 with LoRA is trained with a tiny BERT as its discriminator on texts, with default settings but for the
sizes and `discriminator_warmup_steps=0`. Counted is what `training_step` of the second step executes, generation and
both updates included: the files of `hf_mgan` that run, and the distinct calls from one of them straight into a
function of another. The package is that of `--root`, or else the one that Python finds. Only names that every version
has are used, so that versions can be compared.
"""

import argparse
import ast
import contextlib
import importlib
import io
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any

from datasets import Dataset, disable_progress_bars
from peft import LoraConfig
from transformers.utils import logging
from trl import GRPOConfig

from ..sweep.tables import table
from .tiny_models import DISCRIMINATORS, GENERATORS, save_model, texts


MODULE = "benchmarks.hardware.batch_path"
PACKAGE = "hf_mgan"
STEPS = 2  # the last one is counted


class CallRecorder:
    """Records what runs of a package.

    Args:
        package (`Path`): Folder of the package.

    Attributes:
        files (`set[str]`): Files that run, relative to the package.
        calls (`set[tuple[str, str]]`): From a file straight into a function of another one.
    """

    def __init__(self, package: Path) -> None:
        self.package = str(package)
        self.files: set[str] = set()
        self.calls: set[tuple[str, str]] = set()

    def _file(self, frame: FrameType | None) -> str | None:
        if (
            frame is None
            or frame.f_code.co_name == "<module>"
            or not frame.f_code.co_filename.startswith(self.package)
        ):
            return None
        return frame.f_code.co_filename.removeprefix(self.package).lstrip("/")

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Record a call; what `sys.setprofile` takes."""
        if event != "call" or (callee := self._file(frame)) is None:
            return
        self.files.add(callee)
        caller = self._file(frame.f_back)
        if caller is not None and caller != callee:
            self.calls.add((caller, f"{callee}: {frame.f_code.co_qualname}"))

    def recorded(self, function: Callable) -> Callable:
        """Return the function, which forgets what was recorded before each call and records it."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.files, self.calls = set(), set()
            sys.setprofile(self)
            try:
                return function(*args, **kwargs)
            finally:
                sys.setprofile(None)

        return wrapped


def record_step(hf_mgan: Any, folder: Path) -> CallRecorder:
    """Train and return what the last step ran."""
    trainer = hf_mgan.AdversarialTrainer(
        str(save_model(GENERATORS["GPT-2"], folder / "generator", None)),
        discriminator=str(save_model(DISCRIMINATORS["BERT"], folder / "discriminator", 1)),
        args=hf_mgan.AdversarialConfig(
            str(folder / "out"),
            discriminator_warmup_steps=0,
            max_steps=STEPS,
            max_completion_length=8,
            per_device_train_batch_size=8,
            num_generations=8,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"text": texts(16, 0)}),
        peft_config=LoraConfig(r=2, target_modules="all-linear"),
    )
    recorder = CallRecorder(Path(hf_mgan.__file__).parent)
    trainer.training_step = recorder.recorded(trainer.training_step)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()
    return recorder


def lines_in(folder: Path) -> int:
    """Return the lines of all Python files in a folder."""
    return sum(len(path.read_text().splitlines()) for path in folder.rglob("*.py"))


def constructor_lines(source: str, name: str) -> int:
    """Return the lines of the body of a class' `__init__`, without signature and docstring."""
    tree = ast.parse(source)
    (found,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    (init,) = [node for node in found.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    body = init.body[1:] if ast.get_docstring(init) else init.body
    assert init.end_lineno is not None
    return init.end_lineno - body[0].lineno + 1


def static_counts(hf_mgan: Any) -> dict[str, int]:
    """Return what can be counted without running anything."""
    package = Path(hf_mgan.__file__).parent
    trainer = (package / "trainer.py").read_text()
    upstream = {one.name for one in fields(GRPOConfig)}
    own = [one.name for one in fields(hf_mgan.AdversarialConfig) if one.init and one.name not in upstream]
    return {
        "settings that GRPOConfig lacks": len(own),
        "lines of the package": lines_in(package),
        "lines of the tests": lines_in(package.parent / "tests"),
        "lines of trainer.py": len(trainer.splitlines()),
        "lines of its constructor's body": constructor_lines(trainer, "AdversarialTrainer"),
    }


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="checkout whose package is counted")
    parser.add_argument("--list", action="store_true", help="name the files and calls")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    if arguments.root is not None:
        if not (arguments.root / PACKAGE).is_dir():
            raise FileNotFoundError(f"--root must be a checkout with a folder {PACKAGE}, got {arguments.root}.")
        sys.path.insert(0, str(arguments.root.resolve()))
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    hf_mgan = importlib.import_module(PACKAGE)
    with tempfile.TemporaryDirectory() as folder:
        recorder = record_step(hf_mgan, Path(folder))
    counts = {
        "files that a training step runs": len(recorder.files),
        "calls between them": len(recorder.calls),
        **static_counts(hf_mgan),
    }
    print(table(["count", ""], [[name, str(count)] for name, count in counts.items()]))
    if arguments.list:
        print("\n" + "\n".join(sorted(recorder.files)))
        print("\n" + "\n".join(f"{caller} -> {callee}" for caller, callee in sorted(recorder.calls)))


if __name__ == "__main__":
    main()
