"""Putting saved weights back into the discriminator that they came from, all of them or none.

In: the model and a folder that `Discriminator.save_pretrained` wrote. A classifier without its head would go on with a
random one, so whatever does not fit is an error.
"""

import copy
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME

from ..models import check_saved_weights, refusal


def restore_weights(model: PreTrainedModel | PeftModel, folder: str | Path) -> None:
    """Load saved weights, adapters alone where the model has them, in place.

    Args:
        model (`PreTrainedModel` or `PeftModel`): The discriminator's model.
        folder (`str` or `Path`): What `save_pretrained` wrote.

    Raises:
        ValueError: If the folder holds other weights: a name, a shape or an adapter's setting differs.
    """
    if isinstance(model, PeftModel):
        check_saved_weights("discriminator", model, folder)
        model.load_adapter(str(folder), model.active_adapter, is_trainable=True)
        model.eval()
        return
    # transformers may save weights under other names than it has them in the model, and it alone knows which.
    saved, found = cast(
        "tuple[PreTrainedModel, dict[str, Any]]",  # with output_loading_info, which transformers does not declare
        type(model).from_pretrained(
            folder,
            config=copy.deepcopy(model.config),
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        ),
    )
    names = {
        "missing": sorted(found["missing_keys"]),
        "of another shape": sorted(entry[0] for entry in found["mismatched_keys"]),
        "unknown": sorted(found["unexpected_keys"]),
    }
    if any(names.values()):
        raise ValueError(refusal("discriminator", Path(folder) / SAFE_WEIGHTS_NAME, names))
    model.load_state_dict(saved.state_dict())
