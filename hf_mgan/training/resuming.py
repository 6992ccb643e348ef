"""What a checkpoint and the run that goes on from it have in common: settings, processes, data.

In: a whole checkpoint and the run as it was built. Out: an error where the checkpoint cannot be taken over, with what
to set; a warning that names every other difference, with what becomes of it.
"""

import json
import warnings
from pathlib import Path
from typing import Any

from transformers import TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from .checkpoint import AdversarialState, naming


# Beginnings of the names of settings that say nothing of how a step is made: of logs, checkpoints, evaluations.
NOT_COMPARED = (
    "batch_eval", "dataloader_num", "dataloader_p", "dataset_num_proc", "ddp_", "debug", "disable_tqdm", "do_",
    "enable_jit", "eval_", "greater_is", "hub_", "include_", "load_best", "local_rank", "log", "metric_for",
    "num_completions_to_print", "num_generations_eval", "output_dir", "per_device_eval", "prediction_loss", "project",
    "push_to_hub", "report_to", "restore_callback", "resume_from", "run_name", "save_", "skip_memory", "trackio_",
    "vllm_server", "warnings",
)  # fmt: skip
# Settings whose values lie in the state of an optimizer, which is that of the checkpoint.
OF_OPTIMIZER = (
    "learning_rate",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "discriminator_learning_rate",
)
# Settings that say how a generation batch is used up.
OF_GENERATION_BATCH = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "steps_per_generation",
    "num_iterations",
    "num_generations",
)


def compared_settings(args: TrainingArguments) -> dict[str, Any]:
    """Return the settings that training depends on, by name, as JSON has them."""
    values = json.loads(json.dumps(args.to_dict(), default=str))
    return {name: value for name, value in values.items() if not name.startswith(NOT_COMPARED)}


def check_state_fits(
    checkpoint: str, state: AdversarialState, args: TrainingArguments, num_processes: int, num_rows: int | None
) -> bool:
    """Compare settings, processes and data of a checkpoint with those of a run.

    Args:
        checkpoint (`str`): The checkpoint.
        state ([`AdversarialState`]): Its state.
        args (`TrainingArguments`): The run's.
        num_processes (`int`): The run's.
        num_rows (`int`, *optional*): Rows of its training set.

    Returns:
        `bool`: Whether the run can use up the generation batch that the checkpoint holds.

    Raises:
        ValueError: If an optimizer or a precision is another one, so that its state says nothing.
    """
    _check_step(checkpoint, state)
    now = compared_settings(args)
    changed = {name for name, value in state.settings.items() if name in now and now[name] != value}
    _check_optimizers(checkpoint, state.settings, now)
    differences = [_difference(name, state.settings[name], now[name]) for name in sorted(changed)]
    if state.num_processes != num_processes:
        differences.append(
            f"it was saved by {state.num_processes} processes and goes on with {num_processes}: each draws other "
            "random numbers, and past completions are dealt out anew"
        )
    if state.num_rows != num_rows:
        differences.append(
            f"the training set had {state.num_rows} rows and has {num_rows} (None: a stream): the run goes on at the "
            "same position of another one"
        )
    fits = state.num_processes == num_processes and not changed & set(OF_GENERATION_BATCH)
    if not fits:
        differences.append("the next step generates a new batch, and what is left of the last one is lost")
    if differences:
        warnings.warn(
            f"{checkpoint} was saved by a run that differs from this one, which goes on with its own settings:\n- "
            + "\n- ".join(differences),
            stacklevel=2,
        )
    return fits


def _check_step(checkpoint: str, state: AdversarialState) -> None:
    """Check that transformers' state is of the same step as ours."""
    path = Path(checkpoint) / TRAINER_STATE_NAME
    with naming(checkpoint, TRAINER_STATE_NAME):
        step = TrainerState.load_from_json(str(path)).global_step
    if step != state.global_step:
        raise ValueError(
            f"{path} is of step {step}, and the state of the discriminator beside it of step {state.global_step}: the "
            "files are of different checkpoints."
        )


def _difference(name: str, was: Any, now: Any) -> str:
    kept = " (that of the checkpoint goes on, with its optimizer)" if name in OF_OPTIMIZER else ""
    return f"{name} was {was!r} and is {now!r}{kept}"


def _check_optimizers(checkpoint: str, was: dict[str, Any], now: dict[str, Any]) -> None:
    """Check that each optimizer can go on from the state of the one that was saved."""
    for name, old, new in (
        ("optim", was.get("optim"), now.get("optim")),
        ("fp16", was.get("fp16"), now.get("fp16")),
        ("optim in discriminator_optim_kwargs", *(_optimizer(one) for one in (was, now))),
    ):
        # Both implementations of AdamW keep the same.
        if str(old).removesuffix("_fused") != str(new).removesuffix("_fused"):
            raise ValueError(
                f"{name} is {new!r}, and {checkpoint} was saved with {old!r}, whose state is another one. Set it to "
                f"{old!r}, or start a new run from the models of the checkpoint."
            )


def _optimizer(settings: dict[str, Any]) -> Any:
    given = settings.get("discriminator_optim_kwargs") or {}
    return given.get("optim", "adamw_torch")
