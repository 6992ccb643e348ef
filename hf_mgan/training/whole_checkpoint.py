"""Whole checkpoints: each is written aside, listed, and given its name in one step.

A process can be killed at any moment, and a folder that is half written looks like a checkpoint. So the processes
write to `_unfinished/checkpoint-N`; when all of them are done, the files are brought to the disk and listed with their
sizes in `discriminator/files.json`, and the folder is renamed. In: a run's folder. Out: its newest checkpoint whose
files are all there, of their sizes, and can be read.
"""

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.trainer_pt_utils import safe_globals
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints

from .checkpoint import FOLDER


ASIDE = "_unfinished"  # what begins with "_" is not pushed to the Hub
REPLACED = "replaced-"
LIST = f"{FOLDER}/files.json"
# transformers' own mark of a checkpoint that its `enable_jit_checkpoint` has not finished.
MARK = "checkpoint-is-incomplete.txt"


def finish(unfinished: str | Path, checkpoint: str | Path) -> None:
    """Bring a checkpoint that all processes have written to the disk, list its files, and give it its name.

    Args:
        unfinished (`str` or `Path`): Where it was written, within [`ASIDE`].
        checkpoint (`str` or `Path`): Where it belongs; what is there is replaced.
    """
    unfinished, checkpoint = Path(unfinished), Path(checkpoint)
    listed = unfinished / LIST
    listed.parent.mkdir(exist_ok=True)
    listed.unlink(missing_ok=True)
    sizes = {}
    for path in sorted(path for path in unfinished.rglob("*") if path.is_file()):
        _bring_to_disk(path)
        sizes[path.relative_to(unfinished).as_posix()] = path.stat().st_size
    listed.write_text(json.dumps(sizes, indent=2) + "\n")
    _bring_to_disk(listed)
    replaced = unfinished.with_name(REPLACED + checkpoint.name)
    if checkpoint.exists():
        checkpoint.rename(replaced)
    unfinished.rename(checkpoint)
    shutil.rmtree(unfinished.parent)


def clear(run_dir: str | Path) -> None:
    """Remove what a killed process left aside, and put back a checkpoint that it was about to replace."""
    aside = Path(run_dir) / ASIDE
    for replaced in aside.glob(f"{REPLACED}*"):
        checkpoint = Path(run_dir) / replaced.name.removeprefix(REPLACED)
        if not checkpoint.exists():
            replaced.rename(checkpoint)
    if aside.exists():
        shutil.rmtree(aside)


def remove_old(run_dir: str | Path, limit: int | None, best: str | None) -> None:
    """Remove the oldest checkpoints but the best and the newest one, as transformers does; none is left in part.

    Args:
        run_dir (`str` or `Path`): The run's folder.
        limit (`int`, *optional*): `save_total_limit`; none are removed without it.
        best (`str`, *optional*): The best checkpoint so far.
    """
    if limit is None or limit <= 0:
        return
    found = sort_checkpoints(str(run_dir), use_mtime=True)
    protected = {*found[-1:], *([] if best is None else [str(Path(best))])}
    num_removed = max(len(found) - max(limit, len(protected)), 0)
    for checkpoint in [one for one in found if one not in protected][:num_removed]:
        aside = Path(run_dir) / ASIDE / Path(checkpoint).name
        aside.parent.mkdir(exist_ok=True)
        Path(checkpoint).rename(aside)
        shutil.rmtree(aside.parent)


def newest(run_dir: str | Path) -> str | None:
    """Return the newest whole checkpoint of a run; pass over others, and warn of each.

    Args:
        run_dir (`str` or `Path`): The run's `output_dir`.

    Returns:
        `str`: None where there is no checkpoint.

    Raises:
        ValueError: If there are checkpoints and none is whole.
    """
    faults: list[str] = []
    for checkpoint in _by_step(Path(run_dir)):
        problem = fault(checkpoint)
        if problem is None:
            for one in faults:
                warnings.warn(f"{one} It is passed over, and the run goes on from {checkpoint}.", stacklevel=2)
            return str(checkpoint)
        faults.append(problem)
    if faults:
        raise ValueError(" ".join(["No checkpoint of this run can be gone on from.", *faults]))
    return None


def fault(checkpoint: str | Path) -> str | None:
    """Return what is wrong with a checkpoint, a sentence that names the file; None if it is whole.

    The content of tensors is not read: what is found is a file that is missing, of another size, or not of its format.
    """
    checkpoint = Path(checkpoint)
    if not checkpoint.is_dir():
        return f"{checkpoint} is no folder, so there is no checkpoint to go on from."
    if (checkpoint / MARK).exists():
        return f"{checkpoint} holds {MARK}: it was not finished."
    listed = checkpoint / LIST
    try:
        sizes = json.loads(listed.read_text())
        if not isinstance(sizes, dict) or not sizes:
            raise ValueError("it lists no files")
    except FileNotFoundError:
        return f"{listed} does not exist. It is written last, so this checkpoint is unfinished or of another trainer."
    except (ValueError, OSError) as error:
        return f"{listed} cannot be read ({error})."
    for name, size in sizes.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{path} does not exist, and {LIST} lists it."
        if path.stat().st_size != size:
            return f"{path} has {path.stat().st_size:,} bytes, and was written with {size:,}."
        if (reason := _unreadable(checkpoint, name)) is not None:
            return f"{path} cannot be read ({reason})."
    return None


def _by_step(run_dir: Path) -> list[Path]:
    """Return the checkpoints of a run, the newest first."""
    steps = {}
    for path in run_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        step = path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
        if step.isdigit() and path.is_dir():
            steps[path] = int(step)
    return sorted(steps, key=lambda path: steps[path], reverse=True)


def _unreadable(checkpoint: Path, name: str) -> str | None:
    """Return why a file is not of its format; files that no resumed run reads are not looked at."""
    # What is in other folders, such as the shards of DeepSpeed and FSDP, is checked by those who read it.
    ours = "/" not in name or name.startswith(f"{FOLDER}/")
    read = READERS.get(Path(name).suffix)
    if read is None or not ours or name == "training_args.bin":
        return None
    try:
        read(checkpoint / name)
    except Exception as error:  # whatever a library says of a file
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _read_safetensors(path: Path) -> Any:
    with safe_open(path, "pt") as file:
        return file.keys()


def _read_torch(path: Path) -> Any:
    """Open a file of torch without its tensors."""
    with safe_globals():  # the state of numpy's random numbers
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)


READERS: dict[str, Callable[[Path], Any]] = {
    ".json": _read_json,
    ".safetensors": _read_safetensors,
    ".pt": _read_torch,
    ".pth": _read_torch,
    ".bin": _read_torch,
}


def _bring_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
