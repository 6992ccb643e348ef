"""What a release holds: the wheel the package alone, the source distribution all that its tests need."""

import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest


pytest.importorskip("hatchling", reason="the extra `dev` is not installed")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    from hatchling.builders.wheel import WheelBuilder

    (path,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    from hatchling.builders.sdist import SdistBuilder

    (path,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("sdist")), versions=["standard"])
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = set(wheel.namelist())
    about = {name for name in names if ".dist-info/" in name}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "hf_mgan").rglob("*.py")}
    assert modules <= names
    assert "hf_mgan/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in about)
    assert {name.split("/")[0] for name in names - about} == {"hf_mgan"}
    assert not any("__pycache__" in name or name.endswith(".md.in") for name in names)


def test_wheel_says_what_the_project_says(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Requires-Python"] == PROJECT["requires-python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_payload().startswith("# hf_mgan")
    # No classifier for a Python that pip would refuse.
    versions = {one.rpartition(" ")[2] for one in metadata.get_all("Classifier") if "Python :: 3." in one}
    assert versions <= {"3.11", "3.12", "3.13"}


def test_command_of_the_wheel_is_there():
    from importlib import import_module

    module, _, function = PROJECT["scripts"]["hf-mgan"].partition(":")
    assert callable(getattr(import_module(module), function))


def test_sources_hold_what_their_tests_need(sources):
    for folder in ("hf_mgan", "tests", "benchmarks", "docs", "examples"):
        assert any(name.startswith(f"{folder}/") for name in sources), folder
    for name in ("conftest.py", "Makefile", "constraints.txt", "CHANGELOG.md", "LICENSE", "examples/quickstart.ipynb"):
        assert name in sources, name
    assert not any(name.startswith((".ci", ".venv", "docs/_build", "dist/")) for name in sources)
