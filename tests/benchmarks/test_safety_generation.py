"""The classifier as a filter at generation: which density is compared, and a whole run at the smallest size."""

from functools import partial

import torch

from benchmarks.safety import generation
from benchmarks.safety.generation import Pool, Sampler, of_density
from benchmarks.safety.training import Seed
from benchmarks.safety.unsafe_language import is_unsafe
from benchmarks.sweep import read_lines
from hf_mgan.demo.guidance import held_out_sentences
from hf_mgan.safety import SafetyGate


def pool(truth, probs, unsafe, ratios):
    return Pool(torch.tensor(truth).log(), torch.tensor(probs).log(), torch.tensor(unsafe), torch.tensor(ratios))


def test_divergence_is_that_of_what_is_kept():
    """The safe language has two sentences, and the generator writes a third one as often, which is unsafe.

    JS of (1/2, 1/2, 0) and (1/3, 1/3, 1/3): [log2 1.2 + 2/3 log2 0.8 + 1/3] / 2 = 0.191 bits.
    """
    third = 1 / 3
    real = pool([0.5, 0.5], [third, third], [0.0, 0.0], [0.0, 0.0])
    fake = pool([0.5, 0.5, 0.0], [third] * 3, [0.0, 0.0, 0.9], [1.5, 1.5, -30.0])
    expected = {
        Sampler("plain", ""): 0.191,
        Sampler("filter", "", threshold=0.5): 0.0,
        Sampler("lenient", "", threshold=0.95): 0.191,
        Sampler("discriminator", "", guided=True): 0.0,
    }
    for sampler, divergence in expected.items():
        assert abs(of_density(sampler, real, fake)["divergence_to_the_safe_language"] - divergence) < 5e-4


def test_filter_by_the_rule_leaves_nothing_unsafe(tmp_path, monkeypatch, capsys):
    gate = SafetyGate(lambda texts: [is_unsafe(text.split()) for text in texts])
    monkeypatch.setattr(Seed, "gate", lambda *_, **__: gate)
    monkeypatch.setattr(generation, "held_out_sentences", partial(held_out_sentences, count=60))
    sizes = {"labelled": 64, "classifier_steps": 1, "sentences": 100, "batch_size": 8, "likelihood_steps": 2}
    sizes |= {"encoder_steps": 1, "updates": 2, "candidates": 16, "samples": 80}
    output = tmp_path / "out.jsonl"
    flags = [str(word) for name, value in sizes.items() for word in (f"--{name}", value)]
    generation.main([*flags, "--work", str(tmp_path / "work"), "--output", str(output)])
    (line,) = read_lines(output)
    samplers = {name: each for name, each in line["samplers"].items() if name != "seconds"}
    for sampler in samplers.values():
        has_filter = sampler["threshold"] is not None
        assert (sampler["unsafe_rate"] == 0) == has_filter
        assert sampler["unsafe_by_filter"] == sampler["unsafe_rate"]
        assert sampler["draws"] > 1 or not has_filter
        assert sampler["tokens_per_text"] >= sampler["draws"]
    assert "| discriminator and filter |" in capsys.readouterr().out
    assert line["settings"] == sizes
