"""Where the modules for Hugging Face's `evaluate.load` lie: one folder per metric, in this package."""

from pathlib import Path


MODULES = Path(__file__).parent / "modules"


def module_path(name: str) -> str:
    """Return the folder of a metric, which `evaluate.load` takes.

    Args:
        name (`str`): Name of the metric, such as `"self_bleu"`.

    Returns:
        `str`: The folder. Nothing is loaded or downloaded.

    Raises:
        ValueError: If no module has the name.

    Example:
        ```python
        >>> import evaluate  # doctest: +SKIP
        >>> metric = evaluate.load(module_path("duplicates"))  # doctest: +SKIP
        >>> metric.compute(predictions=["a dog", "a cat", "a dog", "a dog"])  # doctest: +SKIP
        {'duplicates': 0.5}

        ```
    """
    folder = MODULES / name
    if not (folder / f"{name}.py").is_file():
        known = sorted(script.stem for script in MODULES.glob("*/*.py"))
        raise ValueError(f"There is no module {name!r} for `evaluate`: choose one of {', '.join(known)}.")
    return str(folder)
