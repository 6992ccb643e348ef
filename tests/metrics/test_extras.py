import importlib
import multiprocessing
import sys

import pytest
import torch

from hf_mgan.evaluation import EvaluationConfig, evaluate_generator
from hf_mgan.metrics import c2st, jackknife_interval, mauve, share_interval
from hf_mgan.metrics.extras import IMPORT_NAMES, is_package_available, require_packages


EXTRA = r"hf-mgan\[evaluation\]"


@pytest.fixture
def without(monkeypatch):
    """Return a function after which a package cannot be found."""
    return lambda package: monkeypatch.setitem(sys.modules, IMPORT_NAMES[package], None)


@pytest.mark.parametrize("package", IMPORT_NAMES)
def test_is_package_available(package, without):
    assert is_package_available(package)
    without(package)
    assert not is_package_available(package)


def test_require_packages_names_all_that_are_missing(without):
    require_packages("It", *IMPORT_NAMES)
    without("scipy")
    without("sacrebleu")
    with pytest.raises(ImportError, match=f"It needs sacrebleu and scipy.*{EXTRA}"):
        require_packages("It", *IMPORT_NAMES)


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("scikit-learn", lambda: c2st(["a"], ["b"])),
        ("scikit-learn", lambda: mauve(torch.eye(2), torch.eye(2))),
        ("scipy", lambda: jackknife_interval([1.0, 2.0], sum, groups=2)),
        ("scipy", lambda: share_interval([True])),
        *((package, lambda: evaluate_generator("none", [], EvaluationConfig("none"))) for package in IMPORT_NAMES),
    ],
)
def test_metric_names_the_extra_without_its_package(package, call, without):
    without(package)
    with pytest.raises(ImportError, match=f"needs {package}.*{EXTRA}"):
        call()


def import_anew():
    """Import this package once more, where none of the extras can be imported."""
    extras = {*IMPORT_NAMES.values(), "evaluate"}
    for name in [name for name in sys.modules if name.split(".")[0] in {"hf_mgan", *extras}]:
        del sys.modules[name]
    sys.modules.update(dict.fromkeys(extras))
    for name in ("", ".metrics", ".evaluation", ".evaluation.evaluator", ".decoding", ".cli.main"):
        importlib.import_module(f"hf_mgan{name}")


def test_importing_hf_mgan_loads_no_extra():
    """In a fork of this process, where transformers and the like need not be imported again."""
    process = multiprocessing.get_context("fork").Process(target=import_anew)
    process.start()
    process.join()
    assert process.exitcode == 0
