"""Choosing the best checkpoint, and stopping: by a held-out metric that is read the right way round."""

import re
from collections.abc import Sequence
from typing import Any

from transformers import EarlyStoppingCallback, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from ..evaluation.text_metrics import METRICS, SAMPLES_PREFIX


def check_best_model(args: TrainingArguments, callbacks: Sequence[Any] = ()) -> None:
    """Check that the best checkpoint, if one is kept or training stops by it, is the best by a held-out metric.

    Args:
        args (`TrainingArguments`): The trainer's.
        callbacks (`Sequence`, *optional*): The trainer's; an `EarlyStoppingCallback` among them stops by the metric.

    Raises:
        ValueError: If it is not.
    """
    stops = any(one is EarlyStoppingCallback or isinstance(one, EarlyStoppingCallback) for one in callbacks)
    if args.load_best_model_at_end or args.save_strategy == SaveStrategy.BEST or stops:
        name = args.metric_for_best_model or "loss"
        check_metric_is_held_out(name)
        check_direction(name, bool(args.greater_is_better))


def check_metric_is_held_out(name: str) -> None:
    """Refuse a metric that does not tell which generator is better: one of the training itself.

    The generator is trained to raise the discriminator's reward, and the discriminator changes all the while, so
    neither its metrics nor a loss compares two moments of adversarial training.

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
            f"metric_for_best_model={name!r} cannot tell which generator is better: the generator is trained to raise "
            "the discriminator's reward, and the discriminator changes with it. Choose a metric that neither model is "
            "trained on, such as 'eval_generator/real_nll', 'eval_samples/c2st_auc' (evaluator=) or one that a "
            "callback adds to the evaluation's metrics (a loss of your own under a name that does not end in 'loss')."
        )


def check_direction(name: str, greater_is_better: bool) -> None:
    """Refuse to read a metric of [`GeneratorEvaluator`] the wrong way round, which would keep the worst generator.

    Args:
        name (`str`): A key of an evaluation's metrics, with or without `eval_`.
        greater_is_better (`bool`): Which way it is to improve.

    Raises:
        ValueError: If the metric improves the other way.
    """
    bare = name.removeprefix("eval_")
    known = METRICS.get(bare.removeprefix(SAMPLES_PREFIX)) if bare.startswith(SAMPLES_PREFIX) else None
    if known is not None and known.better == ("lower" if greater_is_better else "higher"):
        raise ValueError(
            f"The {known.better} {name!r} is, the better, and greater_is_better={greater_is_better} would keep the "
            f"worst generator: set greater_is_better={not greater_is_better}. (transformers takes True by default.)"
        )
