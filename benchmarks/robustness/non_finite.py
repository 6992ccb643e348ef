"""Put nan and infinity into a run, one place at a time: is the last checkpoint finite, and the message true?

    python -m benchmarks.robustness.non_finite                 # 72 cases, five minutes
    python -m benchmarks.robustness.non_finite --publish       # and write the committed results

Places: weights, gradient and optimizer state of either model, the discriminator's logits, and the reward of a function
of the user's. Values: nan, inf, -inf. Steps: before, within and after a generation batch. One checkpoint is kept, so
that a bad one would leave none. Each run has to end in a `FloatingPointError` that names the model or the reward;
the checkpoint that is left has to be finite, optimizers included; and a run has to go on from it.
"""

import argparse
import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..sweep import RESULTS, write_lines
from ..testbed import versions
from .tiny_runs import make_trainer, save_models


MODULE = "benchmarks.robustness.non_finite"
COMMITTED = RESULTS / "non_finite.jsonl"
STEPS = (1, 2, 3)
SETTINGS = {
    "max_steps": 5,
    "save_steps": 1,
    "save_total_limit": 1,
    "steps_per_generation": 4,
    "gradient_accumulation_steps": 2,
}
VALUES = {"nan": float("nan"), "inf": float("inf"), "-inf": -float("inf")}


def _trained(model: torch.nn.Module) -> torch.nn.Parameter:
    return next(one for one in model.parameters() if one.requires_grad and one.dim() > 1)


def weights(trainer: Any, of: str, value: float) -> None:
    with torch.no_grad():
        _trained(trainer.model if of == "generator" else trainer.discriminator.model).view(-1)[3] = value


def gradient(trainer: Any, of: str, value: float) -> None:
    parameter = _trained(trainer.model if of == "generator" else trainer.discriminator.model)
    parameter.register_hook(lambda one: torch.full_like(one, value))


def optimizer_state(trainer: Any, of: str, value: float) -> None:
    optimizer = trainer.optimizer if of == "generator" else trainer.discriminator.optimizer
    for state in optimizer.state.values():
        state["exp_avg"].view(-1)[0] = value
        return


def logits(trainer: Any, of: str, value: float) -> None:
    passes = trainer.discriminator._passes
    given = passes.logits
    passes.logits = lambda batch: given(batch) * value
    passes.backward = lambda batches, objective, scaler: (lambda it: (objective(it), it)[1])(passes.logits(batches[0]))


def reward(trainer: Any, of: str, value: float) -> None:
    trainer.bad_reward = value


PLACES: dict[str, tuple[str, Callable[[Any, str, float], None]]] = {
    "weights of the generator": ("generator", weights),
    "weights of the discriminator": ("discriminator", weights),
    "gradient of the generator": ("generator", gradient),
    "gradient of the discriminator": ("discriminator", gradient),
    "optimizer of the generator": ("generator", optimizer_state),
    "optimizer of the discriminator": ("discriminator", optimizer_state),
    "logits of the discriminator": ("discriminator", logits),
    "reward of the user's": ("lengths", reward),
}


class Injection(TrainerCallback):
    """Puts a value in its place before a step."""

    def __init__(self, place: str, value: float, step: int) -> None:
        self.place, self.value, self.step = place, value, step
        self.trainer: Any = None

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Do it, once."""
        if state.global_step == self.step:
            of, act = PLACES[self.place]
            act(self.trainer, of, self.value)


def case(models: Path, run: Path, place: str, value: str, step: int) -> dict[str, Any]:
    """Train into a value that is not finite, and go on from the checkpoint that is left."""
    injection = Injection(place, VALUES[value], step)

    def lengths(completions: list[str], **columns: Any) -> list[float]:
        bad = getattr(injection.trainer, "bad_reward", None)
        return [float(len(text)) if bad is None else bad for text in completions]

    rewards = {"reward_funcs": lengths} if place.startswith("reward") else {}
    with contextlib.redirect_stdout(io.StringIO()):
        injection.trainer = make_trainer(models, run, callbacks=[injection], arguments=rewards, **SETTINGS)
        try:
            injection.trainer.train()
            message = "went on"
        except Exception as error:  # whatever it is, it is what a user sees
            message = f"{type(error).__name__}: {error}"
        left = [path.name for path in run.glob("checkpoint-*")]
        bad = _not_finite(run / left[0]) if left else []
        injection.trainer = resumed = make_trainer(models, run, arguments=rewards, **SETTINGS)
        resumed.train(resume_from_checkpoint=True)
    named = PLACES[place][0]
    return {
        "place": place,
        "value": value,
        "step": step,
        "ended": message[:300],
        "told": message.startswith("FloatingPointError") and named in message,
        "checkpoint": left,
        "not_finite": bad,
        "went_on_to": resumed.state.global_step,
    }


def _not_finite(checkpoint: Path) -> list[str]:
    """Return the names of all tensors of a checkpoint that are not finite."""
    tensors: dict[str, torch.Tensor] = {}
    for path in checkpoint.rglob("*.safetensors"):
        tensors |= {f"{path.name}:{at}": one for at, one in load_file(path).items()}
    for path in (checkpoint / "optimizer.pt", checkpoint / "discriminator" / "training_state.pt"):
        states = torch.load(path, weights_only=True)
        for number, state in states.get("optimizer", states)["state"].items():
            tensors |= {
                f"{path.name}:{number}.{at}": one for at, one in state.items() if isinstance(one, torch.Tensor)
            }
    return [at for at, one in tensors.items() if not one.isfinite().all()]


def is_good(result: dict[str, Any]) -> bool:
    """Say whether a case came out as it should; a reward of nan is what TRL makes of None: it does not apply."""
    if result["place"].startswith("reward") and result["value"] == "nan":
        return result["ended"] == "went on" and not result["not_finite"]
    return result["told"] and not result["not_finite"] and result["went_on_to"] == SETTINGS["max_steps"]


def main(words: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--places", nargs="+", default=list(PLACES), choices=list(PLACES))
    parser.add_argument("--publish", action="store_true", help="write the committed results")
    arguments = parser.parse_args(words)
    results = []
    with tempfile.TemporaryDirectory() as name:
        save_models(Path(name))
        for place in arguments.places:
            for value in VALUES:
                for step in STEPS:
                    result = case(Path(name), Path(name) / f"run-{len(results)}", place, value, step)
                    results.append(result)
                    print(
                        f"{'good' if is_good(result) else 'BAD ':4} {place}, {value}, step {step}: {result}",
                        flush=True,
                    )
    print(
        f"{sum(map(is_good, results))} of {len(results)} cases: told by name, the checkpoint finite, and gone on from"
    )
    if arguments.publish:
        write_lines(COMMITTED, [{"command": f"python -m {MODULE} --publish", "versions": versions()}, *results])
    return results


if __name__ == "__main__":
    main()
