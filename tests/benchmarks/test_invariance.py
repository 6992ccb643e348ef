"""Steps do not depend on how their batch is divided: a few cells of the table by default, all of it where asked."""

import json

import pytest

from benchmarks.robustness import invariance


def test_divisions_of_a_step_agree(tmp_path):
    results = invariance.run(["relativistic_average"], ["2 x 4", "D by 3", "order", "padding"], tmp_path)
    assert invariance.unexplained(results) == []
    assert len(results) == 4
    for result in results:
        assert result["generator_moved"] > 1e-3
        assert result["discriminator_moved"] > 1e-3


def test_a_difference_without_a_reason_is_found():
    same = {"loss": "bce", "division": "order", "generator": 1e-7, "discriminator": 2e-7, "reason": ""}
    moved = {"generator_moved": 0.1, "discriminator_moved": 0.2}
    results = [
        same | moved,
        same | moved | {"division": "2 x 4", "discriminator": 2e-6},
        same | moved | {"division": "some", "generator": 1e-2, "reason": "other draws"},
    ]
    assert invariance.unexplained(results) == [results[1]]
    lines = invariance.table(results).splitlines()
    assert lines[2:5] == ["| order | 1e-07 / 2e-07 |", "| 2 x 4 | 1e-07 / 2e-06 |", "| some | 1e-02 / 2e-07 |"]
    assert lines[-1] == "some: other draws."


def test_texts_of_a_division_are_those_of_the_reference(tmp_path, monkeypatch):
    """Whatever the division, the discriminator is shown the same pairs of prompt and completion in each step."""
    invariance.save_models(tmp_path / "models")
    seen = []
    for name in ("8 x 1", "1 x 8", "order"):
        trainer = invariance.make_trainer("bce", invariance.DIVISIONS[name], tmp_path / "models", tmp_path / "out")
        shown, update = [], trainer.discriminator.update

        def watched(prompts, completions, references, *args, shown=shown, update=update, **kwargs):
            shown.append((sorted(zip(prompts, completions, strict=True)), sorted(references)))
            return update(prompts, completions, references, *args, **kwargs)

        trainer.discriminator.update = watched
        trainer.train()
        seen.append(shown)
    assert seen[0] == seen[1] == seen[2]
    assert len({text for pairs, _ in seen[0] for _, text in pairs}) > 12


@pytest.mark.slow
def test_whole_table_stays_within_the_bound(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(invariance, "COMMITTED", tmp_path / "invariance.jsonl")
    invariance.main(["--publish"])
    lines = [json.loads(line) for line in (tmp_path / "invariance.jsonl").read_text().splitlines()]
    assert {line["loss"] for line in lines} == set(invariance.CASES)
    assert {line["division"] for line in lines} == set(invariance.DIVISIONS) - {"8 x 1", "some replayed, 8 x 1"}
    assert all(line["versions"]["trl"] and line["command"] for line in lines)
