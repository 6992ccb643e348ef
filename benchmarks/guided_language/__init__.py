"""The demo's language: how near a generator and its discriminator come to it, and to what a perfect one would give."""
