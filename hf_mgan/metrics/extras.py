"""The packages of the extra `evaluation`: whether they are installed, and what to run where they are not."""

from importlib.util import find_spec


IMPORT_NAMES = {"matplotlib": "matplotlib", "sacrebleu": "sacrebleu", "scikit-learn": "sklearn", "scipy": "scipy"}


def is_package_available(package: str) -> bool:
    """Return whether a package of the extra is installed, without importing it.

    Args:
        package (`str`): Its name, one of `"matplotlib"`, `"sacrebleu"`, `"scikit-learn"` and `"scipy"`.
    """
    return find_spec(IMPORT_NAMES[package]) is not None


def require_packages(purpose: str, *packages: str) -> None:
    """Refuse to go on without packages of the extra, before hours are spent on what they are needed for.

    Args:
        purpose (`str`): What they are needed for, the subject of the message.
        *packages (`str`): Their names, as in [`is_package_available`].

    Raises:
        ImportError: If one is missing; it names those that are, and the extra.
    """
    missing = [package for package in packages if not is_package_available(package)]
    if missing:
        raise ImportError(f"{purpose} needs {' and '.join(missing)}. Run: pip install 'hf-mgan[evaluation]'")
