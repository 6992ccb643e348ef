"""The discriminator and how it is loaded."""

from .calibration import Calibration, calibrate
from .discriminator import Discriminator
from .loading import check_head_in_full_precision, prepare_quantised_training, with_adapters
from .optimization import check_optimizer, trainable_parameters
from .regularization import REGULARIZATION, Regularization, check_regularization
from .replay import REPLAY_FRACTION, Replay
from .shared_base import classifier_on
from .text_batch import DiscriminatorOutput


__all__ = [
    "REGULARIZATION",
    "REPLAY_FRACTION",
    "Calibration",
    "Discriminator",
    "DiscriminatorOutput",
    "Regularization",
    "Replay",
    "calibrate",
    "check_head_in_full_precision",
    "check_optimizer",
    "check_regularization",
    "classifier_on",
    "prepare_quantised_training",
    "trainable_parameters",
    "with_adapters",
]
