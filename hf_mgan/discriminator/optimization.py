"""What trains the discriminator: its optimizer and schedule, made by name as the generator's are, and its parameters.

In: the model and `TrainingArguments`. Out: an optimizer that accelerate does not see, see
[`Discriminator.create_optimizer`].
"""

from typing import Any, cast

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, SchedulerType, Trainer, TrainingArguments, get_scheduler
from transformers.training_args import OptimizerNames


# Optimizers that act on more than parameters with gradients: on the backward pass, on the names of layers, or on
# whether the model is in training.
NEEDS_A_TRAINER = ("galore", "apollo", "lomo", "schedule_free")
NEEDS_A_METRIC = (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)


def trainable_parameters(model: PreTrainedModel | PeftModel) -> list[nn.Parameter]:
    """Return the parameters that are trained.

    Raises:
        ValueError: If there are none, or the model is quantised and has no adapters.
    """
    if getattr(model, "is_quantized", False) and not isinstance(model, PeftModel):
        raise ValueError(
            "A quantised discriminator cannot be trained as it is: quantised weights take no gradient. Give "
            "discriminator_peft_config, for example LoraConfig(task_type='SEQ_CLS', target_modules='all-linear')."
        )
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        remedy = (
            "load its adapters with is_trainable=True" if isinstance(model, PeftModel) else "call requires_grad_()"
        )
        raise ValueError(f"All parameters of the discriminator are frozen, so it cannot learn: {remedy}.")
    return parameters


def make_optimizer(
    model: PreTrainedModel | PeftModel, args: TrainingArguments, num_training_steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Make optimizer and schedule; arguments as in [`Discriminator.create_optimizer`].

    Raises:
        ValueError: As [`trainable_parameters`].
    """
    parameters = trainable_parameters(model)
    # Two declarations of transformers are put right: its own trainer passes PEFT models here too, and what was a
    # string of JSON among the arguments is a dict once they are made.
    optimizer_class, arguments = Trainer.get_optimizer_cls_and_kwargs(args, cast("PreTrainedModel", model))
    scheduler_arguments = cast("dict[str, Any] | None", args.lr_scheduler_kwargs)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": args.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = optimizer_class([group for group in groups if group["params"]], **arguments)
    lr_scheduler = get_scheduler(
        args.lr_scheduler_type,
        optimizer,
        num_warmup_steps=args.get_warmup_steps(num_training_steps),
        num_training_steps=num_training_steps,
        scheduler_specific_kwargs=scheduler_arguments,
    )
    return optimizer, lr_scheduler


def check_optimizer(args: TrainingArguments) -> None:
    """Check that optimizer and schedule can be made and take a step, on parameters that are nobody's.

    Args:
        args (`TrainingArguments`): As in [`Discriminator.create_optimizer`].

    Raises:
        ImportError: If a library is missing.
        ValueError: If they need what the discriminator has not, or what they are not given.
    """
    optimizer_name, schedule = OptimizerNames(args.optim), SchedulerType(args.lr_scheduler_type)
    if any(name in optimizer_name.value for name in NEEDS_A_TRAINER):
        raise ValueError(
            f"optim={optimizer_name.value!r} in discriminator_optim_kwargs needs more of a training loop than the "
            "discriminator has: use another one, such as 'adamw_torch', 'adafactor', 'sgd' or 'adamw_8bit'."
        )
    if schedule in NEEDS_A_METRIC:
        raise ValueError(
            f"lr_scheduler_type={schedule.value!r} in discriminator_optim_kwargs follows a metric, and the "
            "discriminator has none that should fall for good: use another one, such as 'constant' or 'linear'."
        )
    probe = nn.Linear(2, 2, device="meta").to_empty(device="cpu")  # without a draw of random numbers
    for parameter in probe.parameters():
        parameter.data.zero_()
        parameter.grad = torch.ones_like(parameter)
    try:
        optimizer, lr_scheduler = make_optimizer(cast("PreTrainedModel", probe), args, num_training_steps=10**6)
        optimizer.step()
        lr_scheduler.step()
        lr_scheduler.get_last_lr()
    except Exception as error:  # whatever a library says that it misses
        kind = ImportError if isinstance(error, ImportError) else ValueError
        reason = str(error).rstrip(".")
        raise kind(
            f"discriminator_optim_kwargs has optim={optimizer_name.value!r} and lr_scheduler_type={schedule.value!r}, "
            f"which cannot be made: {reason}. What an optimizer needs is given in optim_args, what a schedule needs "
            "in lr_scheduler_kwargs."
        ) from error
