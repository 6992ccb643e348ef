"""Keeping the discriminator whole where the generator is sharded by DeepSpeed's ZeRO-3."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.integrations import deepspeed


@contextmanager
def loaded_whole() -> Iterator[None]:
    """Load models within this context with all their weights on every process.

    Once training arguments with ZeRO-3 exist, transformers shards every model that it loads, and only what accelerate
    prepares can be trained in shards. The discriminator is not prepared, see [`Discriminator.create_optimizer`]. There
    is no argument for it, so the reference that transformers looks at is taken away for the time of loading.
    """
    reference = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed._hf_deepspeed_config_weak_ref = None
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = reference
