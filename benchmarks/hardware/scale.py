"""Many GPUs on paper: memory and time of a step, what fits, and where the discriminator becomes the bottleneck.

    python -m benchmarks.hardware.scale             # the tables
    python -m benchmarks.hardware.scale --publish   # docs/many_processes.md

Everything is computed by `hardware.scale_formula`, for generators of 1, 7 and 70 billion parameters on 1, 8 and 64
GPUs. What was measured elsewhere, `gpu.jsonl` and `step_time.jsonl`, is set beside the same formula.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import BertConfig, LlamaConfig, PreTrainedConfig, Qwen2Config

from ..sweep import PAGES, RESULTS, read_lines
from ..sweep.tables import table
from .memory_formula import COMPUTED_SIZE, DISCRIMINATORS, GENERATORS, SPECIAL, computed
from .scale_formula import (
    LLAMA_3,
    METHODS,
    SCALE_DISCRIMINATORS,
    SCALE_GENERATORS,
    SCALE_SIZE,
    Hardware,
    Launches,
    discriminator_flops,
    equal_discriminator,
    generation_seconds,
    gpu_memory,
    policy_flops,
    shardings,
    step_seconds,
)
from .step_parts import GIB
from .trainers import Size


MODULE = "benchmarks.hardware.scale"
TEMPLATE = Path(__file__).with_name("many_processes.md.in")
PAGE = PAGES / "many_processes.md"
GPUS = (1, 8, 64)
DISCRIMINATOR = "150M"
H200 = Hardware(memory=139 * GIB, bandwidth=4.8e12)
LARGER: dict[str, PreTrainedConfig] = {
    "1B": SCALE_GENERATORS["1B"],
    "3B": LlamaConfig(
        hidden_size=3072, intermediate_size=8192, num_hidden_layers=28, num_attention_heads=24, **LLAMA_3
    ),
    "8B": LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, **LLAMA_3
    ),
    "14B": Qwen2Config(
        hidden_size=5120,
        intermediate_size=13824,
        num_hidden_layers=48,
        num_attention_heads=40,
        num_key_value_heads=8,
        vocab_size=152064,
        **SPECIAL,
    ),
    "32B": Qwen2Config(
        hidden_size=5120,
        intermediate_size=27648,
        num_hidden_layers=64,
        num_attention_heads=40,
        num_key_value_heads=8,
        vocab_size=152064,
        **SPECIAL,
    ),
    "70B": SCALE_GENERATORS["70B"],
    "405B": LlamaConfig(
        hidden_size=16384, intermediate_size=53248, num_hidden_layers=126, num_attention_heads=128, **LLAMA_3
    ),
}

Result = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """What was measured, and what follows from it.

    Attributes:
        seconds (`dict[str, float]`): Parts of a step on the GPU.
        policy (`float`): Seconds of the generator's update by the formula, to compare.
        launches ([`Launches`]): Fitted to generation and to the discriminator's part.
        memory (`float`): How many times the computed peak of memory was measured.
    """

    seconds: dict[str, float]
    policy: float
    launches: Launches
    memory: float


def from_gpu(gpu: Result, computed_peak: float) -> Measured:
    """Fit the seconds of a launch to two parts of the measured step; the third is left to check them on.

    Args:
        gpu (`dict`): The line "adversarial" of `gpu.jsonl`.
        computed_peak (`float`): GiB that the formula of memory gives for it.

    Returns:
        [`Measured`]: The fit and the check.
    """
    given = {name: gpu["size"][name] for name in Size.__dataclass_fields__}
    size, seconds = Size(**given), gpu["seconds"]
    g, d = LlamaConfig(**size.generator), BertConfig(**size.discriminator, num_labels=1)
    speed = H200.flops * H200.utilisation
    rest = seconds["generation"] - generation_seconds(g, "4-bit + LoRA", "DDP", size, H200)
    generator = rest / (size.completion_tokens * g.num_hidden_layers)
    discriminator = (seconds["discriminator"] - discriminator_flops(d, size, backward=1) / speed) / (
        4 * d.num_hidden_layers
    )
    policy = policy_flops(g, "4-bit + LoRA", size) / speed + 4 * g.num_hidden_layers * generator
    return Measured(seconds, policy, Launches(generator, discriminator), gpu["memory_gib"]["peak"] / computed_peak)


def fits(peak: float, hardware: Hardware, correction: float) -> bool:
    """Whether a computed peak fits, were it as far off as where it was measured."""
    return peak * correction <= hardware.memory


def chosen(g: PreTrainedConfig, d: PreTrainedConfig, method: str, processes: int, correction: float) -> str | None:
    """Return the first sharding that fits, from the least traffic on, or None."""
    for sharding in shardings(method) if processes > 1 else ("DDP",):
        if fits(gpu_memory(g, d, method, sharding, processes, SCALE_SIZE).peak, Hardware(), correction):
            return sharding
    return None


def steps_table(measured: Measured) -> str:
    """Return memory and time of a step, a line per generator, how it is trained and number of GPUs."""
    rows, d = [], SCALE_DISCRIMINATORS[DISCRIMINATOR]
    for name, g in SCALE_GENERATORS.items():
        for method in METHODS:
            for processes in GPUS:
                sharding = chosen(g, d, method, processes, measured.memory)
                shown = sharding or ("DDP" if processes == 1 else "FSDP2")
                gib = gpu_memory(g, d, method, shown, processes, SCALE_SIZE).peak / GIB
                cells = [name, method, str(processes), "one GPU" if processes == 1 else shown, f"{gib:.0f}"]
                if sharding is None:
                    rows.append([*cells, "no", *["-"] * 6])
                    continue
                given = g, d, method, sharding, processes, SCALE_SIZE, Hardware()
                one, launched = step_seconds(*given), step_seconds(*given, measured.launches)
                traffic = one.communication + one.discriminator_communication
                parts = one.generation, one.generator, one.discriminator, traffic, one.step, launched.step
                rows.append([*cells, "yes", *map(duration, parts)])
    head = ["generator", "trained", "GPUs", "sharding", "GiB per GPU", "fits", "generation", "generator's update"]
    return table([*head, "discriminator", "traffic", "step, at least", "with launches"], rows)


def duration(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}"


def largest_table(measured: Measured) -> str:
    """Return the largest of the shapes that fits, for each number of GPUs."""
    d, rows = SCALE_DISCRIMINATORS[DISCRIMINATOR], []
    for method in METHODS:
        cells = [method]
        for processes in (1, 2, 8, 16, 64):
            best = "none"
            for name, g in LARGER.items():
                if (sharding := chosen(g, d, method, processes, measured.memory)) is not None:
                    best = name if processes == 1 else f"{name}, {sharding}"
            cells.append(best)
        rows.append(cells)
    return table(["trained", "1 GPU", "2", "8", "16 (2 machines)", "64 (8 machines)"], rows)


def discriminators_table() -> str:
    """Return what discriminators of three sizes take of memory and time, beside any generator."""
    rows = []
    for name, d in SCALE_DISCRIMINATORS.items():
        cells = [name]
        for processes in (1, 64):
            given = SCALE_GENERATORS["7B"], d, "bf16 + LoRA", "DDP", processes, SCALE_SIZE
            memory, seconds = gpu_memory(*given), step_seconds(*given, Hardware())
            both = seconds.discriminator + seconds.discriminator_communication
            cells += [f"{memory.discriminator / GIB:.1f}", f"{both:.3f}"]
        rows.append(cells)
    return table(["discriminator", "GiB, 1 GPU", "s per step", "GiB, 64 GPUs", "s per step"], rows)


def bottleneck_table(measured: Measured) -> str:
    """Return the parameters at which the discriminator takes as long as the generator, in billions."""
    rows, d = [], SCALE_DISCRIMINATORS[DISCRIMINATOR]
    for name, g in SCALE_GENERATORS.items():
        for method in METHODS:
            cells = [name, method]
            for processes in (1, 64):
                if (sharding := chosen(g, d, method, processes, measured.memory)) is None:
                    cells += ["-", "-"]
                    continue
                seconds = step_seconds(g, d, method, sharding, processes, SCALE_SIZE, Hardware())
                for part in (seconds.generator, seconds.generator + seconds.generation):
                    cells.append(f"{equal_discriminator(part, processes, SCALE_SIZE, Hardware()) / 1e9:.1f}")
            rows.append(cells)
    head = ["generator", "trained", "1 GPU: update", "and generation", "64 GPUs: update", "and generation"]
    return table(head, rows)


def check_table(measured: Measured, pair: Result) -> str:
    """Return the formula beside what was measured, and whether a constant was fitted to it."""
    seconds, launches = measured.seconds, measured.launches
    ours, frozen = pair["seconds"]["adversarial"], pair["seconds"]["grpo"]
    settings = pair["settings"]
    size = replace(
        SCALE_SIZE,
        completions=settings["batch_size"],
        prompt_tokens=4,
        completion_tokens=settings["max_completion_length"],
    )
    g, d = GENERATORS["135M"], DISCRIMINATORS["22M"]
    ratio = discriminator_flops(d, size) / policy_flops(g, "bf16 + LoRA", size, checkpointing=False)
    rows = [
        [
            "H200: generation, s",
            f"{seconds['generation']:.2f}",
            "fitted",
            f"{1e3 * launches.generator:.1f} ms per layer",
        ],
        [
            "H200: discriminator, s",
            f"{seconds['discriminator']:.3f}",
            "fitted",
            f"{1e3 * launches.discriminator:.1f} ms per layer and pass",
        ],
        ["H200: generator's update, s", f"{seconds['policy']:.2f}", f"{measured.policy:.2f}", "not fitted"],
        [
            "CPU: discriminator / update",
            f"{ours['discriminator'] / ours['policy']:.2f}",
            f"{ratio:.2f}",
            "operations alone",
        ],
        [
            "CPU: discriminator trained / frozen",
            f"{ours['discriminator'] / frozen['discriminator']:.1f}",
            "7.0",
            "operations alone",
        ],
    ]
    return table(["", "measured", "computed", "how"], rows)


def hardware_table(measured: Measured) -> str:
    """Return what is assumed."""
    one = Hardware()
    rows = [
        ["a GPU", f"{one.memory / GIB:.0f} GiB, as an H100 of 80 GB", "data sheet"],
        [
            "fits",
            f"{measured.memory:.2f} x the computed peak fits",
            "what was measured on a GPU over what was computed",
        ],
        [
            "bfloat16",
            f"{one.flops / 1e12:.0f} TFLOP/s, of which {one.utilisation:.0%} are reached",
            "data sheet, assumed",
        ],
        ["memory of a GPU", f"{one.bandwidth / 1e12:.2f} TB/s", "data sheet"],
        ["between GPUs of a machine", f"{one.link / 1e9:.0f} GB/s in each direction, {one.gpus} GPUs", "data sheet"],
        ["between machines", f"{one.network / 1e9:.0f} GB/s per machine (8 x 400 Gbit/s)", "assumed"],
        ["reached of all bandwidths", f"{one.reached:.0%}", "assumed"],
        ["overlap of traffic and computing", "none", "assumed; FSDP2 and DDP overlap some"],
    ]
    return table(["", "value", "source"], rows)


def from_results() -> tuple[Measured, Result]:
    """Return what the committed results say."""
    adversarial = next(one for one in read_lines(RESULTS / "gpu.jsonl") if one["part"] == "adversarial")
    peak = computed(("7B", "0.4B", "4-bit + LoRA"), COMPUTED_SIZE, cuda=True)["peak"]
    pair = next(one for one in read_lines(RESULTS / "step_time.jsonl") if one["pair"] == "real")
    return from_gpu(adversarial, peak), pair


def page() -> str:
    """Return the page."""
    measured, pair = from_results()
    return TEMPLATE.read_text().format(
        steps=steps_table(measured),
        largest=largest_table(measured),
        discriminators=discriminators_table(),
        bottleneck=bottleneck_table(measured),
        check=check_table(measured, pair),
        hardware=hardware_table(measured),
        size=SCALE_SIZE,
    )


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--publish", action="store_true", help="write the page")
    if parser.parse_args(words).publish:
        PAGE.write_text(page())
        return
    measured, pair = from_results()
    for text in (steps_table(measured), largest_table(measured), discriminators_table(), bottleneck_table(measured)):
        print(f"{text}\n")
    print(f"{hardware_table(measured)}\n\n{check_table(measured, pair)}")


if __name__ == "__main__":
    main()
