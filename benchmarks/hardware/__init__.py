"""What adversarial training costs and which models it takes: one command per module."""
