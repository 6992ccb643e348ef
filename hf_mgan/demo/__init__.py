"""The embedded demo: a game on a small formal language whose truth can be computed."""
