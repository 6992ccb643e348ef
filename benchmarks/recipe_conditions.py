"""The conditions that `benchmarks.recipe` compares: each changes one thing of the demo's game, and has a name.

Out: [`CONDITIONS`], by name, in the order in which they are played.
"""

from dataclasses import dataclass, field, fields
from typing import Any

from hf_mgan import AdversarialConfig
from hf_mgan.objectives import LOSSES, REWARDS


GROUPS = ("headroom", "objectives", "ablations")
DEFAULT = "default"
LOSS_NAMES = ("bce", "bradley_terry", "relativistic_average", "hinge", "least_squares", "wasserstein")
REWARD_NAMES = ("minimax", "log_d", "logit", "probability")
# Bound of the log-ratio that the perfect discriminator pays by, in nats. An ungrammatical sentence has -inf; 10 nats
# are D = 0.00005, as sure as a trained discriminator gets, and hardly a sentence that the generator writes is so much
# more likely in the language.
CLIP = 10.0


@dataclass(frozen=True)
class Condition:
    """One thing that is different from the demo's game.

    Args:
        name (`str`): Name; also that of its files.
        group (`str`): One of [`GROUPS`].
        text (`str`): What it changes, as the table says it.
        config (`dict`, *optional*): Arguments of [`AdversarialConfig`] that differ from the demo's.
        perfect (`str`, *optional*): Shape of the reward that is computed from the two true densities. The
            discriminator is then trained beside the game and pays nothing.
        clip (`float`, *optional*, defaults to 10.0): Bound of the log-ratio behind it, in nats.
        sentences (`int`, *optional*): The game's real sentences are the first so many of those that the players read.
        frozen (`bool`, *optional*, defaults to `False`): Whether the discriminator stops learning after its warm-up.
        discriminator (`str`, *optional*, defaults to `"encoder"`): What it starts as: `"encoder"`, trained on masked
            words, `"fresh"`, the same without training, or `"causal"`, a GPT-2 of that size trained as a language
            model.
    """

    name: str
    group: str
    text: str
    config: dict[str, Any] = field(default_factory=dict)
    perfect: str | None = None
    clip: float = CLIP
    sentences: int | None = None
    frozen: bool = False
    discriminator: str = "encoder"

    def missing(self) -> list[str]:
        """Return what the installed package does not have of this condition: settings, losses or rewards."""
        known = {one.name for one in fields(AdversarialConfig)}
        missing = [name for name in self.config if name not in known]
        for key, registry in (("discriminator_loss", LOSSES), ("discriminator_reward", REWARDS)):
            name = self.config.get(key)
            if name is not None and name not in registry:
                missing.append(f"{key}={name!r}")
        return missing


def _objective(loss: str, reward: str) -> Condition:
    config: dict[str, Any] = {"discriminator_loss": loss, "discriminator_reward": reward}
    if loss == "bradley_terry":
        # Every completion meets the reference of its own row, and a group as large as the batch is one row.
        config["num_generations"] = 2
    if loss == "wasserstein":
        config["discriminator_gradient_penalty"] = 1.0
    return Condition(f"{loss}-{reward}", "objectives", f"`{loss}`, `{reward}`", config)


def _ablation(name: str, text: str, config: dict[str, Any] | None = None, **flags: Any) -> Condition:
    return Condition(name, "ablations", text, config or {}, **flags)


_ALL = [
    Condition(DEFAULT, "headroom", "the default"),
    Condition("perfect", "headroom", "perfect discriminator, `minimax`", {"discriminator_weight": 0.0}, "minimax"),
    Condition("perfect_logit", "headroom", "perfect discriminator, `logit`", {"discriminator_weight": 0.0}, "logit"),
    Condition(
        "perfect_logit_5",
        "headroom",
        "perfect discriminator, `logit` within ±5",
        {"discriminator_weight": 0.0},
        "logit",
        5.0,
    ),
    *(
        _objective(loss, reward)
        for loss in LOSS_NAMES
        for reward in REWARD_NAMES
        if (loss, reward) != ("bce", "minimax")  # the default
    ),
    _ablation("pairs", "groups of 2 completions (as `bradley_terry` has them)", {"num_generations": 2}),
    _ablation("warmup_0", "no warm-up", {"discriminator_warmup_steps": 0}),
    _ablation("warmup_400", "warm-up of 400 updates", {"discriminator_warmup_steps": 400}),
    # The perfect discriminator's accuracy is 0.74 before the game and 0.71 after it, the trained one's 0.70 and 0.68.
    _ablation(
        "warmup_accuracy",
        "warm-up until the accuracy is 0.68, 400 updates at most",
        {"discriminator_warmup_steps": 400, "discriminator_warmup_accuracy": 0.68},
    ),
    _ablation("frozen", "discriminator frozen after its warm-up", frozen=True),
    _ablation("fresh_encoder", "discriminator without training on masked words", discriminator="fresh"),
    _ablation(
        "scale_group", 'rewards divided by their deviation (`scale_rewards="group"`)', {"scale_rewards": "group"}
    ),
    _ablation("steps_2", "`discriminator_steps=2`", {"discriminator_steps": 2}),
    _ablation("reals_20k", "20,000 real sentences in the game", sentences=20_000),
    _ablation("label_smoothing", "`discriminator_label_smoothing=0.1`", {"discriminator_label_smoothing": 0.1}),
    _ablation("logit_penalty", "`discriminator_logit_penalty=0.01`", {"discriminator_logit_penalty": 0.01}),
    *(
        _ablation(
            f"gradient_penalty_{kind}",
            f'`discriminator_gradient_penalty=1.0`, `"{kind}"`',
            {"discriminator_gradient_penalty": 1.0, "discriminator_gradient_penalty_type": kind},
        )
        for kind in ("noise", "exact")
    ),
    _ablation("token_dropout", "`discriminator_token_dropout=0.1`", {"discriminator_token_dropout": 0.1}),
    *(
        _ablation(
            f"replay_{percent}",
            f"`discriminator_replay_fraction={percent / 100:g}`",
            {"discriminator_replay_fraction": percent / 100},
        )
        for percent in (25, 50)
    ),
    _ablation("accuracy_ceiling", "`discriminator_accuracy_ceiling=0.68`", {"discriminator_accuracy_ceiling": 0.68}),
    *(_ablation(f"real_text_{c:g}", f"`real_text_coef={c:g}`", {"real_text_coef": c}) for c in (0.1, 0.3)),
    *(_ablation(f"beta_{beta:g}", f"`beta={beta:g}`", {"beta": beta}) for beta in (0.01, 0.1)),
    _ablation("ema", "`ema_decay=0.99`", {"ema_decay": 0.99}),
    _ablation("density_offset", "`discriminator_density_offset=True`", {"discriminator_density_offset": True}),
    _ablation(
        "causal_sequence",
        "causal discriminator, one reward a sentence",
        {"discriminator_credit": "sequence"},
        discriminator="causal",
    ),
    _ablation(
        "causal_token",
        "causal discriminator, a reward for every token",
        {"discriminator_credit": "token"},
        discriminator="causal",
    ),
    _ablation("length_neutral", "`discriminator_length_neutral=True`", {"discriminator_length_neutral": True}),
]
CONDITIONS = {condition.name: condition for condition in _ALL}


def matrix_cell(loss: str, reward: str) -> str:
    """Return the name of the condition with this loss and this reward."""
    return DEFAULT if (loss, reward) == ("bce", "minimax") else f"{loss}-{reward}"


def selected(only: list[str]) -> list[Condition]:
    """Return the conditions of these groups and names, the default first, in the order in which they are played.

    Raises:
        ValueError: If one is neither.
    """
    unknown = [one for one in only if one not in GROUPS and one not in CONDITIONS]
    if unknown:
        raise ValueError(f"There is no condition or group called {unknown}. Groups: {GROUPS}. All: {list(CONDITIONS)}")
    chosen = {one.name for one in _ALL if one.group in only or one.name in only}
    if set(only) & set(GROUPS):
        chosen.add(DEFAULT)  # which every table compares with
    return [one for one in _ALL if one.name in chosen]
