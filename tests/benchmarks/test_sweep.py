"""Sweeps: jobs that go on where they stopped, results that are merged and published, and statistics over seeds."""

import argparse
import json

import pytest

from benchmarks.recipe import __main__ as recipe
from benchmarks.recipe.conditions import CONDITIONS
from benchmarks.recipe.tables import INITIAL_MODELS
from benchmarks.sweep import (
    Job,
    add_arguments,
    do_in_process,
    do_job,
    jobs,
    merge,
    parse_arguments,
    publish,
    publish_runs,
    read_folder,
    read_lines,
    run_jobs,
    write_file,
    write_lines,
)
from benchmarks.sweep.tables import Difference, table


SIZES = {"sentences": 400}


def result(name, seed, value=0.25, **changes):
    return {"condition": name, "seed": seed, "settings": SIZES, "value": value, **changes}


@pytest.fixture
def arguments(tmp_path):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parse_arguments(parser, ["--output", str(tmp_path / "out"), "--seeds", "0", "1"])


def leave(arguments, started, failing=()):
    """Return what does a job here: it leaves a made-up result."""

    def start(job):
        started.append(job)
        error = {"error": "Traceback\nValueError: no luck"} if job in failing else {}
        write_file(job.path(arguments.output), result(*job, **error))

    return start


def outcome(one):
    return f"value {one['value']}"


def test_run_jobs_goes_on_where_it_stopped(arguments, capsys):
    wanted, started = [Job("default", 0), Job("frozen", 0), Job("default", 1), Job("frozen", 1)], []
    run_jobs(wanted[:2], arguments, leave(arguments, started, failing=[wanted[1]]), outcome)
    told = capsys.readouterr().out
    assert "default.0: value 0.25" in told
    assert "frozen.0: failed: ValueError: no luck" in told
    run_jobs(wanted, arguments, leave(arguments, started), outcome)
    assert started == wanted  # none twice
    arguments.retry = True
    run_jobs(wanted, arguments, leave(arguments, started), outcome)
    assert started == [*wanted, wanted[1]]
    assert not any("error" in one for one in read_folder(arguments.output).values())


def test_run_jobs_does_incomplete_jobs_again(arguments):
    job, started = Job("default", 0), []
    write_file(job.path(arguments.output), result(*job))
    run_jobs([job], arguments, leave(arguments, started), outcome)
    assert started == []
    run_jobs([job], arguments, leave(arguments, started), outcome, incomplete=[job])
    assert started == [job]


def test_run_jobs_starts_none_too_late(arguments):
    arguments.stop_after, started = -1.0, []
    run_jobs([Job("default", 0)], arguments, leave(arguments, started), outcome)
    assert started == []
    assert read_folder(arguments.output) == {}


def test_do_in_process_leaves_the_error_of_a_dead_process(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs.sys, "executable", "false")
    do_in_process(Job("default", 0), "benchmarks.recipe", [], tmp_path, SIZES)
    assert read_folder(tmp_path)[Job("default", 0)]["error"].startswith("The process ended with 1")


def test_do_job_returns_an_error_and_rounds_numbers():
    def fail():
        raise ValueError("no luck")

    assert "ValueError: no luck" in do_job(Job("default", 0), SIZES, fail)["error"]
    done = do_job(Job("default", 0), SIZES, lambda: {"value": 1 / 3, "none": float("nan")})
    assert (done["value"], done["none"]) == (0.333333, None)


def test_merge_keeps_what_is_there(tmp_path, capsys):
    out, lines = tmp_path / "out", tmp_path / "elsewhere.jsonl"
    for one in (result("default", 0), result("frozen", 0, error="Traceback\nValueError: x")):
        write_file(Job(one["condition"], one["seed"]).path(out), one)
    write_lines(lines, [result("default", 0, 0.5), result("frozen", 0, 0.5), result("pairs", 0, 0.5)])
    merge([lines], out)
    assert "2 new, 0 there already, 1 different from the one there, which is kept" in capsys.readouterr().out
    merged = read_folder(out)
    assert {job.name: one["value"] for job, one in merged.items()} == {"default": 0.25, "frozen": 0.5, "pairs": 0.5}
    assert "error" not in merged[Job("frozen", 0)]
    again = tmp_path / "again"
    merge([out], again)  # a folder serves as well
    assert read_folder(again) == merged
    write_lines(lines, [result("ema", 0, settings={"sentences": 1})])
    with pytest.raises(ValueError, match="different sizes"):
        merge([lines], out)


def test_read_folder_finds_every_condition(tmp_path):
    """Some names hold a number with a point; the files made of all results are no results."""
    for name in CONDITIONS:
        write_file(Job(name, 0).path(tmp_path), result(name, 0))
    write_file(tmp_path / "recipe.json", {})
    write_lines(tmp_path / "recipe.jsonl", [])
    assert {job.name for job in read_folder(tmp_path)} == set(CONDITIONS)


def test_publish_replaces_results_of_the_same_job_alone(tmp_path):
    committed, page, folder = tmp_path / "committed.jsonl", tmp_path / "page.md", tmp_path / "out"
    write_lines(committed, [result("default", 0), result("ema", 0)])
    write_file(Job("default", 0).path(folder), result("default", 0, 0.5))
    write_file(Job("pairs", 0).path(folder), result("pairs", 0, 0.75))

    def ordered(results):
        return [results[job] for job in sorted(results)]

    def written(results):
        return " ".join(f"{one['condition']} {one['value']}" for one in results)

    publish(folder, committed, page, ordered, written)
    assert page.read_text() == "default 0.5 ema 0.25 pairs 0.75"
    assert len(committed.read_text().splitlines()) == len(read_lines(committed)) == 3
    write_lines(committed, [result("default", 0)])
    publish(None, committed, page, ordered, written)  # the page alone
    assert page.read_text() == "default 0.25"


def test_publish_runs_replaces_those_of_the_same_corpus_generator_learning_rate_and_seed(tmp_path):
    committed, page = tmp_path / "committed.jsonl", tmp_path / "page.md"
    old = {"corpus": "news", "generator": "small", "learning_rate": 0.1, "seed": 0, "value": 1}
    write_lines(committed, [old])

    def written(runs):
        return " ".join(str(run["value"]) for run in runs)

    changes = [{"seed": 1}, {"learning_rate": 0.01}, {"generator": "large"}, {"corpus": "poems"}]
    new = [{**old, **change, "value": place} for place, change in enumerate(changes, 2)]
    assert publish_runs(tmp_path, committed, page, lambda folder: new, written) == read_lines(committed)
    assert page.read_text() == "4 3 1 2 5"  # large, then small at 0.01 and at 0.1 with both seeds, then poems
    publish_runs(tmp_path, committed, page, lambda folder: [{**old, "value": 9}], written)
    assert page.read_text() == "4 3 9 2 5"
    with pytest.raises(ValueError, match="no finished run"):
        publish_runs(tmp_path, committed, page, lambda folder: [], written)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--output o --workers 0", "--workers"),
        ("--output o --tiny --publish", "--tiny"),
        ("--tiny", "--output"),
    ],
)
def test_parse_arguments_refuses_contradictions(words, named, capsys):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit):
        parse_arguments(parser, words.split())
    assert named in capsys.readouterr().err.splitlines()[-1]


def test_difference_has_its_hand_computed_verdict():
    """-0.02, -0.03, -0.04: mean -0.03, deviation 0.01; t = 0.03 / (0.01 / sqrt 3) = 5.2 > 4.303."""
    difference = Difference.of([-0.02, -0.03, -0.04])
    assert difference.mean == pytest.approx(-0.03)
    assert difference.standard_error == pytest.approx(0.01 / 3**0.5)
    assert difference.verdict == "✓"
    assert Difference.of([0.02, 0.03, 0.04]).verdict == "✗"
    assert Difference.of([-0.02, 0.0, -0.04]).verdict == ""  # error 0.02 / sqrt 3, t = 1.7
    assert Difference.of([-0.2]).verdict == ""


# The command of the recipe


def test_recipe_jobs_go_group_by_group_and_seed_by_seed():
    chosen = [CONDITIONS[name] for name in ("frozen", "default", "pairs", "perfect")]
    names = [f"{job.name}.{job.seed}" for job in recipe.jobs_of(chosen, [0, 1])]
    assert names == [
        *["default.0", "perfect.0", "default.1", "perfect.1"],
        *["frozen.0", "pairs.0", "frozen.1", "pairs.1"],
    ]


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Jobs of the recipe that were started; each leaves a made-up result, and initial models their folder."""
    started = []

    def start(job, module, options, folder, settings):
        started.append(job)
        kind = "likelihood" if job.name == INITIAL_MODELS else "generator"
        quality = {"temperature": 1.0, "divergence": 0.3}
        made = {kind: [quality] if kind == "likelihood" else quality, "job_seconds": 1.0}
        write_file(job.path(folder), {**result(*job), **made, "settings": settings})
        if job.name == INITIAL_MODELS and job.seed != 9:
            write_file(folder / INITIAL_MODELS / f"seed_{job.seed}" / recipe.METRICS, {})

    monkeypatch.setattr(recipe, "do_in_process", start)
    monkeypatch.setattr(recipe, "summarise", lambda folder: None)
    return started


def test_recipe_makes_initial_models_first_and_once(started, tmp_path):
    words = ["--output", str(tmp_path), "--tiny", "--seeds", "0", "--conditions"]
    recipe.main([*words, "frozen"])
    assert started == [Job(INITIAL_MODELS, 0), Job("frozen", 0)]
    recipe.main([*words, "frozen", "pairs"])
    assert started[2:] == [Job("pairs", 0)]
    # Results of another machine come without the models.
    (tmp_path / INITIAL_MODELS / "seed_0" / recipe.METRICS).unlink()
    recipe.main([*words, "steps_2"])
    assert started[3:] == [Job(INITIAL_MODELS, 0), Job("steps_2", 0)]


def test_recipe_trains_nothing_without_initial_models(started, tmp_path, capsys):
    recipe.main(["--output", str(tmp_path), "--tiny", "--seeds", "9", "--conditions", "frozen"])
    assert started == [Job(INITIAL_MODELS, 9)]
    assert "no initial models for the seeds [9]" in capsys.readouterr().out


def test_recipe_publishes_from_the_committed_results(tmp_path, monkeypatch):
    committed, page = tmp_path / "recipe.jsonl", tmp_path / "recipe.md"
    monkeypatch.setattr(recipe, "COMMITTED", committed)
    monkeypatch.setattr(recipe, "PAGE", page)
    write_lines(committed, [{"condition": "steps_2", "seed": 0, "settings": {}, "error": "Traceback\nOSError: x"}])
    recipe.main(["--publish"])
    assert "- steps_2, seed 0, failed: `OSError: x`" in page.read_text()
    assert json.loads(committed.read_text())["condition"] == "steps_2"


def test_table_refuses_a_row_that_does_not_fit_its_head():
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    with pytest.raises(ValueError, match=r"2 columns.*1 cells"):
        table(["a", "b"], [["1"]])
