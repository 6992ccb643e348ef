"""The rewards that a user gives beside the discriminator's: their lists, matched before the discriminator's joins."""

from typing import Any


def as_list(value: Any) -> list:
    """Return a new list of the values: none for `None`, one for what is no list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def matching(values: Any, reward_funcs: list, what: str) -> list:
    """Return one value a reward function, `None` for each where none are given; the words of the error are TRL's.

    Args:
        values (*optional*): A value or a list of them.
        reward_funcs (`list`): The further rewards.
        what (`str`): What the values are, for the error.

    Returns:
        `list`: As long as `reward_funcs`.

    Raises:
        ValueError: If values are given, and not one a reward function.
    """
    values = as_list(values) if values is not None else [None] * len(reward_funcs)
    if len(values) != len(reward_funcs):
        raise ValueError(
            f"Number of {what} ({len(values)}) must match number of reward functions ({len(reward_funcs)}). The "
            "discriminator is not among them: its weight is discriminator_weight."
        )
    return values
