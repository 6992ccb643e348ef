"""Ten modes, a generator on one of them: the benchmark's smallest games, and what is read off them."""

import pytest
import torch

from benchmarks import mixture


def test_a_generator_starts_where_it_should():
    tokenizer = mixture.make_tokenizer(adds_ends=False)
    torch.manual_seed(0)
    one, all_modes = (mixture.measure(mixture.make_generator(tokenizer, start), tokenizer) for start in ("one", "all"))
    assert one["modes"] == 1
    assert all_modes["modes"] == 10
    assert all_modes["divergence"] < 0.001


def test_the_divergence_is_exact():
    """All mass on one of ten modes: JS = 1/2 [log2(1 / 0.55) + 0.1 log2(0.1 / 0.55) + 0.9 log2(2)] = 0.758 bits."""
    tokenizer = mixture.make_tokenizer(adds_ends=False)

    class Sure(torch.nn.Module):
        def forward(self, ids):
            logits = torch.full((1, 1, len(tokenizer)), -100.0)
            logits[..., len(mixture.SPECIAL)] = 100.0
            return type("Output", (), {"logits": logits})

    assert mixture.measure(Sure(), tokenizer) == {"divergence": pytest.approx(0.758, abs=5e-4), "modes": 1}


def test_the_anchor_on_real_text_finds_modes_that_the_reward_alone_leaves_out():
    alone, anchored = (
        mixture.play("bce", mixture.ANCHORS[name], "one", seed=0, steps=60)
        for name in ("none", "real-text cross-entropy 0.1")
    )
    assert alone["before"] == anchored["before"]
    assert anchored["after"]["modes"] >= alone["after"]["modes"]
    assert anchored["after"]["modes"] >= 8
    assert anchored["after"]["divergence"] < alone["after"]["divergence"]
