"""The benchmark of discriminators: pairs by hand, and the command at tiny size."""

import json

import pytest

from benchmarks.discriminators import __main__ as discriminators
from benchmarks.discriminators.tables import gather, page, pairs
from benchmarks.discriminators.training import CAUSAL, ENCODER, Condition, conditions


def test_conditions_change_one_thing_at_a_time():
    usual = Condition(ENCODER, 4000)
    found = conditions([1000, 4000, 16_000], [1000])
    assert len(found) == len({one.name for one in found}) == 7
    for one in found:
        differences = sum(vars(one)[name] != vars(usual)[name] for name in vars(usual))
        assert differences <= 1 or one.kind == CAUSAL


def test_pair_decides_by_the_mean_logit():
    """Each ranks one of two pairs rightly; by the mean of both logits all are right."""

    def one(kind, real, generated, rate=5e-5):
        settings = {"kind": kind, "samples": 4, "label_smoothing": 0.0, "learning_rate": rate, "cpu_seconds": 3.0}
        return {**settings, "scores": [real, generated]}

    made = [
        one(ENCODER, [5.0, 0.0], [1.0, 1.0]),
        one(CAUSAL, [0.0, 5.0], [1.0, 1.0]),
        one(ENCODER, [0.0, 0.0], [9.0, 9.0], rate=1.0),
    ]
    (pair,) = pairs(made)
    assert pair["auc"][0] == 1
    assert pair["cpu_seconds"] == 6


@pytest.mark.benchmark
def test_every_discriminator_is_trained_and_tested_once(of_texts, tmp_path):
    sizes = "--epochs 1 --max_completion_length 8 --texts 60 --batch_size 32 --draws 8"
    own = "--encoder_samples 32 64 --causal_samples 32 --epochs_of_discriminator 2"
    command = [*of_texts, *f"--seeds 0 {sizes} {own}".split()]
    discriminators.main(command)
    (run,) = gather(tmp_path / "out")
    assert (run["corpus"], run["generator"], run["seed"]) == ("corpus", "generator", 0)
    assert [row["kind"] for row in run["rows"]].count("both") == 1
    assert all(0 <= row["auc"][1] <= row["auc"][0] <= row["auc"][2] <= 1 for row in run["rows"])
    assert all(row["updates"] == 2 * row["samples"] // 32 for row in run["rows"] if row["kind"] != "both")
    files = list((tmp_path / "out").glob("*/seed_0/supervised/discriminators/*.json"))
    assert all(len(side) == 60 for path in files for side in json.loads(path.read_text())["scores"])
    text = page([run])
    assert "{" not in text
    assert "| encoder | 64 | 0.1 | 5e-05 | " in text
    discriminators.main(command)  # goes on where it stopped: everything is there
    assert gather(tmp_path / "out") == [run]
    with pytest.raises(ValueError, match="leaves none to learn from"):
        discriminators.main([*command, "--output", str(tmp_path / "other"), "--draws", "1.5"])
