"""Adversarial against supervised training on real text."""
