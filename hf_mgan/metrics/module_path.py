"""Where the modules for Hugging Face's `evaluate.load` lie: one folder a measure, in this package."""

from pathlib import Path


MODULES = Path(__file__).parent / "modules"


def module_path(name: str) -> str:
    """Return the folder of a measure, which `evaluate.load` takes.

    Args:
        name (`str`): Name of the measure, such as `"self_bleu"`.

    Returns:
        `str`: The folder. Nothing is loaded or downloaded.

    Raises:
        ValueError: If no module has the name.

    Example:
        ```python
        >>> evaluate.load(module_path("duplicates")).compute(predictions=["a dog", "a cat", "a dog", "a dog"])
        {'duplicates': 0.5}
        ```
    """
    folder = MODULES / name
    if not (folder / f"{name}.py").is_file():
        known = sorted(script.stem for script in MODULES.glob("*/*.py"))
        raise ValueError(f"There is no module {name!r} for `evaluate`. There are {', '.join(known)}.")
    return str(folder)
