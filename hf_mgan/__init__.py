"""Adversarial fine-tuning of language models, for users of TRL."""

from .config import AdversarialConfig
from .data import prepare_dataset
from .discriminator import Discriminator
from .evaluation.evaluator import GeneratorEvaluator
from .safety import SafetyGate
from .trainer import AdversarialTrainer
from .watchdog.callback import Watchdog


__all__ = [
    "AdversarialConfig",
    "AdversarialTrainer",
    "Discriminator",
    "GeneratorEvaluator",
    "SafetyGate",
    "Watchdog",
    "prepare_dataset",
]
