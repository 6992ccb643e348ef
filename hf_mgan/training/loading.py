"""Loading what is given of the models: the discriminator, and the generator's tokenizer.

In: an id, a folder or a model each. Out: a `Discriminator` on the CPU, and the tokenizer that makes the prompts. The
generator itself is TRL's to load.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..config import AdversarialConfig
from ..discriminator import (
    Discriminator,
    check_head_in_full_precision,
    classifier_on,
    trainable_parameters,
    with_adapters,
)
from ..models import load_processing_class


if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import BitsAndBytesConfig


def load_generator_processing_class(model: str | PreTrainedModel | PeftModel, args: AdversarialConfig) -> Any:
    """Load the generator's tokenizer or processor as TRL does; needed before TRL, to make prompts.

    Args:
        model (`str`, `PreTrainedModel` or `PeftModel`): The generator.
        args ([`AdversarialConfig`]): `model_init_kwargs` and `trust_remote_code` are read.

    Returns:
        `PreTrainedTokenizerBase` or `ProcessorMixin`: With padding and truncation on the left.

    Raises:
        ValueError: If there is none beside the model.
    """
    return load_processing_class(
        model if isinstance(model, str) else model.config._name_or_path,
        "generator",
        "give processing_class=",
        (args.model_init_kwargs or {}).get("revision") if isinstance(model, str) else None,
        processor=True,
        truncation_side="left",
        padding_side="left",
        trust_remote_code=args.trust_remote_code,
    )


def shared_base(
    model: PreTrainedModel | PeftModel,
    peft_config: "PeftConfig | None",
    discriminator_peft_config: "PeftConfig | None",
) -> PreTrainedModel:
    """Make a discriminator on the generator's own weights, which are then held once.

    Args:
        model (`PreTrainedModel` or `PeftModel`): The generator, given as the discriminator too.
        peft_config (`PeftConfig`, *optional*): Its adapters.
        discriminator_peft_config (`PeftConfig`, *optional*): Those of the discriminator.

    Raises:
        ValueError: If a model would train the weights that belong to both, or the architecture has no classifier.
    """
    if isinstance(model, PeftModel) or peft_config is None or discriminator_peft_config is None:
        raise ValueError(
            "One model is given as generator and discriminator, so they share its weights and each needs adapters of "
            "its own: give peft_config= and discriminator_peft_config=, and a model without adapters (those of a warm "
            "start can be merged: model.merge_and_unload())."
        )
    return classifier_on(model)


def load_discriminator(
    discriminator: str | Path | PreTrainedModel | PeftModel,
    processing_class: PreTrainedTokenizerBase | None,
    peft_config: "PeftConfig | None",
    quantization_config: "BitsAndBytesConfig | None",
    args: AdversarialConfig,
) -> Discriminator:
    """Make the discriminator that the trainer's arguments name.

    Args:
        discriminator (`str`, `Path`, `PreTrainedModel` or `PeftModel`): Hub id, folder or sequence classifier.
        processing_class (`PreTrainedTokenizerBase`, *optional*): Its tokenizer; loaded with it by default.
        peft_config (`PeftConfig`, *optional*): Adapters to train in place of the whole discriminator.
        quantization_config (`BitsAndBytesConfig`, *optional*): Its quantisation, for one that is not loaded yet.
        args ([`AdversarialConfig`]): The settings with the prefix `discriminator_`, `bf16`, `fp16` and
            `trust_remote_code`.

    Returns:
        [`Discriminator`]: Without an optimizer yet.

    Raises:
        TypeError: If `discriminator` is nothing of the above.
        ValueError: If the arguments contradict each other, or the discriminator cannot be trained.
    """
    loaded = _load(discriminator, processing_class, peft_config, quantization_config, args)
    trainable_parameters(loaded.model)
    return loaded


def _load(
    discriminator: str | Path | PreTrainedModel | PeftModel,
    processing_class: PreTrainedTokenizerBase | None,
    peft_config: "PeftConfig | None",
    quantization_config: "BitsAndBytesConfig | None",
    args: AdversarialConfig,
) -> Discriminator:
    settings: dict[str, Any] = {
        "label": args.discriminator_label,
        "loss": args.discriminator_loss,
        "max_length": args.discriminator_max_length,
        "batch_size": args.discriminator_batch_size,
        "bf16": args.bf16,
        "fp16": args.fp16,
        "gradient_checkpointing": bool(args.model_init("gradient_checkpointing")),
        "max_grad_norm": args.discriminator_training_args().max_grad_norm,
        "regularization": args.regularization(),
        "replay_fraction": args.discriminator_replay_fraction,
        "prefixes": args.scores_prefixes or bool(args.model_init("prefixes")),
    }
    if isinstance(discriminator, (str, Path)):
        return Discriminator.from_pretrained(
            discriminator,
            processing_class,
            peft_config,
            quantization_config,
            trust_remote_code=args.trust_remote_code,
            fresh_head=bool(args.model_init("fresh_head")),
            revision=args.model_init("revision"),
            attn_implementation=args.model_init("attn_implementation"),
            **settings,
        )
    if not isinstance(discriminator, (PreTrainedModel, PeftModel)):
        raise TypeError(
            f"discriminator must be a Hub id, a folder or a sequence classifier, got {type(discriminator).__name__}."
        )
    if quantization_config is not None:
        raise ValueError(
            "discriminator_quantization_config has no effect on a discriminator that is loaded already. Give its id, "
            "or load it with quantization_config= yourself and leave this out."
        )
    for key in ("fresh_head", "revision", "attn_implementation"):
        if args.model_init(key):
            raise ValueError(
                f"{key} in discriminator_model_init_kwargs has no effect on a discriminator that is loaded already. "
                "Give its id, or load it so yourself (a fresh head: num_labels=1, ignore_mismatched_sizes=True) and "
                "leave this out."
            )
    if processing_class is None:
        processing_class = load_processing_class(
            discriminator.config._name_or_path, "discriminator", "give discriminator_processing_class="
        )
    if peft_config is not None:
        if isinstance(discriminator, PeftModel):
            raise ValueError(
                "The discriminator has adapters already, which are trained on; discriminator_peft_config would add "
                "others. Leave it out, or merge the adapters first: discriminator.merge_and_unload()."
            )
        check_head_in_full_precision(discriminator)
        discriminator = with_adapters(discriminator, peft_config)
    return Discriminator(discriminator, processing_class, **settings)
