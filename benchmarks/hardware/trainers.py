"""Random models of real shapes, and the two trainers that are compared on them.

The weights are random and made in memory, the tokenizers have one token per word, and every completion has the same
number of tokens: nothing is downloaded, and the trainers do the same work but for what the discriminator learns.
"""

import random
import statistics
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
)
from trl import GRPOConfig, GRPOTrainer

from hf_mgan import AdversarialConfig, AdversarialTrainer

from .step_parts import PeakMemory, StepTimer, hold_to_length, memory


STEP_PARTS = ("step", "generation", "discriminator", "policy")
SPECIAL_TOKENS = 4  # those that word_tokenizer adds


@dataclass(frozen=True)
class Size:
    """The sizes of a run.

    Attributes:
        generator, discriminator (`dict`): Arguments of `LlamaConfig` and `BertConfig`.
        completions (`int`): Completions per step.
        num_generations (`int`): Completions per prompt.
        prompt_tokens, completion_tokens (`int`): Tokens of every prompt and every completion.
        steps (`int`): Timed steps.
    """

    generator: dict[str, int]
    discriminator: dict[str, int]
    completions: int
    num_generations: int
    prompt_tokens: int
    completion_tokens: int
    steps: int


FULL = Size(
    generator={
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
    },
    discriminator={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "vocab_size": 128000,
        "max_position_embeddings": 512,
    },
    completions=16,
    num_generations=8,
    prompt_tokens=32,
    completion_tokens=128,
    steps=8,
)
TINY = Size(
    generator={
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 200,
        "max_position_embeddings": 64,
    },
    discriminator={
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 300,
        "max_position_embeddings": 64,
    },
    completions=4,
    num_generations=2,
    prompt_tokens=4,
    completion_tokens=8,
    steps=2,
)


def word_tokenizer(words: list[str], encoder: bool) -> PreTrainedTokenizerFast:
    """Make a tokenizer with one token per word, for a generator or for an encoder, which takes pairs of texts."""
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    vocabulary = {word: number for number, word in enumerate(special + words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if encoder:
        ends = [(token, vocabulary[token]) for token in ("<s>", "</s>")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=ends
        )
    side = "right" if encoder else "left"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side=side
    )


def nf4(skip: list[str] | None = None) -> BitsAndBytesConfig:
    """Return QLoRA's quantisation: four bits, scales quantised too, computing in bfloat16."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=skip,
    )


def random_model(
    auto_class: type, config: PreTrainedConfig, dtype: torch.dtype, quantization_config: BitsAndBytesConfig | None
) -> PreTrainedModel:
    """Make a model of random weights as `from_pretrained` loads one, quantisation included, without any file.

    All matrices are cut from one piece of noise, since drawing and holding billions of weights takes minutes and more
    memory than some machines have; what the weights are has no influence on time or memory.

    Args:
        auto_class (`type`): `AutoModelForCausalLM` or `AutoModelForSequenceClassification`.
        config (`PreTrainedConfig`): The shape.
        dtype (`torch.dtype`): Of the weights that are not quantised.
        quantization_config (`BitsAndBytesConfig`, *optional*): None for a model that is not quantised.

    Returns:
        `PreTrainedModel`: On the GPU if there is one.
    """
    with torch.device("meta"):
        structure = auto_class.from_config(config)
    shapes = {name: tensor.shape for name, tensor in structure.state_dict().items()}
    noise = (torch.randn(max(shape.numel() for shape in shapes.values())) * config.initializer_range).to(dtype)

    def value(name: str, shape: torch.Size) -> torch.Tensor:
        if len(shape) > 1:
            return noise[: shape.numel()].view(shape)
        return torch.ones(shape, dtype=dtype) if name.endswith("weight") else torch.zeros(shape, dtype=dtype)

    model = type(structure).from_pretrained(
        None,
        config=config,
        state_dict={name: value(name, shape) for name, shape in shapes.items()},
        dtype=dtype,
        quantization_config=quantization_config,
        device_map={"": 0 if torch.cuda.is_available() else "cpu"},
    )
    for parameter in model.parameters():
        if parameter.is_floating_point() and not parameter.is_cuda:  # still pieces of the one noise
            parameter.data = parameter.data.clone()
    return model


def random_rows(size: Size, vocabulary: int, seed: int, count: int = 256) -> Dataset:
    """Return prompts and references of random words, each as long as a prompt and a completion are to be."""
    draws = random.Random(seed)
    words = [f"w{number}" for number in range(vocabulary - SPECIAL_TOKENS)]
    lengths = size.prompt_tokens, size.completion_tokens
    texts = [[" ".join(draws.choices(words, k=length)) for length in lengths] for _ in range(count)]
    # TRL glues prompt and completion together before it scores them, so the space between them is the prompt's.
    return Dataset.from_list([{"prompt": f"{prompt} ", "completion": completion} for prompt, completion in texts])


def make_trainer(
    name: str,
    generator: PreTrainedModel,
    classifier: PreTrainedModel,
    size: Size,
    seed: int,
    folder: str,
    adapters: bool = True,
) -> GRPOTrainer:
    """Return the adversarial trainer, or GRPO of the same generator with the same classifier, frozen, as its reward.

    Args:
        name (`str`): "adversarial" or "grpo".
        generator (`PreTrainedModel`): The generator, without adapters.
        classifier (`PreTrainedModel`): The discriminator, without adapters.
        size ([`Size`]): Of the batch and the run.
        seed (`int`): Of rows and sampling.
        folder (`str`): For what the trainer writes.
        adapters (`bool`, *optional*, defaults to `True`): Whether to train LoRA adapters in place of all weights.
    """
    words, classifier_words = (
        [f"w{number}" for number in range(model.config.vocab_size - SPECIAL_TOKENS)]
        for model in (generator, classifier)
    )
    settings: dict[str, Any] = {
        "output_dir": folder,
        "max_steps": size.steps + 1,
        "per_device_train_batch_size": size.completions,
        "num_generations": size.num_generations,
        "max_completion_length": size.completion_tokens,
        "generation_kwargs": {"min_new_tokens": size.completion_tokens},
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": not torch.cuda.is_available(),
        "disable_tqdm": True,
        "seed": seed,
    }
    shared: dict[str, Any] = {
        "train_dataset": random_rows(size, generator.config.vocab_size, seed),
        "processing_class": word_tokenizer(words, encoder=False),
        "peft_config": LoraConfig(r=16, lora_alpha=32, target_modules="all-linear") if adapters else None,
    }
    classifier_tokenizer = word_tokenizer(classifier_words, encoder=True)
    if name == "grpo":
        classifier.config.pad_token_id = classifier_tokenizer.pad_token_id
        return GRPOTrainer(
            generator,
            reward_funcs=classifier.eval(),
            args=GRPOConfig(learning_rate=1e-5, **settings),
            reward_processing_classes=classifier_tokenizer,
            **shared,
        )
    # The pooler is left out: a quantised classifier keeps it in full precision.
    targets = r".*encoder.*\.(query|key|value|dense)"
    return AdversarialTrainer(
        generator,
        args=AdversarialConfig(learning_rate=1e-5, discriminator_warmup_steps=0, **settings),
        discriminator=classifier,
        discriminator_processing_class=classifier_tokenizer,
        discriminator_peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=targets) if adapters else None,
        **shared,
    )


def train_timed(trainer: GRPOTrainer, size: Size) -> dict[str, Any]:
    """Train and return the medians of the parts of a step in seconds, their range, and peaks of memory in GiB."""
    hold_to_length(trainer, size.completion_tokens)
    timer, peaks = StepTimer(), PeakMemory()
    for method, part in (("_generate", "generation"), ("_calculate_rewards", "discriminator")):
        timer.watch(trainer, method, part)
        peaks.watch(trainer, method, part)
    trainer.add_callback(timer)
    trainer.add_callback(peaks)
    trainer.remove_callback(PrinterCallback)
    at_rest = memory()
    trainer.train()
    steps = timer.steps[1:]
    return {
        "seconds": {part: round(statistics.median(step[part] for step in steps), 4) for part in STEP_PARTS},
        "seconds_by_step": [round(step["step"], 4) for step in steps],
        "memory_gib": {
            "before_the_first_step": round(at_rest, 3),
            **{part: round(value, 3) for part, value in peaks.parts.items()},
            "peak": round(max(peaks.parts.values()), 3),
        },
        "memory_of": "GPU" if torch.cuda.is_available() else "process",
        "completions_per_step": size.completions,
        "completion_tokens": size.completion_tokens,
    }
