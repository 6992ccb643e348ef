"""Damage each file of a checkpoint in turn: is it told, or passed over?

    python -m benchmarks.robustness.damaged_files                 # some 150 cases, two minutes
    python -m benchmarks.robustness.damaged_files --publish       # and write the committed results

Every file is taken away, emptied, cut in half, and filled with noise or zeros; replaced by a good file of its format
that holds nothing, and by one that holds something else. (The last two are listed with their new size, or their size
would tell.) A run that is given the damaged checkpoint has to refuse it with a message that names the file; one that
is told `True` has to pass over it to the one before, or refuse it too.
"""

import argparse
import contextlib
import io
import json
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from hf_mgan.training.whole_checkpoint import LIST

from ..sweep import RESULTS, write_lines
from ..testbed import versions
from .tiny_runs import make_trainer, save_models


MODULE = "benchmarks.robustness.damaged_files"
COMMITTED = RESULTS / "damaged_files.jsonl"
SETTINGS = {
    "max_steps": 4,
    "save_steps": 1,
    "steps_per_generation": 2,
    "discriminator_replay_fraction": 0.25,
    "discriminator_warmup_steps": 1,
}
STEP = 3  # its generation batch is half used
KINDS = ("full", "LoRA")
# No resumed run reads these: its models and its settings are those that it is given.
UNREAD = ("training_args.bin", "config.json", "tokenizer", "generation_config.json", "README.md", "chat_template")


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def noise(path: Path) -> None:
    path.write_bytes(bytes((37 * at + 11) % 251 for at in range(path.stat().st_size)))


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def nothing_in_it(path: Path) -> None:
    """Write a good file of the format that holds nothing."""
    if path.suffix == ".json":
        path.write_text("{}")
    elif path.suffix == ".safetensors":
        save_file({}, path, metadata={"format": "pt"})
    else:
        torch.save({}, path)


def another(path: Path) -> None:
    """Write a good file of the format that holds something else."""
    if path.suffix == ".json":
        path.write_text(json.dumps({"another": [1, 2, 3]}))
    elif path.suffix == ".safetensors":
        save_file({f"another.{at}": one for at, one in load_file(path).items()}, path, metadata={"format": "pt"})
    else:
        torch.save({"another": torch.zeros(3)}, path)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "missing": missing,
    "empty": empty,
    "cut in half": cut,
    "noise": noise,
    "zeros": zeros,
    "nothing in it": nothing_in_it,
    "of another": another,
}


def outcome(folder: Path, run: Path, kind: str, resume: str | bool) -> tuple[str, str]:
    """Go on from a checkpoint; return what came of it, and the message."""
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        trainer = make_trainer(folder, run, kind, **{**SETTINGS, "save_strategy": "no"})
        try:
            trainer.train(resume_from_checkpoint=resume)
        except Exception as error:  # whatever it is, it is what a user sees
            return type(error).__name__, str(error)
    told = [str(one.message) for one in caught if "passed over" in str(one.message)]
    return ("passed over", told[0]) if told else ("went on", "")


def verdict(found: str, message: str, file: str) -> str:
    """Say whether a user is helped: the file, or where it is one of several its name, is in the message."""
    if found in ("ValueError", "FileNotFoundError", "passed over"):
        names = {file, Path(file).name, "_<rank>".join(Path(file).name.rsplit("_0", 1))}
        return "named" if any(name in message for name in names) else "unhelpful"
    if found == "went on":
        return "not read" if any(Path(file).name.startswith(one) for one in UNREAD) else "silent"
    return "raw"


def cases(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Run all cases of one kind of training."""
    models = folder / "models"
    save_models(models)
    with contextlib.redirect_stdout(io.StringIO()):
        make_trainer(models, folder / kind, kind, **SETTINGS).train()
    whole = folder / kind
    shutil.rmtree(whole / "checkpoint-4")
    names = sorted(json.loads((whole / f"checkpoint-{STEP}" / LIST).read_text()))
    results = []
    for name in [*names, LIST]:
        for damage, spoil in DAMAGES.items():
            run = folder / "damaged"
            shutil.copytree(whole, run)
            checkpoint = run / f"checkpoint-{STEP}"
            spoil(checkpoint / name)
            if damage in ("nothing in it", "of another") and name != LIST:
                sizes = json.loads((checkpoint / LIST).read_text())
                sizes[name] = (checkpoint / name).stat().st_size
                (checkpoint / LIST).write_text(json.dumps(sizes))
            result = {"trained": kind, "file": name, "damage": damage}
            for asked, resume in (("the checkpoint", str(checkpoint)), ("True", True)):
                found, message = outcome(models, run, kind, resume)
                result[asked] = verdict(found, message, name)
                result[f"{asked}, message"] = f"{found}: {message.replace(str(run), 'out')[:300]}"
            results.append(result)
            shutil.rmtree(run)
    return results


def main(words: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--publish", action="store_true", help="write the committed results")
    arguments = parser.parse_args(words)
    results = []
    with tempfile.TemporaryDirectory() as name:
        for kind in arguments.kinds:
            results += cases(Path(name) / kind.replace(" ", ""), kind)
    for result in results:
        bad = {result["the checkpoint"], result["True"]} - {"named", "not read"}
        if bad:
            print(f"{result['trained']} {result['file']} {result['damage']}: {result['the checkpoint, message']}")
            print(f"    True: {result['True, message']}")
    for asked in ("the checkpoint", "True"):
        print(f"{len(results)} cases, given {asked}: {dict(Counter(result[asked] for result in results))}")
    if arguments.publish:
        write_lines(COMMITTED, [{"command": f"python -m {MODULE} --publish", "versions": versions()}, *results])
    return results


if __name__ == "__main__":
    main()
