"""What adversarial training costs: the step of `AdversarialTrainer` against that of `trl.GRPOTrainer`.

    python benchmarks/step_time.py
    python ../shared/tools/real_models.py MODELS
    python benchmarks/step_time.py --models MODELS --data ../shared/data

Both trainers get the same generator with the same adapters, the same rows, batch and settings, and the same
classifier. GRPO has it frozen in `reward_funcs` and scores through TRL's own path for reward models, which adds no
special tokens, so its texts are three tokens shorter; the adversarial trainer has it as its discriminator and trains
it. Both run it under bfloat16 autocast, TRL's default. All completions have the same number of tokens, so that the
trainers do the same work elsewhere. Blocks of steps alternate, A B A B, in one process: what disturbs one disturbs the
other. The first step of a block is not timed, since every block begins with a new optimizer of the discriminator.

A step is what lies between the callbacks `on_step_begin` and `on_step_end`: generation (`_generate`), discriminator
(`_calculate_rewards`: scoring, and for the adversarial trainer the real texts, the backward pass and the optimizer of
the discriminator) and policy (all else: forward, backward, clipping, optimizer). Beside the wall clock stands the
processor time of the whole step, which other programs on a machine without a GPU hardly disturb; for a fair comparison
set OMP_NUM_THREADS=1, since idle threads wait busily. The pair `tiny` is made in code; the pair `real` is
SmolLM2-135M-Instruct and all-MiniLM-L6-v2 on sentences of WordNet.
"""

import argparse
import copy
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    PrinterCallback,
    TrainerCallback,
    set_seed,
)
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer

from hf_mgan import AdversarialConfig, AdversarialTrainer


PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
PARTS = ("step", "generation", "discriminator", "policy", "processor")
PROMPT_WORDS = 4


@dataclass(frozen=True)
class Pair:
    """A generator and a classifier, each with its tokenizer, and rows of prompt and completion."""

    generator: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    classifier: PreTrainedModel
    classifier_tokenizer: PreTrainedTokenizerBase
    rows: Dataset


class Stopwatch(TrainerCallback):
    """Measures every step of a trainer, and in it the methods that `watch` has wrapped.

    Attributes:
        steps (`list[dict[str, float]]`): Seconds of each step by part.
    """

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._parts: dict[str, float] = {}
        self._began = self._began_processor = 0.0

    def watch(self, trainer: GRPOTrainer, method: str, part: str) -> None:
        """Count the time spent in a method of this trainer as a part of the step."""
        original = getattr(trainer, method)

        def watched(*args: Any, **kwargs: Any) -> Any:
            began = now()
            output = original(*args, **kwargs)
            self._parts[part] = self._parts.get(part, 0.0) + now() - began
            return output

        setattr(trainer, method, watched)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self._parts, self._began, self._began_processor = {}, now(), time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Write the step down."""
        step = now() - self._began
        policy, processor = step - sum(self._parts.values()), time.process_time() - self._began_processor
        self.steps.append({"step": step, **self._parts, "policy": policy, "processor": processor})


def now() -> float:
    """Return the seconds of a clock, after all work given to the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def word_tokenizer(words: list[str], encoder: bool) -> PreTrainedTokenizerFast:
    """Make a tokenizer with one token a word, for a generator or for an encoder, which takes pairs of texts."""
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


def tiny_pair(seed: int, max_completion_length: int) -> Pair:
    """Make two models of two layers, and texts of random words."""
    set_seed(seed)
    words = [f"w{number}" for number in range(1000)]
    tokenizer, classifier_tokenizer = word_tokenizer(words, encoder=False), word_tokenizer(words, encoder=True)
    size = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    generator = GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=512, **size))
    classifier = BertForSequenceClassification(
        BertConfig(
            hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256, num_labels=1, **size
        )
    )
    draws = random.Random(seed)
    lengths = PROMPT_WORDS, max_completion_length
    texts = [[" ".join(draws.choices(words, k=length)) for length in lengths] for _ in range(512)]
    # TRL glues prompt and completion together before it scores them, so the space between them is the prompt's.
    rows = [{"prompt": f"{prompt} ", "completion": completion} for prompt, completion in texts]
    return Pair(generator, tokenizer, classifier, classifier_tokenizer, Dataset.from_list(rows))


def real_pair(models_folder: Path, data_folder: Path, seed: int) -> Pair:
    """Load the two real models, the classifier with a fresh head, and sentences cut after their fourth word."""
    set_seed(seed)
    generator_folder, classifier_folder = models_folder / "SmolLM2-135M-Instruct", models_folder / "all-MiniLM-L6-v2"
    file = next(data_folder.glob("wordnet_examples*train*"))
    texts = load_dataset("json", data_files=str(file), split="train")["text"]
    words = [text.split() for text in texts]
    rows = [
        {"prompt": " ".join(text[:PROMPT_WORDS]), "completion": " " + " ".join(text[PROMPT_WORDS:])}
        for text in words
        if len(text) >= 2 * PROMPT_WORDS
    ]
    return Pair(
        AutoModelForCausalLM.from_pretrained(generator_folder, dtype=torch.bfloat16),
        AutoTokenizer.from_pretrained(generator_folder, padding_side="left"),
        AutoModelForSequenceClassification.from_pretrained(classifier_folder, num_labels=1, dtype=torch.float32),
        AutoTokenizer.from_pretrained(classifier_folder),
        Dataset.from_list(rows),
    )


def make_trainers(pair: Pair, arguments: argparse.Namespace, steps: int, folder: str) -> dict[str, GRPOTrainer]:
    """Return the two trainers, each with its own copy of both models."""
    settings = {
        "output_dir": folder,
        "max_steps": steps + 1,
        "per_device_train_batch_size": arguments.batch_size,
        "num_generations": arguments.num_generations,
        "max_completion_length": arguments.max_completion_length,
        "generation_kwargs": {"min_new_tokens": arguments.max_completion_length},
        "learning_rate": 1e-5,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "seed": arguments.seed,
    }
    shared = {"train_dataset": pair.rows, "processing_class": pair.tokenizer}
    peft_config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    return {
        "grpo": GRPOTrainer(
            copy.deepcopy(pair.generator),
            reward_funcs=copy.deepcopy(pair.classifier).eval(),
            args=GRPOConfig(**settings),
            reward_processing_classes=copy.deepcopy(pair.classifier_tokenizer),
            peft_config=copy.deepcopy(peft_config),
            **shared,
        ),
        "adversarial": AdversarialTrainer(
            copy.deepcopy(pair.generator),
            args=AdversarialConfig(**settings),
            discriminator=copy.deepcopy(pair.classifier),
            discriminator_processing_class=pair.classifier_tokenizer,
            peft_config=copy.deepcopy(peft_config),
            **shared,
        ),
    }


def hold_to_length(trainer: GRPOTrainer, length: int) -> None:
    """Stop the run if a completion has another number of tokens: the two trainers would not do the same work."""
    original: Callable = trainer._generate

    def checked(*args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        lengths = {len(ids) for ids in output[1]}
        if lengths != {length}:
            raise RuntimeError(f"Completions must have {length} tokens, and some have {sorted(lengths - {length})}.")
        return output

    trainer._generate = checked


def measure(pair: Pair, arguments: argparse.Namespace, steps: int) -> dict[str, Any]:
    """Train in alternating blocks and return the medians, and the ratio of the trainers in every round."""
    with tempfile.TemporaryDirectory() as folder:
        trainers = make_trainers(pair, arguments, steps, folder)
        stopwatches = {name: Stopwatch() for name in trainers}
        for name, trainer in trainers.items():
            hold_to_length(trainer, arguments.max_completion_length)
            stopwatches[name].watch(trainer, "_generate", "generation")
            stopwatches[name].watch(trainer, "_calculate_rewards", "discriminator")
            trainer.add_callback(stopwatches[name])
            trainer.remove_callback(PrinterCallback)
        rounds: dict[str, list[list[dict[str, float]]]] = {name: [] for name in trainers}
        for number in range(arguments.rounds):
            for name, trainer in trainers.items():
                stopwatches[name].steps.clear()
                trainer.train()
                rounds[name].append(stopwatches[name].steps[1:])
                step = statistics.median(one["step"] for one in rounds[name][-1])
                print(f"round {number + 1} of {arguments.rounds}, {name}: {step:.3f} s a step", flush=True)
    seconds = {
        name: {part: statistics.median(step[part] for block in blocks for step in block) for part in PARTS}
        for name, blocks in rounds.items()
    }
    by_round = {name: [statistics.median(step["step"] for step in block) for block in rounds[name]] for name in rounds}
    ratios = [ours / theirs for ours, theirs in zip(by_round["adversarial"], by_round["grpo"], strict=True)]
    return {
        "ratio": round(seconds["adversarial"]["step"] / seconds["grpo"]["step"], 3),
        "processor_ratio": round(seconds["adversarial"]["processor"] / seconds["grpo"]["processor"], 3),
        "ratio_lowest_round": round(min(ratios), 3),
        "ratio_highest_round": round(max(ratios), 3),
        "ratio_by_round": [round(ratio, 3) for ratio in ratios],
        "seconds": {name: {part: round(value, 4) for part, value in parts.items()} for name, parts in seconds.items()},
        "seconds_by_round": {name: [round(value, 4) for value in values] for name, values in by_round.items()},
        "timed_steps_each": arguments.rounds * steps,
        "generator_parameters": pair.generator.num_parameters(),
        "classifier_parameters": pair.classifier.num_parameters(),
    }


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="folder with the two real models; without it only the tiny pair")
    parser.add_argument("--data", type=Path, help="folder with wordnet_examples*train*.jsonl")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/step_time.json"))
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each trainer")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a block of the real pair")
    parser.add_argument("--tiny_steps", type=int, default=20, help="timed steps a block of the tiny pair")
    parser.add_argument("--batch_size", type=int, default=32, help="completions a step")
    parser.add_argument("--num_generations", type=int, default=8, help="completions a prompt")
    parser.add_argument("--max_completion_length", type=int, default=24, help="tokens of every completion")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if (arguments.models is None) != (arguments.data is None):
        parser.error("the real pair needs both --models and --data")
    return arguments


def main() -> None:
    arguments = parsed_arguments()
    load_average = os.getloadavg()
    logging.set_verbosity_error()
    hidden = ("models", "data", "output")
    result: dict[str, Any] = {
        "command": "python benchmarks/step_time.py"
        + "".join(f" --{name} {value}" for name, value in vars(arguments).items() if name not in hidden)
        + (" --models MODELS --data DATA" if arguments.models else ""),
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "load_average_at_start": [round(value, 2) for value in load_average],
        "seed": arguments.seed,
        "settings": {name: value for name, value in vars(arguments).items() if name not in hidden},
        "baseline": "trl.GRPOTrainer, the same classifier frozen in reward_funcs, scored by TRL's own path",
        "pairs": {},
    }
    pairs = [("tiny", tiny_pair(arguments.seed, arguments.max_completion_length), arguments.tiny_steps)]
    if arguments.models is not None:
        pairs.append(("real", real_pair(arguments.models, arguments.data, arguments.seed), arguments.steps))
    for name, pair, steps in pairs:
        print(f"pair {name}")
        result["pairs"][name] = measured = measure(pair, arguments, steps)
        print(
            f"ratio {measured['ratio']}, of processor time {measured['processor_ratio']} "
            f"(rounds {measured['ratio_lowest_round']} to {measured['ratio_highest_round']})\n"
            f"{json.dumps(measured['seconds'], indent=1)}"
        )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
