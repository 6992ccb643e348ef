"""The pages of the documentation are what the committed results make of them."""

import json

import pytest

from benchmarks.pages import __main__ as pages
from benchmarks.pages import results
from benchmarks.sweep import read_lines


def test_pages_are_what_the_committed_results_make_of_them():
    pages.main(["--check"])


def test_check_names_a_page_that_differs(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "PAGES", tmp_path)
    monkeypatch.setattr(pages, "WRITTEN", {"one": lambda: "new", "two": lambda: "same"})
    for name, text in {"one": "old", "two": "same"}.items():
        (tmp_path / f"{name}.md").write_text(text)
    with pytest.raises(SystemExit, match=r"docs/one\.md\. Run"):
        pages.main(["--check"])
    assert (tmp_path / "one.md").read_text() == "old"
    pages.main([])
    assert (tmp_path / "one.md").read_text() == "new"


def test_evaluation_becomes_a_line_per_model_and_temperature(tmp_path, monkeypatch):
    part = {"metrics": {"c2st_auc": [0.5, 0.4, 0.6], "entropy": [2.0, 1.0, 3.0]}, "seconds": 1.0}
    report = {"parts": {"real": part, "a_T_T0.7": part}, "device": "cpu", "versions": {"torch": "1"}}
    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    monkeypatch.setattr(pages, "WRITTEN", {})
    (tmp_path / "report.json").write_text(json.dumps(report))
    pages.main(["--evaluation", str(tmp_path / "report.json")])
    real, model = read_lines(tmp_path / "evaluation.jsonl")
    assert (real["model"], real["temperature"]) == ("real text", None)
    assert (model["model"], model["temperature"]) == ("a_T", 0.7)
    assert "| a_T | 0.7 | 0.500 ± 0.100 |" in results.evaluation_table([real, model])


def test_demo_table_has_the_means_over_the_seeds():
    """Divergences 0.3 and 0.4: mean 0.35, deviation 0.071."""
    language = {"grammatical": 1.0, "distinct_4": 0.4, "entropy": 13.0, "mean_length": 7.0}

    def run(seed, divergence):
        quality = {**language, "real_nll": 14.0, "divergence": divergence, "temperature": 1.0}
        guided = {**quality, "draws": 2.0 + seed, "threshold": 0.5, "divergence": divergence / 2}
        models = {"likelihood": [quality], "likelihood_again": [quality], "adversarial": quality}
        return {"seed": seed, **models, "guided": {"maximum likelihood + D": [guided]}, "x": 0}

    report = {"arguments": {"steps": 2, "seeds": [0, 1]}, "language": language, "versions": {}}
    lines = results.demo_lines({**report, "runs": [run(0, 0.3), run(1, 0.4)]})
    assert [line["seed"] for line in lines] == [0, 1]
    assert all("x" not in line and line["settings"] == {"steps": 2} for line in lines)
    table = results.demo_table(lines)
    assert "| **adversarial** | 1 | 0.350 ± 0.071 | 1.000 | 0.400 | 13.00 | 14.00 | 7.00 |" in table
    assert "| maximum likelihood + D, c = 0.5, 2.5 draws | 1 | 0.175 ± 0.035 | 1.000" in table
    assert "| the language |  | 0 | 1.000 | 0.400 | 13.00 | 13.00 | 7.00 |" in table
