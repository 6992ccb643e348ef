"""The commands on hardware at tiny size, and the arithmetic of those that compute."""

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

from benchmarks.hardware import (
    batch_path,
    gpu,
    memory,
    memory_formula,
    memory_page,
    quantised_pair,
    step_time,
    trainers,
)
from benchmarks.sweep import read_lines


ROOT = Path(__file__).parents[2]


def run(module, *arguments):
    """Run a benchmark on the CPU, without the network."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"benchmarks.hardware.{module}", *(str(argument) for argument in arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_gpu_runs_every_part_once_and_goes_on(tmp_path, capsys):
    output = tmp_path / "gpu.jsonl"

    def run_gpu(*arguments):
        gpu.main(["--tiny", "--output", str(output), *arguments])  # which runs each part in a process of its own
        return {one["part"]: one for one in read_lines(output)}

    first = run_gpu("--parts", "adversarial")
    assert list(first) == ["adversarial"]
    assert gpu.overhead(first) == {}

    parts = run_gpu()
    assert "adversarial: there already" in capsys.readouterr().out
    assert parts["adversarial"] == first["adversarial"]
    assert list(parts) == ["tests", "adversarial", "grpo"]
    # Without a GPU every test that is marked is skipped, and says why.
    assert parts["tests"]["outcomes"]["skipped"] >= 1
    assert parts["tests"]["skipped_because"] == ["there is no CUDA device"]
    for name in ("adversarial", "grpo"):
        part = parts[name]
        assert set(part["seconds"]) == {"step", "generation", "discriminator", "policy"}
        assert all(value > 0 for value in part["seconds"].values())
        assert len(part["seconds_by_step"]) == trainers.TINY.steps
        assert part["memory_gib"]["peak"] == max(
            part["memory_gib"][key] for key in ("generation", "discriminator", "policy")
        )
    ours, theirs = (parts[name]["seconds"]["step"] for name in ("adversarial", "grpo"))
    assert gpu.overhead(parts)["step"] == pytest.approx(ours / theirs, abs=1e-3)

    with pytest.raises(SystemExit, match="--output"):
        run_gpu("--seed", "1")
    assert {one["part"]: one for one in read_lines(output)} == parts


def test_gpu_without_a_gpu_names_the_dry_run(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.parsed_arguments([])
    assert "--tiny" in capsys.readouterr().err.splitlines()[-1]


def test_random_model_has_its_shape_and_own_weights():
    config = LlamaConfig(**trainers.TINY.generator, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    model = trainers.random_model(AutoModelForCausalLM, config, torch.float32, None)
    layer = model.model.layers[0]
    assert layer.self_attn.q_proj.weight.shape == (64, 64)
    assert torch.equal(layer.input_layernorm.weight, torch.ones(64))
    assert layer.self_attn.q_proj.weight.std().item() == pytest.approx(config.initializer_range, rel=0.1)
    with torch.no_grad():
        layer.self_attn.q_proj.weight.zero_()
    assert layer.self_attn.k_proj.weight.abs().sum() > 0
    quantised = trainers.random_model(AutoModelForCausalLM, config, torch.bfloat16, trainers.nf4())
    assert quantised.is_loaded_in_4bit
    assert quantised.model.layers[0].self_attn.q_proj.weight.dtype == torch.uint8
    assert quantised.lm_head.weight.dtype == torch.bfloat16


def test_full_size_is_7b_and_0_4b():
    generator = memory_formula.count(AutoModelForCausalLM, memory_formula.GENERATORS["7B"])
    discriminator = memory_formula.count(AutoModelForSequenceClassification, memory_formula.DISCRIMINATORS["0.4B"])
    assert generator.linear + generator.other == 6_738_415_616  # Llama-2-7B's
    assert 0.4e9 < discriminator.linear + discriminator.other < 0.45e9
    assert (trainers.FULL.completions, trainers.FULL.completion_tokens) >= (16, 128)


def test_count_is_by_kind():
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
    counts = memory_formula.count(AutoModelForSequenceClassification, config)
    assert counts == memory_formula.Counts(linear=512, linear_rows=56, other=313, adapters=1792, head=9)


def test_weight_bytes_follow_the_precision():
    """By hand: 16,384 weights and 100 others; in 4 bits 8,192 + 256 scales + one scale of theirs, 4 bytes."""
    counts = memory_formula.Counts(linear=16384, linear_rows=128, other=100, adapters=0, head=0)
    assert memory_formula.weight_bytes(counts, "full", 4) == 4 * 16484
    assert memory_formula.weight_bytes(counts, "bf16 + LoRA", 2) == 2 * 16484
    assert memory_formula.weight_bytes(counts, "8-bit + LoRA", 2) == 16384 + 4 * 128 + 200
    assert memory_formula.weight_bytes(counts, "4-bit + LoRA", 2) == 8192 + 256 + 4 + 200


def test_training_memory_adds_up_and_falls_with_precision():
    amounts = [
        memory_formula.training_memory("7B", "0.4B", name, memory_formula.COMPUTED_SIZE, cuda=True)
        for name in memory_formula.PRECISIONS
    ]
    for one in amounts:
        largest = max(one.generation, one.discriminator, one.policy)
        assert one.peak == one.weights + one.adapters + one.optimizer + largest
    full, half, eight, four = (one.peak for one in amounts)
    assert full > half > eight > four
    # All 7.2 billion parameters trained: 4 bytes each, 8 for AdamW, 4 for the generator's gradients, 6.7 billion.
    assert full > 12 * 7.15e9 + 4 * 6.7e9


def test_memory_page_says_what_was_measured_and_computed(tmp_path, monkeypatch):
    cell = memory_formula.MEASURED[0]
    formula = memory_formula.computed(cell, memory_formula.MEASURED_SIZE, cuda=False)
    amounts = {"models": formula["weights"] / 1.25, "peak": formula["peak"] / 0.8}
    measured = {"cell": list(cell), **amounts, "generation": 1.0, "discriminator": 1.5, "policy": 3.0, "seconds": 7.0}
    assert memory_page.errors(measured, formula) == {"models": 0.25, "peak": -0.2}
    on_gpu = {"part": "adversarial", "device": "a GPU", "memory_gib": {"peak": 11.5}}
    on_gpu["memory_gib"] |= {"generation": 6.9, "discriminator": 11.5, "policy": 6.8}
    written = memory_page.page([measured], [on_gpu])
    assert "| 22M | full |" in memory_page.measured_table([measured])
    assert "| -20% | 7 |" in written
    assert "| peak | 11.5 | 9.56 |" in written
    assert "The largest error of a computed peak is -20%." in written

    page = tmp_path / "memory.md"
    monkeypatch.setattr(memory, "GPU", tmp_path / "gpu.jsonl")
    for name, line in {"memory": measured, "gpu": on_gpu}.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(line) + "\n")
    memory.main(["--publish", "--output", str(tmp_path / "memory.jsonl"), "--page", str(page)])
    assert page.read_text() == written


@pytest.fixture
def sources(tmp_path, generator, tokenizer, classifier, pair_tokenizer):
    """Options that name tiny models, in sizes that quantise, and texts."""
    generator.config.n_embd = classifier.config.hidden_size = 64
    classifier.config.architectures = None
    for name, model, own in (("g", generator, tokenizer), ("d", classifier, pair_tokenizer)):
        type(model)(model.config).save_pretrained(tmp_path / name)
        own.save_pretrained(tmp_path / name)
    for split in ("train", "validation"):
        rows = "".join(json.dumps({"text": f"{text} {text} {text}"}) + "\n" for text in texts(32))
        (tmp_path / f"texts.{split}.jsonl").write_text(rows)
    return ["--generator", tmp_path / "g", "--discriminator", tmp_path / "d", "--data", tmp_path / "texts"]


def test_quantised_pair_gives_the_same_scores_in_a_new_process(sources, tmp_path):
    output = tmp_path / "pair.jsonl"
    done = run("quantised_pair", *sources, "--output", output, "--steps", 2, "--batch_size", 4)
    assert done.returncode == 0, done.stderr
    (result,) = read_lines(output)
    assert len(result["real_prob"]) == 2
    assert max(result["largest_difference_after_reload"].values()) <= quantised_pair.TOLERANCE
    assert result["largest_difference_of_the_adapters"] > quantised_pair.TOLERANCE
    assert all(model["quantised"] > 0 for model in result["parameters"].values())
    assert str(tmp_path) not in output.read_text()


def test_step_time_compares_both_pairs(sources, tmp_path):
    output = tmp_path / "step_time.jsonl"
    sizes = "--rounds 1 --steps 1 --tiny_steps 1 --batch_size 4 --num_generations 2 --max_completion_length 4"
    step_time.main([*map(str, sources), "--output", str(output), *sizes.split()])
    tiny, real = read_lines(output)
    assert (tiny["pair"], real["pair"]) == ("tiny", "real")
    for pair in (tiny, real):
        steps = {name: seconds["step"] for name, seconds in pair["seconds"].items()}
        assert pair["ratio"] == pytest.approx(steps["adversarial"] / steps["grpo"], rel=0.05)
    assert str(tmp_path) not in output.read_text()


def test_batch_path_counts_files_and_calls(capsys):
    batch_path.main(["--list"])
    printed = capsys.readouterr().out
    counts = dict(line.strip("| ").split(" | ") for line in printed.splitlines()[2:9])
    assert int(counts["files that a training step runs"]) > 3
    assert "discriminator/discriminator.py" in printed
    calls = [line for line in printed.splitlines() if " -> " in line]
    assert len(calls) == int(counts["calls between them"])
    assert all(line.split(" -> ")[0] != line.split(" -> ")[1].split(":")[0] for line in calls)


def test_constructor_lines_leave_signature_and_docstring_out():
    lines = [
        "class A:",
        "    def __init__(",
        "        self,",
        "    ):",
        '        """One."""',
        "        b = 1",
        "        c = 2",
    ]
    source = "\n".join(lines)
    assert batch_path.constructor_lines(source, "A") == 2


def test_check_refuses_other_scores_and_idle_adapters():
    scores = {"generator": [1.0, 2.0], "generator_without_adapters": [0.5, 1.0], "discriminator": [0.1, 0.2]}
    assert quantised_pair.check(scores, scores) == dict.fromkeys(scores, 0.0)
    other = copy.deepcopy(scores)
    other["discriminator"][1] += 2 * quantised_pair.TOLERANCE
    with pytest.raises(RuntimeError, match="Scores differ after the reload"):
        quantised_pair.check(scores, other)
    idle = {**scores, "generator_without_adapters": scores["generator"]}
    with pytest.raises(RuntimeError, match="adapters change nothing"):
        quantised_pair.check(idle, idle)


def test_count_moved_refuses_wrong_parameters():
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


def test_run_part_stops_at_its_limit(tmp_path):
    arguments = argparse.Namespace(tiny=True, seed=0, limit=0.5)
    with pytest.raises(subprocess.TimeoutExpired):
        gpu.run_part("grpo", arguments)
