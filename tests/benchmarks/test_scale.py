"""The formula of many GPUs, by hand on a generator of 1,480 parameters and a discriminator of 825.

Generator: two layers of 4 x 8 x 8 + 3 x 8 x 16 = 640 weights, 1,280; embeddings and head 160, norms 40: 200 others.
Discriminator: 512 weights and 313 others, as in test_hardware. 4 completions of 5 tokens, prompts of 3: 32 tokens for
the generator, 2 x 4 x (3 + 5 + 3) = 88 for the discriminator.
"""

from dataclasses import replace

import pytest
from transformers import BertConfig, LlamaConfig

from benchmarks.hardware import scale
from benchmarks.hardware.scale_formula import (
    SCALE_SIZE,
    Hardware,
    communication_seconds,
    discriminator_flops,
    equal_discriminator,
    generation_seconds,
    gpu_memory,
    policy_flops,
    shardings,
    step_seconds,
)


SMALL = {"hidden_size": 8, "intermediate_size": 16, "vocab_size": 10, "num_attention_heads": 2}
G = LlamaConfig(**SMALL, num_hidden_layers=2, num_key_value_heads=2, pad_token_id=0)
D = BertConfig(**SMALL, num_hidden_layers=1, max_position_embeddings=4, num_labels=1)
SIZE = replace(SCALE_SIZE, completions=4, prompt_tokens=3, completion_tokens=5)
SLOW = Hardware(flops=1000, utilisation=0.5, bandwidth=1, reached=1, link=100, network=50)


@pytest.mark.parametrize(
    ("sharding", "processes", "expected"),
    [
        ("DDP", 1, 4 * 1480 * 3),  # weights and AdamW
        ("DDP", 4, 4 * 1480 * 4),  # and the buckets
        ("ZeRO-2", 4, 2 * 1480 + 12 * 1480 / 4),
        ("FSDP2", 4, 12 * 1480 / 4),
    ],
)
def test_generator_is_divided_by_its_sharding(sharding, processes, expected):
    assert gpu_memory(G, D, "full", sharding, processes, SIZE).generator == expected


def test_discriminator_is_whole_on_every_gpu():
    for sharding in shardings("full"):
        assert gpu_memory(G, D, "full", sharding, 64, SIZE).discriminator == 16 * 825
    assert gpu_memory(G, D, "full", "DDP", 1, SIZE).discriminator == 12 * 825


def test_reference_is_a_copy_where_all_is_trained():
    assert gpu_memory(G, D, "full", "DDP", 4, SIZE, reference=True).reference == 4 * 1480
    assert gpu_memory(G, D, "full", "FSDP2", 4, SIZE, reference=True).reference == 1480
    assert gpu_memory(G, D, "bf16 + LoRA", "DDP", 4, SIZE, reference=True).reference == 0


def test_memory_adds_up():
    one = gpu_memory(G, D, "full", "FSDP2", 4, SIZE, reference=True)
    assert one.peak == one.generator + one.reference + one.discriminator + one.part


def test_policy_operations_by_hand():
    """Forward 32 x (2 x 1,280 + 4 x 2 x 8 x 8) = 98,304, the head 2 x 10 x 8 x 20 = 3,200."""
    assert policy_flops(G, "full", SIZE) == 4 * 98304 + 3 * 3200
    assert policy_flops(G, "bf16 + LoRA", SIZE) == 3 * 98304 + 2 * 3200
    assert policy_flops(G, "bf16 + LoRA", SIZE, checkpointing=False) == 2 * 98304 + 2 * 3200
    assert policy_flops(G, "full", SIZE, reference=True) == 5 * 98304 + 4 * 3200


def test_discriminator_operations_by_hand():
    """Forward 88 x (2 x 512 + 4 x 8 x 11) = 121,088; half of it for scores, once and twice for the update."""
    assert discriminator_flops(D, SIZE) == 3.5 * 121088
    assert discriminator_flops(D, SIZE, backward=1) == 2.5 * 121088


@pytest.mark.parametrize(
    ("sharding", "processes", "expected"),
    [
        ("DDP", 1, 0),
        ("DDP", 2, 2 * 4 * 1480 / 2 / 100),
        ("DDP", 16, 2 * 4 * 1480 * 15 / 16 / 50),  # two machines
        ("ZeRO-2", 2, 4 * 1480 / 2 / 100),
        ("FSDP2", 2, ((5 + 2) * 2 * 1480 + 2 * 1480) / 2 / 100),
    ],
)
def test_traffic_by_hand(sharding, processes, expected):
    assert communication_seconds(G, "full", sharding, processes, SIZE, SLOW) == pytest.approx(expected)


@pytest.mark.parametrize(("method", "per_weight"), [("bf16 + LoRA", 2), ("full", 8)])
def test_generation_reads_weights_and_cache(method, per_weight):
    """Weights of layers and head 1,360; keys and values 4 texts x 64 bytes x (3 + 2.5) tokens; five steps."""
    fast = replace(SLOW, flops=1e15)
    seconds = generation_seconds(G, method, "DDP", SIZE, fast, launch=7.0)
    assert seconds == pytest.approx(5 * (1360 * per_weight + 1408) + 5 * 2 * 7)


def test_sharded_generation_reads_bfloat16():
    fast = replace(SLOW, flops=1e15)
    assert generation_seconds(G, "full", "FSDP2", SIZE, fast) == pytest.approx(5 * (1360 * 2 + 1408))


def test_step_is_the_sum_of_its_parts():
    one = step_seconds(G, D, "full", "DDP", 2, SIZE, SLOW)
    assert one.discriminator == pytest.approx(3.5 * 121088 / 500)
    assert one.discriminator_communication == pytest.approx(2 * 4 * 825 / 2 / 100)
    assert one.step == pytest.approx(
        one.generation + one.generator + one.discriminator + one.communication + one.discriminator_communication
    )


def test_equal_discriminator_by_hand():
    """88 x 7 = 616 operations per parameter at 500 per second; on two GPUs 4 bytes more at 100 per second."""
    assert equal_discriminator(3 * 1.232, 1, SIZE, SLOW) == pytest.approx(3)
    assert equal_discriminator(3 * (1.232 + 0.04), 2, SIZE, SLOW) == pytest.approx(3)


def test_first_sharding_that_fits_is_chosen():
    d = scale.SCALE_DISCRIMINATORS["150M"]
    seventy, seven = scale.SCALE_GENERATORS["70B"], scale.SCALE_GENERATORS["7B"]
    assert scale.chosen(seven, d, "bf16 + LoRA", 8, 1.2) == "DDP"
    assert scale.chosen(seven, d, "full", 1, 1.2) is None
    assert scale.chosen(seven, d, "full", 8, 1.2) == "ZeRO-2"
    assert scale.chosen(seventy, d, "full", 8, 1.2) is None
    assert scale.chosen(seventy, d, "full", 64, 1.2) == "FSDP2"


def test_launches_are_fitted_to_two_parts_of_three():
    measured, _ = scale.from_results()
    gpu = next(one for one in scale.read_lines(scale.RESULTS / "gpu.jsonl") if one["part"] == "adversarial")
    size = scale.Size(**{name: gpu["size"][name] for name in scale.Size.__dataclass_fields__})
    g = LlamaConfig(**size.generator)
    again = generation_seconds(g, "4-bit + LoRA", "DDP", size, scale.H200, measured.launches.generator)
    assert again == pytest.approx(gpu["seconds"]["generation"])
    assert measured.policy == pytest.approx(gpu["seconds"]["policy"], rel=0.1)


def test_scale_prints_and_publishes(tmp_path, monkeypatch, capsys):
    scale.main([])
    assert "| 70B | full | 64 | FSDP2 |" in capsys.readouterr().out
    monkeypatch.setattr(scale, "PAGE", tmp_path / "page.md")
    scale.main(["--publish"])
    assert (tmp_path / "page.md").read_text() == scale.page()
