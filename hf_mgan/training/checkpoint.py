"""What a checkpoint holds beside TRL's own files, and where.

`checkpoint-N/discriminator/` holds

- `model/`: the discriminator as an ordinary folder (`Discriminator.save_pretrained`),
- `training_state.pt`: its optimizer, schedule, scaler and number of updates (`Discriminator.save_state`),
- `replay_<rank>.json`: completions kept for replay, if there is replay (`Replay.save`),
- `progress_<rank>.pt`: the rest of the generation batch and of the logging window ([`Progress`]),
- `adversarial_state.json`: what all processes need to go on ([`AdversarialState`]),
- `files.json`: all files of the checkpoint with their sizes, see `whole_checkpoint`.

A saved model that is no checkpoint has the discriminator right in `discriminator/`.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..checks import INDEX, Check, Instance, Number, checked, optional


FOLDER = "discriminator"
MODEL_FOLDER = "model"
STATE_FILE = "adversarial_state.json"


def model_folder(output_dir: str | Path) -> Path:
    """Return where to save the discriminator's model within a folder that the trainer saves to.

    PEFT's weights right below a checkpoint would be taken for adapters of the generator, hence one level deeper there.
    """
    folder = Path(output_dir) / FOLDER
    return folder / MODEL_FOLDER if Path(output_dir).name.startswith(f"{PREFIX_CHECKPOINT_DIR}-") else folder


STATE: dict[str, Check] = {
    "global_step": INDEX,
    "micro_steps": INDEX,
    "epoch": Number(least=0),
    "real_texts_drawn": INDEX,
    "warmup_prompts_drawn": INDEX,
    "discriminator_accuracy": optional(Number(least=0, most=1)),
    "num_processes": INDEX,
    "num_rows": optional(INDEX),
    "settings": Instance(of=(dict,), what="an object"),
}


@dataclass(frozen=True)
class AdversarialState:
    """Where adversarial training is, the same on all processes.

    Args:
        global_step (`int`): Steps of the generator's optimizer so far.
        micro_steps (`int`): Backward passes of the generator so far.
        epoch (`float`): Passes over the training set so far.
        real_texts_drawn (`int`): Real texts drawn so far by all processes together.
        warmup_prompts_drawn (`int`): Prompts of the discriminator's warm-up drawn so far by all of them.
        discriminator_accuracy (`float`, *optional*): The discriminator's accuracy on the last batch, which says
            whether it skips its update on the next one.
        num_processes (`int`): How many processes wrote the checkpoint.
        num_rows (`int`, *optional*): Rows of the training set; None for a stream.
        settings (`dict`): The settings that training depends on, by name.
    """

    global_step: int
    micro_steps: int
    epoch: float
    real_texts_drawn: int
    warmup_prompts_drawn: int
    discriminator_accuracy: float | None
    num_processes: int
    num_rows: int | None
    settings: dict[str, Any]

    def save(self, checkpoint: str | Path) -> None:
        """Write it into a checkpoint, whose folder `discriminator` exists."""
        (Path(checkpoint) / FOLDER / STATE_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, checkpoint: str | Path) -> "AdversarialState":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: If the checkpoint holds no state of adversarial training.
            ValueError: If the file holds something else.
        """
        path = Path(checkpoint) / FOLDER / STATE_FILE
        if not path.exists():
            raise FileNotFoundError(
                f"{checkpoint} holds no state of a discriminator ({FOLDER}/{STATE_FILE}), so this run cannot go on "
                "from it. It may come from another trainer, or from a run with save_only_model=True: start from its "
                "model instead."
            )
        names = {field.name for field in fields(cls)}
        try:
            values = json.loads(path.read_text())
            if not isinstance(values, dict) or set(values) != names:
                raise ValueError(f"it must be an object with the keys {', '.join(sorted(names))}")
            return cls(**checked(STATE, values))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is not what this version of hf_mgan writes: {error}") from error


@dataclass
class Progress:
    """What one process is in the middle of, between two steps.

    Args:
        generation_batch (`list[dict]`, *optional*): The parts of a generation batch that is not used up, as TRL keeps
            them; None where the next step generates.
        metrics (`dict[str, dict[str, list[float]]]`): TRL's metrics since they were last logged, by mode.
        loss (`Tensor` of shape `()`): Sum of the generator's loss since it was last logged.
        last_logged (`int`): The step at which it was.
        completions (`str`): TRL's record of the last completions as JSON.
    """

    generation_batch: list[dict[str, Any]] | None
    metrics: dict[str, dict[str, list[float]]]
    loss: torch.Tensor
    last_logged: int
    completions: str

    def save(self, checkpoint: str | Path, rank: int) -> None:
        """Write it into a checkpoint as the progress of one process."""
        path = _progress_file(checkpoint, rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(vars(self), path)

    @classmethod
    def load(cls, checkpoint: str | Path, rank: int, device: torch.device) -> "Progress":
        """Read what `save` wrote, its tensors onto a device.

        Raises:
            ValueError: If the file holds something else.
        """
        path = _progress_file(checkpoint, rank)
        # torch cannot restore to a CPU with an index, which accelerate gives to the processes of a distributed run.
        place = torch.device("cpu") if device.type == "cpu" else device
        values = torch.load(path, map_location=place, weights_only=True)
        if not isinstance(values, dict) or set(values) != {field.name for field in fields(cls)}:
            raise ValueError(f"{path} is not what this version of hf_mgan writes: give an earlier checkpoint.")
        return cls(**values)

    def metric_lists(self) -> dict[str, defaultdict[str, list[float]]]:
        """Return the metrics as TRL adds to them."""
        return {mode: defaultdict(list, values) for mode, values in self.metrics.items()}


def _progress_file(checkpoint: str | Path, rank: int) -> Path:
    return Path(checkpoint) / FOLDER / f"progress_{rank}.pt"


@contextmanager
def naming(checkpoint: str | Path, *files: str) -> Iterator[None]:
    """Name a checkpoint and the files of it that are read within this context in whatever error they end in."""
    try:
        yield
    except (AttributeError, EOFError, IndexError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        if str(checkpoint) in str(error):
            raise
        raise ValueError(
            f"{' or '.join(str(Path(checkpoint) / file) for file in files)} cannot be taken over by this run "
            f"({type(error).__name__}: {error}). It belongs to another run or is damaged: give an earlier checkpoint, "
            "or the settings of the run that saved it."
        ) from error


@contextmanager
def dtypes_kept(model: nn.Module) -> Iterator[None]:
    """Give parameters that are loaded within this context the dtypes that they had before.

    TRL trains the adapters of a quantised base in bfloat16, and PEFT loads them in float32 (transformers
    `Trainer._load_from_checkpoint` calls its `load_adapter`), so a resumed run would go on in another precision.
    """
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    yield
    for name, parameter in model.named_parameters():
        if parameter.dtype != dtypes.get(name, parameter.dtype):
            parameter.data = parameter.data.to(dtypes[name])
