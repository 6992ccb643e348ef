"""The watchdog: says when the game goes wrong, and stops it when a held-out measure no longer improves.

In: the figures that the trainer logs, and the metrics of evaluations. Out: one line a trouble, with what to change,
and an end to training where one was asked for.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, cast

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState, TrainerCallback
from transformers.trainer_utils import SaveStrategy
from transformers.utils import logging

from ..evaluation.text_metrics import METRICS
from .failure_modes import FAILURE_MODES, SAMPLES, WATCHED, Thresholds, is_finite, means, non_finite, unsafe


logger = logging.get_logger(__name__)


class Alarm(NamedTuple):
    """What the watchdog saw.

    Attributes:
        step (`int`): The generator's step.
        name (`str`): Which trouble.
        message (`str`): What is happening, with the figures, and what to change.
    """

    step: int
    name: str
    message: str


def check_metric_is_held_out(name: str) -> None:
    """Refuse a metric that says nothing of how good a generator is: one of the game's own.

    The generator is trained to raise the discriminator's reward, and the discriminator changes all the while, so
    neither its figures nor the loss of one side compares two moments of a game.

    Args:
        name (`str`): A key of an evaluation's metrics, with or without `eval_`.

    Raises:
        ValueError: If the metric is the discriminator's, the whole reward or a loss of the trainer's.
    """
    bare = name.removeprefix("eval_")
    own = bare.startswith(("discriminator/", "rewards/discriminator/"))
    # With several evaluation sets each has a loss, `eval_<set>_loss`.
    if own or bare in ("reward", "reward_std", "frac_reward_zero_std") or re.fullmatch(r"(.+_)?loss", bare):
        raise ValueError(
            f"{name!r} cannot tell which generator is better: the generator is trained to raise the discriminator's "
            "reward, and the discriminator changes with it, so this figure says who is ahead in the game. Choose a "
            "measure that neither player is trained on, such as 'eval_generator/real_nll' or one that a callback adds "
            "to the evaluation's metrics (a loss of your own under a name that does not end in 'loss')."
        )


def check_direction(name: str, greater_is_better: bool) -> None:
    """Refuse to read a figure of [`GeneratorEvaluator`] the wrong way round, which would keep the worst generator.

    Args:
        name (`str`): A key of an evaluation's metrics, with or without `eval_`.
        greater_is_better (`bool`): Which way it is to improve.

    Raises:
        ValueError: If the figure improves the other way.
    """
    bare = name.removeprefix("eval_")
    measure = METRICS.get(bare.removeprefix(SAMPLES)) if bare.startswith(SAMPLES) else None
    if measure is not None and measure.better == ("lower" if greater_is_better else "higher"):
        raise ValueError(
            f"The {measure.better} {name!r} is, the better, and greater_is_better={greater_is_better} would keep the "
            f"worst generator: set greater_is_better={not greater_is_better}. (transformers takes True by default.)"
        )


def check_best_model(args: TrainingArguments) -> None:
    """Check that the best checkpoint, if one is to be kept, is the best by a held-out measure read the right way.

    Args:
        args (`TrainingArguments`): The trainer's.

    Raises:
        ValueError: If it is not.
    """
    if args.load_best_model_at_end or args.save_strategy == SaveStrategy.BEST:
        name = args.metric_for_best_model or "loss"
        check_metric_is_held_out(name)
        check_direction(name, bool(args.greater_is_better))


class Watchdog(TrainerCallback, ExportableState):
    """Reads the logs of [`AdversarialTrainer`] and says what goes wrong and what to change.

    An alarm is a warning of one line, given once until its trouble has passed. Unless said otherwise a trouble is
    judged by the means of the last `patience` training entries of the log, since single batches are noisy, and has
    passed when as many were judged without it; the warm-up of the discriminator is left out. "At the start" means in
    the first `patience` entries.

    - `discriminator_saturated`: the discriminator is right on nearly everything.
    - `discriminator_uninformative`: it is right by chance, and it knows nothing: it pays the same for different
      completions, or its gradient is 0. A discriminator that a good generator beats, the goal of the game, is right by
      chance too, but pays different texts differently, and raises no alarm.
    - `generator_collapsed`: completions repeat one another far more than real texts do, or the entropy is gone.
    - `no_reward_variance`: the rewards of a group are equal, so the generator learns nothing.
    - `length_runaway`: completions are far longer or far shorter than real texts.
    - `length_bought`: rewards go along with length, and completions follow, away from the length of real texts: the
      cause of a runaway before it has run away.
    - `non_finite`: a logged figure is nan or infinite; at once, in evaluations and the warm-up too.
    - `unsafe`: more completions are unsafe than allowed; at once, in evaluations too.
    - `early_stopping`: training ends since the held-out measure no longer improves.

    A resumed run goes on with the counts of its checkpoint.

    Example:
    ```python
    watchdog = Watchdog(early_stopping_metric="generator/real_nll", greater_is_better=False)
    trainer = AdversarialTrainer(..., callbacks=[watchdog])
    trainer.train()
    print(watchdog.alarms)
    ```

    Args:
        patience (`int`, *optional*, defaults to 10): Training entries of the log that a trouble is judged by.
        thresholds ([`Thresholds`] or `dict`, *optional*): Where health ends, or those of its fields that are not to be
            the defaults.
        unsafe_limit (`float`, *optional*): Share of unsafe completions above which to warn; never by default.
        early_stopping_metric (`str`, *optional*): Held-out measure to stop by: a key of the evaluation's metrics, with
            or without `eval_`. Where several evaluation sets report it, the first one counts. Never by default.
        early_stopping_patience (`int`, *optional*, defaults to 3): Evaluations in a row without an improvement after
            which training stops.
        greater_is_better (`bool`, *optional*): Which way the measure improves; needed with `early_stopping_metric`.

    Attributes:
        alarms (`list[Alarm]`): All alarms so far, on every process; warnings come from the main one.

    Raises:
        ValueError: If a value is out of range, or the metric is one of the game's own or improves the other way; in
            training, if nothing is evaluated or the metric is not among an evaluation's.
    """

    def __init__(
        self,
        patience: int = 10,
        thresholds: Thresholds | dict[str, float] | None = None,
        unsafe_limit: float | None = None,
        early_stopping_metric: str | None = None,
        early_stopping_patience: int = 3,
        greater_is_better: bool | None = None,
    ) -> None:
        for name, value in (("patience", patience), ("early_stopping_patience", early_stopping_patience)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        if unsafe_limit is not None and not 0 <= unsafe_limit <= 1:
            raise ValueError(f"unsafe_limit is a share of the completions, from 0 to 1, got {unsafe_limit}.")
        if (early_stopping_metric is None) != (greater_is_better is None):
            raise ValueError(
                "early_stopping_metric and greater_is_better belong together: name the held-out measure and whether "
                f"it is to rise (True) or to fall (False), got {early_stopping_metric!r} and {greater_is_better!r}."
            )
        if early_stopping_metric is not None:
            check_metric_is_held_out(early_stopping_metric)
            check_direction(early_stopping_metric, bool(greater_is_better))
        self.patience, self.unsafe_limit = patience, unsafe_limit
        self.thresholds = thresholds if isinstance(thresholds, Thresholds) else Thresholds(**(thresholds or {}))
        self.metric = early_stopping_metric and f"eval_{early_stopping_metric.removeprefix('eval_')}"
        self.early_stopping_patience, self.greater_is_better = early_stopping_patience, greater_is_better
        # All that a checkpoint keeps, as JSON can hold it.
        self.memory: dict[str, Any] = {"window": [], "start": {}, "ill": {}, "alarms": [], "best": None, "stale": 0}
        self._judged_at: int | None = None  # step of the last evaluation that had the metric
        self._lacking: list[str] | None = None  # the metrics of one that had not

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
            "early_stopping_metric": self.metric,
            "early_stopping_patience": self.early_stopping_patience,
            "greater_is_better": self.greater_is_better,
        }
        return {"args": args, "attributes": {"memory": copy.deepcopy(self.memory)}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on with the counts of the checkpoint, if there is one.

        transformers restores callbacks only with `restore_callback_states_from_checkpoint`, and then puts a new object
        in the place of the one that was given, which would leave `alarms` of that one empty.
        """
        if self.metric is not None and args.eval_strategy == "no":
            raise ValueError(
                f"early_stopping_metric={self.metric!r} is a metric of evaluations, and there are none: set "
                "eval_strategy and eval_dataset."
            )
        # A checkpoint of a run without a watchdog lacks this key, which the next save needs.
        own = self.state()
        stored = cast("dict[str, Any]", state.stateful_callbacks).setdefault(type(self).__name__, own)
        for candidate in stored if isinstance(stored, list) else [stored]:
            if candidate["args"] == own["args"] or not isinstance(stored, list):
                self.memory = copy.deepcopy(candidate["attributes"]["memory"])
        self._judged_at = self._lacking = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Judge an entry of the log."""
        logs = logs or {}
        prefix = "eval_" if any(name.startswith("eval_") for name in logs) else ""
        figures = {name.removeprefix(prefix): value for name, value in logs.items()}
        self._report(state, "non_finite", non_finite(figures), prefix)
        if self.unsafe_limit is not None:
            self._report(state, "unsafe", unsafe(figures, self.unsafe_limit), prefix)
        entry = {name: logs[name] for name in WATCHED if is_finite(logs.get(name))}
        if not entry or "discriminator/warmup_step" in logs:
            return
        window = self.memory["window"] = [*self.memory["window"], entry][-self.patience :]
        if len(window) < self.patience:
            return
        mean = means(window)
        if not self.memory["start"]:
            self.memory["start"] = mean
        for name, tell in FAILURE_MODES.items():
            message = tell(mean, self.memory["start"], self.thresholds)
            self._report(state, name, message, rest=self.patience)  # means hover about a threshold

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Stop training if the held-out measure no longer improves."""
        metrics = metrics or {}
        if self.metric is None or self._judged_at == state.global_step:
            return
        if self.metric not in metrics:
            self._lacking = sorted(metrics)  # another evaluation set may have it
            return
        self._judged_at, self._lacking = state.global_step, None
        value, best = metrics[self.metric], self.memory["best"]
        if is_finite(value) and (best is None or (value > best if self.greater_is_better else value < best)):
            self.memory["best"], self.memory["stale"] = value, 0
            self._report(state, "early_stopping", None)
            return
        self.memory["stale"] += 1
        if self.memory["stale"] >= self.early_stopping_patience:
            control.should_training_stop = True
            self._report(
                state,
                "early_stopping",
                f"{self.metric} is {value}, and no better than {best} for {self.memory['stale']} evaluations: "
                "training stops. load_best_model_at_end=True loads the best generator.",
            )

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse to go on if no evaluation set had the metric to stop by."""
        if self._lacking is not None:
            raise ValueError(
                f"early_stopping_metric={self.metric!r} is not among the metrics of the evaluation, which are "
                f"{self._lacking}."
            )

    def _report(self, state: TrainerState, name: str, message: str | None, prefix: str = "", rest: int = 1) -> None:
        """Raise an alarm the first time; be ready for the next one after `rest` times without the trouble.

        A trouble of evaluations, with their prefix, comes and goes apart from the same one in training.
        """
        ill = self.memory["ill"]  # troubles that were reported -> how often they were not there since
        key = prefix + name
        if message is None:
            if key in ill:
                ill[key] += 1
                if ill[key] >= rest:
                    del ill[key]
            return
        if key not in ill:
            self.memory["alarms"].append([state.global_step, name, message])
            if state.is_world_process_zero:
                logger.warning(f"Step {state.global_step}, {name}: {message}")
        ill[key] = 0


def watched(callbacks: Sequence[TrainerCallback | type[TrainerCallback]] | None) -> list[Any]:
    """Return a trainer's callbacks with a [`Watchdog`] among them: the one that is there, or else a new one."""
    given = list(callbacks or [])
    if any(one is Watchdog or isinstance(one, Watchdog) for one in given):
        return given
    return [*given, Watchdog()]
