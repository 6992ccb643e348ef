import subprocess
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


def test_importing_hf_mgan_loads_no_extra():
    """transformers loads scipy where it is installed, so its own imports come first."""
    script = f"""
import sys
from trl import GRPOTrainer
sys.modules.update(dict.fromkeys({[*IMPORT_NAMES.values(), "evaluate"]}))
import hf_mgan, hf_mgan.metrics, hf_mgan.evaluation, hf_mgan.evaluation.evaluator, hf_mgan.decoding
"""
    subprocess.run([sys.executable, "-c", script], check=True)
