"""The demo as a command at tiny sizes, its tables and its verdict."""

import ast
import dataclasses
import io
import json
import math
import multiprocessing
import re

import pytest
import torch
from rich.console import Console

from hf_mgan import Discriminator
from hf_mgan.cli.main import main
from hf_mgan.demo import aside
from hf_mgan.demo.exact_metrics import GuidedQuality, Quality
from hf_mgan.demo.report import LOAD, discriminator_table, quality_table, show, verdict
from hf_mgan.demo.run import DemoArguments, SeedResult
from hf_mgan.training import text_source


SIZES = {
    "sentences": 400,
    "batch_size": 16,
    "likelihood_steps": 12,
    "encoder_steps": 4,
    "warmup_steps": 2,
    "steps": 10,
    "final_steps": 3,
    "samples": 50,
}
HELD_OUT = 200  # of the demo's 2,000: as many texts as it trains on here


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    flags = [word for name, value in SIZES.items() for word in (f"--{name}", str(value))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_source, "MOST_HELD_OUT", HELD_OUT)
        # With one thread a fork is safe, and need not import everything again; `test_aside.py` starts processes anew.
        patch.setattr(aside, "get_context", lambda _: multiprocessing.get_context("fork"))
        main(["demo", "--output_dir", str(folder), "--seeds", "3", *flags])
    return folder


def test_demo_saves_metrics_curves_and_models(folder):
    result = json.loads((folder / "demo.json").read_text())
    (run,) = result["runs"]
    assert result["command"] == "hf-mgan demo --seeds 3"
    assert len(run["curves"]["V(D,G)"]) == SIZES["steps"]
    assert [step for step, _ in run["divergences"]] == list(range(1, 11))
    assert 0 <= run["adversarial"]["divergence"] <= 1
    assert len(run["likelihood"]) == len(run["likelihood_again"]) == 5
    assert len(run["samples_before"]) == len(run["samples_after"]) == 10
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "seed_3" / "adversarial" / "README.md").exists()


def test_demo_rows_hold_the_guided_samplers(folder):
    result = json.loads((folder / "demo.json").read_text())
    rows, (run,) = result["rows"], result["runs"]
    names = [row["name"] for row in rows]
    for name in ("maximum likelihood + D", "maximum likelihood + perfect D", "adversarial + D"):
        same = [row for row in rows if row["name"] == name]
        assert [row["threshold"] for row in same] == [0, 1, 2]
        assert [row["js"] for row in same] == [quality["divergence"] for quality in run["guided"][name]]
        draws = [row["draws"] for row in same]
        assert draws == sorted(draws)
        assert draws[0] >= 1
    assert names.index("maximum likelihood + D") < names.index("adversarial") < names.index("adversarial + D")
    for row in rows:
        assert {"name", "temperature", "js", "draws", "real_nll", "grammatical", "entropy"} <= row.keys()
    assert len(run["samples_guided"]) == 10


def test_demo_saves_calibrated_discriminators(folder):
    for name in ("maximum_likelihood", "adversarial"):
        calibration = Discriminator.from_pretrained(folder / "seed_3" / name / "discriminator").calibration
        assert calibration.temperature == 1
        assert calibration.num_texts == HELD_OUT // 2


def test_load_lines_bring_back_both_models(folder):
    names: dict = {}
    exec(LOAD.format(folder=folder / "seed_3"), names)
    ids = names["tokenizer"]("<s> the dog", return_tensors="pt")
    assert names["generator"](**ids).logits.shape == (1, 3, len(names["tokenizer"]))
    text = names["discriminator_tokenizer"]("the dog sleeps", return_tensors="pt")
    assert text["input_ids"].shape == (1, 5)
    with torch.no_grad():
        assert names["discriminator"](**text).logits.shape == (1, 1)


def seed_result(seed, best, again, adversarial, error=0.004):
    def quality(divergence, temperature=1.0):
        return Quality(temperature, divergence, error, 0.5, 0.7, 12.0, 14.0, 7.0, 1.0, 1.0, -0.9)

    def guided(divergence):
        return [GuidedQuality(1.0, 2.0, 8.0, divergence, error, 0.9, 12.5, 13.5, 7.0)]

    ends = {"D(x)": 0.6, "D(G(s))": 0.4, "V(D,G)": -1.1}
    return SeedResult(
        seed=seed,
        folder="out",
        likelihood=[quality(best, 0.8 + 0.1 * seed), quality(best + 0.02)],
        likelihood_again=[quality(again, 0.9)],
        adversarial=quality(adversarial),
        guided={"maximum likelihood + perfect D": guided(0.03), "adversarial + D": guided(adversarial - 0.1)},
        discriminators={},
        before=ends,
        after=ends,
        curves={},
        divergences=[],
        seconds={"maximum likelihood": 1.0, "discriminator's encoder": 2.0, "adversarial training": 3.0},
        samples_before=["a"],
        samples_after=["b"],
        samples_guided=["c"],
    )


def test_verdict_compares_with_the_better_of_two_rivals():
    # Two standard errors of a difference: 2 * sqrt(2) * 0.004 = 0.0113.
    assert "lower with 1 of 1 seeds; mean difference -0.0200" in verdict([seed_result(0, 0.34, 0.30, 0.28)])
    assert "undecided with 1 of 1 seeds; mean difference -0.0100" in verdict([seed_result(0, 0.30, 0.34, 0.29)])
    assert "higher with 1 of 1 seeds; mean difference +0.0200" in verdict([seed_result(0, 0.30, 0.34, 0.32)])
    both = verdict([seed_result(0, 0.34, 0.30, 0.28), seed_result(1, 0.30, 0.34, 0.32)])
    assert "higher with 1 of 2 seeds, lower with 1 of 2 seeds; mean difference +0.0000" in both


def test_tables_fit_a_terminal_and_average_over_seeds():
    real = {"grammatical": 1.0, "distinct_4": 0.4, "entropy": 12.97, "mean_length": 6.9}
    console = Console(file=io.StringIO(), width=80)
    runs = [seed_result(0, 0.34, 0.33, 0.28), seed_result(1, 0.36, 0.35, 0.26)]
    show(runs, real, "out", console)
    text = console.file.getvalue()
    assert f"0.270 ± {math.sqrt(2) / 100:.3f}" in text  # the sample deviation of 0.28 and 0.26
    assert "maximum likelihood 1 0.370" in re.sub(r" +", " ", text)
    assert "at its best T 0.85 0.350" in re.sub(r" +", " ", text)
    assert "with perfect D 1 2 0.030 ± 0.000 8.0 0.900" in re.sub(r" +", " ", text)
    assert "with D 1 2 0.170" in re.sub(r" +", " ", text)
    assert "Training took 6 s per seed." in text
    for table in (quality_table(runs, real), discriminator_table(runs)):
        assert console.measure(table).maximum <= 80


def test_demo_shows_samples_and_folders_as_written():
    """What stands in brackets is markup to rich, and a quotation mark ends a string of Python."""
    texts, folder = ["a [red]dog[/] .", "[link=x]y", "[/]"], 'out [bold] "1"\\n'
    one = dataclasses.replace(
        seed_result(0, 0.34, 0.33, 0.28),
        samples_before=texts,
        samples_after=texts,
        samples_guided=texts,
        folder=folder,
    )
    console = Console(file=io.StringIO(), width=80)
    show([one], {"grammatical": 1.0, "distinct_4": 0.4, "entropy": 12.97, "mean_length": 6.9}, folder, console)
    text = console.file.getvalue()
    assert all(text.count(f"  {sample}\n") == 3 for sample in texts)
    assert f"Metrics: {folder}/demo.json" in text
    line = next(line for line in text.splitlines() if line.startswith("folder = "))
    assert ast.literal_eval(line.removeprefix("folder = ")) == f"{folder}/adversarial"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"steps": 9}, "^steps .* 10, got 9"),
        ({"batch_size": 1}, "batch_size"),
        ({"sentences": 10}, "sentences .* 256, got 10"),
    ],
)
def test_demo_arguments_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        DemoArguments(**change)
