"""Text from models: sampling from a generator's own distribution."""

from .sampling import Samples, encode_prompts, sample


__all__ = ["Samples", "encode_prompts", "sample"]
