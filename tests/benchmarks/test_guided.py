"""The benchmarks of guided sampling: readings of curves, exact densities, tables, and the commands at tiny size."""

import json
import math

import pytest
import torch

from benchmarks.guided_language import __main__ as guided_language
from benchmarks.guided_language.measurement import TINY
from benchmarks.guided_language.tables import at_draws
from benchmarks.guided_language.token_metrics import log_densities
from benchmarks.guided_text import __main__ as guided_text
from benchmarks.guided_text.tables import gather, rows_table
from benchmarks.sweep import read_lines
from hf_mgan import Discriminator
from hf_mgan.metrics.likelihood import sequence_logps

from ..conftest import (
    causal_classifier,
    causal_generator,
    generators_tokenizer,
)


def test_at_draws_reads_the_curve_in_the_logarithm_of_draws():
    """Halfway from 1 to 4 draws in the logarithm is 2: the mean of 0.4 and 0.2."""
    curve = [{"draws": 1.0, "js": 0.4}, {"draws": 4.0, "js": 0.2}, {"draws": None, "js": 1.0}]
    assert at_draws(curve, 2, "js") == pytest.approx(0.3)
    assert at_draws(curve, 4, "js") == pytest.approx(0.2)
    assert math.isnan(at_draws(curve, 8, "js"))


@pytest.fixture
def prefix_discriminator():
    return Discriminator(causal_classifier(), generators_tokenizer(), prefixes=True)


def test_log_densities_without_preference_are_the_generators(prefix_discriminator):
    """A head of zeros accepts every token, so that the texts are the generator's own."""
    for parameter in prefix_discriminator.model.score.parameters():
        parameter.data.zero_()
    rows = [[7, 8, 2], [9], [10, 11, 12]]
    model = causal_generator().eval()
    found = log_densities(model, generators_tokenizer(), prefix_discriminator, rows, [(4, 0.0)])
    assert found[0].tolist() == pytest.approx(sequence_logps(model, [[1]] * 3, rows).tolist(), abs=1e-4)


def test_log_densities_sum_to_the_share_that_is_not_abandoned(prefix_discriminator):
    """Of texts of one token: sum_v q(v) a(v) (1 - R^k) / (1 - R) = 1 - R^k, R the share that is rejected."""
    model, vocabulary = causal_generator().eval(), len(generators_tokenizer())
    rows = [[token] for token in range(vocabulary)]
    for most, threshold in ((1, 0.0), (3, 0.5)):
        settings = [(most, threshold), (1, threshold)]
        several, once = log_densities(model, generators_tokenizer(), prefix_discriminator, rows, settings)
        rejected = 1 - once.exp().sum().item()
        assert 0 < rejected < 1
        assert several.exp().sum().item() == pytest.approx(1 - rejected**most, abs=1e-5)


@pytest.mark.benchmark
def test_guided_language_runs_and_writes_its_page(tmp_path, in_this_process):
    in_this_process(guided_language)
    guided_language.main(["--tiny", "--seeds", "0", "--output", str(tmp_path)])
    (result,) = read_lines(tmp_path / "guided_language.jsonl")
    assert "error" not in result
    assert len(result["tokens"]) == 3
    assert result["calibrations"]["whole"]["num_texts"] == TINY.held_out // 2
    page = (tmp_path / "guided_language.md").read_text()
    assert "{" not in page
    assert "| k = 16, c = 0.5 |" in page
    assert (tmp_path / "guided_language.svg").read_text().startswith("<?xml")
    other = tmp_path / "other"
    guided_language.main(["--tiny", "--merge", str(tmp_path), "--output", str(other)])
    assert read_lines(other / "guided_language.jsonl") == [result]


@pytest.mark.benchmark
def test_guided_text_runs_through_its_fast_stages(of_texts, tmp_path):
    sizes = "--supervised_steps 2 --updates 4 --max_completion_length 8 --texts 40 --few_texts 40 --batch_size 32"
    stages = "--stages generator discriminator samples tests"
    guided_text.main([*of_texts, *f"--seeds 0 {sizes} {stages}".split()])
    (run,) = gather(tmp_path / "out")
    assert (run["corpus"], run["generator"], run["seed"]) == ("corpus", "generator", 0)
    assert run["rows"]["T = 1"]["draws"] == 1
    assert run["rows"]["rejection, c = 1"]["draws"] > run["rows"]["rejection, c = 0"]["draws"] >= 1
    assert run["rows"]["best of 3"]["draws"] == 3
    assert run["sampling"]["candidates"] == 120
    lines = rows_table([run, {**run, "seed": 1}]).splitlines()
    assert any(line.startswith("| T = 1 |") and line.count(" / ") == 2 for line in lines)


def test_guided_text_chooses_among_the_pool_as_the_samplers_do(tmp_path):
    """Six candidates, of which the log-ratios accept all or none at c = 0, and best of 3 takes the greatest."""
    arguments = guided_text.parsed_arguments(["--output", str(tmp_path), "--generator", "g", "--data", "d"])
    run = object.__new__(guided_text.Run)
    run.seed, run.arguments, run.folder = 0, arguments, tmp_path
    pool = {
        "texts": list("abcdef"),
        "tokens": [1, 2, 3, 4, 5, 6],
        "log_ratios": [9.0, -99.0, -99.0, -99.0, 8.0, 9.0],
    }
    (tmp_path / "samples.json").write_text(json.dumps({"1": pool, "0.9": {**pool, "texts": list("uvwxyz")}}))
    rows = run.rows()
    assert rows["rejection, c = 0"]["texts"] == ["a", "e", "f"]
    assert rows["rejection, c = 0"]["draws"] == 2
    assert rows["rejection, c = 0"]["tokens"] == 7  # 21 tokens for three texts
    assert rows["best of 3"]["texts"] == ["a", "f"]
    assert rows["T = 0.9"]["texts"] == list("uvwxyz")
    assert torch.tensor(pool["tokens"]).sum() == 21
