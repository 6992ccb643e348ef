"""What `benchmarks.verifiable` compares: ways to raise a reward, each with a name.

Out: [`CONDITIONS`], by name, in the order in which they are run.
"""

from dataclasses import dataclass, field, replace
from typing import Any


GROUPS = ("grpo", "sum", "real", "combined", "supervised", "decoding", "perfect")
KL = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
WEIGHTS = (0.3, 1.0, 3.0)
THRESHOLDS = (0.0, 1.0, 2.0)  # c of rejection, in nats
ROUNDS = 2  # of imitation of the filtered, guided sampler
LONGER = 3  # times the demo's steps
GIVEN_LONGER = ("grpo_0.1", "grpo_0.2", "grpo_0.5", "grpo_1", "real_0")  # the best, or next to it


@dataclass(frozen=True)
class Condition:
    """A way to raise the reward.

    Args:
        name (`str`): Name; also that of its files.
        group (`str`): One of [`GROUPS`].
        text (`str`): What it is, as the table says it.
        config (`dict`, *optional*): Arguments of the trainer's config that differ from the demo's.
        weight (`float`, *optional*, defaults to 1.0): Of the verifiable reward.
        discriminator (`bool`, *optional*, defaults to `True`): Whether there is one.
        rewarded (`bool`, *optional*, defaults to `False`): Whether its real texts are those that the reward likes
            best, drawn from the target.
        combined (`str`, *optional*, defaults to `"sum"`): How both rewards become one, see
            [`~verifiable.training.COMBINATIONS`].
        perfect (`bool`, *optional*, defaults to `False`): Whether the true density of the target pays in the place of
            a discriminator and of the reward.
        times (`int`, *optional*, defaults to 1): Steps of training, as a multiple of the demo's.
    """

    name: str
    group: str
    text: str
    config: dict[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    discriminator: bool = True
    rewarded: bool = False
    combined: str = "sum"
    perfect: bool = False
    times: int = 1


def _grpo(beta: float, **config: Any) -> Condition:
    given = ", ".join([f"KL {beta:g}" if beta else "no KL", *(f"{name} {value:g}" for name, value in config.items())])
    name = "_".join(["grpo", f"{beta:g}", *(f"{value:g}" for value in config.values())])
    return Condition(name, "grpo", f"GRPO, {given}", {"beta": beta, **config}, discriminator=False)


def _longer(condition: Condition) -> Condition:
    name, text = f"{condition.name}_longer", f"{condition.text}, {LONGER} times the steps"
    return replace(condition, name=name, text=text, times=LONGER)


_ALL = [
    *(_grpo(beta) for beta in KL),
    *(_grpo(beta, learning_rate=2e-4) for beta in (0.0, 0.05, 0.2)),
    *(
        Condition(
            f"watched_{beta:g}", "grpo", f"GRPO, KL {beta:g}, D watches", {"beta": beta, "discriminator_weight": 0.0}
        )
        for beta in (0.0, 0.2)
    ),
    *(Condition(f"sum_{weight:g}", "sum", f"D, reward weight {weight:g}", weight=weight) for weight in WEIGHTS),
    *(
        Condition(
            f"real_{weight:g}", "real", f"D on rewarded real texts, weight {weight:g}", {}, weight, rewarded=True
        )
        for weight in (0.0, *WEIGHTS)
    ),
    Condition("real_kl", "real", "D on rewarded real texts, weight 1, KL 0.05", {"beta": 0.05}, rewarded=True),
    Condition("bounded", "combined", "D's probability, weight 1", {"discriminator_reward": "probability"}),
    Condition("product", "combined", "reward x -log(1 - D)", combined="product"),
    Condition(
        "product_bounded", "combined", "reward x D", {"discriminator_reward": "probability"}, combined="product"
    ),
    Condition("product_real", "combined", "reward x -log(1 - D), D on rewarded", combined="product", rewarded=True),
    Condition("constraint", "combined", "reward held above 0.9 by a multiplier", combined="constraint"),
    Condition("supervised", "supervised", "supervised training on rewarded real texts, then with D"),
    Condition("supervised_longer", "supervised", "supervised training on rewarded real texts, then more steps with D"),
    Condition("perfect", "perfect", "a perfect D of the target", discriminator=False, perfect=True),
    Condition("supervised_perfect", "perfect", "supervised training, then a perfect D of the target"),
    Condition("decoding", "decoding", "maximum likelihood, filter and D at generation; then imitation of that"),
]
_ALL = [variant for one in _ALL for variant in (one, *[_longer(one)] * (one.name in GIVEN_LONGER))]
CONDITIONS = {one.name: one for one in _ALL}


def selected(names: list[str]) -> list[Condition]:
    """Return the conditions with these names or of these groups, in the order in which they are run.

    Raises:
        ValueError: If a name is neither.
    """
    if unknown := [name for name in names if name not in (*GROUPS, *CONDITIONS)]:
        raise ValueError(f"{unknown} are neither groups {list(GROUPS)} nor conditions {list(CONDITIONS)}.")
    return [one for one in _ALL if one.name in names or one.group in names]
