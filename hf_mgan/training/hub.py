"""Pushing to the Hub: which files of a run, all in one commit, and what is said where it fails.

In: the folder of a run or of a checkpoint. Out: a commit with the generator at the root, the discriminator in
`discriminator/` and, if it is asked for, a whole checkpoint in a folder of its own. A commit takes effect as a whole
or not at all, so that a push that is cut leaves the repository as it was. What the repository holds of an earlier run
and this one does not have, such as adapters beside a whole model, goes in the same commit: it would be loaded.
"""

import logging
import os
import shlex
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import filter_repo_objects
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy

from .checkpoint import FOLDER, MODEL_FOLDER


if TYPE_CHECKING:
    from ..config import AdversarialConfig

logger = logging.getLogger(__name__)
HELD = "_pushed"  # what begins with "_" is not pushed
# The last of ours are the settings of the command, which name files of this machine.
OURS = ["_*", f"{PREFIX_CHECKPOINT_DIR}-*", "warm_start/*", "train_settings.yaml"]
NOT_PUSHED = [*OURS, ".git/*", ".cache/*"]
# What of a checkpoint a resumed run reads, and nobody who loads the models.
STATE = [
    *("optimizer*", "scheduler*", "scaler*", "rng_state*", "trainer_state.json", "entropy_ctrl_state.json"),
    *("pytorch_model_fsdp*", "global_step*", "latest", "zero_to_fp32.py", f"{FOLDER}/*"),
]
WEIGHTS = [
    *("adapter_model.safetensors", "adapter_model.bin", "model.safetensors", "pytorch_model.bin"),
    *("model-*-of-*.safetensors", "pytorch_model-*-of-*.bin"),
]
OF_A_MODEL = ["adapter_config.json", "model.safetensors.index.json", "pytorch_model.bin.index.json", *WEIGHTS]
AS_IT_WAS = "The repository is as it was, unless the commit was made and only the answer was lost."
ADVICE = {
    400: "Correct what it names.",
    401: "Log in with `hf auth login`, or give a token with write access (hub_token).",
    403: "Give a token with write access (hub_token), or another repository (hub_model_id).",
    404: "Check the repository (hub_model_id), its branch (hub_revision) and whether the token may see it.",
    429: "The Hub takes no more requests for now: try again in some minutes.",
}


def files_of_run(output_dir: str | Path) -> dict[str, Path]:
    """Return what is pushed of a run: all of its folder but [`OURS`].

    Args:
        output_dir (`str` or `Path`): The run's folder.

    Returns:
        `dict[str, Path]`: Each file, by its path in the repository.
    """
    files = _files_below(Path(output_dir))
    return {path: files[path] for path in filter_repo_objects(files, ignore_patterns=NOT_PUSHED)}


def files_of_checkpoint(checkpoint: str | Path, strategy: HubStrategy) -> dict[str, Path]:
    """Return what is pushed of a checkpoint: both models where those of a run lie, and by strategy all of it.

    Args:
        checkpoint (`str` or `Path`): The checkpoint.
        strategy (`HubStrategy`): `"every_save"` for the models alone, `"checkpoint"` for the whole checkpoint in
            `last-checkpoint/` as well, `"all_checkpoints"` for that in a folder of its own name.

    Returns:
        `dict[str, Path]`: Each file, by its path in the repository.
    """
    checkpoint = Path(checkpoint)
    whole = _files_below(checkpoint)
    files = {path: whole[path] for path in filter_repo_objects(whole, ignore_patterns=STATE)}
    model = _files_below(checkpoint / FOLDER / MODEL_FOLDER)
    files |= {f"{FOLDER}/{path}": file for path, file in model.items()}
    place = place_of_checkpoint(checkpoint, strategy)
    return files | {f"{place}/{path}": file for path, file in whole.items() if place is not None}


def place_of_checkpoint(checkpoint: str | Path, strategy: HubStrategy) -> str | None:
    """Return the folder of the repository for a whole checkpoint, None where only its models are pushed."""
    if strategy == HubStrategy.ALL_CHECKPOINTS:
        return Path(checkpoint).name
    return "last-checkpoint" if strategy == HubStrategy.CHECKPOINT else None


def held(checkpoint: str | Path, output_dir: str | Path) -> Path:
    """Keep a checkpoint as it is until it is pushed, even if it is replaced or removed meanwhile.

    Files are linked, which takes no space; a checkpoint is written anew and never in place, so links do not change.

    Args:
        checkpoint (`str` or `Path`): The checkpoint.
        output_dir (`str` or `Path`): The run's folder.

    Returns:
        `Path`: A folder of the same name, alone in one within [`HELD`].
    """
    aside = Path(output_dir) / HELD
    aside.mkdir(exist_ok=True)
    kept = Path(tempfile.mkdtemp(dir=aside)) / Path(checkpoint).name
    shutil.copytree(checkpoint, kept, copy_function=_link)
    return kept


def make_repository(
    args: "AdversarialConfig",
    is_trained: bool = False,
    token: str | None = None,
    private: bool | None = None,
) -> str:
    """Make the repository of a run unless it exists, and return its full name.

    Args:
        args ([`AdversarialConfig`]): Its name (`hub_model_id`, by default that of the folder), and who may see it.
        is_trained (`bool`, *optional*, defaults to `False`): Whether there is something to push already.
        token (`str`, *optional*): With write access; `hub_token` by default.
        private (`bool`, *optional*): Whether only its owner sees it; `hub_private_repo` by default.

    Raises:
        ConnectionError: If there is no network, or the token is missing or may not write.
    """
    name = args.hub_model_id or Path(args.output_dir).absolute().name
    where = how_to_push(name, args.output_dir) if is_trained else "Nothing has been trained."
    with explained(f"Making the repository {name} on the Hub", where):
        private = args.hub_private_repo if private is None else private
        made = client().create_repo(name, token=token or args.hub_token, private=private, exist_ok=True)
    return made.repo_id


def client() -> HfApi:
    """Return what speaks to the Hub; it does one thing at a time in the background."""
    return HfApi(library_name="hf_mgan", library_version=version("hf_mgan"))


def push_run(
    api: HfApi, repo_id: str, args: "AdversarialConfig", message: str, revision: str | None, token: str | None
) -> CommitInfo:
    """Push both models and their card as they lie in the folder of a run.

    Args:
        api (`HfApi`): Speaks to the Hub.
        repo_id (`str`): The repository, which exists.
        args ([`AdversarialConfig`]): The folder, and by default branch and token.
        message (`str`): Of the commit.
        revision (`str`, *optional*): The branch; `hub_revision` by default.
        token (`str`, *optional*): With write access; `hub_token` by default.

    Raises:
        ConnectionError: If anything fails; the repository is as it was then.
    """
    with explained(f"Pushing {args.output_dir} to {repo_id}", how_to_push(repo_id, args.output_dir)):
        files = files_of_run(args.output_dir)
        revision, token = revision or args.hub_revision, token or args.hub_token
        return push(api, repo_id, files, [FOLDER], message, revision, token)


def push_checkpoint(
    api: HfApi, repo_id: str, args: "AdversarialConfig", checkpoint: str, message: str
) -> "Future[CommitInfo]":
    """Push a checkpoint while training goes on, and log an error where that fails: the next one is pushed again.

    Args:
        api (`HfApi`): Speaks to the Hub.
        repo_id (`str`): The repository, which exists.
        args ([`AdversarialConfig`]): What is pushed (`hub_strategy`), where to, and the run's folder.
        checkpoint (`str`): The checkpoint, which may be replaced or removed from now on.
        message (`str`): Of the commit.

    Returns:
        `Future`: Of the commit.
    """
    kept, strategy = held(checkpoint, args.output_dir), HubStrategy(args.hub_strategy)
    place = place_of_checkpoint(kept, strategy)
    where = f"Training goes on, and what is saved next is pushed again. {AS_IT_WAS}"

    def run() -> CommitInfo:
        try:
            with explained(f"Pushing {checkpoint} to {repo_id}", where):
                files, folders = files_of_checkpoint(kept, strategy), [FOLDER, *([] if place is None else [place])]
                return push(api, repo_id, files, folders, message, args.hub_revision, args.hub_token)
        except ConnectionError as error:
            logger.error(error)
            raise
        finally:
            shutil.rmtree(kept.parent)

    return api.run_as_future(run)


def push(
    api: HfApi,
    repo_id: str,
    files: Mapping[str, Path],
    folders: Collection[str],
    message: str,
    revision: str | None = None,
    token: str | None = None,
) -> CommitInfo:
    """Commit files, and remove in the same commit what the repository has beside them of other models.

    Args:
        api (`HfApi`): Speaks to the Hub.
        repo_id (`str`): The repository, which exists.
        files (`Mapping[str, Path]`): Each file, by its path in the repository.
        folders (`Collection[str]`): Folders of the repository of which nothing else is to stay. At the root weights
            and settings of adapters go that are not among the files; all else stays.
        message (`str`): Of the commit.
        revision (`str`, *optional*): The branch; `main` by default.
        token (`str`, *optional*): With write access; that of the login by default.

    Returns:
        `CommitInfo`: The commit, the last one where nothing has changed.

    Raises:
        ValueError: If the weights of a model are not among the files.
    """
    check_whole(files)
    there = api.list_repo_files(repo_id, revision=revision, token=token)
    added = [CommitOperationAdd(path, file) for path, file in files.items()]
    removed = [CommitOperationDelete(path) for path in left_over(there, files, folders)]
    return api.create_commit(
        repo_id, [*added, *removed], commit_message=message, revision=revision, token=token, repo_type="model"
    )


def check_whole(files: Collection[str]) -> None:
    """Check that files have the weights of both models.

    Raises:
        ValueError: If those of one are missing, as with the sharded checkpoints of FSDP.
    """
    for place, model in (("", "generator"), (f"{FOLDER}/", "discriminator")):
        inner = [path.removeprefix(place) for path in files if path.startswith(place)]
        if not any(fnmatch(path, pattern) for path in inner if "/" not in path for pattern in WEIGHTS):
            raise ValueError(
                f"There are no weights of the {model} to push, so nothing is. FSDP saves a model as one with "
                'fsdp_config={"state_dict_type": "FULL_STATE_DICT"}.'
            )


def left_over(there: Iterable[str], files: Collection[str], folders: Collection[str]) -> list[str]:
    """Return what a repository has of earlier models; arguments as in [`push`]."""

    def is_of_a_model(path: str) -> bool:
        if any(path.startswith(f"{folder}/") for folder in folders):
            return True
        return "/" not in path and any(fnmatch(path, pattern) for pattern in OF_A_MODEL)

    return [path for path in there if path not in files and is_of_a_model(path)]


@contextmanager
def explained(what: str, where: str) -> Iterator[None]:
    """Say of whatever error ends this context what failed, why, what to do and what is left.

    Args:
        what (`str`): What is done, such as "Pushing to someone/out".
        where (`str`): A sentence on what is left.

    Raises:
        ConnectionError: In place of the error.
    """
    try:
        yield
    except Exception as error:  # of the HTTP client that huggingface_hub uses, which changes with its versions
        raise ConnectionError(f"{what} failed. {_reason(error)} {_advice(error)} {where}") from error


def how_to_push(repo_id: str, output_dir: str | Path) -> str:
    """Return where both models are after a push that failed, and how to push them again."""
    excluded = " ".join(f"--exclude {shlex.quote(pattern)}" for pattern in OURS)
    command = f"hf upload {repo_id} {shlex.quote(str(output_dir))} . {excluded}"
    return (
        f"Both models and their card are in {output_dir}. {AS_IT_WAS} Push again with trainer.push_to_hub(), or "
        f"without a trainer: {command}"
    )


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and those that led to it."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def _status(error: BaseException) -> int | None:
    responses = [one.response for one in _chain(error) if isinstance(one, HfHubHTTPError)]
    return responses[0].status_code if responses else None


def _reason(error: BaseException) -> str:
    """Return what the error says, and that of the Hub which led to it: the first names the file, the second why."""
    chain = _chain(error)
    told = [chain[0], *[one for one in chain[1:] if isinstance(one, HfHubHTTPError)][:1]]
    if len(told) == 1 and len(chain) > 1 and isinstance(error, RuntimeError):
        told.append(chain[1])
    texts = [f"{type(one).__name__}: {' '.join(str(one).split())}" for one in told]
    return " ".join(text if text.endswith(".") else f"{text}." for text in texts)


def _advice(error: BaseException) -> str:
    if any(isinstance(one, OfflineModeIsEnabled) for one in _chain(error)):
        return "Unset HF_HUB_OFFLINE, or leave out push_to_hub."
    status = _status(error)
    if status is None and isinstance(error, (ValueError, FileNotFoundError)):
        return ADVICE[400]
    return ADVICE.get(status or 0, "Try again when the network and the Hub answer.")


def _files_below(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
    return target
