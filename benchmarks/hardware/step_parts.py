"""The parts of a training step, generation, discriminator and policy: seconds and peak of memory in each.

In: a trainer of TRL. Out: plain values. The parts are the methods `_generate` and `_calculate_rewards`, which both
trainers have, and all else.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from trl import GRPOTrainer


GIB = 2**30


class StepTimer(TrainerCallback):
    """Times every step of a trainer, and in it the methods that `watch` has wrapped.

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
