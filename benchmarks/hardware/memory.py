"""How much memory a game takes: measured on a small pair, computed for pairs up to 7B, compared where both are there.

    python -m benchmarks.memory           # measure the cells that are missing, compute the rest, write JSON and page
    python -m benchmarks.memory --again   # measure all cells

Writes benchmarks/results/memory.json after every measured cell, and docs/memory.md, from this file's formula and the
JSON. A measured cell is a game of two steps in a process of its own: models of random weights in real shapes, the peak
of the resident memory above what a process holds that has already played a tiny game. Linux alone.
"""

import argparse
import ctypes
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BitsAndBytesConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    set_seed,
)

from benchmarks.gpu import FULL, GIB, PACKAGES, ROOT, TINY, Size, make_trainer, memory, nf4, random_model, train


SPECIAL: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
QWEN: dict[str, Any] = {"vocab_size": 151936, "num_key_value_heads": 2, "tie_word_embeddings": True, **SPECIAL}
BERT: dict[str, Any] = {"vocab_size": 30522, "num_attention_heads": 12, "num_labels": 1, **SPECIAL}
GENERATORS: dict[str, PreTrainedConfig] = {
    "135M": LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49152,
        tie_word_embeddings=True,
        **SPECIAL,
    ),
    "0.5B": Qwen2Config(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, **QWEN),
    "1.5B": Qwen2Config(
        hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, **QWEN
    ),
    "7B": LlamaConfig(**FULL.generator, **SPECIAL),
}
DISCRIMINATORS: dict[str, PreTrainedConfig] = {
    "22M": BertConfig(hidden_size=384, intermediate_size=1536, num_hidden_layers=6, **BERT),
    "66M": BertConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=6, **BERT),
    "0.4B": BertConfig(**FULL.discriminator, num_labels=1, **SPECIAL),
}
SHAPES = {
    "135M": "SmolLM2-135M",
    "0.5B": "Qwen2.5-0.5B",
    "1.5B": "Qwen2.5-1.5B",
    "7B": "Llama-2-7B",
    "22M": "all-MiniLM-L6",
    "66M": "BERT-base cut to 6 layers, as DistilBERT",
    "0.4B": "BERT-large with a vocabulary of 128,000",
}
PRECISIONS = ("full", "bf16 + LoRA", "8-bit + LoRA", "4-bit + LoRA")
RANK = 16  # of the adapters that make_trainer sets
PHASES = ("generation", "discriminator", "policy")
# Bytes a weight in four bits: half, one byte of scale for 64 weights, four bytes of its own scale for 256 scales.
FOUR_BIT = 0.5 + 1 / 64 + 4 / (64 * 256)
VOCABULARY_TILE, TOKEN_TILE = 32768, 4096  # of TRL's language-model head, which never holds all logits
MEASURED = [*(("135M", "22M", precision) for precision in PRECISIONS), ("135M", "66M", "bf16 + LoRA")]
COMPUTED = [
    (generator, discriminator, precision)
    for generator in ("0.5B", "1.5B", "7B")
    for discriminator in DISCRIMINATORS
    for precision in PRECISIONS
]
MEASURED_SIZE = replace(TINY, completions=16, num_generations=8, prompt_tokens=16, completion_tokens=48, steps=1)
COMPUTED_SIZE = FULL


@dataclass(frozen=True)
class Counts:
    """What a model consists of.

    Attributes:
        linear (`int`): Weights that are quantised and get adapters: those of linear layers within the base model, but
            for a pooler.
        linear_rows (`int`): Output rows of these layers; eight bits need a scale for each.
        other (`int`): All other parameters: embeddings, norms, biases, heads.
        adapters (`int`): Parameters of adapters of rank 16 on these layers.
        head (`int`): Parameters outside the base model, of which PEFT trains a copy. 0 for a generator.
    """

    linear: int
    linear_rows: int
    other: int
    adapters: int
    head: int


@dataclass(frozen=True)
class Memory:
    """Bytes of a game by what they hold.

    Attributes:
        weights, adapters, optimizer (`float`): There at all times. A fully trained model's weights count as weights.
        gradients (`float`): The larger of the two players' gradients, which are never there together.
        generation, discriminator, policy (`float`): What each part of a step adds to what is always there, its
            gradients included.
        peak (`float`): What is always there, and the largest part of a step.
    """

    weights: float
    adapters: float
    optimizer: float
    gradients: float
    generation: float
    discriminator: float
    policy: float
    peak: float


def count(auto_class: type, config: PreTrainedConfig) -> Counts:
    """Count the parameters of a model by their kind, without making it."""
    with torch.device("meta"):
        model: PreTrainedModel = auto_class.from_config(config)
    linear = [
        module
        for name, module in model.base_model.named_modules()
        if isinstance(module, nn.Linear) and "pooler" not in name
    ]
    weights = sum(module.weight.numel() for module in linear)
    base = sum(parameter.numel() for parameter in model.base_model.parameters())
    everything = sum(parameter.numel() for parameter in model.parameters())
    return Counts(
        linear=weights,
        linear_rows=sum(module.out_features for module in linear),
        other=everything - weights,
        adapters=RANK * sum(module.in_features + module.out_features for module in linear),
        head=everything - base if auto_class is AutoModelForSequenceClassification else 0,
    )


def weight_bytes(counts: Counts, precision: str, unquantised: int) -> float:
    """Return the bytes of a model's weights; `unquantised` is the size of a weight that is not quantised."""
    if precision == "4-bit + LoRA":
        return FOUR_BIT * counts.linear + unquantised * counts.other
    if precision == "8-bit + LoRA":
        return counts.linear + 4 * counts.linear_rows + unquantised * counts.other
    return unquantised * (counts.linear + counts.other)


def game_memory(generator: str, discriminator: str, precision: str, size: Size, cuda: bool) -> Memory:
    """Compute the memory of a game; the page says in words what is computed here.

    Args:
        generator (`str`): A key of `GENERATORS`.
        discriminator (`str`): A key of `DISCRIMINATORS`.
        precision (`str`): One of `PRECISIONS`, of both players.
        size ([`Size`]): The batch.
        cuda (`bool`): Whether it runs on a GPU. On a CPU, TRL's head scores the prompt's tokens too and takes 31 bytes
            a logit, not 2: without its kernel the backward pass holds seven copies in float32. And PyTorch copies a
            frozen head's weights once for each completion when it generates.

    Returns:
        [`Memory`]: In bytes.
    """
    g, d = GENERATORS[generator], DISCRIMINATORS[discriminator]
    g_counts, d_counts = count(AutoModelForCausalLM, g), count(AutoModelForSequenceClassification, d)
    full, quantised = precision == "full", "bit" in precision
    g_weight = 4 if full else 2
    weights = weight_bytes(g_counts, precision, g_weight) + weight_bytes(d_counts, precision, 4)
    if full:
        adapters = 0.0
        trained = 4 * (g_counts.linear + g_counts.other), 4 * (d_counts.linear + d_counts.other)
    else:
        # TRL casts the adapters of a quantised generator to bfloat16; PEFT keeps the others in float32.
        trained = (2 if quantised else 4) * g_counts.adapters, 4 * (d_counts.adapters + d_counts.head)
        adapters = sum(trained)
    optimizer = 2 * sum(trained)

    tokens = size.completions * (size.prompt_tokens + size.completion_tokens)
    cache = 2 * 2 * g.num_hidden_layers * g.num_key_value_heads * (g.hidden_size // g.num_attention_heads)
    generation = tokens * cache + 4 * 4 * size.completions * g.vocab_size
    if not cuda and not full:
        generation += g_weight * size.completions * g.vocab_size * g.hidden_size

    # Special tokens around prompt and text: three.
    texts = 2 * size.completions * (size.prompt_tokens + size.completion_tokens + 3)
    layer = texts * (26 * d.hidden_size + 4 * d.intermediate_size)
    casts = 0 if quantised else 2 * d_counts.linear
    d_part = max(layer * d.num_hidden_layers + casts, trained[1] + layer)

    scored = size.completions * size.completion_tokens if cuda else tokens
    tile = min(scored, TOKEN_TILE) * min(g.vocab_size, VOCABULARY_TILE) * (2 if cuda else 31)
    layer = tokens * (34 * g.hidden_size + 8 * g.intermediate_size)
    residual = tokens * g.hidden_size * g_weight * g.num_hidden_layers
    policy = max(residual + max(layer, tile + 4 * tokens * g.hidden_size), trained[0] + layer)

    return Memory(
        weights=weights,
        adapters=adapters,
        optimizer=optimizer,
        gradients=max(trained),
        generation=generation,
        discriminator=d_part,
        policy=policy,
        peak=weights + adapters + optimizer + max(generation, d_part, policy),
    )


def quantisation(precision: str, skip: list[str] | None = None) -> BitsAndBytesConfig | None:
    if precision == "4-bit + LoRA":
        return nf4(skip)
    if precision == "8-bit + LoRA":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    return None


def play(generator: PreTrainedModel, discriminator: PreTrainedModel, size: Size, adapters: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return train(make_trainer("adversarial", generator, discriminator, size, 0, folder, adapters), size)


def make_models(
    generator: PreTrainedConfig, discriminator: PreTrainedConfig, precision: str
) -> tuple[PreTrainedModel, PreTrainedModel]:
    dtype = torch.float32 if precision == "full" else torch.bfloat16
    heads = ["classifier", r".*\.pooler"]
    return (
        random_model(AutoModelForCausalLM, generator, dtype, quantisation(precision)),
        random_model(AutoModelForSequenceClassification, discriminator, torch.float32, quantisation(precision, heads)),
    )


def settled_memory() -> float:
    """Return what the process holds, in GiB, once all that can be given back is given back."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return memory()


def measure(generator: str, discriminator: str, precision: str) -> dict[str, Any]:
    """Play a game of two steps in this process and return its memory in GiB above that of a tiny game."""
    set_seed(0)
    adapters = precision != "full"
    tiny = LlamaConfig(**TINY.generator, **SPECIAL), BertConfig(**TINY.discriminator, num_labels=1, **SPECIAL)
    play(*make_models(*tiny, precision), TINY, adapters)
    baseline = settled_memory()
    players = make_models(GENERATORS[generator], DISCRIMINATORS[discriminator], precision)
    at_rest = settled_memory() - baseline
    began = time.perf_counter()
    figures = play(*players, MEASURED_SIZE, adapters)
    peaks = {part: round(figures["memory_gib"][part] - baseline, 3) for part in (*PHASES, "peak")}
    return {
        "process_before": round(baseline, 3),
        "models": round(at_rest, 3),
        **peaks,
        "seconds": round(time.perf_counter() - began, 1),
    }


def measure_in_a_new_process(cell: tuple[str, str, str]) -> dict[str, Any]:
    # Above this size glibc gives every freed block back at once, so that the resident memory is what is in use.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "benchmarks.memory", "--cell", *cell]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The cell {cell} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def in_gib(amount: Memory) -> dict[str, float]:
    return {name: round(value / GIB, 3) for name, value in asdict(amount).items()}


def computed(cell: tuple[str, str, str], size: Size, cuda: bool) -> dict[str, float]:
    return in_gib(game_memory(*cell, size, cuda))


def errors(measured: dict[str, float], formula: dict[str, float]) -> dict[str, float]:
    """Return the formula's error in the models alone and in the peak, as parts of what was measured."""
    models = formula["weights"]
    return {
        "models": round(models / measured["models"] - 1, 3),
        "peak": round(formula["peak"] / measured["peak"] - 1, 3),
    }


def name_of(cell: tuple[str, str, str]) -> str:
    return " / ".join(cell)


def page(result: dict[str, Any]) -> str:
    """Write the page from the figures."""
    lines = [filled(PAGE_TOP.format(command=result["command"], **page_sizes(result)))]
    lines.append("| generator | discriminator | both players | " + " | ".join(COLUMNS) + " |")
    lines.append("|---" * (3 + len(COLUMNS)) + "|")
    for cell in COMPUTED:
        figures = result["computed"][name_of(cell)]
        lines.append("| " + " | ".join([*cell, *(amount(figures[column]) for column in COLUMNS)]) + " |")
    lines.append("\n" + filled(PAGE_FORMULA.format(**page_sizes(result))))
    lines.append("| discriminator | both players | models | computed | peak | computed | error | seconds |")
    lines.append("|---" * 8 + "|")
    for cell in MEASURED:
        one = result["measured"][name_of(cell)]
        formula, error = one["computed"], one["error"]
        lines.append(
            f"| {cell[1]} | {cell[2]} | {amount(one['models'])} | {amount(formula['weights'])} | "
            f"{amount(one['peak'])} | {amount(formula['peak'])} | {error['peak']:+.0%} | {one['seconds']:.0f} |"
        )
    lines.append("\n" + filled(PAGE_PARTS))
    gaps: list[float] = []
    lines.append("| discriminator | both players | " + " | ".join(f"{phase} | computed" for phase in PHASES) + " |")
    lines.append("|---" * 8 + "|")
    for cell in MEASURED:
        one = result["measured"][name_of(cell)]
        always = sum(one["computed"][name] for name in ("weights", "adapters", "optimizer"))
        gaps.append(one["discriminator"] - always - one["computed"]["discriminator"])
        figures = [f"{amount(one[phase])} | {amount(always + one['computed'][phase])}" for phase in PHASES]
        lines.append(f"| {cell[1]} | {cell[2]} | " + " | ".join(figures) + " |")
    worst = max((one["error"]["peak"] for one in result["measured"].values()), key=abs)
    lines.append(
        "\n" + filled(PAGE_END.format(worst=f"{worst:+.0%}", least=f"{min(gaps):.2f}", most=f"{max(gaps):.2f}"))
    )
    return "\n".join(lines)


def filled(text: str) -> str:
    """Wrap the paragraphs and items of a Markdown text to the width of the other pages."""
    blocks = []
    for block in text.split("\n\n"):
        items = [" ".join(item.split()) for item in block.split("\n- ")]
        indents = ["  " if item.startswith("- ") or number else "" for number, item in enumerate(items)]
        items = [item if number == 0 else f"- {item}" for number, item in enumerate(items)]
        pairs = zip(items, indents, strict=True)
        blocks.append("\n".join(textwrap.fill(item, 118, subsequent_indent=indent) for item, indent in pairs))
    return "\n\n".join(blocks) + "\n"


def amount(gib: float) -> str:
    return f"{gib:.2f}" if gib < 10 else f"{gib:.1f}"


def page_sizes(result: dict[str, Any]) -> dict[str, Any]:
    shapes = "; ".join(f"{name} is the shape of {shape}" for name, shape in SHAPES.items())
    sizes = {
        f"{kind}_{key}": result[f"{kind}_size"][key]
        for kind in ("computed", "measured")
        for key in ("completions", "prompt_tokens", "completion_tokens")
    }
    return {"shapes": shapes, **sizes}


COLUMNS = ("weights", "adapters", "optimizer", "gradients", *PHASES, "peak")
PAGE_TOP = """# Memory

What a game takes, for a generator, a discriminator and a precision of both. `{command}` makes this page and
`benchmarks/results/memory.json`. The table of the large pairs is **computed** by the formula below. The table of the
small pair is **measured** on a CPU and one large pair on a GPU, and they say how far the formula is off.

{shapes}. *full*: all weights are trained, in float32 under bfloat16 autocast, as TRL loads them by default. *bf16 +
LoRA*: the generator's weights in bfloat16, the discriminator's in float32 under bfloat16 autocast, as `hf_mgan`
loads them. *8-bit* and *4-bit* (nf4, double quantisation): linear layers quantised in both players; embeddings and
heads are not. Adapters have rank 16 on all linear layers.

## Computed, in GiB

{computed_completions} completions of {computed_completion_tokens} tokens a step, prompts of
{computed_prompt_tokens}; AdamW; the generator's gradient checkpointing on (TRL's default), the discriminator's off;
all texts in one forward pass. `generation`, `discriminator` and `policy` are what the parts of a step add to
weights, adapters and optimizer, gradients included; the peak takes the largest of the three.
"""
PAGE_FORMULA = """
What takes less: a smaller `discriminator_batch_size`, which divides the discriminator's part and changes nothing
else, or `discriminator_gradient_checkpointing`; an 8-bit or paged optimizer (`optim`, `discriminator_optim`), which
matters when all weights are trained; a smaller `per_device_train_batch_size` with more
`gradient_accumulation_steps`.

## The formula

For N = completions x (prompt + completion) tokens of the generator and M = 2 x completions x (prompt + completion +
3) tokens of the discriminator, which sees as many real texts as completions; H, I the hidden and intermediate sizes
of the player concerned. All in bytes.

- **Weights**: a linear layer's weight takes 4 (float32), 2 (bfloat16), 1 and 4 a row (8 bits), or 0.516 (4 bits: a
  half, a scale of one byte for 64 weights, a scale of four bytes for 256 scales); all else is not quantised and
  takes 2 in the generator and 4 in the discriminator.
- **Adapters**: 16 x (inputs + outputs) parameters a linear layer, and a copy of the discriminator's head; of 4
  bytes, of 2 in a quantised generator, as TRL casts them.
- **Gradients** take what the trained parameters take; those of the two players are never there together.
  **Optimizer**: AdamW, twice the trained parameters.
- **Generation**: keys and values, 4 x layers x key-value heads x head size a token; four copies of one step's logits
  in float32.
- **Discriminator**: M x (26 H + 4 I) a layer: float32 at the two norms, bfloat16 at the inputs of the adapters,
  query, key, value and the output of attention, and both sides of the activation function; where it is not
  quantised, 2 a weight for the casts that the backward pass keeps. Or its gradients and one layer, if that is more.
- **Policy**: the input of every layer (2 H a token, 4 H where all is trained); and the larger of one layer, computed
  again, N x (34 H + 8 I), and the tile of logits of TRL's fused head (at most 4,096 tokens x 32,768 words x 2 bytes)
  with the gradient of the last hidden states. Or the gradients and one layer, if that is more.

Assumed: attention that keeps no matrix of scores (scaled dot product attention; DeBERTa-v2's does keep one, about 12
x heads x length squared a text and layer); no dropout, which the discriminator never has and a language model
seldom. Not counted: what CUDA itself takes (about half a GiB), fragmentation, temporary copies within one operation.

## Measured on a CPU, in GiB

The generator 135M, {measured_completions} completions of {measured_completion_tokens} tokens, prompts of
{measured_prompt_tokens}: the peak of resident memory, less what the process held after a tiny game. `models` is both
models as they are loaded. Two things differ on a CPU, and the computed figures of these tables allow for them: TRL's
fused head scores the prompt's tokens too and takes 31 bytes a logit of its tile, since without its GPU kernel it holds
seven copies in float32; and PyTorch copies the weights of a frozen head once for each completion when it generates.
Both were found because a first comparison came out too low.
"""
PAGE_PARTS = """
The parts of a step, each the peak above the process before; computed as what is always there and what the part adds:
"""
PAGE_END = """
The largest error of a computed peak is {worst}. The formula takes the discriminator's part for too small, by
{least} to {most} GiB here: allow for a third more of it where it is the largest part, and more in 8 bits. Resident
memory also holds what the allocator has not given back, and what bitsandbytes unpacks on a CPU to compute with it.

## Measured on a GPU, in GiB

The pair 7B and 0.4B in 4 bits, sizes as in the table of the large pairs, on an H200 (`python -m benchmarks.gpu`,
`benchmarks/results/gpu.json`): 6.94 in generation, 11.5 in the discriminator's part, 6.80 in the policy's, and so a
peak of 11.5 where 9.56 are computed. The formula is a sixth too low here: 0.9 too little in all parts, and another
1.1 in the discriminator's.
"""


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "memory.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "memory.md")
    parser.add_argument("--again", action="store_true", help="measure cells that the output already holds")
    parser.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)  # what a new process is asked for
    return parser.parse_args()


def main() -> None:
    arguments = parsed_arguments()
    if arguments.cell is not None:
        print(json.dumps(measure(*arguments.cell)))
        return
    measured: dict[str, Any] = {}
    if arguments.output.exists() and not arguments.again:
        measured = json.loads(arguments.output.read_text())["measured"]
    result: dict[str, Any] = {
        "command": "python -m benchmarks.memory",
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "seed": 0,
        "unit": "GiB",
        "shapes": SHAPES,
        "measured_size": asdict(MEASURED_SIZE),
        "computed_size": asdict(COMPUTED_SIZE),
        "computed": {name_of(cell): computed(cell, COMPUTED_SIZE, cuda=True) for cell in COMPUTED},
        "measured": measured,
    }
    for size in ("measured_size", "computed_size"):
        for player in ("generator", "discriminator", "steps"):
            del result[size][player]
    for cell in MEASURED:
        if name_of(cell) not in measured:
            measured[name_of(cell)] = measure_in_a_new_process(cell)
        one = measured[name_of(cell)]
        one["computed"] = computed(cell, MEASURED_SIZE, cuda=False)
        one["error"] = errors(one, one["computed"])
        print(f"{name_of(cell)}: {json.dumps(one)}", flush=True)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    arguments.page.write_text(page(result))


if __name__ == "__main__":
    main()
