"""The tables of the benchmark of the recipe, from made-up results."""

import math

import pytest

from benchmarks.recipe import tables as recipe_tables
from benchmarks.recipe.conditions import CONDITIONS
from benchmarks.recipe.tables import INITIAL_MODELS
from benchmarks.sweep.tables import by_condition


def result(name, seed, divergence=0.25, **changes):
    """What a job leaves, as little as the tables need."""
    made = {"condition": name, "seed": seed, "settings": {"sentences": 400}, "initial_models": "same"}
    quality = {
        "temperature": 1.0,
        "divergence": divergence,
        "grammatical": 0.8,
        "entropy": 11.0,
        "real_nll": 15.0,
        "length_ratio": 1.0,
        "distinct_4": 0.3,
    }
    if name == INITIAL_MODELS:
        made["likelihood"] = [{**quality, "temperature": 0.8}, {**quality, "divergence": divergence + 0.02}]
    else:
        compared = {"accuracy": 0.7, "auc": 0.8, "value": -1.0, "calibration_error": 0.02}
        compared |= {f"best_{key}": value for key, value in compared.items()}
        compared |= {"spearman": 0.6, "spearman_generated": 0.5, "overfit": None}
        made |= {"generator": quality, "discriminator": {"after_warmup": compared, "after_training": compared}}
    return {**made, "job_seconds": 1.0, **changes}


def test_paired_compares_runs_of_the_same_seed():
    """-0.02, -0.03, -0.04 at seeds 0 to 2: mean -0.03, deviation 0.01; t = 0.03 / (0.01 / sqrt 3) = 5.2 > 4.303."""
    results = by_condition(
        [
            *[result("default", seed, 0.30) for seed in range(4)],
            *[result("pairs", seed, 0.28 - seed / 100) for seed in range(3)],
            *[result("scale_group", seed, value) for seed, value in enumerate((0.28, 0.30, 0.26))],
            *[result("frozen", seed, value) for seed, value in enumerate((0.40, 0.41, 0.42))],
            result("steps_2", 0, 0.10),
            result("warmup_0", 5, 0.10),
        ]
    )
    difference = recipe_tables.paired(results["pairs"], results["default"])
    assert difference.mean == pytest.approx(-0.03)
    assert difference.standard_error == pytest.approx(0.01 / math.sqrt(3))
    assert difference.seeds == 3
    assert difference.verdict == "✓"
    # -0.02, 0, -0.04: mean -0.02, error 0.02 / sqrt 3, t = 1.7.
    assert recipe_tables.paired(results["scale_group"], results["default"]).verdict == ""
    assert recipe_tables.paired(results["frozen"], results["default"]).verdict == "✗"
    assert recipe_tables.paired(results["steps_2"], results["default"]).verdict == ""
    assert recipe_tables.paired(results["warmup_0"], results["default"]) is None

    lines = recipe_tables.ablations_table(results).splitlines()
    row = next(line for line in lines if line.startswith(f"| {CONDITIONS['pairs'].text} |"))
    assert row.split(" | ")[1:4] == ["0.270 ± 0.010 (3)", "-0.0300 ± 0.0058", "✓"]
    assert next(line for line in lines if "label_smoothing" in line).split(" | ")[1] == "not run"


def test_gap_closed_is_taken_over_the_seeds_of_all():
    """ML 0.34 and 0.36, the default 0.28 and 0.30, perfect 0.24 and 0.24: (0.35 - 0.29) / (0.35 - 0.24)."""
    results = [result(INITIAL_MODELS, 0, 0.34), result(INITIAL_MODELS, 1, 0.36), result(INITIAL_MODELS, 2, 0.9)]
    results += [result("default", 0, 0.28), result("default", 1, 0.30), result("default", 2, 0.9)]
    results += [result("perfect", 0, 0.24), result("perfect", 1, 0.24), result("perfect", 2, 0.2, error="x")]
    sorted_results = by_condition(results)
    assert recipe_tables.gap_closed(sorted_results, "default") == pytest.approx(0.06 / 0.11)
    assert recipe_tables.gap_closed(sorted_results, "perfect") == pytest.approx(1)
    assert recipe_tables.gap_closed(sorted_results, "perfect_logit") is None
    table = recipe_tables.headroom_table(sorted_results)
    assert "| maximum likelihood, best temperature | 0.533 ± 0.318 (3) | 0 |" in table
    assert "| maximum likelihood, temperature 1 | 0.553 ± 0.318 (3) |  |" in table
    assert "| the default | 0.493 ± 0.352 (3) | 0.55 |" in table


def test_objectives_table_has_every_pair_at_its_place():
    results = by_condition(
        [result("default", 0, 0.1), result("hinge-logit", 0, 0.2), result("bce-probability", 0, 0.3)]
    )
    lines = recipe_tables.objectives_table(results).splitlines()
    assert lines[2] == "| `bce` | 0.100 (1) | not run | not run | 0.300 (1) |"
    assert lines[5] == "| `hinge` | not run | not run | 0.200 (1) | not run |"


def test_hours_are_those_of_the_processor():
    """Initial models state their parts, 1000 + 800; a run also the sum, 1800, of its parts: one hour."""
    results = [
        result(INITIAL_MODELS, 0, seconds={"encoder": 1000.0, "causal": 800.0}),
        result("default", 0, seconds={"training": 1700.0, "all": 1800.0}),
        {"condition": "steps_2", "seed": 0, "error": "x"},
    ]
    assert recipe_tables.fields_of(results)["hours"] == "1.0"


def test_notes_name_failures_and_different_models():
    assert "Every job ended well" in recipe_tables.notes([result("default", 0), result("frozen", 0)])
    told = recipe_tables.notes(
        [
            result("default", 0),
            result("frozen", 0, initial_models="others"),
            result("steps_2", 1, error="Traceback\nOSError: x"),
        ]
    )
    assert "- steps_2, seed 1, failed: `OSError: x`" in told
    assert "seed 0 began with 2 different sets of initial models" in told


def test_removed_conditions_have_a_table_of_their_own():
    """The default has 0.30 and 0.32, the average of weights 0.31 and 0.33."""
    results = by_condition(
        [
            *(result("default", seed, 0.30 + seed / 50) for seed in (0, 1)),
            result("ema", 0, 0.31),
            result("ema", 1, 0.33),
        ]
    )
    assert "| `ema_decay=0.99` | 0.320 ± 0.014 (2) | +0.0100 ± 0.0000 |" in recipe_tables.removed_table(results)
    assert "ema_decay" not in recipe_tables.ablations_table(results)
    assert "length_neutral" not in recipe_tables.removed_table(results)
