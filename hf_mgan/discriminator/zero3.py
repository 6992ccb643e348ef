"""Keeping the discriminator whole where the generator is sharded, by DeepSpeed's ZeRO-3 or by FSDP."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.integrations import deepspeed


FSDP_LOADING = "FSDP_CPU_RAM_EFFICIENT_LOADING"  # the variable in which accelerate keeps the setting


@contextmanager
def loaded_whole() -> Iterator[None]:
    """Load models within this context with all their weights on every process.

    Once training arguments with ZeRO-3 exist, transformers shards every model that it loads, and only what accelerate
    prepares can be trained in shards. The discriminator is not prepared, see [`Discriminator.create_optimizer`]. There
    is no argument for it, so the reference that transformers looks at is taken away for the time of loading.

    Under FSDP with `fsdp_cpu_ram_efficient_loading` transformers makes new weights, such as a head, on the first
    process of a machine alone, for accelerate to send them on when it prepares the model.
    """
    reference, loading = deepspeed._hf_deepspeed_config_weak_ref, os.environ.pop(FSDP_LOADING, None)
    deepspeed._hf_deepspeed_config_weak_ref = None
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = reference
        if loading is not None:
            os.environ[FSDP_LOADING] = loading
