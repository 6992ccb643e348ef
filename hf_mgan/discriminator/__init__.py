"""The discriminator and how it is loaded."""

from .discriminator import Discriminator
from .loading import check_head_in_full_precision, prepare_quantised_training, with_adapters
from .optimization import trainable_parameters
from .output import DiscriminatorOutput
from .shared_base import classifier_on


__all__ = [
    "Discriminator",
    "DiscriminatorOutput",
    "check_head_in_full_precision",
    "classifier_on",
    "prepare_quantised_training",
    "trainable_parameters",
    "with_adapters",
]
