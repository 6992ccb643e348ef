"""Runs that are killed, resumed, damaged and spread over processes, on tiny models."""
