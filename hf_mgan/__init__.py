"""Adversarial fine-tuning of language models, for users of TRL."""

from .callbacks import Watchdog
from .config import AdversarialConfig
from .data import prepare_dataset
from .discriminator import Discriminator
from .generator_evaluation import GeneratorEvaluation
from .safety import SafetyGate
from .trainer import AdversarialTrainer


__all__ = [
    "AdversarialConfig",
    "AdversarialTrainer",
    "Discriminator",
    "GeneratorEvaluation",
    "SafetyGate",
    "Watchdog",
    "prepare_dataset",
]
