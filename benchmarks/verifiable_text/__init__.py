"""Real text: a reward that can be checked, raised with and without a discriminator."""
