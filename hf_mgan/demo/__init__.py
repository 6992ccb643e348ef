"""The demo: adversarial training on a small formal language whose true distribution is known."""
