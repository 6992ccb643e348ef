"""What drawing the next token costs on a CPU: a random number per token, or one per word as `torch.multinomial` does.

    python -m benchmarks.hardware.draw_cost                    # generator from the Hub
    python -m benchmarks.hardware.draw_cost --generator FOLDER

The same texts are asked for in both ways by turns, in float32 and in bfloat16; printed are tokens per second and their
ratio, the median of the rounds.
"""

import argparse
import statistics
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_mgan.data import start_of_sequence
from hf_mgan.decoding import continuation, sample

from ..sources import GENERATOR


def rate(model: Any, tokenizer: Any, texts: int, tokens: int, from_words: float, seed: int) -> float:
    """Return tokens per second with one number per token from so many words on."""
    usual, continuation.LARGE_VOCABULARY = continuation.LARGE_VOCABULARY, from_words  # type: ignore[assignment]
    try:
        began = time.perf_counter()
        drawn = sample(model, tokenizer, [start_of_sequence(tokenizer)] * texts, tokens, 1.0, seed, texts)
        return sum(map(len, drawn.completion_ids)) / (time.perf_counter() - began)
    finally:
        continuation.LARGE_VOCABULARY = usual


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", default=GENERATOR, help="id on the Hub, or folder")
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args(words)
    tokenizer = AutoTokenizer.from_pretrained(arguments.generator)
    for dtype in (torch.float32, torch.bfloat16):
        model = AutoModelForCausalLM.from_pretrained(arguments.generator, dtype=dtype)
        given = model, tokenizer, arguments.texts, arguments.tokens
        per_word, per_token = zip(
            *((rate(*given, float("inf"), seed), rate(*given, 0, seed)) for seed in range(arguments.rounds)),
            strict=True,
        )
        ratio = statistics.median(new / old for old, new in zip(per_word, per_token, strict=True))
        sys.stdout.write(
            f"{str(dtype).removeprefix('torch.')}: {statistics.median(per_word):.0f} tokens/s, one number per token "
            f"{statistics.median(per_token):.0f}, x {ratio:.2f}\n"
        )


if __name__ == "__main__":
    main()
