"""The generator of a trainer, made ready to be sampled outside of TRL's own generation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from ..decoding.continuation import without_cache


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
