"""The runs of `benchmarks.curves`: what is changed in each, and the curves that are kept of it."""

from typing import Any, NamedTuple

from hf_mgan.watchdog import failure_modes


class Condition(NamedTuple):
    """A run that shows one thing.

    Args:
        title (`str`): What it shows, in a few words; the title of its picture.
        generator (`str`): The folder of the generator that it starts from.
        frozen (`bool`): Whether the discriminator is frozen after its warm-up.
        settings (`dict`): What is different from the demo's settings.
    """

    title: str
    generator: str = "supervised"
    frozen: bool = False
    settings: dict[str, Any] = {}  # noqa: RUF012  # a NamedTuple's default, which nobody changes


CONDITIONS = {
    "healthy": Condition("healthy: the demo's settings"),
    "saturated": Condition("saturated: the generator has hardly been fine-tuned", generator="under_trained"),
    "hacked": Condition("hacked: the discriminator is frozen", frozen=True),
    "diverged": Condition("diverged: the generator's steps are too large", settings={"learning_rate": 2e-2}),
    # The word between the two special tokens of its tokenizer.
    "blind": Condition(
        "blind: the discriminator reads one word of each text", settings={"discriminator_max_length": 3}
    ),
}
# Kept under their names in the log.
CURVES = (
    "discriminator/real_prob",
    "discriminator/fake_prob",
    failure_modes.ACCURACY,
    failure_modes.VALUE,
    failure_modes.REWARD_SPREAD,
    failure_modes.DUPLICATES,
    failure_modes.REAL_DUPLICATES,
    failure_modes.SELF_BLEU,
    failure_modes.REAL_SELF_BLEU,
    failure_modes.ENTROPY,
    failure_modes.LENGTH_RATIO,
)
