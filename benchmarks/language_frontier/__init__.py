"""The demo's language: what each way to train a generator gives, alone and with a discriminator at generation."""
