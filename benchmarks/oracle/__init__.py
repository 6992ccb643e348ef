"""Adversarial training where the density of real text is known."""
