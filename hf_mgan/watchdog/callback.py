"""The watchdog: says when training goes wrong.

In: the metrics that the trainer logs, those of evaluations among them. Out: one line per failure mode, with what to
change.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, cast

from tqdm.auto import tqdm
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState, TrainerCallback
from transformers.utils import logging

from ..checks import COUNT, SHARE, Check, Dict, checked, optional
from .failure_modes import (
    ACCURACY,
    FAILURE_MODES,
    NEAR_CHANCE,
    STEPS,
    THRESHOLDS,
    Thresholds,
    count_steps,
    discriminator_cold,
    is_finite,
    is_watched,
    last_steps,
    means,
    non_finite,
    unsafe,
)
from .verdict import verdict


logger = logging.get_logger(__name__)

COLD, WARM_UP = "discriminator_cold", "discriminator/warmup_step"

ARGUMENTS: dict[str, Check] = {"patience": COUNT, "unsafe_limit": optional(SHARE)}


class Alarm(NamedTuple):
    """What the watchdog saw.

    Attributes:
        step (`int`): The generator's step.
        name (`str`): The failure mode.
        message (`str`): What is happening, with the metrics, and what to change.
    """

    step: int
    name: str
    message: str


class Watchdog(TrainerCallback, ExportableState):
    """Reads the logs of [`AdversarialTrainer`] and says what goes wrong and what to change.

    An alarm is a warning of one line, given once until its failure has passed. Unless said otherwise a failure is told
    from the means over the last `patience` steps that were logged, since single batches are noisy, and has passed
    after as many steps without it; the warm-up of the discriminator is left out. "At the start" means in
    the first `patience` steps. An entry of the log is itself a mean over the steps since the one before it: with
    TRL's `logging_steps=10` each entry is enough.

    - `discriminator_cold`: the warm-up has left the discriminator at chance; at once, when the warm-up ends.
    - `discriminator_saturated`: the discriminator is right on nearly everything.
    - `discriminator_uninformative`: its accuracy is near chance, and it gives different completions the same reward,
      or its gradient is 0. A discriminator that a good generator beats, the goal of training, is near chance too, but
      rewards different texts differently, and raises no alarm.
    - `generator_collapsed`: completions repeat one another far more than real texts do, or the entropy is gone.
    - `no_reward_variance`: the rewards of a group are equal, so the generator learns nothing.
    - `length_runaway`: completions are far longer or far shorter than real texts.
    - `length_hacking`: rewards go along with length, and completions follow, away from the length of real texts: the
      cause of a runaway before it has run away.
    - `reward_hacking`: a reward of the user's rises, and completions become easier to tell from real text. With
      `discriminator_weight=0` the discriminator watches a run that it has no part in.
    - `non_finite`: a logged metric is nan or infinite; at once, in evaluations and the warm-up too.
    - `unsafe`: more completions are unsafe than allowed; at once, in evaluations too.

    A resumed run goes on with the counts of its checkpoint. At the end of training a verdict of a few sentences is
    printed.

    Example:
    ```python
    watchdog = Watchdog(unsafe_limit=0.01)
    trainer = AdversarialTrainer(..., callbacks=[watchdog])
    trainer.train()
    print(watchdog.alarms)
    ```

    Args:
        patience (`int`, *optional*, defaults to 10): Steps of training that a failure is told from.
        thresholds ([`Thresholds`] or `dict`, *optional*): Where health ends, or those of its fields that are not to be
            the defaults.
        unsafe_limit (`float`, *optional*): Share of unsafe completions above which to warn; never by default.

    Attributes:
        alarms (`list[Alarm]`): All alarms so far, on every process; warnings come from the main one.

    Raises:
        TypeError: If a value is of another type.
        ValueError: If a value is out of range.
    """

    def __init__(
        self,
        patience: int = 10,
        thresholds: Thresholds | dict[str, float] | None = None,
        unsafe_limit: float | None = None,
    ) -> None:
        self.patience, self.unsafe_limit = checked(ARGUMENTS, locals()).values()
        if not isinstance(thresholds, Thresholds):
            thresholds = Thresholds(**(Dict(keys=THRESHOLDS, optional=True)("thresholds", thresholds) or {}))
        self.thresholds = thresholds
        # All that a checkpoint keeps, as JSON can hold it.
        self.memory: dict[str, Any] = {"warm_up": [], "window": [], "start": {}, "active": {}, "alarms": []}
        self._logged_until = 0  # step of the last training entry

    @property
    def alarms(self) -> list[Alarm]:
        """All alarms so far."""
        return [Alarm(*alarm) for alarm in self.memory["alarms"]]

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: the arguments, and what was seen so far."""
        args = {
            "patience": self.patience,
            "thresholds": asdict(self.thresholds),
            "unsafe_limit": self.unsafe_limit,
        }
        return {"args": args, "attributes": {"memory": copy.deepcopy(self.memory)}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on with the counts of the checkpoint, if there is one.

        transformers restores callbacks only with `restore_callback_states_from_checkpoint`, and then puts a new object
        in the place of the one that was given, which would leave `alarms` of that one empty.
        """
        self._logged_until = state.global_step  # metrics from before a checkpoint are not in the entry after it
        # A checkpoint of a run without a watchdog lacks this key, which the next save needs.
        own = self.state()
        stored = cast("dict[str, Any]", state.stateful_callbacks).setdefault(type(self).__name__, own)
        for candidate in stored if isinstance(stored, list) else [stored]:
            if candidate["args"] == own["args"] or not isinstance(stored, list):
                self.memory = {**self.memory, **copy.deepcopy(candidate["attributes"]["memory"])}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Look at an entry of the log."""
        logs = logs or {}
        prefix = "eval_" if any(name.startswith("eval_") for name in logs) else ""
        metrics = {name.removeprefix(prefix): value for name, value in logs.items()}
        self._report(state, "non_finite", non_finite(metrics), prefix)
        if self.unsafe_limit is not None:
            self._report(state, "unsafe", unsafe(metrics, self.unsafe_limit), prefix)
        entry = {name: logs[name] for name in logs if is_watched(name) and is_finite(logs[name])}
        if WARM_UP in logs:
            self._hear_warm_up(args, state, logs[WARM_UP], entry.get(ACCURACY))
            return
        if not entry:
            return
        steps = max(state.global_step - self._logged_until, 1)
        self._logged_until = state.global_step
        window = self.memory["window"] = last_steps([*self.memory["window"], {STEPS: steps, **entry}], self.patience)
        if count_steps(window) < self.patience:
            return
        mean = means(window)
        if not self.memory["start"]:
            self.memory["start"] = mean
        if mean.get(ACCURACY, 0.0) > NEAR_CHANCE[1]:
            self._report(state, COLD, None)
        for name, tell in FAILURE_MODES.items():
            message = tell(mean, self.memory["start"], self.thresholds)
            self._report(state, name, message, steps=steps, quiet=self.patience)  # means hover about a threshold

    def _hear_warm_up(self, args: Any, state: TrainerState, updates: int, accuracy: float | None) -> None:
        """Look at the second half of the warm-up when it ends."""
        heard = self.memory["warm_up"]
        heard.append([updates, accuracy])
        if updates < args.discriminator_warmup_steps:
            return
        ends = [0, *(end for end, _ in heard)]  # each entry is a mean over the updates since the one before it
        late = [
            (end - start, accuracy)
            for start, (end, accuracy) in zip(ends, heard, strict=False)
            if start >= updates // 2 and accuracy is not None
        ]
        if late:
            made = sum(count for count, _ in late)
            mean = sum(count * accuracy for count, accuracy in late) / made
            # An accuracy is that of the first update on a batch, whose texts are new to it.
            num_texts = made * args.generation_batch_size // args.discriminator_steps
            self._report(state, COLD, discriminator_cold(mean, max(num_texts, 1)))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Print the verdict."""
        if state.is_world_process_zero:
            tqdm.write(self.verdict(state.global_step, args.output_dir or ""))

    def verdict(self, steps: int, folder: str) -> str:
        """Say in plain words how the run went so far, see [`~watchdog.verdict.verdict`].

        Args:
            steps (`int`): The generator's steps.
            folder (`str`): Where the models are saved.
        """
        memory = self.memory
        return verdict(steps, memory["start"], means(memory["window"]), memory["alarms"], [*memory["active"]], folder)

    def _report(
        self, state: TrainerState, name: str, message: str | None, prefix: str = "", steps: int = 1, quiet: int = 1
    ) -> None:
        """Raise an alarm the first time; be ready for the next one after `quiet` steps or times without the failure.

        A failure in evaluations, with their prefix, comes and goes apart from the same one in training.
        """
        active = self.memory["active"]  # failures that were reported -> steps or times without them since
        key = prefix + name
        if message is None:
            if key in active:
                active[key] += steps
                if active[key] >= quiet:
                    del active[key]
            return
        if key not in active:
            self.memory["alarms"].append([state.global_step, name, message])
            if state.is_world_process_zero:
                logger.warning(f"Step {state.global_step}, {name}: {message} More: docs/troubleshooting.md#{name}")
        active[key] = 0


def watched(callbacks: Sequence[TrainerCallback | type[TrainerCallback]] | None) -> list[Any]:
    """Return a trainer's callbacks with a [`Watchdog`] among them: the one that is there, or else a new one."""
    given = list(callbacks or [])
    if any(one is Watchdog or isinstance(one, Watchdog) for one in given):
        return given
    return [*given, Watchdog()]
