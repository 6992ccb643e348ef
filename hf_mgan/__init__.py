"""Adversarial fine-tuning of language models, for users of TRL."""

from .config import AdversarialConfig
from .data import prepare_dataset
from .discriminator import Discriminator
from .trainer import AdversarialTrainer


__all__ = ["AdversarialConfig", "AdversarialTrainer", "Discriminator", "prepare_dataset"]
