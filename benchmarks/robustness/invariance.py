"""Is a step the same however its batch is divided? Weights of both models after three steps, against one division.

    python -m benchmarks.robustness.invariance                      # every loss, six minutes on one core
    python -m benchmarks.robustness.invariance --losses bce --publish

Every run has the same eight completions per step, on tiny models, with SGD, real_text_coef, KL, replay and penalties
on. It differs from the reference (8 x 1: all in one micro-batch, one process, one pass of the discriminator) in how
they are divided: micro-batches, processes, passes of the discriminator, order, padding. The table holds the greatest
difference of a weight, of the generator and of the discriminator; the bound is 1e-6, the rounding of float32 sums.

What is random is made a function of the text, so that every division sees the same: a completion is drawn from its
prompt, its number within the group and the number of the batch, in place of the generator's sampling; dropout is off,
and so is token dropout, whose noise is drawn per pass. Replay of 0.9 shows all earlier completions that are kept.
Replay of 0.25 shows some: each process draws among those that it has shown itself, so that two processes replay other
texts than one, of the same distribution. Of that no equality can be asked, and the table says by how much they differ.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BatchEncoding,
    PrinterCallback,
    set_seed,
)
from transformers.utils.logging import disable_progress_bar

from hf_mgan import AdversarialConfig, AdversarialTrainer
from hf_mgan.data import RealBatch
from hf_mgan.experimental.token_credit import TokenCreditConfig, TokenCreditTrainer
from hf_mgan.objectives import LOSSES, SMOOTHABLE

from ..hardware.tiny_models import DISCRIMINATORS, GENERATORS, SEED, VOCABULARY, WORDS, make_tokenizer, save_model
from ..sweep import RESULTS, write_lines
from ..testbed import ROOT, machine, versions


MODULE = "benchmarks.robustness.invariance"
COMMITTED = RESULTS / "invariance.jsonl"
BOUND = 1e-6
STEPS, GROUP, LONGEST = 3, 4, 8
TOKEN_CREDIT, LEARNT_POSITIONS = "bce, token credit", "bce, GPT-2"  # GPT-2 learns a vector for each position
CASES = (*LOSSES, TOKEN_CREDIT, LEARNT_POSITIONS)


@dataclass(frozen=True)
class Division:
    """How the eight completions of a step are divided.

    Attributes:
        size (`int`): Texts per micro-batch on each process.
        accumulation (`int`): Micro-batches per step.
        processes (`int`): Number of processes.
        settings (`dict`): Of [`AdversarialConfig`].
        is_reversed (`bool`): Whether all texts come in the reverse order.
        padding (`int`): Columns of padding added to every batch; the generator's are padded to a multiple of it.
        reason (`str`): Why it may differ by more than the bound; "" if it may not.
    """

    size: int = 8
    accumulation: int = 1
    processes: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    is_reversed: bool = False
    padding: int = 0
    reason: str = ""


SOME_REPLAYED = {"discriminator_replay_fraction": 0.25}
OTHER_DRAWS = "each process replays texts that it has shown itself: other ones, of the same distribution"
DIVISIONS = {
    "8 x 1": Division(),
    "4 x 2": Division(4, 2),
    "2 x 4": Division(2, 4),
    "1 x 8": Division(1, 8),
    "D by 1": Division(settings={"discriminator_batch_size": 1}),
    "D by 3": Division(settings={"discriminator_batch_size": 3}),
    "order": Division(is_reversed=True),
    "padding": Division(padding=16),
    "2 processes, 4 x 1": Division(4, 1, 2),
    "2 processes, 2 x 2, D by 3": Division(2, 2, 2, settings={"discriminator_batch_size": 3}),
    "some replayed, 8 x 1": Division(settings=SOME_REPLAYED),
    "some replayed, 2 x 4": Division(2, 4, settings=SOME_REPLAYED),
    "some replayed, 2 processes": Division(4, 1, 2, settings=SOME_REPLAYED, reason=OTHER_DRAWS),
}


def reference_of(name: str) -> str:
    """Return the division that another one is compared with."""
    return "some replayed, 8 x 1" if name.startswith("some replayed") else "8 x 1"


def save_models(folder: Path) -> None:
    """Save the generators, and as discriminators a BERT and, for token credit, a GPT-2."""
    for name in ("Llama", "GPT-2"):
        save_model(GENERATORS[name], folder / "generators" / name, None)
    for name in ("BERT", "GPT-2"):
        set_seed(SEED + 1)
        family = DISCRIMINATORS[name]
        config = AutoConfig.for_model(family.model_type, num_labels=1, pad_token_id=0, **family.settings)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder / "discriminators" / name)
        make_tokenizer(family.tokenizer).save_pretrained(folder / "discriminators" / name)


def drawn(key: str, shortest: int, longest: int) -> list[str]:
    """Draw words by a key, some number of them."""
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    length = int(torch.randint(shortest, longest + 1, (), generator=generator))
    return [WORDS[place] for place in torch.randint(len(WORDS), (length,), generator=generator).tolist()]


def training_set() -> Dataset:
    """Return prompts of 1 to 4 words, with references of 1 to 7."""
    rows = range(16)
    return Dataset.from_dict(
        {
            "prompt": [" ".join(drawn(f"prompt {row}", 1, 4)) for row in rows],
            "completion": [" " + " ".join(drawn(f"reference {row}", 1, LONGEST - 1)) for row in rows],
        }
    )


def make_trainer(case: str, division: Division, models: Path, output_dir: Path) -> AdversarialTrainer:
    """Make the trainer of a case, with everything on."""
    loss = case.split(",")[0]
    smoothing = {"label_smoothing": 0.1} if loss in SMOOTHABLE else {}
    settings: dict[str, Any] = {
        "per_device_train_batch_size": division.size,
        "gradient_accumulation_steps": division.accumulation,
        "max_steps": STEPS,
        "num_generations": GROUP,
        "max_completion_length": LONGEST,
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "beta": 0.1,
        "real_text_coef": 0.1,
        "discriminator_loss": loss,
        "discriminator_optim_kwargs": {"optim": "sgd", "lr_scheduler_type": "constant"},
        "discriminator_learning_rate": 0.05,
        "discriminator_steps": 2,
        "discriminator_warmup_steps": 0,
        "discriminator_replay_fraction": 0.9,
        "discriminator_regularization": {"logit_penalty": 0.01, **smoothing},
        "disable_dropout": True,
        "pad_to_multiple_of": division.padding or None,
        "seed": SEED,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "use_cpu": True,
        "ddp_backend": "gloo" if division.processes > 1 else None,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        **division.settings,
    }
    is_token_credit = case == TOKEN_CREDIT
    if is_token_credit:
        settings["scale_rewards"] = "none"
    trainer_class, config_class = (
        (TokenCreditTrainer, TokenCreditConfig) if is_token_credit else (AdversarialTrainer, AdversarialConfig)
    )
    trainer = trainer_class(
        str(models / "generators" / ("GPT-2" if case == LEARNT_POSITIONS else "Llama")),
        discriminator=str(models / "discriminators" / ("GPT-2" if is_token_credit else "BERT")),
        args=config_class(str(output_dir), **settings),
        train_dataset=training_set(),
    )
    trainer.remove_callback(PrinterCallback)
    feed(trainer, division)
    return trainer


def feed(trainer: AdversarialTrainer, division: Division) -> None:
    """Put completions that are a function of the text in the place of sampling, and turn and pad what is asked."""
    batches = 0

    def completions(prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        nonlocal batches
        count, rank = len(prompt_ids), trainer.accelerator.process_index
        rows = [rank * count + (count - 1 - row if division.is_reversed else row) for row in range(count)]
        keys = [f"{ids} {row % GROUP} {batches}" for ids, row in zip(prompt_ids, rows, strict=True)]
        batches += 1
        ids = [[VOCABULARY[word] for word in drawn(key, 1, LONGEST)] for key in keys]
        return [row if len(row) == LONGEST else [*row, VOCABULARY["</s>"]] for row in ids], None

    trainer._generate_single_turn = completions
    if division.is_reversed:
        score, real_texts = trainer._generate_and_score_completions, trainer._reward.real_texts
        trainer._generate_and_score_completions = lambda inputs: score(inputs[::-1])
        if not real_texts.are_references(training=True):  # which come with the rows
            real_texts.draw = turned(real_texts.draw)
    if division.padding:
        trainer.discriminator.encode = padded(trainer.discriminator.encode, division.padding)


def turned(draw: Callable[..., RealBatch]) -> Callable[..., RealBatch]:
    """Return real texts in the reverse order."""
    return lambda *arguments: RealBatch(*(column[::-1] for column in draw(*arguments)))


def padded(encode: Callable[..., BatchEncoding], columns: int) -> Callable[..., BatchEncoding]:
    """Return an encoding with more padding, whose token is 0 in all these tokenizers."""
    return lambda *texts: BatchEncoding({name: F.pad(ids, (0, columns)) for name, ids in encode(*texts).items()})


def weights(trainer: AdversarialTrainer) -> dict[str, Tensor]:
    """Return all weights of each model in one row."""
    models = {"generator": trainer.model, "discriminator": trainer.discriminator.model}
    return {name: torch.cat([one.detach().flatten() for one in model.parameters()]) for name, model in models.items()}


def train(cases: list[str], names: list[str], folder: Path) -> None:
    """Train each case in each of the divisions, and save the weights before and after, on the first process."""
    disable_progress_bar()
    for case in cases:
        for name in names:
            trainer = make_trainer(case, DIVISIONS[name], folder / "models", folder / "out")
            before = weights(trainer)
            trainer.train()
            if trainer.accelerator.num_processes != DIVISIONS[name].processes:
                raise RuntimeError(f"{name} ran on {trainer.accelerator.num_processes} processes.")
            if trainer.accelerator.is_main_process:
                torch.save((before, weights(trainer)), folder / f"{case}.{name}.bin")


def train_on_two_processes(cases: list[str], names: list[str], folder: Path) -> None:
    """Train where there are two processes."""
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", MODULE]
    arguments = ["--folder", str(folder), "--losses", *cases, "--divisions", *names]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        [sys.executable, *words, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise RuntimeError(f"The two processes ended with {run.returncode}:\n{run.stderr[-3000:]}")


def compared(cases: list[str], names: list[str], folder: Path) -> list[dict[str, Any]]:
    """Return the greatest difference of a weight to the reference, for each case and division."""
    results = []
    for case in cases:
        for name in names:
            if name == reference_of(name):
                continue
            before, expected = torch.load(folder / f"{case}.{reference_of(name)}.bin", weights_only=True)
            _, found = torch.load(folder / f"{case}.{name}.bin", weights_only=True)
            difference = {one: (found[one] - expected[one]).abs().max().item() for one in expected}
            moved = {f"{one}_moved": (expected[one] - before[one]).abs().max().item() for one in expected}
            results.append({"loss": case, "division": name, **difference, **moved, "reason": DIVISIONS[name].reason})
    return results


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as a table in Markdown: a row per division, and for each loss generator / discriminator."""
    cases = list(dict.fromkeys(result["loss"] for result in results))
    found = {(one["loss"], one["division"]): f"{one['generator']:.0e} / {one['discriminator']:.0e}" for one in results}
    lines = [f"| division | {' | '.join(cases)} |", "|---|" + "---|" * len(cases)]
    for name in dict.fromkeys(result["division"] for result in results):
        lines.append(f"| {name} | {' | '.join(found[case, name] for case in cases)} |")
    moved = {one["loss"]: f"{one['generator_moved']:.0e} / {one['discriminator_moved']:.0e}" for one in results}
    lines.append(f"| (moved in all) | {' | '.join(moved[case] for case in cases)} |")
    reasons = {one["division"]: one["reason"] for one in results if one["reason"]}
    return "\n".join([*lines, "", *(f"{name}: {reason}." for name, reason in reasons.items())])


def unexplained(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the results above the bound that have no reason to be."""
    return [one for one in results if not one["reason"] and max(one["generator"], one["discriminator"]) > BOUND]


def run(cases: list[str], names: list[str], folder: Path) -> list[dict[str, Any]]:
    """Train and compare."""
    names = list(dict.fromkeys([*map(reference_of, names), *names]))
    save_models(folder / "models")
    train(cases, [name for name in names if DIVISIONS[name].processes == 1], folder)
    if on_two := [name for name in names if DIVISIONS[name].processes == 2]:
        train_on_two_processes(cases, on_two, folder)
    return compared(cases, names, folder)


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--losses", nargs="+", choices=CASES, default=list(CASES), metavar="LOSS")
    parser.add_argument("--divisions", nargs="+", choices=DIVISIONS, default=list(DIVISIONS), metavar="DIVISION")
    parser.add_argument("--publish", action="store_true", help=f"write {COMMITTED.relative_to(ROOT)}")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    if arguments.folder is not None:  # one of two processes
        train(arguments.losses, arguments.divisions, arguments.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        results = run(arguments.losses, arguments.divisions, Path(folder))
    print(table(results))
    if arguments.publish:
        flags = ["--losses", *arguments.losses, "--divisions", *arguments.divisions, "--publish"]
        made = {
            "command": f"python -m {MODULE} {shlex.join(flags)}",
            "seed": SEED,
            "steps": STEPS,
            "versions": versions(),
            "machine": machine(),
        }
        write_lines(COMMITTED, [{**made, **result} for result in results])
    if beyond := unexplained(results):
        raise SystemExit(f"Above {BOUND}: {beyond}")


if __name__ == "__main__":
    main()
