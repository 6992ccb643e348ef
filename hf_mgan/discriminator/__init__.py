"""The discriminator and how it is loaded."""

from .discriminator import Discriminator
from .loading import with_adapters
from .output import DiscriminatorOutput


__all__ = ["Discriminator", "DiscriminatorOutput", "with_adapters"]
