"""The formula of docs/many_processes.md: memory per GPU and seconds per step, by sharding and number of GPUs.

In: a generator, a discriminator, how each is trained, a sharding, a number of GPUs, a batch per GPU. Out: bytes and
seconds by what they are of. Nothing is measured here; docs/many_processes.md says how far it is off where it was.
"""

from dataclasses import dataclass

from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    PreTrainedConfig,
)

from .memory_formula import (
    BERT,
    DISCRIMINATORS,
    FOUR_BIT,
    GENERATORS,
    SPECIAL,
    Counts,
    cache_bytes,
    count,
    discriminator_memory,
    discriminator_tokens,
    generator_memory,
)
from .trainers import Size


LLAMA_3 = {"vocab_size": 128256, "num_key_value_heads": 8, **SPECIAL}
SCALE_GENERATORS: dict[str, PreTrainedConfig] = {
    "1B": LlamaConfig(
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        tie_word_embeddings=True,
        **LLAMA_3,
    ),
    "7B": GENERATORS["7B"],
    "70B": LlamaConfig(
        hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64, **LLAMA_3
    ),
}
SCALE_DISCRIMINATORS: dict[str, PreTrainedConfig] = {
    "22M": DISCRIMINATORS["22M"],
    "150M": BertConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, **BERT | {"vocab_size": 80000}),
    "1B": BertConfig(
        hidden_size=1536,
        intermediate_size=6144,
        num_hidden_layers=28,
        **BERT | {"vocab_size": 128000, "num_attention_heads": 24},
    ),
}
METHODS = ("4-bit + LoRA", "bf16 + LoRA", "full")
BUCKET = int(5e8)  # elements that DeepSpeed sends at once, its default, in each direction
SCALE_SIZE = Size({}, {}, completions=16, num_generations=8, prompt_tokens=64, completion_tokens=384, steps=1)


@dataclass(frozen=True)
class Hardware:
    """What is assumed of the machines.

    Attributes:
        memory (`float`): Bytes per GPU that a program gets.
        flops (`float`): Peak of bfloat16, per second.
        utilisation (`float`): Part of it that training passes reach.
        bandwidth (`float`): Of a GPU's memory, bytes per second.
        reached (`float`): Part of each bandwidth that is reached.
        link (`float`): Between GPUs of one machine, bytes per second and direction.
        network (`float`): Between machines, bytes per second of all GPUs of one machine together.
        gpus (`int`): Per machine.
    """

    memory: float = 79 * 2**30
    flops: float = 989e12
    utilisation: float = 0.4
    bandwidth: float = 3.35e12
    reached: float = 0.8
    link: float = 450e9
    network: float = 8 * 50e9
    gpus: int = 8

    def bus(self, processes: int) -> float:
        """Return the bytes per second of a collective operation among so many GPUs."""
        return self.reached * (self.link if processes <= self.gpus else min(self.link, self.network))


@dataclass(frozen=True)
class Launches:
    """Seconds of one layer of one pass that the host takes to start kernels, whatever the size of the batch.

    Attributes:
        generator (`float`): Of the generator.
        discriminator (`float`): Of the discriminator.
    """

    generator: float = 0.0
    discriminator: float = 0.0


def shardings(method: str) -> tuple[str, ...]:
    """Return what there is to choose from, from the least traffic to the least memory; ZeRO-3 is as FSDP2.

    Of adapters ZeRO-2 would shard what is small.
    """
    return ("DDP", "ZeRO-2", "FSDP2") if method == "full" else ("DDP", "FSDP2")


@dataclass(frozen=True)
class GpuMemory:
    """Bytes per GPU.

    Attributes:
        generator (`float`): What is always there of it: weights, adapters, optimizer.
        reference (`float`): The model of `beta` > 0. 0 with adapters, which are turned off instead.
        discriminator (`float`): What is always there of it: weights, optimizer, buckets of DDP.
        part (`float`): The largest of generation, the discriminator's part and the generator's.
        peak (`float`): All of it.
    """

    generator: float
    reference: float
    discriminator: float
    part: float
    peak: float


@dataclass(frozen=True)
class Seconds:
    """Seconds of a step by what they go into; nothing of it overlaps.

    Attributes:
        generation, generator, discriminator (`float`): Completions; the generator's forward and backward pass; the
            discriminator's scores and update.
        communication (`float`): All traffic between GPUs but for the discriminator's.
        discriminator_communication (`float`): The average of its gradients.
    """

    generation: float
    generator: float
    discriminator: float
    communication: float
    discriminator_communication: float

    @property
    def step(self) -> float:
        """All of it."""
        return (
            self.generation
            + self.generator
            + self.discriminator
            + self.communication
            + self.discriminator_communication
        )


def gathered_at_once(g: PreTrainedConfig) -> float:
    """Return the bytes of what FSDP2 holds whole: two layers in bfloat16, and the head with its embeddings."""
    counts = count(AutoModelForCausalLM, g)
    return 2 * (2 * counts.linear / g.num_hidden_layers + counts.other)


def gpu_memory(
    g: PreTrainedConfig,
    d: PreTrainedConfig,
    method: str,
    sharding: str,
    processes: int,
    size: Size,
    reference: bool = False,
) -> GpuMemory:
    """Compute the memory of one GPU. The discriminator is trained in full, whole on each.

    Args:
        g (`PreTrainedConfig`): The generator's shape.
        d (`PreTrainedConfig`): The discriminator's shape.
        method (`str`): One of `METHODS`: how the generator is trained.
        sharding (`str`): One of `shardings(method)`.
        processes (`int`): GPUs.
        size ([`Size`]): The batch of one GPU.
        reference (`bool`): Whether `beta` is above 0.

    Returns:
        [`GpuMemory`]: In bytes.
    """
    one, other = generator_memory(g, method, size, cuda=True), discriminator_memory(d, "full", size)
    buckets = 1 if processes > 1 else 0  # DDP's copies of the gradients
    kept, held, gathered = one.weights + one.adapters + 2 * one.trained, one.trained, 0.0
    if sharding == "DDP":
        kept += buckets * one.trained
    elif sharding == "ZeRO-2":
        # DeepSpeed computes with weights and gradients in bfloat16 and keeps float32 weights and AdamW in parts.
        parameters = one.trained / 4
        kept, held = 2 * parameters + 12 * parameters / processes, 2 * parameters / processes
        gathered = 2 * 2 * min(BUCKET, parameters)
    else:
        kept, held = kept / processes, held / processes
        gathered = gathered_at_once(g)
    copy = one.weights if reference and method == "full" else 0.0
    if sharding == "FSDP2":
        copy /= processes
    of_d = other.weights + (2 + buckets) * other.trained
    update = gathered + max(one.activations, held + one.layer)
    part = max(gathered + one.generation, other.part, update)
    return GpuMemory(kept, copy, of_d, part, kept + copy + of_d + part)


def forward_flops(counts: Counts, layers: int, width: int, tokens: float, length: float) -> float:
    """Return the operations of a forward pass without a head: two per weight and token, and those of attention."""
    return tokens * (2 * counts.linear + 4 * layers * width * length)


def policy_flops(
    g: PreTrainedConfig, method: str, size: Size, reference: bool = False, checkpointing: bool = True
) -> float:
    """Return the operations of the generator's update: forward, again for the backward pass, and backward.

    The backward pass takes as many as a forward pass for the gradients of activations, and as many again for those of
    weights where they are trained. The head reads completions alone.
    """
    counts, length = count(AutoModelForCausalLM, g), size.prompt_tokens + size.completion_tokens
    backward = 2 if method == "full" else 1
    forward = forward_flops(counts, g.num_hidden_layers, g.hidden_size, size.completions * length, length)
    head = 2 * g.vocab_size * g.hidden_size * size.completions * size.completion_tokens
    return forward * (1 + checkpointing + backward + reference) + head * (1 + backward + reference)


def discriminator_flops(d: PreTrainedConfig, size: Size, backward: int = 2) -> float:
    """Return the operations of the discriminator's part: scores of completions, then forward and backward on all."""
    counts, tokens = count(AutoModelForSequenceClassification, d), discriminator_tokens(size)
    length = size.prompt_tokens + size.completion_tokens + 3
    forward = forward_flops(counts, d.num_hidden_layers, d.hidden_size, tokens, length)
    return forward * (0.5 + 1 + backward)


def generation_bytes(method: str, sharding: str) -> float:
    """Return the bytes that a token step moves per weight of a linear layer.

    4-bit: read, written and read again in bfloat16. Float32, which DDP leaves as it is: read, cast and read again.
    """
    if method == "4-bit + LoRA":
        return FOUR_BIT + 2 + 2
    return 4 + 2 + 2 if method == "full" and sharding == "DDP" else 2


def generation_seconds(
    g: PreTrainedConfig, method: str, sharding: str, size: Size, hardware: Hardware, launch: float = 0.0
) -> float:
    """Return the seconds of one GPU: the prompts, then a pass per token that reads all weights, keys and values."""
    counts, length = count(AutoModelForCausalLM, g), size.prompt_tokens + size.completion_tokens
    head = g.vocab_size * g.hidden_size
    weights = generation_bytes(method, sharding) * counts.linear
    weights += generation_bytes("bf16 + LoRA" if "LoRA" in method else method, sharding) * head
    cached = size.completions * cache_bytes(g) * (size.prompt_tokens + size.completion_tokens / 2)
    reading = (weights + cached) / (hardware.bandwidth * hardware.reached)
    speed = hardware.flops * hardware.utilisation
    each = 2 * (counts.linear + head) + 4 * g.num_hidden_layers * g.hidden_size * length
    computing = size.completions * each / speed
    prompts = size.completions * size.prompt_tokens * 2 * counts.linear / speed
    return prompts + size.completion_tokens * (max(reading, computing) + g.num_hidden_layers * launch)


def communication_seconds(
    g: PreTrainedConfig, method: str, sharding: str, processes: int, size: Size, hardware: Hardware
) -> float:
    """Return the seconds of the generator's traffic.

    DDP: the gradients, there and back. ZeRO-2: the gradients to their parts, the new weights back, in bfloat16. FSDP2:
    all weights in bfloat16 for each token step, the forward and the backward pass, and the gradients to their parts.
    """
    if processes == 1:
        return 0.0
    counts, memory = count(AutoModelForCausalLM, g), generator_memory(g, method, size, cuda=True)
    everything = counts.linear + counts.other
    trained = everything if method == "full" else counts.adapters
    if sharding == "DDP":
        amount = 2 * memory.trained
    elif sharding == "ZeRO-2":
        amount = (2 + 2) * trained
    else:
        whole = FOUR_BIT * counts.linear + 2 * counts.other if method == "4-bit + LoRA" else 2 * everything
        amount = (size.completion_tokens + 2) * whole + 2 * trained
    return (processes - 1) / processes * amount / hardware.bus(processes)


def step_seconds(
    g: PreTrainedConfig,
    d: PreTrainedConfig,
    method: str,
    sharding: str,
    processes: int,
    size: Size,
    hardware: Hardware,
    launches: Launches | None = None,
    reference: bool = False,
) -> Seconds:
    """Compute the seconds of a step; arguments as in [`gpu_memory`], and what is assumed of the machines."""
    launches = launches or Launches()
    speed, launch = hardware.flops * hardware.utilisation, launches.generator
    trained = discriminator_memory(d, "full", size).trained
    share = (processes - 1) / processes
    return Seconds(
        generation=generation_seconds(g, method, sharding, size, hardware, launch),
        # Forward, again, and a backward pass that starts as many kernels as two of them.
        generator=policy_flops(g, method, size, reference) / speed + (4 + reference) * g.num_hidden_layers * launch,
        discriminator=discriminator_flops(d, size) / speed + 4 * d.num_hidden_layers * launches.discriminator,
        communication=communication_seconds(g, method, sharding, processes, size, hardware),
        discriminator_communication=2 * share * trained / hardware.bus(processes),
    )


def equal_discriminator(seconds: float, processes: int, size: Size, hardware: Hardware) -> float:
    """Return the parameters of the discriminator whose scores and update take so many seconds.

    All of them are taken for weights of linear layers: 2 operations for the scores of a completion's tokens, 6 for the
    update on those of completions and real texts; 4 bytes of gradient, sent and received. Attention is left out.
    """
    operations = discriminator_tokens(size) * 2 * (0.5 + 1 + 2)
    share = (processes - 1) / processes
    per_parameter = operations / (hardware.flops * hardware.utilisation) + 2 * share * 4 / hardware.bus(processes)
    return seconds / per_parameter
