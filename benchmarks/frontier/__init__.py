"""Real text: what the discriminator is worth at generation, with a generator that is not trained against it."""
