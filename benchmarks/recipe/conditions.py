"""The conditions that `benchmarks.recipe` compares: each changes one thing of the demo's training, and has a name.

Out: [`CONDITIONS`], by name, in the order in which they are run; [`REMOVED`], what results speak of that is no setting
any more.
"""

from dataclasses import dataclass, field
from typing import Any


GROUPS = ("headroom", "objectives", "ablations", "warmup")
WARMUPS = (10, 20, 50, 100)  # updates
DEFAULT = "default"
LOSS_NAMES = ("bce", "bradley_terry", "relativistic_average", "hinge", "least_squares")
REWARD_NAMES = ("minimax", "log_d", "logit", "probability")
# Bound of the log-ratio that the perfect discriminator rewards, in nats. An ungrammatical sentence has -inf; 10 nats
# are D = 0.00005, as confident as a trained discriminator gets, and hardly a sentence that the generator writes is so
# much more likely in the language.
CLIP = 10.0


@dataclass(frozen=True)
class Condition:
    """One thing that is different from the demo's training.

    Args:
        name (`str`): Name; also that of its files.
        group (`str`): One of [`GROUPS`].
        text (`str`): What it changes, as the table says it.
        config (`dict`, *optional*): Arguments of [`AdversarialConfig`] that differ from the demo's. The keys of a dict
            setting replace those of the demo's and leave its other keys.
        perfect (`str`, *optional*): Shape of the reward that is computed from the two true densities. The
            discriminator is then trained as well and has no weight in the reward.
        clip (`float`, *optional*, defaults to 10.0): Bound of the log-ratio behind it, in nats.
        sentences (`int`, *optional*): Training takes the first so many of the real sentences that the initial models
            were trained on.
        frozen (`bool`, *optional*, defaults to `False`): Whether the discriminator is frozen after its warm-up.
        discriminator (`str`, *optional*, defaults to `"encoder"`): What it starts as: `"encoder"`, trained on masked
            words, `"fresh"`, the same without training, or `"causal"`, a GPT-2 of that size trained as a language
            model.
        token_credit (`bool`, *optional*, defaults to `False`): Whether each token has a reward of its own, by
            [`~experimental.token_credit.TokenCreditTrainer`].
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
    token_credit: bool = False


def _perfect(name: str, text: str, shape: str, clip: float = CLIP) -> Condition:
    return Condition(name, "headroom", text, {"discriminator_weight": 0.0}, shape, clip)


def _objective(loss: str, reward: str) -> Condition:
    config: dict[str, Any] = {"discriminator_loss": loss, "discriminator_reward": reward}
    if loss == "bradley_terry":
        # Every completion meets the reference of its own row, and a group as large as the batch is one row.
        config["num_generations"] = 2
    return Condition(f"{loss}-{reward}", "objectives", f"`{loss}`, `{reward}`", config)


def _ablation(name: str, text: str, config: dict[str, Any] | None = None, **flags: Any) -> Condition:
    return Condition(name, "ablations", text, config or {}, **flags)


def _regularized(key: str, value: float) -> Condition:
    """Return the condition with one key of `discriminator_regularization`."""
    setting = {key: value}
    text = f'`discriminator_regularization={{"{key}": {value:g}}}`'
    return _ablation(key, text, {"discriminator_regularization": setting})


_ALL = [
    Condition(DEFAULT, "headroom", "the default"),
    _perfect("perfect", "perfect discriminator, `minimax`", "minimax"),
    _perfect("perfect_logit", "perfect discriminator, `logit`", "logit"),
    _perfect("perfect_logit_5", "perfect discriminator, `logit` within ±5", "logit", 5.0),
    *(
        _objective(loss, reward)
        for loss in LOSS_NAMES
        for reward in REWARD_NAMES
        if (loss, reward) != ("bce", "minimax")  # the default
    ),
    _ablation("pairs", "groups of 2 completions (as `bradley_terry` has them)", {"num_generations": 2}),
    _ablation("warmup_0", "no warm-up", {"discriminator_warmup_steps": 0}),
    _ablation("warmup_400", "warm-up of 400 updates", {"discriminator_warmup_steps": 400}),
    *(
        Condition(f"warmup_{steps}", "warmup", f"warm-up of {steps} updates", {"discriminator_warmup_steps": steps})
        for steps in WARMUPS
    ),
    Condition("steps_4", "warmup", "four updates on each batch", {"discriminator_steps": 4}),
    _ablation("frozen", "discriminator frozen after its warm-up", frozen=True),
    _ablation("fresh_encoder", "discriminator without training on masked words", discriminator="fresh"),
    _ablation(
        "scale_group", 'rewards divided by their deviation (`scale_rewards="group"`)', {"scale_rewards": "group"}
    ),
    _ablation("steps_2", "`discriminator_steps=2`", {"discriminator_steps": 2}),
    _ablation("reals_20k", "20,000 real sentences in training", sentences=20_000),
    _regularized("label_smoothing", 0.1),
    _regularized("logit_penalty", 0.01),
    _regularized("token_dropout", 0.1),
    *(
        _ablation(
            f"replay_{percent}",
            f"`discriminator_replay_fraction={percent / 100:g}`",
            {"discriminator_replay_fraction": percent / 100},
        )
        for percent in (25, 50)
    ),
    _ablation(
        "accuracy_ceiling",
        '`discriminator_update_gating={"ceiling": 0.68}`',
        {"discriminator_update_gating": {"ceiling": 0.68}},
    ),
    *(_ablation(f"real_text_{c:g}", f"`real_text_coef={c:g}`", {"real_text_coef": c}) for c in (0.1, 0.3)),
    *(_ablation(f"beta_{beta:g}", f"`beta={beta:g}`", {"beta": beta}) for beta in (0.01, 0.1)),
    _ablation("causal_sequence", "causal discriminator, one reward per sentence", discriminator="causal"),
    _ablation(
        "causal_token",
        "causal discriminator, one reward per token (`hf_mgan.experimental.token_credit`)",
        discriminator="causal",
        token_credit=True,
    ),
]
CONDITIONS = {condition.name: condition for condition in _ALL}

# Conditions that the committed results hold and that cannot be run any more, by what was set.
REMOVED = {
    "warmup_accuracy": "`discriminator_warmup_accuracy=0.68`",
    "gradient_penalty_noise": '`discriminator_gradient_penalty=1.0`, `"noise"`',
    "gradient_penalty_exact": '`discriminator_gradient_penalty=1.0`, `"exact"`',
    "ema": "`ema_decay=0.99`",
    "density_offset": "`discriminator_density_offset=True`",
    "length_neutral": "`discriminator_length_neutral=True`",
    **{
        f"wasserstein-{reward}": f"`wasserstein`, `{reward}`, with `discriminator_gradient_penalty=1.0`"
        for reward in REWARD_NAMES
    },
}


def matrix_cell(loss: str, reward: str) -> str:
    """Return the name of the condition with this loss and this reward."""
    return DEFAULT if (loss, reward) == ("bce", "minimax") else f"{loss}-{reward}"


def selected(names: list[str]) -> list[Condition]:
    """Return the conditions of these groups and names, the default first, in the order in which they are run.

    Raises:
        ValueError: If one is neither.
    """
    unknown = [one for one in names if one not in GROUPS and one not in CONDITIONS]
    if unknown:
        raise ValueError(
            f"--conditions must be among the groups {GROUPS} and the conditions {list(CONDITIONS)}, got {unknown}."
        )
    chosen = {one.name for one in _ALL if one.group in names or one.name in names}
    if set(names) & set(GROUPS):
        chosen.add(DEFAULT)  # which every table compares with
    return [one for one in _ALL if one.name in chosen]
