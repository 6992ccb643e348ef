"""The end of the discriminator's warm-up, and a discriminator that is frozen there."""

from collections.abc import Callable
from typing import Any

from hf_mgan import AdversarialTrainer


def after_warmup(trainer: AdversarialTrainer, call: Callable[[], None]) -> None:
    """Call a function when the warm-up is over, before the generator's first step.

    Without a warm-up it is called before the discriminator's first update.

    Args:
        trainer ([`AdversarialTrainer`]): A trainer that has not started; its discriminator's `update` is wrapped.
        call (`Callable`): The function.
    """
    update, steps = trainer.discriminator.update, trainer.args.discriminator_warmup_steps

    def watched(*args: Any, **kwargs: Any) -> Any:
        if not steps and not trainer.discriminator.num_updates:
            call()
        output = update(*args, **kwargs)
        if steps and trainer.discriminator.num_updates == steps:
            call()
        return output

    trainer.discriminator.update = watched  # type: ignore[method-assign]


def freeze(trainer: AdversarialTrainer) -> None:
    """Keep the discriminator as it is: its updates go on with a learning rate of 0, which decays no weight either."""
    schedule = trainer.discriminator.lr_scheduler
    schedule.base_lrs = [0.0] * len(schedule.base_lrs)
    for group in schedule.optimizer.param_groups:
        group["lr"] = 0.0
