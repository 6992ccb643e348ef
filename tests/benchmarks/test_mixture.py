"""Ten modes, a generator on one of them: the benchmark's smallest training, and what is read off them."""

import pytest
import torch

from benchmarks.mixture import __main__ as mixture
from benchmarks.mixture.tables import modes_table
from benchmarks.sweep import read_lines


def test_generator_starts_where_it_should():
    tokenizer = mixture.make_tokenizer(adds_ends=False)
    torch.manual_seed(0)
    one, all_modes = (mixture.measure(mixture.make_generator(tokenizer, start), tokenizer) for start in ("one", "all"))
    assert one["modes"] == 1
    assert all_modes["modes"] == 10
    assert all_modes["divergence"] < 0.001


def test_measure_returns_the_exact_divergence():
    """All mass on one of ten modes: JS = 1/2 [log2(1 / 0.55) + 0.1 log2(0.1 / 0.55) + 0.9 log2(2)] = 0.758 bits."""
    tokenizer = mixture.make_tokenizer(adds_ends=False)

    class Certain(torch.nn.Module):
        def forward(self, ids):
            logits = torch.full((1, 1, len(tokenizer)), -100.0)
            logits[..., len(mixture.SPECIAL)] = 100.0
            return type("Output", (), {"logits": logits})

    assert mixture.measure(Certain(), tokenizer) == {"divergence": pytest.approx(0.758, abs=5e-4), "modes": 1}


def test_anchor_on_real_text_finds_modes():
    alone, anchored = (
        mixture.train("bce", mixture.SETTINGS[name], "one", seed=0, steps=60) for name in ("none", "real text")
    )
    assert alone["before"] == anchored["before"]
    assert anchored["after"]["modes"] >= alone["after"]["modes"]
    assert anchored["after"]["modes"] >= 8
    assert anchored["after"]["divergence"] < alone["after"]["divergence"]


def test_main_writes_a_run_per_line(tmp_path):
    output = tmp_path / "mixture.jsonl"
    mixture.main(f"--losses hinge --anchors none --starts one --seeds 0 1 --steps 2 --output {output}".split())
    runs = read_lines(output)
    assert [run["seed"] for run in runs] == [0, 1]
    for run, (divergence, modes) in zip(runs, ((0.2, 3), (0.4, 4)), strict=True):
        run["after"] = {"divergence": divergence, "modes": modes}
    lines = modes_table(runs, "one").splitlines()
    assert lines[5] == "| `hinge` | 0.300 ± 0.141 (3.5) | not run | not run | not run |"
