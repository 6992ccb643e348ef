"""What trains the discriminator: its optimizer and schedule, made by name as the generator's are, and its parameters.

In: the model and `TrainingArguments`. Out: an optimizer that accelerate does not see, see
[`Discriminator.create_optimizer`].
"""

from typing import Any, cast

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainingArguments, get_scheduler


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
