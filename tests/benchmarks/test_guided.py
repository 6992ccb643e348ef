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
from benchmarks.guided_text.candidates import Row, rows, threshold_for
from benchmarks.guided_text.stages import real_nll
from benchmarks.guided_text.tables import draw, gather
from benchmarks.guided_text.tables import page as guided_text_page
from benchmarks.sweep import read_lines
from hf_mgan import Discriminator
from hf_mgan.metrics.likelihood import sequence_logps

from ..conftest import (
    bert_classifier,
    causal_classifier,
    causal_generator,
    generators_tokenizer,
    texts,
    tokenizer_of_pairs,
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
def test_guided_language_runs_and_writes_its_page(tmp_path):
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
def test_guided_text_runs_through_its_fast_stages(tmp_path):
    for name, model, tokenizer in (
        ("generator", causal_generator(), generators_tokenizer()),
        ("discriminator", bert_classifier(), tokenizer_of_pairs()),
    ):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    for split, count in (("train", 240), ("validation", 60)):
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts(count, seed=count))
        (tmp_path / f"corpus.{split}.jsonl").write_text(rows)
    command = (
        f"--output {tmp_path}/out --generator {tmp_path}/generator --discriminator {tmp_path}/discriminator "
        f"--data {tmp_path}/corpus --seeds 0 --epochs 1 --updates 4 --max_completion_length 8 --texts 60 "
        "--few_texts 40 --batch_size 32 --steps 2 --adversarial_batch_size 4 --draws 2 4 "
        "--stages generator samples discriminator log_ratios tests"
    ).split()
    guided_text.main(command)
    runs = gather(tmp_path / "out")
    assert [run["trained"] for run in runs] == ["adversarial", "distilled", "supervised"]
    for run in runs:
        assert (run["corpus"], run["generator"], run["seed"]) == ("corpus", "generator", 0)
        assert run["rows"]["T = 1"]["draws"] == 1
        assert run["rows"]["rejection, 4 draws"]["draws"] > run["rows"]["rejection, 2 draws"]["draws"] > 1
        assert run["rows"]["best of 4"]["draws"] == 4
    text = guided_text_page(runs)
    assert "{" not in text
    assert "| supervised, rejection, 4 draws |" in text
    assert "**distilled, T = 1**" in text
    draw(runs, tmp_path / "picture.svg")
    assert "adversarial" in (tmp_path / "picture.svg").read_text()
    guided_text.main(command)  # goes on where it stopped: everything is there
    assert gather(tmp_path / "out") == runs


def test_guided_text_chooses_among_the_pool_as_the_samplers_do():
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


@pytest.mark.parametrize("draws", [1.5, 2.0, 8.0])
def test_threshold_for_takes_so_many_draws(draws):
    ratios = torch.randn(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    threshold = threshold_for(ratios, draws)
    assert 1 / (ratios - threshold).exp().clamp(max=1).mean().item() == pytest.approx(draws)


def test_likelihood_of_rejection_is_that_of_its_density():
    """Of three texts: q(x) min(1, exp(r - c)) / Z at each of them, with 1 / Z draws."""
    ratios = {"real_logps": [-1.0, -2.0, -3.0], "real": [0.0, 2.0, 1.0]}
    alone = Row([], [], 1.0, 1.0)
    assert real_nll(ratios, alone) == 2
    kept = Row([], [], 4.0, 1.0, threshold=1.0)
    assert real_nll(ratios, kept) == pytest.approx(2 + 1 / 3 - math.log(4))
