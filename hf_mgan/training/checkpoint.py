"""Where the discriminator lies in what the trainer saves, and the state of training that a checkpoint holds beside it.

`checkpoint-N/discriminator/` holds

- `model/`: the discriminator as an ordinary folder (`Discriminator.save_pretrained`),
- `training_state.pt`: its optimizer, schedule, scaler and number of updates (`Discriminator.save_state`),
- `replay_<rank>.json`: completions kept for replay, if there is replay (`Replay.save`),
- `adversarial_state.json`: what the trainer needs to go on, see [`write_state`].

A saved model that is no checkpoint has the discriminator right in `discriminator/`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


FOLDER = "discriminator"
MODEL_FOLDER = "model"
STATE_FILE = "adversarial_state.json"


def model_folder(output_dir: str | Path) -> Path:
    """Return where to save the discriminator's model within a folder that the trainer saves to.

    PEFT's weights right below a checkpoint would be taken for adapters of the generator, hence one level deeper there.
    """
    folder = Path(output_dir) / FOLDER
    return folder / MODEL_FOLDER if Path(output_dir).name.startswith(f"{PREFIX_CHECKPOINT_DIR}-") else folder


def write_state(
    checkpoint: str | Path,
    micro_steps: int,
    epoch: float | None,
    real_texts_drawn: int,
    discriminator_accuracy: float | None,
) -> None:
    """Write the state of adversarial training into a checkpoint.

    Args:
        checkpoint (`str` or `Path`): The checkpoint; its folder `discriminator` exists.
        micro_steps (`int`): Backward passes of the generator so far.
        epoch (`float`, *optional*): Passes over the training set so far.
        real_texts_drawn (`int`): Real texts drawn so far by all processes together.
        discriminator_accuracy (`float`, *optional*): The discriminator's accuracy on the last batch, which says
            whether it skips its update on the next one.
    """
    state = {
        "micro_steps": micro_steps,
        "epoch": epoch,
        "real_texts_drawn": real_texts_drawn,
        "discriminator_accuracy": discriminator_accuracy,
    }
    (Path(checkpoint) / FOLDER / STATE_FILE).write_text(json.dumps(state, indent=2) + "\n")


def read_state(checkpoint: str | Path) -> dict[str, Any]:
    """Return what [`write_state`] wrote, under the names of its arguments.

    Raises:
        FileNotFoundError: If the checkpoint holds no state of adversarial training.
    """
    path = Path(checkpoint) / FOLDER / STATE_FILE
    if not path.exists():
        raise FileNotFoundError(
            f"{checkpoint} holds no state of a discriminator ({FOLDER}/{STATE_FILE}), so this run cannot go on from "
            "it. It may come from another trainer, or from a run with save_only_model=True: start from its model "
            "instead."
        )
    return json.loads(path.read_text())


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
