"""Pictures of the documentation, drawn from what is committed, and the curves of a run of some steps."""

import json
from xml.etree import ElementTree

from benchmarks.curves import __main__ as curves
from benchmarks.curves.conditions import CONDITIONS, CURVES
from benchmarks.curves.drawing import draw
from benchmarks.pictures import __main__ as pictures
from benchmarks.sweep import read_lines


def test_pictures_are_drawn_from_committed_results(tmp_path):
    pictures.main(["--output", str(tmp_path)])
    for name in pictures.DRAWN:
        root = ElementTree.parse(tmp_path / f"{name}.svg").getroot()
        assert root.tag.endswith("svg")


def test_picture_of_a_run_is_the_same_each_time(tmp_path):
    run = {
        "name": "healthy",
        "steps": [4, 8],
        "curves": {key: [0.25, 0.5] for key in CURVES},
        "alarms": [{"step": 8, "name": "length_runaway", "message": ""}],
    }
    for name in ("one", "two"):
        draw(run, tmp_path / f"{name}.svg")
    one, two = ((tmp_path / f"{name}.svg").read_text() for name in ("one", "two"))
    assert one == two
    assert "length_runaway" in one


def test_curves_of_a_run_go_to_results_and_pictures(tmp_path, monkeypatch):
    sizes = {"sentences": 64, "batch_size": 8, "likelihood_steps": 2, "encoder_steps": 2, "warmup_steps": 2}
    monkeypatch.setattr(curves, "SIZES", {**sizes, "steps": 10})
    output = tmp_path / "curves.jsonl"
    curves.main(["--runs", "blind", "hacked", "--steps", "10", "--output", str(output), "--pictures", str(tmp_path)])
    runs = {run["name"]: run for run in read_lines(output)}
    assert list(runs) == [name for name in CONDITIONS if name in ("blind", "hacked")]
    for name, run in runs.items():
        assert run["steps"] == [4, 8]
        assert all(len(run["curves"][key]) == 2 for key in CURVES)
        assert json.dumps(run["settings"])
        assert (tmp_path / f"curves_{name}.svg").exists()
    assert runs["blind"]["settings"]["discriminator_max_length"] == 3
