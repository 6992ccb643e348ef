"""The benchmark of a verifiable reward on real text, at tiny size."""

import json

import pytest

from benchmarks.verifiable_text import __main__ as verifiable_text
from benchmarks.verifiable_text.stages import HasWord
from benchmarks.verifiable_text.tables import OF_D, draw, gather, page, points, rows_table, samples
from benchmarks.verifiable_text.ways import WAYS

from ..conftest import texts


SIZES = (
    "--word dog --seeds 0 --epochs 1 --taught_epochs 1 --steps 2 --adversarial_batch_size 4 --updates 4 "
    "--max_completion_length 8 --pool 1000 --texts 200 --few_texts 700 --batch_size 64"
)


def test_reward_is_a_word_and_no_part_of_one():
    reward = HasWord("he")
    assert reward(["He left.", "she", "the hero", "'tis he, then", "he's"]) == [1, 0, 0, 1, 0]
    assert reward.only(["the", "he"]) == ["he"]


def test_fewer_texts_with_the_word_than_a_test_needs_are_refused(of_texts):
    with pytest.raises(ValueError, match=r"At least 40 texts .* the word 'zebra', got 0"):
        verifiable_text.main([*of_texts, "--word", "zebra", "--seeds", "0"])


@pytest.mark.benchmark
def test_every_way_is_gone_once_and_has_its_row(of_texts, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.verifiable_text.stages.WARM_UP", 2)
    for split, count in (("train", 600), ("validation", 240)):
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts(count, seed=count))
        (tmp_path / f"corpus.{split}.jsonl").write_text(rows)
    ways = ["supervised", "grpo_0", "grpo_0.1", "real_1", "anchor", "taught_real_0", "guided", "imitation"]
    command = [*of_texts, *SIZES.split(), "--ways", *ways]
    verifiable_text.main(command)
    results = gather(tmp_path / "out")
    assert {one["way"] for one in results} == {*ways, "taught"}  # with which another begins
    of_way = {one["way"]: one for one in results}
    for one in results:  # what another needs to make the same, and no path
        assert one["settings"] | {"steps": 2, "updates": 4, "pool": 1000, "texts": 200} == one["settings"]
        assert str(tmp_path) not in json.dumps(one["settings"])
    assert all(
        one["training"]["steps"] == 2 for name, one in of_way.items() if name.startswith(("grpo", "real", "anchor"))
    )
    rows = {row["way"]: row for row in of_way["guided"]["rows"]}
    assert {row["reward"] for row in rows.values()} == {1}
    draws = [row["draws"] for row in rows.values()]
    assert draws == sorted(draws)
    assert draws[0] == pytest.approx(1 / of_way["supervised"]["rows"][1]["reward"], rel=0.5)
    # The real texts of the discriminators: all, or those alone that have the word.
    learnt = of_way["imitation"]["training"]["texts"]
    assert 0 < learnt <= 1000 / draws[0]
    assert of_way["taught"]["training"]["texts"] < 600 - 200
    text = page(results)
    assert "{" not in text
    assert "Supervised training: 400 texts, epochs: 1, held-out loss " in text
    made = text.split("```text\n")[1].split("\n")[0].split()  # the command makes the same settings again
    again = verifiable_text.parsed_arguments(made[3:])
    assert all(getattr(again, key) == value for key, value in results[0]["settings"].items())
    assert all(f"| {WAYS[one['way']].text}, " in text for one in results)
    draw(results, tmp_path / "picture.svg")
    assert {"the start", "filter and D at generation"} <= points(results).keys()
    assert all(kind in (tmp_path / "picture.svg").read_text() for kind in points(results))
    verifiable_text.main(command)  # goes on where it stopped: everything is there
    assert gather(tmp_path / "out") == results


def result(way, seed, *areas, rewards=(0.5, 0.7)):
    rows = [
        {
            "way": f"T = {place}",
            "reward": rewards[seed],
            "texts": 100,
            "auc": {},
            # One has too few rewarded texts for a test.
            "rewarded_auc": {} if area is None else {"encoder": [area, area - 0.1, area + 0.1]},
            "self_bleu": 0.1,
            "words": 8,
            "draws": 1,
            "samples": [f"text at {place}"],
        }
        for place, area in enumerate(areas)
    ]
    return {"way": way, "seed": seed, "rows": rows}


def test_points_are_means_over_the_seeds_by_kind():
    results = [
        result("grpo_0", 0, 0.8),
        result("grpo_0", 1, 0.7),
        result("real_1", 0, 0.6, 0.5),
        result("taught", 0, None),
        result("anchor", 0, 0.7),
    ]
    found = {kind: [tuple(map(pytest.approx, one)) for one in places] for kind, places in points(results).items()}
    assert found == {
        "GRPO, by KL": [(0.6, 0.75, 0.1)],
        OF_D: [(0.5, 0.6, 0.1), (0.5, 0.5, 0.1)],
        "supervised on rewarded": [(0.5, 0.7, 0.1)],
    }


def test_each_temperature_has_its_row_and_the_last_one_its_samples():
    results = [result("taught", 0, 0.8, 0.7), result("taught", 1, 0.9, 0.6)]
    cold, hot = rows_table(results).splitlines()[2:]
    assert cold.startswith("| supervised on rewarded real texts, T = 0 | 0.60 | 60 | 0.800 / 0.900 ± 0.100 | ")
    assert hot.startswith("| supervised on rewarded real texts, T = 1 | 0.60 | 60 | 0.700 / 0.600 ± 0.100 | ")
    assert "text at 1" in samples(results)
    assert "text at 0" not in samples(results)


def test_results_of_different_settings_do_not_share_a_page():
    results = [
        {
            **result("taught", seed, 0.8),
            "corpus": "c",
            "word": "w",
            "generator": "g",
            "settings": {"steps": steps, "bf16": True},
        }
        for seed, steps in ((0, 60), (1, 6))
    ]
    with pytest.raises(ValueError, match=r'"steps": 60\} and .*"steps": 6\}'):
        page(results)
    assert "--seeds 0 --steps 60 --bf16\n" in page(results[:1])  # a flag that takes no value
