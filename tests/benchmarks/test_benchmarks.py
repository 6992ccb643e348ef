"""The benchmarks at tiny size, and the arithmetic of those that compute."""

import argparse
import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BertConfig, LlamaConfig

from ..conftest import texts


pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")

from benchmarks import gpu, memory, quantised_pair


ROOT = Path(__file__).parents[1]


def run(module, *arguments):
    """Run a benchmark on the CPU, without the network."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"benchmarks.{module}", *(str(argument) for argument in arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_the_gpu_benchmark_runs_every_part_once_and_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    output = tmp_path / "gpu.json"

    def play(*arguments):
        monkeypatch.setattr(sys, "argv", ["gpu", "--tiny", "--output", str(output), *arguments])
        gpu.main()  # which runs each part in a process of its own
        return json.loads(output.read_text())

    first = play("--parts", "adversarial")
    assert list(first["parts"]) == ["adversarial"]
    assert first["overhead"] == {}

    result = play()
    assert "adversarial: there already" in capsys.readouterr().out
    assert result["parts"]["adversarial"] == first["parts"]["adversarial"]
    assert set(result["parts"]) == {"tests", "adversarial", "grpo"}
    # Without a GPU every test that is marked is skipped, and says why.
    assert result["parts"]["tests"]["outcomes"]["skipped"] >= 1
    assert result["parts"]["tests"]["skipped_because"] == ["there is no CUDA device"]
    for name in ("adversarial", "grpo"):
        part = result["parts"][name]
        assert set(part["seconds"]) == {"step", "generation", "discriminator", "policy"}
        assert all(value > 0 for value in part["seconds"].values())
        assert len(part["seconds_by_step"]) == gpu.TINY.steps
        assert part["memory_gib"]["peak"] == max(
            part["memory_gib"][key] for key in ("generation", "discriminator", "policy")
        )
    ours, theirs = (result["parts"][name]["seconds"]["step"] for name in ("adversarial", "grpo"))
    assert result["overhead"]["step"] == pytest.approx(ours / theirs, abs=1e-3)

    with pytest.raises(SystemExit, match="was made with another seed: give another --output"):
        play("--seed", "1")
    assert json.loads(output.read_text()) == result


def test_the_gpu_benchmark_wants_a_gpu_unless_it_is_tiny(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit):
        gpu.parsed_arguments()
    assert "there is no CUDA device; --tiny makes a dry run on the CPU" in capsys.readouterr().err


def test_a_random_model_has_the_shape_asked_for_weights_of_its_own_and_norms_of_one():
    config = LlamaConfig(**gpu.TINY.generator, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    model = gpu.random_model(AutoModelForCausalLM, config, torch.float32, None)
    layer = model.model.layers[0]
    assert layer.self_attn.q_proj.weight.shape == (64, 64)
    assert torch.equal(layer.input_layernorm.weight, torch.ones(64))
    assert layer.self_attn.q_proj.weight.std().item() == pytest.approx(config.initializer_range, rel=0.1)
    with torch.no_grad():
        layer.self_attn.q_proj.weight.zero_()
    assert layer.self_attn.k_proj.weight.abs().sum() > 0
    quantised = gpu.random_model(AutoModelForCausalLM, config, torch.bfloat16, gpu.nf4())
    assert quantised.is_loaded_in_4bit
    assert quantised.model.layers[0].self_attn.q_proj.weight.dtype == torch.uint8
    assert quantised.lm_head.weight.dtype == torch.bfloat16


def test_the_full_size_is_a_seven_billion_and_a_four_hundred_million_model():
    generator = memory.count(AutoModelForCausalLM, memory.GENERATORS["7B"])
    discriminator = memory.count(AutoModelForSequenceClassification, memory.DISCRIMINATORS["0.4B"])
    assert generator.linear + generator.other == 6_738_415_616  # Llama-2-7B's
    assert 0.4e9 < discriminator.linear + discriminator.other < 0.45e9
    assert (gpu.FULL.completions, gpu.FULL.completion_tokens) >= (16, 128)


def test_parameters_are_counted_by_kind():
    """By hand, for one layer of width 8 with an inner width of 16, 10 words and 4 positions.

    Query, key, value and output: 4 x 8 x 8 = 256 weights; the inner layers 2 x 8 x 16 = 256: 512 weights and
    4 x 8 + 16 + 8 = 56 rows. Adapters of rank 16: 4 x 16 x (8 + 8) + 2 x 16 x (8 + 16) = 1,792. The head: 8 + 1. All
    else: embeddings 10 x 8 + 4 x 8 + 2 x 8 = 128, three norms 3 x 16 = 48, biases 56, pooler 64 + 8 = 72, head 9: 313.
    """
    config = BertConfig(
        vocab_size=10,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=4,
        num_labels=1,
    )
    counts = memory.count(AutoModelForSequenceClassification, config)
    assert counts == memory.Counts(linear=512, linear_rows=56, other=313, adapters=1792, head=9)


def test_weights_take_what_their_precision_says():
    """By hand: 16,384 weights and 100 others; in 4 bits 8,192 + 256 scales + one scale of theirs, 4 bytes."""
    counts = memory.Counts(linear=16384, linear_rows=128, other=100, adapters=0, head=0)
    assert memory.weight_bytes(counts, "full", 4) == 4 * 16484
    assert memory.weight_bytes(counts, "bf16 + LoRA", 2) == 2 * 16484
    assert memory.weight_bytes(counts, "8-bit + LoRA", 2) == 16384 + 4 * 128 + 200
    assert memory.weight_bytes(counts, "4-bit + LoRA", 2) == 8192 + 256 + 4 + 200


def test_memory_of_a_game_adds_up_and_falls_with_precision():
    games = [memory.game_memory("7B", "0.4B", name, memory.COMPUTED_SIZE, cuda=True) for name in memory.PRECISIONS]
    for game in games:
        largest = max(game.generation, game.discriminator, game.policy)
        assert game.peak == game.weights + game.adapters + game.optimizer + largest
    full, half, eight, four = (game.peak for game in games)
    assert full > half > eight > four
    # All 7.2 billion parameters trained: 4 bytes each, 8 for AdamW, 4 for the generator's gradients, 6.7 billion.
    assert full > 12 * 7.15e9 + 4 * 6.7e9


def test_the_memory_page_says_what_the_figures_say():
    result = json.loads((ROOT / "benchmarks" / "results" / "memory.json").read_text())
    assert set(result["measured"]) == {memory.name_of(cell) for cell in memory.MEASURED}
    for cell in memory.COMPUTED:
        assert result["computed"][memory.name_of(cell)] == memory.computed(cell, memory.COMPUTED_SIZE, cuda=True)
    for cell in memory.MEASURED:
        one = result["measured"][memory.name_of(cell)]
        assert one["computed"] == memory.computed(cell, memory.MEASURED_SIZE, cuda=False)
        assert one["error"] == memory.errors(one, one["computed"])
    assert (ROOT / "docs" / "memory.md").read_text() == memory.page(result)


@pytest.fixture
def models(tmp_path, generator, tokenizer, classifier, pair_tokenizer):
    """Tiny players under the names of the real ones, in sizes that quantise, and sentences."""
    generator.config.n_embd = classifier.config.hidden_size = 64
    classifier.config.architectures = None
    names = "SmolLM2-135M-Instruct", "all-MiniLM-L6-v2"
    for name, model, own in zip(names, (generator, classifier), (tokenizer, pair_tokenizer), strict=True):
        type(model)(model.config).save_pretrained(tmp_path / name)
        own.save_pretrained(tmp_path / name)
    for split in ("train", "validation"):
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts(32))
        (tmp_path / f"wordnet_examples.{split}.jsonl").write_text(rows)
    return tmp_path


def test_the_quantised_pair_trains_and_gives_the_same_scores_in_a_new_process(models):
    output = models / "pair.json"
    done = run(
        "quantised_pair", "--models", models, "--data", models, "--output", output, "--steps", 2, "--batch_size", 4
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    assert len(result["curves"]["value"]) == 2
    assert max(result["largest_difference_after_reload"].values()) <= quantised_pair.TOLERANCE
    assert result["largest_difference_of_the_adapters"] > quantised_pair.TOLERANCE
    assert len(result["scores_after_reload"]["discriminator"]) == quantised_pair.NUM_SCORED
    assert all(player["quantised"] > 0 for player in result["parameters"].values())
    assert str(models) not in output.read_text()


def test_the_quantised_pair_fails_where_scores_differ_or_adapters_do_nothing():
    scores = {"generator": [1.0, 2.0], "generator_without_adapters": [0.5, 1.0], "discriminator": [0.1, 0.2]}
    assert quantised_pair.check(scores, scores) == dict.fromkeys(scores, 0.0)
    other = copy.deepcopy(scores)
    other["discriminator"][1] += 2 * quantised_pair.TOLERANCE
    with pytest.raises(RuntimeError, match="Scores differ after the reload"):
        quantised_pair.check(scores, other)
    idle = {**scores, "generator_without_adapters": scores["generator"]}
    with pytest.raises(RuntimeError, match="adapters change nothing"):
        quantised_pair.check(idle, idle)


def test_the_quantised_pair_fails_where_the_wrong_parameters_move():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[0].weight.requires_grad_(False)
    before = quantised_pair.weights(model)
    with pytest.raises(RuntimeError, match=r"\['1\.weight'\]"):
        quantised_pair.count_moved(before, model)
    with torch.no_grad():
        model[1].weight += 1
    assert quantised_pair.count_moved(before, model) == {"moved": 1, "quantised": 0}
    with torch.no_grad():
        model[0].weight += 1
    with pytest.raises(RuntimeError, match=r"\['0\.weight'\]"):
        quantised_pair.count_moved(before, model)


def test_a_part_that_takes_too_long_is_stopped(tmp_path):
    arguments = argparse.Namespace(tiny=True, seed=0, limit=0.5)
    with pytest.raises(subprocess.TimeoutExpired):
        gpu.run_part("grpo", arguments)
