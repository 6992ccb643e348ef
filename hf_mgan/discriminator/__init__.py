"""The discriminator and how it is loaded."""

from .discriminator import Discriminator, DiscriminatorOutput
from .loading import with_adapters


__all__ = ["Discriminator", "DiscriminatorOutput", "with_adapters"]
