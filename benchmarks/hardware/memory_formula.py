"""The formula of docs/memory.md: how much memory adversarial training takes, from the shapes of both models.

In: a generator, a discriminator, a precision and a batch. Out: bytes by what they hold.
"""

import json
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from .step_parts import GIB
from .trainers import FULL, TINY, Size


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
# Bytes per 4-bit weight: half, one byte of scale for 64 weights, four bytes of its own scale for 256 scales.
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
    """Bytes of adversarial training by what they hold.

    Attributes:
        weights, adapters, optimizer (`float`): There at all times. A fully trained model's weights count as weights.
        gradients (`float`): The larger of the two models' gradients, which are never there together.
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
    return _count(auto_class, type(config), config.to_json_string())


@cache
def _count(auto_class: type, config_class: type[PreTrainedConfig], content: str) -> Counts:
    config = config_class(**json.loads(content))
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


@dataclass(frozen=True)
class ModelMemory:
    """Bytes of one of the two models; the activations are those of its own part of a step.

    Attributes:
        weights, adapters (`float`): Of the model as it is loaded, and of its adapters.
        trained (`float`): Of what is trained; the gradients take as much, and AdamW twice as much.
        activations (`float`): Of its forward and backward pass.
        layer (`float`): The part of them that is there when all gradients are: one layer.
        generation (`float`): What generation adds. 0 for a discriminator.
    """

    weights: float
    adapters: float
    trained: float
    activations: float
    layer: float
    generation: float = 0.0

    @property
    def part(self) -> float:
        """What its forward and backward pass adds, gradients included, where nothing is sharded."""
        return max(self.activations, self.trained + self.layer)


def generator_memory(g: PreTrainedConfig, precision: str, size: Size, cuda: bool) -> ModelMemory:
    """Compute the memory of the generator; arguments as in [`training_memory`]."""
    counts = count(AutoModelForCausalLM, g)
    full, quantised = precision == "full", "bit" in precision
    weight = 4 if full else 2
    # TRL casts the adapters of a quantised generator to bfloat16; PEFT keeps the others in float32.
    trained = 4 * (counts.linear + counts.other) if full else (2 if quantised else 4) * counts.adapters

    tokens = size.completions * (size.prompt_tokens + size.completion_tokens)
    generation = tokens * cache_bytes(g) + 4 * 4 * size.completions * g.vocab_size
    if not cuda and not full:
        generation += weight * size.completions * g.vocab_size * g.hidden_size

    scored = size.completions * size.completion_tokens if cuda else tokens
    tile = min(scored, TOKEN_TILE) * min(g.vocab_size, VOCABULARY_TILE) * (2 if cuda else 31)
    layer = tokens * (34 * g.hidden_size + 8 * g.intermediate_size)
    residual = tokens * g.hidden_size * weight * g.num_hidden_layers
    return ModelMemory(
        weights=weight_bytes(counts, precision, weight),
        adapters=0.0 if full else float(trained),
        trained=trained,
        activations=residual + max(layer, tile + 4 * tokens * g.hidden_size),
        layer=layer,
        generation=generation,
    )


def discriminator_memory(d: PreTrainedConfig, precision: str, size: Size) -> ModelMemory:
    """Compute the memory of the discriminator; arguments as in [`training_memory`]."""
    counts = count(AutoModelForSequenceClassification, d)
    full, quantised = precision == "full", "bit" in precision
    trained = 4 * (counts.linear + counts.other if full else counts.adapters + counts.head)
    layer = discriminator_tokens(size) * (26 * d.hidden_size + 4 * d.intermediate_size)
    casts = 0 if quantised else 2 * counts.linear
    return ModelMemory(
        weights=weight_bytes(counts, precision, 4),
        adapters=0.0 if full else float(trained),
        trained=trained,
        activations=layer * d.num_hidden_layers + casts,
        layer=layer,
    )


def cache_bytes(g: PreTrainedConfig) -> int:
    """Return the bytes of one token's keys and values, in bfloat16."""
    return 2 * 2 * g.num_hidden_layers * g.num_key_value_heads * (g.hidden_size // g.num_attention_heads)


def discriminator_tokens(size: Size) -> int:
    """Return the tokens of completions and real texts; three special ones stand around prompt and text."""
    return 2 * size.completions * (size.prompt_tokens + size.completion_tokens + 3)


def training_memory(generator: str, discriminator: str, precision: str, size: Size, cuda: bool) -> Memory:
    """Compute the memory of adversarial training; the page says in words what is computed here.

    Args:
        generator (`str`): A key of `GENERATORS`.
        discriminator (`str`): A key of `DISCRIMINATORS`.
        precision (`str`): One of `PRECISIONS`, of both models.
        size ([`Size`]): The batch.
        cuda (`bool`): Whether it runs on a GPU. On a CPU, TRL's head scores the prompt's tokens too and takes 31 bytes
            per logit, not 2: without its kernel the backward pass holds seven copies in float32. And PyTorch copies a
            frozen head's weights once for each completion when it generates.

    Returns:
        [`Memory`]: In bytes.
    """
    g = generator_memory(GENERATORS[generator], precision, size, cuda)
    d = discriminator_memory(DISCRIMINATORS[discriminator], precision, size)
    weights, adapters, optimizer = g.weights + d.weights, g.adapters + d.adapters, 2 * (g.trained + d.trained)
    return Memory(
        weights=weights,
        adapters=adapters,
        optimizer=optimizer,
        gradients=max(g.trained, d.trained),
        generation=g.generation,
        discriminator=d.part,
        policy=g.part,
        peak=weights + adapters + optimizer + max(g.generation, d.part, g.part),
    )


def in_gib(amount: Memory) -> dict[str, float]:
    return {name: round(value / GIB, 3) for name, value in asdict(amount).items()}


def computed(cell: tuple[str, str, str], size: Size, cuda: bool) -> dict[str, float]:
    return in_gib(training_memory(*cell, size, cuda))


def name_of(cell: tuple[str, str, str]) -> str:
    return " / ".join(cell)
