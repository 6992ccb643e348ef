"""What the trainer is made of: building both models, the reward, gating, checkpoints, the card."""
