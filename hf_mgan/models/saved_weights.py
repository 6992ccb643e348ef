"""Whether saved weights are those of a model: the same names, the same shapes, the same kind of adapters.

In: a folder that `save_pretrained` wrote and a model. Out: an error that names what differs. transformers and PEFT
load what they find, and leave the rest as it happens to be.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from peft.utils import CONFIG_NAME as ADAPTER_CONFIG_NAME
from peft.utils.constants import EMBEDDING_LAYER_NAMES
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ADAPTER_SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME


# Fields of an adapter's configuration that say nothing of what it computes.
NOT_COMPARED = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_version",
    "revision",
    "runtime_config",
}


def check_saved_weights(what: str, model: PreTrainedModel | PeftModel, folder: str | Path) -> None:
    """Check that a folder holds the weights of a model, adapters alone where it has them.

    Args:
        what (`str`): What the model is called in the error, such as `"generator"`.
        model (`PreTrainedModel` or `PeftModel`): The model.
        folder (`str` or `Path`): What `save_pretrained` wrote.

    Raises:
        ValueError: If a weight is missing, of another shape or unknown, or adapters have other settings.
    """
    folder = Path(folder)
    expected: dict[str, Tensor]
    if isinstance(model, PeftModel):
        name = model.active_adapters[0]
        expected = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
        saved, kind, file = _shapes([folder / ADAPTER_SAFE_WEIGHTS_NAME]), "adapters", ADAPTER_SAFE_WEIGHTS_NAME
    else:
        expected = model.state_dict()
        saved, kind, file = _shapes(_weight_files(folder)), "weights", SAFE_WEIGHTS_NAME
    if saved is None:
        raise ValueError(f"{folder} holds no {kind} of a {what}, which are what this run trains.")
    _compare(what, folder / file, expected, saved)
    if isinstance(model, PeftModel):
        _compare_adapters(what, folder, model.peft_config[model.active_adapters[0]])


def _compare(what: str, file: Path, expected: Mapping[str, Tensor], saved: Mapping[str, tuple[int, ...]]) -> None:
    tied = {weight.data_ptr() for at, weight in expected.items() if at in saved}  # are saved once
    missing = [at for at, weight in expected.items() if at not in saved and weight.data_ptr() not in tied]
    others = [at for at in saved if at in expected and saved[at] != tuple(expected[at].shape)]
    # PEFT saves the embeddings with the adapters where the vocabulary has grown.
    unknown = [at for at in saved if at not in expected and not any(part in at for part in EMBEDDING_LAYER_NAMES)]
    if missing or others or unknown:
        counts = {"missing": missing, "of another shape": others, "unknown": unknown}
        raise ValueError(refusal(what, file, counts))


def refusal(what: str, file: str | Path, names: Mapping[str, list[str]]) -> str:
    """Return an error about weights that are not those of a model, by what is wrong with them."""
    told = [f"{len(them)} {problem} (the first {them[0]!r})" for problem, them in names.items() if them]
    return (
        f"{file} does not hold the weights of this {what}: {', '.join(told)}. Resume with the model and the "
        "adapters of the run that saved it."
    )


def _compare_adapters(what: str, folder: Path, now: PeftConfig) -> None:
    path = folder / ADAPTER_CONFIG_NAME
    try:
        was, is_now = _comparable(PeftConfig.from_pretrained(str(folder))), _comparable(now)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not say what the adapters of the {what} are: {error}") from error
    changed = [name for name in is_now if is_now[name] != was.get(name)]
    if changed:
        told = [f"{name} was {was.get(name)!r} and is {is_now[name]!r}" for name in changed]
        raise ValueError(
            f"{path} has other settings of the {what}'s adapters: {', '.join(told)}. Resume with those of the run "
            "that saved it."
        )


def _comparable(config: PeftConfig) -> dict[str, Any]:
    """Return an adapter's settings; of lists and sets the order, which files do not keep, says nothing."""
    values = {name: value for name, value in config.to_dict().items() if name not in NOT_COMPARED}
    values = {name: sorted(map(str, one)) if isinstance(one, (list, set)) else one for name, one in values.items()}
    return json.loads(json.dumps(values, default=str))


def _weight_files(folder: Path) -> list[Path]:
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if index.exists():
        return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    return [folder / SAFE_WEIGHTS_NAME]


def _shapes(files: list[Path]) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of the weights in safetensors files by name, None if one of them is missing."""
    if not all(file.exists() for file in files):
        return None
    shapes: dict[str, tuple[int, ...]] = {}
    for one in files:
        with safe_open(one, "pt") as file:
            shapes |= {at: tuple(file.get_slice(at).get_shape()) for at in file.keys()}  # noqa: SIM118
    return shapes
