"""What guided sampling costs: tokens per second and memory beside plain sampling, and whether its parts explain it.

    python -m benchmarks.hardware.guided_cost                                # models from the Hub
    python -m benchmarks.hardware.guided_cost --generator FOLDER --discriminator FOLDER --rounds 3

In one process, rounds of plain sampling, of the discriminator's pass over those texts, and of guided sampling at each
threshold alternate. Guided sampling draws some candidates per text kept, and its discriminator reads each, so it
should take, per candidate, what plain sampling and the pass take:

    expected = candidates x (seconds of plain sampling + seconds of the pass) per text

The last batches of guided sampling, in which few prompts are left, are smaller than the others, which costs more where
a device is not full. The discriminator has a fresh head, with a calibration that accepts about half: the cost does not
depend on how good it is. Seconds are processor time on a CPU, which other programs hardly disturb, and wall time on a
GPU.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from hf_mgan import Discriminator
from hf_mgan.data import start_of_sequence
from hf_mgan.decoding import DecodingConfig, guided_sample, sample
from hf_mgan.discriminator import Calibration

from ..sources import ENCODER, GENERATOR, short_name
from ..sweep import RESULTS, write_lines
from ..testbed import machine, versions
from .step_parts import peak_memory, reset_peak_memory


MODULE = "benchmarks.hardware.guided_cost"
THRESHOLDS = (0.0, 1.0)


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time all ways in rounds, and return a result per threshold."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(arguments.generator, padding_side="left")
    generator: Any = AutoModelForCausalLM.from_pretrained(arguments.generator, dtype=torch.float32).to(device).eval()
    discriminator = Discriminator.from_pretrained(arguments.discriminator).to(torch.device(device))
    prompts = [start_of_sequence(tokenizer)] * arguments.texts
    limit, size = arguments.max_new_tokens, arguments.batch_size
    discriminator.calibration = about_half(
        discriminator, sample(generator, tokenizer, prompts[:size], limit).texts, limit
    )
    configs = {
        threshold: DecodingConfig(threshold=threshold, num_candidates=64, max_new_tokens=limit, batch_size=size)
        for threshold in THRESHOLDS
    }
    seconds: dict[Any, list[float]] = {name: [] for name in ("plain", "pass", *configs)}
    peaks: dict[Any, float] = {}
    outcomes: dict[Any, Any] = {}
    plain: Any = None
    ways: dict[Any, Callable[[], Any]] = {
        "plain": lambda: sample(generator, tokenizer, prompts, limit, batch_size=size),
        "pass": lambda: read(discriminator, plain.texts, size),
        **{at: partial(guided_sample, generator, tokenizer, discriminator, prompts, configs[at]) for at in configs},
    }
    for number in range(arguments.rounds):
        for name, way in ways.items():
            reset_peak_memory()
            outcomes[name], spent = timed(way)
            plain = outcomes["plain"]
            seconds[name].append(spent)
            peaks[name] = max(peaks.get(name, 0.0), peak_memory())
        print(f"round {number + 1} of {arguments.rounds}: {[round(each[-1], 2) for each in seconds.values()]} s")
    typical = {name: statistics.median(each) for name, each in seconds.items()}
    kept_tokens = sum(map(len, outcomes["plain"].completion_ids))
    results = []
    for threshold in configs:
        made = outcomes[threshold]
        expected = made.draws * (typical["plain"] + typical["pass"])
        results.append(
            {
                "threshold": threshold,
                "draws": made.draws,
                "seconds": {"plain": typical["plain"], "pass": typical["pass"], "guided": typical[threshold]},
                "seconds_by_round": {str(name): each for name, each in seconds.items()},
                "expected_seconds": expected,
                "actual_over_expected": typical[threshold] / expected,
                "tokens_per_second": {
                    "plain": kept_tokens / typical["plain"],
                    "guided": sum(map(len, made.completion_ids)) / typical[threshold],
                },
                "memory_gib": {"plain": peaks["plain"], "guided": peaks[threshold]},
            }
        )
    return results


def about_half(discriminator: Discriminator, texts: list[str], max_new_tokens: int) -> Calibration:
    """Return a calibration by which about half of the generator's texts are accepted at threshold 0."""
    logits = discriminator.score([""] * len(texts), texts)
    slope = 2 / max(float(logits.std()), 1e-6)
    return Calibration(
        slope=slope,
        intercept=-0.7 - slope * float(logits.mean()),
        label=discriminator.label,
        with_prompt=False,
        temperature=1.0,
        max_new_tokens=max_new_tokens,
        num_texts=len(texts),
        auc=(0.5, 0.0, 1.0),
        loss=0.0,
        uncalibrated_loss=0.0,
        error=0.0,
        uncalibrated_error=0.0,
    )


def read(discriminator: Discriminator, texts: list[str], size: int) -> None:
    """Let the discriminator read texts in batches of texts of one length, as guided sampling does."""
    ordered = sorted(texts, key=len)
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        discriminator.log_ratio([""] * len(part), part)


def timed(act: Callable[[], Any]) -> tuple[Any, float]:
    """Return what an act returns and the seconds it took."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    began = clock()
    made = act()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return made, clock() - began


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--generator", default=GENERATOR, help="id on the Hub, or folder")
    parser.add_argument("--discriminator", default=ENCODER, help="id on the Hub, or folder")
    parser.add_argument("--output", type=Path, default=RESULTS / "guided_cost.jsonl")
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--max_new_tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    arguments = parsed_arguments(words)
    logging.set_verbosity_error()
    settings = {name: getattr(arguments, name) for name in ("texts", "batch_size", "max_new_tokens", "rounds")}
    models = {name: short_name(getattr(arguments, name)) for name in ("generator", "discriminator")}
    about = {"settings": {**models, **settings}, "versions": versions(), **machine()}
    results = [{**result, **about} for result in measure(arguments)]
    print(json.dumps(results, indent=1))
    write_lines(arguments.output, results)


if __name__ == "__main__":
    main()
