"""Text from models: samples of a generator alone, and of a generator with its discriminator."""

from .guided import Filter, GuidedSamples, guided_sample
from .sampling import Samples, encode_prompts, sample
from .settings import DecodingConfig


__all__ = [
    "DecodingConfig",
    "Filter",
    "GuidedSamples",
    "Samples",
    "encode_prompts",
    "guided_sample",
    "sample",
]
