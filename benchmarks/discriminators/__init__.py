"""Real text: what a discriminator has to be, and to have seen, to tell a generator's texts from real ones."""
