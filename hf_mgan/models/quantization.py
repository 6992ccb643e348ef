"""The quantisation below adapters: saved beside them, so that whoever loads them gets the function that was trained.

PEFT saves which model adapters belong to, and not in how many bits it was: on a base of another precision they are
another function, and one that was trained in 4 bits may not fit in 16. In: a model, or where one was saved. Out: a
file beside the adapters, or what it says. A whole model needs none: its `config.json` has its quantisation.
"""

import json
from pathlib import Path

from peft import PeftModel
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.utils import cached_file


FILE = "quantization_config.json"


def quantisation_of(model: PreTrainedModel | PeftModel) -> BitsAndBytesConfig | None:
    """Return how the model below adapters is quantised, None where it is not."""
    config = getattr(model.config, "quantization_config", None)
    return config if isinstance(model, PeftModel) and isinstance(config, BitsAndBytesConfig) else None


def save_quantisation(model: PreTrainedModel | PeftModel, folder: str | Path) -> None:
    """Write how the model below adapters is quantised, and remove what an earlier model has left there.

    Args:
        model (`PreTrainedModel` or `PeftModel`): The model whose adapters are saved in the folder.
        folder (`str` or `Path`): The folder.
    """
    path, quantisation = Path(folder, FILE), quantisation_of(model)
    if quantisation is None:
        path.unlink(missing_ok=True)
    else:
        path.write_text(json.dumps(quantisation.to_diff_dict(), indent=2) + "\n", encoding="utf-8")


def saved_quantisation(source: str, revision: str | None = None) -> BitsAndBytesConfig | None:
    """Return how the model below saved adapters was quantised, None where nothing says that it was.

    Args:
        source (`str`): Folder or Hub id of the adapters.
        revision (`str`, *optional*): Branch, tag or commit.

    Raises:
        ValueError: If the file is damaged.
    """
    path = cached_file(
        source,
        FILE,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,  # the adapters may be there, kept from before
    )
    if path is None:
        return None
    try:
        saved = BitsAndBytesConfig.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        if not (saved.load_in_4bit or saved.load_in_8bit):
            raise ValueError("neither 4 nor 8 bits")
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} says no quantisation: {error}. Save the model anew, or remove the file.") from error
    return saved
