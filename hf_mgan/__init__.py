"""Adversarial fine-tuning of language models, for users of TRL."""

from .callbacks import Watchdog
from .config import AdversarialConfig
from .data import prepare_dataset
from .discriminator import Discriminator
from .safety import SafetyGate
from .trainer import AdversarialTrainer


__all__ = ["AdversarialConfig", "AdversarialTrainer", "Discriminator", "SafetyGate", "Watchdog", "prepare_dataset"]
