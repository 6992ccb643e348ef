"""Curves of a healthy run and of runs that fail, each in its own way, on the demo's language."""
