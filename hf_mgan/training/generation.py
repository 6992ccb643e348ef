"""How a trainer's generator is sampled: by TRL, with transformers or vLLM, and outside of TRL's own generation."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, cast

from peft import AdaptionPromptConfig, LoraConfig, PeftConfig, PeftModel, PeftType, PromptLearningConfig
from transformers import PreTrainedModel
from trl import GRPOTrainer
from trl.import_utils import is_vllm_available
from trl.models import unwrap_model_for_generation

from ..config import AdversarialConfig
from ..decoding.continuation import without_cache
from .generator import saved_adapters


def check_vllm(
    model: str | PreTrainedModel | PeftModel, peft_config: PeftConfig | None, args: AdversarialConfig
) -> None:
    """Check that vLLM is there if it is to generate, and that TRL can hand it the generator's adapters.

    Raises:
        ImportError: If vLLM is not installed.
        ValueError: If the adapters are of a kind that is not merged into the weights, or not under their names.
    """
    if not args.use_vllm:
        return
    if not is_vllm_available():
        raise ImportError(
            "use_vllm=True needs vLLM, in a version that TRL takes: pip install 'trl[vllm]'. Without use_vllm "
            "transformers generates."
        )
    adapters = model.active_peft_config if isinstance(model, PeftModel) else peft_config or saved_adapters(model, args)
    if isinstance(adapters, (PromptLearningConfig, AdaptionPromptConfig)):
        kind = f"adapters of type {PeftType(adapters.peft_type).value}"
    elif isinstance(adapters, LoraConfig) and adapters.trainable_token_indices:
        kind = "adapters with trainable_token_indices"
    else:
        return
    raise ValueError(
        f"A generator that has {kind} cannot generate with vLLM: TRL sends it the weights with the adapters merged "
        "into them, and these are not merged. Set use_vllm=False, or give other adapters, for example "
        "LoraConfig(r=16, target_modules='all-linear')."
    )


@contextmanager
def unwrapped_generator(trainer: GRPOTrainer) -> Iterator[Any]:
    """Yield the generator without what a distributed run wraps it in, its weights gathered where they are sharded."""
    args: Any = trainer.args  # a GRPOConfig, which TRL does not declare
    with (
        unwrap_model_for_generation(
            cast(Any, trainer.model_wrapped),
            trainer.accelerator,
            gather_deepspeed3_params=args.ds3_gather_for_generation,
            gradient_checkpointing_kwargs=cast("dict | None", args.gradient_checkpointing_kwargs),
        ) as generator,
        trainer._dist.summon_full_params(trainer.model_wrapped, recurse=False),
    ):
        yield generator


def generate_without_cache(trainer: GRPOTrainer) -> None:
    """Let a trainer whose generator has virtual tokens generate without a cache, see [`without_cache`]."""
    if not trainer.use_vllm:
        settings = without_cache(cast(Any, trainer.model))
        trainer.generation_config.update(**settings)
        trainer.generation_kwargs.update(settings)


def end_completions(trainer: GRPOTrainer, ends: Collection[int]) -> None:
    """Let completions end at these tokens too, beside those of the generator, of its tokenizer and of the settings.

    Args:
        trainer ([`~trl.GRPOTrainer`]): Its `eos_token_ids` become all of them. vLLM, which by itself ends a text only
            where the saved generator does, is told them as `stop_token_ids`.
        ends (`Collection[int]`): Further end tokens.
    """
    engine: Any = trainer.vllm_generation if trainer.use_vllm else None
    settings = trainer.generation_kwargs if engine is None else engine.generation_kwargs
    given = trainer.generation_config.eos_token_id if engine is None else settings.get("stop_token_ids")
    configured = given if isinstance(given, list) else [given]
    trainer.eos_token_ids = sorted({*configured, *trainer.eos_token_ids, *ends} - {None})
    if engine is None:
        trainer.generation_config.eos_token_id = settings["eos_token_id"] = trainer.eos_token_ids or None
    else:  # a new dict, since this one is the user's
        engine.generation_kwargs = {**settings, "stop_token_ids": trainer.eos_token_ids}


@contextmanager
def prompts_apart(trainer: GRPOTrainer) -> Iterator[None]:
    """Let the prompts of a batch differ: each gets one completion, and none stands for a group.

    With a vLLM server TRL sends only the first prompt of each `num_generations`, and takes the others for the same.
    """
    group_size, trainer.num_generations = trainer.num_generations, 1
    try:
        yield
    finally:
        trainer.num_generations = group_size
