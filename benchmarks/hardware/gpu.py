"""What adversarial training costs on a GPU: a 7B generator in four bits against a 0.4B discriminator.

    python -m benchmarks.gpu                     # on a machine with CUDA; at most nine minutes a part
    python -m benchmarks.gpu --parts adversarial # one part
    python -m benchmarks.gpu --tiny --output OUT # every line on a CPU, at tiny size

Three parts, each in a process of its own:

- `tests`: the tests with the mark `gpu`;
- `adversarial`: QLoRA of a generator of Llama-2-7B's shape (nf4, double quantisation, bfloat16 compute) by
  `AdversarialTrainer`, against a discriminator of BERT-large's shape with a vocabulary of 128,000, trained with LoRA;
- `grpo`: the same generator, adapters, rows and settings under `trl.GRPOTrainer`, with the same classifier frozen in
  `reward_funcs`.

The weights are random and made in memory, the tokenizers have one token a word, and every completion has the same
number of tokens: nothing is downloaded, and the trainers do the same work but for what the discriminator learns. A
step is divided as in `benchmarks/step_time.py`, into generation, discriminator and policy, and the peak of memory is
taken for each of them; the first step is not timed. The output holds the parts that are done; one that is there is
skipped unless `--again` is given, so that a run that was cut off goes on where it stopped.
"""

import argparse
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BitsAndBytesConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    set_seed,
)
from trl import GRPOConfig, GRPOTrainer

from benchmarks.step_time import Stopwatch, hold_to_length, word_tokenizer
from hf_mgan import AdversarialConfig, AdversarialTrainer


PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes")
PARTS = ("tests", "adversarial", "grpo")
STEP_PARTS = ("step", "generation", "discriminator", "policy")
ROOT = Path(__file__).parents[1]
SPECIAL_TOKENS = 4  # those that word_tokenizer adds
GIB = 2**30


@dataclass(frozen=True)
class Size:
    """The sizes of a run.

    Attributes:
        generator, discriminator (`dict`): Arguments of `LlamaConfig` and `BertConfig`.
        completions (`int`): Completions a step.
        num_generations (`int`): Completions a prompt.
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


class PeakMemory(TrainerCallback):
    """Measures the peak of memory in each part of the steps: of the GPU, or of the process where there is none.

    Attributes:
        parts (`dict[str, float]`): GiB by part, over all steps.
    """

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}

    def watch(self, trainer: GRPOTrainer, method: str, part: str) -> None:
        """Take the peak within a method of this trainer for a part of the step."""
        original = getattr(trainer, method)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self._note("policy")
            output = original(*args, **kwargs)
            self._note(part)
            return output

        setattr(trainer, method, watched)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Forget what was before the step."""
        reset_peak_memory()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Count what comes after the last watched method as the policy's."""
        self._note("policy")

    def _note(self, part: str) -> None:
        self.parts[part] = max(self.parts.get(part, 0.0), peak_memory())
        reset_peak_memory()


def peak_memory() -> float:
    """Return the peak in GiB since the last reset: allocated by PyTorch on the GPU, else resident (Linux alone)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / GIB
    return _resident("VmHWM")


def memory() -> float:
    """Return what is in use now, in GiB."""
    return torch.cuda.memory_allocated() / GIB if torch.cuda.is_available() else _resident("VmRSS")


def reset_peak_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # see proc(5)


def _resident(name: str) -> float:
    match = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if match is None:
        raise RuntimeError(f"/proc/self/status has no {name}.")
    return int(match.group(1)) * 1024 / GIB


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
    """Return the trainer of a game, or of the same generator against the same classifier, frozen.

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
        args=AdversarialConfig(learning_rate=1e-5, **settings),
        discriminator=classifier,
        discriminator_processing_class=classifier_tokenizer,
        discriminator_peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=targets) if adapters else None,
        **shared,
    )


def train(trainer: GRPOTrainer, size: Size) -> dict[str, Any]:
    """Train and return the medians of the parts of a step in seconds, their range, and peaks of memory in GiB."""
    hold_to_length(trainer, size.completion_tokens)
    stopwatch, peaks = Stopwatch(), PeakMemory()
    for method, part in (("_generate", "generation"), ("_calculate_rewards", "discriminator")):
        stopwatch.watch(trainer, method, part)
        peaks.watch(trainer, method, part)
    trainer.add_callback(stopwatch)
    trainer.add_callback(peaks)
    trainer.remove_callback(PrinterCallback)
    at_rest = memory()
    trainer.train()
    steps = stopwatch.steps[1:]
    return {
        "seconds": {part: round(statistics.median(step[part] for step in steps), 4) for part in STEP_PARTS},
        "seconds_by_step": [round(step["step"], 4) for step in steps],
        "memory_gib": {
            "before_the_first_step": round(at_rest, 3),
            **{part: round(value, 3) for part, value in peaks.parts.items()},
            "peak": round(max(peaks.parts.values()), 3),
        },
        "memory_of": "GPU" if torch.cuda.is_available() else "process",
        "completions_a_step": size.completions,
        "completion_tokens": size.completion_tokens,
    }


def run_trainer(name: str, size: Size, seed: int) -> dict[str, Any]:
    """Make the players and train them under one of the two trainers."""
    set_seed(seed)
    began = time.perf_counter()
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    generator = random_model(AutoModelForCausalLM, LlamaConfig(**size.generator, **special), torch.bfloat16, nf4())
    classifier = random_model(
        AutoModelForSequenceClassification,
        BertConfig(**size.discriminator, num_labels=1, **special),
        torch.float32,
        None,
    )
    seconds = time.perf_counter() - began
    counts = {
        "generator_parameters": generator.num_parameters(),
        "classifier_parameters": classifier.num_parameters(),
    }
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(name, generator, classifier, size, seed, folder)
        figures = train(trainer, size)
        trainable = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    return {**figures, "seconds_to_make_the_models": round(seconds, 1), **counts, "generator_trainable": trainable}


def run_tests(environment: dict[str, str], limit: float) -> dict[str, Any]:
    """Run the tests that are marked `gpu` and return their number by outcome.

    Raises:
        RuntimeError: If a test fails, or none is found.
    """
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit, check=False
    )
    if done.returncode:
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    closing = done.stdout.strip().splitlines()[-1]
    return {
        "command": "python -m pytest -m gpu",
        "outcomes": {name: int(number) for number, name in re.findall(r"(\d+) (passed|skipped)", closing)},
        "skipped_because": sorted(set(re.findall(r"^SKIPPED \[\d+\] \S+ (.*)$", done.stdout, re.MULTILINE))),
        "closing_line": closing.strip("= "),
    }


def run_part(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run a part in a process of its own and return its figures.

    Raises:
        RuntimeError: If it fails.
        subprocess.TimeoutExpired: If it takes more than `--limit` seconds.
    """
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""} if arguments.tiny else dict(os.environ)
    if name == "tests":
        return run_tests(environment, arguments.limit)
    command = [sys.executable, "-m", "benchmarks.gpu", "--child", name, "--seed", str(arguments.seed)]
    if arguments.tiny:
        command.append("--tiny")
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=arguments.limit, check=False
    )
    if done.returncode:
        raise RuntimeError(f"The part {name} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def overhead(parts: dict[str, Any]) -> dict[str, float]:
    """Return how many times the time and the memory of GRPO the adversarial trainer takes, once both are measured."""
    if "adversarial" not in parts or "grpo" not in parts:
        return {}
    ours, theirs = parts["adversarial"], parts["grpo"]
    return {
        "step": round(ours["seconds"]["step"] / theirs["seconds"]["step"], 3),
        "peak_memory": round(ours["memory_gib"]["peak"] / theirs["memory_gib"]["peak"], 3),
    }


def conditions(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what all parts in one output must have in common."""
    return {
        "device": "cpu" if arguments.tiny else torch.cuda.get_device_name(),
        "size": asdict(TINY if arguments.tiny else FULL),
        "seed": arguments.seed,
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
    }


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/gpu.json"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--again", action="store_true", help="run parts that the output already holds")
    parser.add_argument("--tiny", action="store_true", help="a dry run at tiny size on the CPU")
    parser.add_argument("--limit", type=float, default=500, help="most seconds a part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", choices=PARTS[1:], help=argparse.SUPPRESS)  # what a new process is asked for
    arguments = parser.parse_args()
    if not arguments.tiny and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --tiny makes a dry run on the CPU")
    return arguments


def main() -> None:
    arguments = parsed_arguments()
    if arguments.child is not None:
        print(json.dumps(run_trainer(arguments.child, TINY if arguments.tiny else FULL, arguments.seed)))
        return
    common = conditions(arguments)
    result: dict[str, Any] = {"command": "python -m benchmarks.gpu" + " --tiny" * arguments.tiny, **common}
    parts: dict[str, Any] = {}
    if arguments.output.exists():
        result = json.loads(arguments.output.read_text())
        parts = result["parts"]
        changed = [name for name in common if result[name] != common[name]]
        if changed:
            sys.exit(f"{arguments.output} was made with another {' and '.join(changed)}: give another --output.")
    for name in arguments.parts:
        if name in parts and not arguments.again:
            print(f"{name}: there already")
            continue
        began = time.perf_counter()
        parts[name] = run_part(name, arguments)
        parts[name]["seconds_in_all"] = round(time.perf_counter() - began, 1)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(
            json.dumps({**result, "parts": parts, "overhead": overhead(parts)}, indent=1) + "\n"
        )
        print(f"{name}: {json.dumps(parts[name])}", flush=True)


if __name__ == "__main__":
    main()
