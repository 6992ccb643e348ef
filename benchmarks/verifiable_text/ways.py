"""What `benchmarks.verifiable_text` compares: ways to raise a reward, each with a name.

Out: [`WAYS`], by name, in the order in which they are gone.
"""

from dataclasses import dataclass, field
from typing import Any


KL = (0.0, 0.02, 0.1, 0.5)
WEIGHTS = (0.0, 0.3, 1.0, 3.0)
SUPERVISED, TAUGHT = "supervised", "taught"  # generators that others begin with


@dataclass(frozen=True)
class Way:
    """A way to raise the reward.

    Args:
        name (`str`): Name; also that of its files.
        text (`str`): What it is, as the table says it.
        kind (`str`): What is done: a method of [`~verifiable_text.stages.Run`].
        start (`str`, *optional*): The generator it begins with.
        rewarded (`bool`, *optional*, defaults to `False`): Whether the discriminator's real texts are those alone that
            have the reward.
        config (`dict`, *optional*): Arguments of adversarial training.
    """

    name: str
    text: str
    kind: str
    start: str = SUPERVISED
    rewarded: bool = False
    config: dict[str, Any] = field(default_factory=dict)


def _grpo(beta: float) -> Way:
    """GRPO alone: the discriminator learns beside it, so that the watchdog sees what it sees, and pays nothing."""
    text = f"GRPO, {f'KL {beta:g}' if beta else 'no KL'}"
    config = {"beta": beta, "discriminator_weight": 0.0, "real_text_coef": 0.0, "reward_weights": [1.0]}
    return Way(f"grpo_{beta:g}", text, "reinforced", config=config)


def _real(weight: float) -> Way:
    """D beside the reward, and `real_text_coef` on the same real texts: what this does alone is the way `anchor`."""
    text = f"D on rewarded real texts, reward weight {weight:g}"
    return Way(f"real_{weight:g}", text, "reinforced", rewarded=True, config={"reward_weights": [weight]})


_ALL = [
    Way(SUPERVISED, "supervised", "measured"),
    *map(_grpo, KL),
    *map(_real, WEIGHTS),
    Way(
        "anchor",
        "real_text_coef on rewarded real texts alone",
        "reinforced",
        rewarded=True,
        config={"reward_weights": [0.0], "discriminator_weight": 0.0},
    ),
    Way(TAUGHT, "supervised on rewarded real texts", "taught"),
    Way("taught_real_0", "… then D on the same", "reinforced", TAUGHT, True, {"reward_weights": [0.0]}),
    Way("guided", "supervised, filter and D at generation", "guided"),
    Way("taught_guided", "supervised on rewarded real texts, filter and D at generation", "guided", TAUGHT, True),
    Way("imitation", "supervised on texts of filter and D", "imitated"),
]
WAYS = {one.name: one for one in _ALL}
