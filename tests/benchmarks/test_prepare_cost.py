"""The cost of preparing a dataset: each way on a few rows, and what is written of them."""

import json

import pytest

from benchmarks.hardware import prepare_cost

from ..kinds_of_tokenizers import qwen


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("way", list(prepare_cost.WAYS))
def test_each_way_prepares_all_rows(tmp_path, way, streamed):
    prepare_cost.write_rows(tmp_path / "rows.jsonl", 20)
    qwen().save_pretrained(tmp_path / "tokenizer")
    measured = prepare_cost.measure(way, tmp_path / "rows.jsonl", str(tmp_path / "tokenizer"), streamed)
    assert measured["rows"] == 20
    assert measured["peak_memory_mib"] > 50


def test_ways_are_compared_with_tokenising_alone(tmp_path, monkeypatch):
    seconds = {"tokenised": 2.0, "whole": 0.5, "cut": 3.0}

    def measured(way, path, arguments, streamed):
        taken = seconds[way]
        return {"rows": 8, "seconds": taken, "cpu_seconds": taken, "peak_memory_mib": 90.0, "added_memory_mib": 1.0}

    monkeypatch.setattr(prepare_cost, "in_own_process", measured)
    prepare_cost.main(["--rows", "8", "--rounds", "1", "--output", str(tmp_path / "out.jsonl")])
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(line["way"], line["streamed"]) for line in written[:3]] == [(way, False) for way in seconds]
    assert [line["over_tokenised"] for line in written[:3]] == [1.0, 0.25, 1.5]
    assert written[2]["rows_per_second"] == 3
    assert len(written) == 9
