"""The discriminator before another one, in files: it lies in `previous/` of the folder of the one that it came before.

A discriminator may have learnt from what another one keeps of the generator's texts, see
[`~training.final_updates.fit_discriminator`]. Its calibration says so, and both are needed for its log-ratio, so that
they are saved and loaded together, however many stand in a row.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import snapshot_download


if TYPE_CHECKING:
    from .calibration import Calibration
    from .discriminator import Discriminator

PREVIOUS = "previous"
SHARED = ("batch_size", "bf16", "fp16")  # arguments of the later one that hold for both


def load_previous(
    owner: type["Discriminator"],
    source: str,
    calibration: "Calibration | None",
    revision: str | None = None,
    trust_remote_code: bool = False,
    **kwargs: Any,
) -> "Discriminator | None":
    """Load the discriminator that a saved one's calibration speaks of.

    Args:
        owner (`type[Discriminator]`): The class of both.
        source (`str`): Folder or Hub id of the saved one.
        calibration ([`Calibration`], *optional*): Its calibration.
        revision (`str`, *optional*): Branch, tag or commit.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Whether to run code that comes with the model.
        **kwargs: Arguments of the later one.

    Returns:
        [`Discriminator`], *optional*: None where the calibration speaks of none.

    Raises:
        ValueError: If it is missing, or not calibrated.
    """
    if calibration is None or calibration.previous_threshold is None:
        return None
    if not (root := Path(source)).exists():
        root = Path(snapshot_download(source, revision=revision, allow_patterns=f"{PREVIOUS}/*"))
    folder = root / PREVIOUS
    missing = f"{folder} is missing" if not folder.is_dir() else ""
    if not missing:
        shared = {name: kwargs[name] for name in SHARED if name in kwargs}
        found = owner.from_pretrained(folder, trust_remote_code=trust_remote_code, **shared)
        if found.calibration is not None:
            return found
        missing = f"{folder} has no calibration"
    raise ValueError(
        f"The discriminator of {source} corrects what another one keeps, which belongs in {PREVIOUS}/ of its folder, "
        f"and {missing}. Save it again with both, or remove calibration.json and calibrate it anew."
    )


def save_previous(previous: "Discriminator | None", folder: str | Path) -> None:
    """Write a discriminator that came before into the folder of the later one, or remove one that was there.

    Args:
        previous ([`Discriminator`], *optional*): It, if there is one.
        folder (`str` or `Path`): The later one's.
    """
    place = Path(folder) / PREVIOUS
    if previous is not None:
        previous.save_pretrained(place)
    elif place.is_dir():
        shutil.rmtree(place)  # of earlier weights
