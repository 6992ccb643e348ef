"""The checks of robustness, each on a part of its cases."""

import os
import signal

import pytest

from benchmarks.robustness import chaos, damaged_files, non_finite, resume_matrix


@pytest.mark.slow
def test_resumed_runs_of_a_row_equal_the_whole_one():
    cells = resume_matrix.main(["--processes", "1", "--kinds", "LoRA", "--options", "plain"])
    assert [cell["checkpoint"] for cell in cells] == list(resume_matrix.POSITIONS)
    for cell in cells:
        assert cell["weights_unequal"] == 0
        assert cell["logs_equal"]
        assert cell["weights_trained"] > 0
    assert [cell["half_used_batch"] for cell in cells] == [False, True, False, False, False]
    assert [cell["epoch"] > 1 for cell in cells] == [False, False, True, False, False]
    assert 0 < cells[-1]["warm_up"] < resume_matrix.WARM_UP["discriminator_warmup_steps"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forked, so that they need not import again")
def test_killed_run_ends_as_one_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    counts = chaos.main(["--kills", "4", "--while_saving", "1"])
    assert counts["kills"] == 4
    assert counts["while_saving"] > 0
    assert {name: counts[name] for name in ("not_whole", "unusable", "unequal")} == {
        "not_whole": 0,
        "unusable": 0,
        "unequal": 0,
    }
    assert signal.getsignal(signal.SIGTERM) is before


def test_damaged_files_are_told_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(damaged_files, "DAMAGES", {"noise": damaged_files.noise, "another": damaged_files.another})
    cases = damaged_files.cases(tmp_path / "work", "full")
    names = {case["file"] for case in cases}
    assert {"optimizer.pt", "discriminator/progress_0.pt", "discriminator/files.json"} <= names
    outcomes = {case[asked] for case in cases for asked in ("the checkpoint", "True")}
    assert outcomes == {"named", "not read"}


@pytest.mark.parametrize("place", ["weights of the generator", "optimizer of the discriminator"])
def test_values_that_are_not_finite_are_told_by_name(tmp_path, place):
    non_finite.save_models(tmp_path)
    result = non_finite.case(tmp_path, tmp_path / "run", place, "nan", 2)
    assert non_finite.is_good(result), result
    assert result["checkpoint"] == ["checkpoint-2"]
