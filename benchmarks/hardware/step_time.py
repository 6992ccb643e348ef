"""What adversarial training costs: the step of `AdversarialTrainer` against that of `trl.GRPOTrainer`.

    python -m benchmarks.hardware.step_time                            # both pairs; models and texts from the Hub
    python -m benchmarks.hardware.step_time --pairs tiny
    python -m benchmarks.hardware.step_time --generator FOLDER --discriminator FOLDER --data FOLDER

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
set OMP_NUM_THREADS=1, since idle threads wait busily. The pair `tiny` is made in code.
"""

import argparse
import copy
import json
import random
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
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
    PrinterCallback,
    set_seed,
)
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer

from hf_mgan import AdversarialConfig, AdversarialTrainer

from ..sources import ENCODER, GENERATOR, TEXTS, TEXTS_HELP, load_texts
from ..sweep import RESULTS, write_lines
from ..testbed import machine, versions
from .step_parts import StepTimer, hold_to_length
from .trainers import word_tokenizer


MODULE = "benchmarks.hardware.step_time"
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


def real_pair(arguments: argparse.Namespace) -> Pair:
    """Load the two real models, the classifier with a fresh head, and texts cut after their fourth word."""
    set_seed(arguments.seed)
    words = [text.split() for text in load_texts(arguments.data, arguments.max_texts)["train"]["text"]]
    rows = [
        {"prompt": " ".join(text[:PROMPT_WORDS]), "completion": " " + " ".join(text[PROMPT_WORDS:])}
        for text in words
        if len(text) >= 2 * PROMPT_WORDS
    ]
    return Pair(
        AutoModelForCausalLM.from_pretrained(arguments.generator, dtype=getattr(torch, arguments.dtype)),
        AutoTokenizer.from_pretrained(arguments.generator, padding_side="left"),
        AutoModelForSequenceClassification.from_pretrained(arguments.discriminator, num_labels=1, dtype=torch.float32),
        AutoTokenizer.from_pretrained(arguments.discriminator),
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
        "bf16": arguments.dtype == "bfloat16",
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
            args=AdversarialConfig(discriminator_warmup_steps=0, **settings),
            discriminator=copy.deepcopy(pair.classifier),
            discriminator_processing_class=pair.classifier_tokenizer,
            peft_config=copy.deepcopy(peft_config),
            **shared,
        ),
    }


def measure(pair: Pair, arguments: argparse.Namespace, steps: int) -> dict[str, Any]:
    """Train in alternating blocks and return the medians, and the ratio of the trainers in every round."""
    with tempfile.TemporaryDirectory() as folder:
        trainers = make_trainers(pair, arguments, steps, folder)
        timers = {name: StepTimer() for name in trainers}
        for name, trainer in trainers.items():
            hold_to_length(trainer, arguments.max_completion_length)
            timers[name].watch(trainer, "_generate", "generation")
            timers[name].watch(trainer, "_calculate_rewards", "discriminator")
            trainer.add_callback(timers[name])
            trainer.remove_callback(PrinterCallback)
        rounds: dict[str, list[list[dict[str, float]]]] = {name: [] for name in trainers}
        for number in range(arguments.rounds):
            for name, trainer in trainers.items():
                timers[name].steps.clear()
                trainer.train()
                rounds[name].append(timers[name].steps[1:])
                step = statistics.median(one["step"] for one in rounds[name][-1])
                print(f"round {number + 1} of {arguments.rounds}, {name}: {step:.3f} s per step", flush=True)
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


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", nargs="+", choices=["tiny", "real"], default=["tiny", "real"])
    parser.add_argument("--generator", default=GENERATOR, help="id on the Hub, or folder")
    parser.add_argument("--discriminator", default=ENCODER, help="id on the Hub, or folder")
    parser.add_argument("--data", default=TEXTS, help=TEXTS_HELP)
    parser.add_argument("--max_texts", type=int, default=20_000)
    parser.add_argument("--output", type=Path, default=RESULTS / "step_time.jsonl")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each trainer")
    parser.add_argument("--steps", type=int, default=3, help="timed steps per block of the real pair")
    parser.add_argument("--tiny_steps", type=int, default=20, help="timed steps per block of the tiny pair")
    parser.add_argument("--batch_size", type=int, default=32, help="completions per step")
    parser.add_argument("--num_generations", type=int, default=8, help="completions per prompt")
    parser.add_argument("--max_completion_length", type=int, default=24, help="tokens of every completion")
    parser.add_argument(
        "--dtype",
        choices=["bfloat16", "float32"],
        default="bfloat16",
        help="precision of the generator and of autocast; a CPU without bfloat16 takes ten times as long in it",
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    about = {"versions": versions(), **machine()}
    logging.set_verbosity_error()
    names = ("rounds", "batch_size", "num_generations", "max_completion_length", "seed")
    settings = {name: getattr(arguments, name) for name in names}
    results = []
    for name in arguments.pairs:
        if name == "tiny":
            pair, steps = tiny_pair(arguments.seed, arguments.max_completion_length), arguments.tiny_steps
        else:
            pair, steps = real_pair(arguments), arguments.steps
        print(f"pair {name}")
        measured = measure(pair, arguments, steps)
        results.append({"pair": name, **measured, "settings": {**settings, "steps": steps}, **about})
        print(
            f"ratio {measured['ratio']}, of processor time {measured['processor_ratio']} "
            f"(rounds {measured['ratio_lowest_round']} to {measured['ratio_highest_round']})\n"
            f"{json.dumps(measured['seconds'], indent=1)}"
        )
        write_lines(arguments.output, results)


if __name__ == "__main__":
    main()
