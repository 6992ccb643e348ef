"""The frontier on real text: ways to choose among candidates, likelihoods, and the command at tiny size."""

import copy
import json
import math
from types import SimpleNamespace

import pytest
import torch

from benchmarks.frontier import __main__ as frontier
from benchmarks.frontier.candidates import Row, rows
from benchmarks.frontier.generators import supervise
from benchmarks.frontier.lengths import mean_words
from benchmarks.frontier.second import second_discriminator
from benchmarks.frontier.stages import Run, real_nll
from benchmarks.frontier.tables import _lengths, draw, gather, page, rejected_auc, words_table
from benchmarks.frontier.words import telling_words
from benchmarks.sweep import rounded
from hf_mgan.metrics import c2st


@pytest.mark.benchmark
def test_frontier_runs_through_its_fast_stages(of_texts, tmp_path):
    sizes = "--epochs 1 2 2 --updates 4 --max_completion_length 8 --texts 60 --few_texts 30 --batch_size 32 --steps 2"
    stages = "--stages generator samples discriminator log_ratios tests ngram_tests --learning_rates 2e-4 0.03"
    command = [*of_texts, *f"--seeds 0 {sizes} --adversarial_batch_size 4 --draws 2 8 {stages}".split()]
    frontier.main(command)
    runs = gather(tmp_path / "out")
    assert [run["trained"] for run in runs] == ["adversarial", "distilled", "for_4_draws", "supervised"]
    for run in runs:
        assert (run["corpus"], run["generator"], run["seed"]) == ("corpus", "generator", 0)
        assert run["rows"]["T = 1"]["draws"] == 1
        assert run["rows"]["rejection, 8 draws"]["draws"] > run["rows"]["rejection, 2 draws"]["draws"] > 1
        assert run["rows"]["best of 4"]["draws"] == 4
    trainings = runs[-1]["training"]["trainings"]
    tried = sorted((one["epochs"], one["learning_rate"]) for one in trainings)
    assert tried == [(1, 2e-4), (1, 0.03), (2, 2e-4), (2, 0.03)]
    losses = [one["held_out_losses"][-1][1] for one in trainings]
    assert losses == sorted(losses)
    assert losses[0] < losses[-1]
    best = trainings[0]
    assert best["learning_rate"] == 0.03  # each is a training of its own
    run = Run("supervised", 0, frontier.parsed_arguments(command))
    given = run.arguments.generator, tmp_path / "again", run.train, run.validation
    (again,) = supervise(*given, [1], [0.03], bf16=False)["trainings"]  # not after others
    assert [rounded(again)] == [one for one in trainings if (one["epochs"], one["learning_rate"]) == (1, 0.03)]
    kept = run.rows()["rejection, 2 draws"].texts[:60]
    for name, sides in {"rejection, 2 draws": (run.real, kept), "real text": (run.real[:30], run.real[30:])}.items():
        assert runs[-1]["rows"][name]["all_c2st_auc"] == pytest.approx(list(c2st(*sides, seed=0).auc), abs=1e-5)
    text = page(runs)
    assert "{" not in text
    row = f"| supervised | {runs[-1]['training']['texts']} | {best['epochs']} (kept) | 0.03 | "
    assert sum(line.startswith(row) for line in text.splitlines()) == 1
    assert "| supervised, rejection, 8 draws |" in text
    assert "**distilled, T = 1**" in text
    assert (
        "corpus, generator, learning rate 0.03: supervised, seed 0; distilled, seed 0; adversarial, seed 0; "
        "for_4_draws, seed 0." in text
    )
    draw(runs, tmp_path / "picture.svg")  # without the tests that take minutes
    assert "distilled" not in (tmp_path / "picture.svg").read_text()
    tested = copy.deepcopy(runs)
    for run in tested:
        run["rows"]["T = 1"] |= {"fine_tuned_c2st_auc": [0.6, 0.5, 0.7], "fine_tuned_texts": 60}
    draw(tested, tmp_path / "picture.svg")
    assert all(run["trained"] in (tmp_path / "picture.svg").read_text() for run in tested)
    draw([{**run, "learning_rate": rate} for run in tested for rate in (0.1, 0.2, 0.3)], tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").read_text().count("tokens drawn per text kept") == 3  # a panel for each
    both = page([*runs, *({**run, "learning_rate": 1.0} for run in runs)])
    assert both.count("| supervised, rejection, 8 draws |") == 2  # a table for each supervised generator
    assert "- corpus, generator, learning rate 0.03, distilled, T = 1: 0.600 (0.500 to 0.700), " in page(tested)
    frontier.main(command)  # goes on where it stopped: everything is there
    assert gather(tmp_path / "out") == runs
    frontier.main([*command, "--trained", "supervised", "--stages", "second"])
    (second,) = (run["second"] for run in gather(tmp_path / "out") if "second" in run)
    assert list(second["rows"]) == ["rejection, 2 draws", "rejection, 8 draws"]
    assert second["rows"]["rejection, 8 draws"]["draws"] > second["rows"]["rejection, 2 draws"]["draws"] > 1
    assert all(0 < row["fine_tuned_c2st_auc"][0] < 1 for row in second["rows"].values())
    few = "--trained supervised --seeds 1 --draws 2 --stages samples discriminator log_ratios second"
    with pytest.raises(ValueError, match="leaves none to learn from beside 40"):
        frontier.main([*command, *few.split()])
    assert second["updates"] == 2 * (second["texts"] // 32 or 1)
    lines = page(gather(tmp_path / "out")).splitlines()
    start = "- corpus, generator, learning rate 0.03, supervised, two discriminators, rejection, 2"
    assert any(line.startswith(start) for line in lines)
    for run in tested:
        draw([{**run, "second": second}], tmp_path / "picture.svg")
        assert f"{run['trained']}, two discriminators" in (tmp_path / "picture.svg").read_text()
    (place,) = (at for at, line in enumerate(lines) if line.startswith("| supervised, 0, rejection, 2 draws |"))
    assert lines[place].count("|") == lines[place - 2].count("|")  # a heading for every number


@pytest.mark.benchmark
def test_small_generator_is_trained_whole_and_further_with_adapters(of_texts, tmp_path):
    sizes = "--updates 4 --max_completion_length 8 --texts 60 --few_texts 30 --batch_size 32 --draws 2"
    training = "--trained supervised for_4_draws --steps 2 --adversarial_batch_size 4"
    stages = "--stages generator samples discriminator"
    frontier.main([*of_texts, *f"--generator small --seeds 0 {sizes} {training} {stages}".split()])
    root = tmp_path / "out" / "small_corpus"
    training = json.loads((root / "generator.json").read_text())
    assert training["texts"] == 180
    (only,) = training["trainings"]
    history = only["held_out_losses"]
    assert only["learning_rate"] == 1e-3
    assert len(history) == only["epochs"] > 1
    assert history[-1][1] < history[0][1]
    assert not (root / "generator" / "adapter_config.json").exists()
    adapters = json.loads((root / "seed_0" / "for_4_draws" / "generator" / "adapter_config.json").read_text())
    assert adapters["base_model_name_or_path"] == str(root / "generator")
    alone, trained = (
        json.loads((root / "seed_0" / name / "samples.json").read_text())["1"]["texts"]
        for name in ("supervised", "for_4_draws")
    )
    assert alone != trained


def test_more_texts_of_the_fast_tests_than_there_are_real_ones_are_refused(capsys):
    with pytest.raises(SystemExit):
        frontier.main(["--output", "out", "--texts", "1000", "--few_texts", "501"])
    assert "--few_texts 501 is more than half of --texts 1000" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["--epochs 1", "--learning_rates 2e-4"])
def test_how_to_fine_tune_is_refused_of_the_generator_from_random_weights(given, capsys):
    with pytest.raises(SystemExit):
        frontier.main(["--output", "out", "--generator", "small", *given.split()])
    assert f"{given.split()[0]} is of generators that are fine-tuned" in capsys.readouterr().err


def test_frontier_chooses_among_the_pool_as_the_samplers_do():
    """Eight candidates, of which the log-ratios accept half, and best of 4 takes the greatest of four."""
    pool = {
        "texts": list("abcdefgh"),
        "tokens": [1, 2, 3, 4, 5, 6, 7, 8],
        "log_ratios": [9.0, -99.0, -99.0, -99.0, 8.0, 9.0, -99.0, 9.0],
    }
    found = rows(pool, [2.0], seed=0)
    kept = found["rejection, 2 draws"]
    assert kept.texts == ["a", "e", "f", "h"]
    assert kept.log_ratios == [9, 8, 9, 9]
    assert kept.draws == 2
    assert kept.tokens == 9  # 36 tokens for four texts
    assert found["best of 4"].texts in (["a", "f"], ["a", "h"])
    assert found["T = 1"].texts == list("abcdefgh")


def test_area_after_rejection_by_hand():
    """Of candidates 0, 1 and 3, at c = 1 the first counts 1/e; real texts lie above 1 1/2 and above 2 of them."""
    real, pool = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.0, 1.0])
    assert rejected_auc(real, pool, None) == pytest.approx((1.5 + 2) / 2 / 3)
    few = math.exp(-1)
    assert rejected_auc(real, pool, 1.0) == pytest.approx((few + 0.5 + few + 1) / 2 / (few + 2))


def test_second_discriminator_is_tested_on_texts_that_it_has_not_learnt(monkeypatch, tmp_path):
    """800 candidates of equal ratios, a quarter of which is kept: what is learnt is of the second half."""
    seen, texts = {}, [str(place) for place in range(800)]
    known = {"pool": [0.0] * 800, "real": [0.0] * 100}

    def train(condition, learnt, stopping, tested, epochs, *rest):
        seen.update(learnt=learnt, stopping=stopping, tested=tested)
        return {
            "updates": 7,
            "scores": [[float(place % 5) for place in range(len(side))] for side in vars(tested).values()],
        }

    monkeypatch.setattr("benchmarks.frontier.second.train", train)
    run = SimpleNamespace(
        seed=0,
        folder=tmp_path,
        device="cpu",
        arguments=SimpleNamespace(draws=[2.0], few_texts=20, max_completion_length=8),
        validation={"text": [f"validation {place}" for place in range(200)]},
        train={"text": ["learnt"]},
        real=[f"real {place}" for place in range(100)],
        cut=list,
        pool=lambda: {"texts": texts, "tokens": [1] * 800},
        read=lambda stage: known,
        fine_tuned_test=lambda name, real, row: {"texts": len(row), "fine_tuned_c2st_auc": [0.5, 0.4, 0.6]},
    )
    found = second_discriminator(run)
    learnt, stopping, tested = (seen[name] for name in ("learnt", "stopping", "tested"))
    count = len(stopping.generated)
    assert count == 20
    kept = [*stopping.generated, *tested.generated[:count], *learnt.generated]
    assert len(kept) == len(set(kept)) == pytest.approx(100, abs=30)
    assert all(int(text) >= 400 for text in kept)
    assert tested.generated[count:] == texts[:400]
    assert tested.real[count:] == run.real
    assert not set(stopping.real) & set(tested.real)
    assert found["texts"] == len(learnt.generated)
    assert list(found["rows"]) == ["rejection, 2 draws"]
    # The first one's ratios are equal, so that its part at four draws is 0: log a = - log 4.
    calibration = found["calibration"]
    assert calibration["previous_draws"] == 4
    assert calibration["previous_threshold"] == pytest.approx(math.log(4))
    # It is trained once, and its scores are kept.
    monkeypatch.setattr("benchmarks.frontier.second.train", lambda *given: pytest.fail("it is trained again"))
    assert second_discriminator(run) == found


def test_mean_words_by_hand():
    """Ratios 0 and log 3: at c = log 3/2 the first text is kept two times in three, and the second always."""
    ratios, words = torch.tensor([0.0, math.log(3)]), torch.tensor([4, 8])
    found = mean_words(ratios, words, {"rejection": 1.2})
    assert found["T = 1"] == 6
    assert found["rejection"] == pytest.approx((4 * 2 / 3 + 8) / (5 / 3))
    assert found["importance weights"] == pytest.approx((4 + 24) / 4)


def test_lengths_are_said_before_and_after_calibration():
    """Logits 0 and log 3 that calibration has doubled: importance weights 1 and 9, and 1 and 3 before."""
    stages = {
        "tests": {"rows": {"T = 1": {"draws": 1.0, "threshold": None}, "kept": {"draws": 1.5, "threshold": 0.0}}},
        "discriminator": {"calibration": {"slope": 2.0, "intercept": 0.0}},
    }
    found = _lengths(["a b", "a b c d"], torch.tensor([0.0, 2 * math.log(3)]), stages)
    assert list(found["calibrated"]) == ["T = 1", "kept", "importance weights"]
    assert found["calibrated"]["importance weights"] == pytest.approx((2 + 9 * 4) / 10)
    assert found["uncalibrated"]["importance weights"] == pytest.approx((2 + 3 * 4) / 4)
    stages["discriminator"]["calibration"]["slope"] = 0.0  # the discriminator is at chance
    assert list(_lengths(["a b", "a b c d"], torch.zeros(2), stages)) == ["calibrated"]


def test_likelihood_of_rejection_is_that_of_its_density():
    """Of three texts: q(x) min(1, exp(r - c)) / Z at each of them, with 1 / Z draws."""
    ratios = {"real_logps": [-1.0, -2.0, -3.0], "real": [0.0, 2.0, 1.0]}
    alone = Row([], [], 1.0, 1.0)
    assert real_nll(ratios, alone) == 2
    kept = Row([], [], 4.0, 1.0, threshold=1.0)
    assert real_nll(ratios, kept) == pytest.approx(2 + 1 / 3 - math.log(4))


def test_telling_words_by_hand():
    """Of 100 texts per side: "Emma" in 20 and 2, "nice" in 2 and 20, and "a" in all of both."""
    real = ["a Emma"] * 20 + ["a nice"] * 2 + ["a b"] * 78
    generated = ["a Emma Emma"] * 2 + ["a nice"] * 20 + ["a b"] * 78
    found = telling_words(real, generated, {"learnt": ["a Emma", "a"]})
    assert found["names"] == ["real", "generated", "learnt"]
    first, last = found["words"][0], found["words"][4]
    assert first == ["Emma", 0.2, 0.02, 0.5]
    assert last == ["nice", 0.02, 0.2, 0.0]
    assert (
        words_table([{"trained": "supervised", "seed": 0, "words": found}])
        .splitlines()[2]
        .startswith("| Emma | 20.00% | 2.00% | 50.00% |")
    )
