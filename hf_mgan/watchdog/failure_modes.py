"""The failure modes of adversarial training, told from the metrics that the trainer logs.

In: the means over the last steps, and those at the start. Out: what is happening and what to change, or
None. Metrics that were not logged raise no alarm.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..checks import NOT_NEGATIVE, SHARE, Check, Number, check_fields
from ..evaluation.text_metrics import SAMPLES_PREFIX


# Metric -> its mean over some entries of the log.
Means: TypeAlias = dict[str, float]

ACCURACY, VALUE = "discriminator/accuracy", "discriminator/value"
REWARD_SPREAD, GRAD_NORM = "rewards/discriminator/std", "discriminator/grad_norm"
ZERO_STD, REWARD_STD = "frac_reward_zero_std", "reward_std"
DUPLICATES, REAL_DUPLICATES = "completions/duplicates", "references/duplicates"
SELF_BLEU, REAL_SELF_BLEU = "completions/self_bleu", "references/self_bleu"
ENTROPY = "entropy"
LENGTH_RATIO, LENGTH_CORRELATION = "completions/length_ratio", "rewards/discriminator/length_correlation"
UNSAFE_RATES = ("safety/unsafe_rate", "samples/unsafe_rate")
WATCHED = (
    *(ACCURACY, VALUE, REWARD_SPREAD, GRAD_NORM, ZERO_STD, REWARD_STD, DUPLICATES, REAL_DUPLICATES),
    *(SELF_BLEU, REAL_SELF_BLEU, ENTROPY, LENGTH_RATIO, LENGTH_CORRELATION),
)
STEPS = "steps"  # of an entry: over how many it is a mean; one in checkpoints of earlier versions, which lack it
NEAR_CHANCE = 0.45, 0.55  # accuracies of a discriminator that is right by chance, or nearly so
OWN_REWARDS = ("discriminator", "safety")  # what pays them is no reward that the user gave
# A mean over a batch that holds nan is left out of the log or None in it, while the accuracy is a number even then.
LOGGED_WITH_THE_ACCURACY = ("discriminator/loss", "discriminator/real_prob", "discriminator/fake_prob", VALUE)


THRESHOLDS: dict[str, Check] = {
    "saturated_accuracy": SHARE,
    "saturated_value": Number(most=0),
    "informative_std": NOT_NEGATIVE,
    "variety_share": SHARE,
    "entropy_share": SHARE,
    "zero_std_share": SHARE,
    "reward_std": NOT_NEGATIVE,
    "length_tolerance": SHARE,
    "length_correlation": SHARE,
    "hacking_accuracy": SHARE,
}


@dataclass(frozen=True)
class Thresholds:
    """Where health ends.

    Attributes:
        saturated_accuracy (`float`, *optional*, defaults to 0.98): Accuracy above which the discriminator is
            saturated: of 50 texts it takes one for the wrong kind.
        saturated_value (`float`, *optional*, defaults to -0.1): V(D, G) in nats above which it is: D gives the right
            side 0.95 or so.
        informative_std (`float`, *optional*, defaults to 1e-3): Standard deviation of the discriminator's rewards, and
            norm of its gradient, below which a discriminator near chance is uninformative. One that has just been
            given its head is above it.
        variety_share (`float`, *optional*, defaults to 0.5): Share of the variety of real texts below which a
            generator has collapsed: variety is 1 - duplicates, or 1 - self-BLEU. Where completions share words by
            their task, such as translations of one sentence, self-BLEU is compared with its start if that was higher.
        entropy_share (`float`, *optional*, defaults to 0.2): Share of the entropy at the start below which it has
            collapsed. Policy gradients lower the entropy of healthy runs too, but leave much of it.
        zero_std_share (`float`, *optional*, defaults to 0.9): Share of groups with equal rewards above which there is
            no reward variance.
        reward_std (`float`, *optional*, defaults to 1e-4): Standard deviation of all rewards below which there is
            none: TRL adds this much to a group's before it divides by it, so smaller ones fade from the advantages.
        length_tolerance (`float`, *optional*, defaults to 0.2): Share of the length of real texts, in characters, by
            which completions may differ from it, both ways. Of six runs of SmolLM2 against MiniLM the four that go
            beyond swing on, to 1.9 times and 0.7 times that length; the one with anchors stays within 1.15.
        length_correlation (`float`, *optional*, defaults to 0.5): Correlation of reward and length within groups above
            which length is exploited, if the length is 10 % farther from that of real texts than at the start.
        hacking_accuracy (`float`, *optional*, defaults to 0.1): Rise of the discriminator's accuracy since the start
            above which a reward of the user's is hacked that has risen by half of its deviation at the start.

    Raises:
        TypeError: If a threshold is no number.
        ValueError: If a threshold is out of range.
    """

    saturated_accuracy: float = 0.98
    saturated_value: float = -0.1
    informative_std: float = 1e-3
    variety_share: float = 0.5
    entropy_share: float = 0.2
    zero_std_share: float = 0.9
    reward_std: float = 1e-4
    length_tolerance: float = 0.2
    length_correlation: float = 0.5
    hacking_accuracy: float = 0.1

    def __post_init__(self) -> None:
        check_fields(self, THRESHOLDS)


def is_watched(name: str) -> bool:
    """Tell whether a metric takes part: those of [`WATCHED`], and mean and deviation of each reward of the user's."""
    kind, _, rest = name.partition("/")
    reward, _, statistic = rest.rpartition("/")
    return name in WATCHED or (kind == "rewards" and reward not in OWN_REWARDS and statistic in ("mean", "std"))


def is_finite(value: Any) -> bool:
    """Tell whether a logged value is a number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def count_steps(window: list[dict[str, float]]) -> int:
    """Return over how many steps the entries of a window are means."""
    return int(sum(entry.get(STEPS, 1) for entry in window))


def last_steps(entries: list[dict[str, float]], count: int) -> list[dict[str, float]]:
    """Return the last entries, as few as cover a number of steps."""
    first = len(entries) - 1
    while first > 0 and count_steps(entries[first:]) < count:
        first -= 1
    return entries[first:]


def means(window: list[dict[str, float]]) -> Means:
    """Average each metric over the steps of a window, if its entries cover at least half of them."""
    found = {}
    for name in sorted({name for entry in window for name in entry} - {STEPS}):
        having = [entry for entry in window if name in entry]
        steps = count_steps(having)
        if 2 * steps >= count_steps(window):
            found[name] = sum(entry.get(STEPS, 1) * entry[name] for entry in having) / steps
    return found


def discriminator_saturated(mean: Means, start: Means, thresholds: Thresholds) -> str | None:
    """Tell a discriminator that is right on nearly everything."""
    accuracy, value = mean.get(ACCURACY, 0.0), mean.get(VALUE, -math.inf)
    if accuracy <= thresholds.saturated_accuracy and value <= thresholds.saturated_value:
        return None
    return (
        f"the discriminator tells completions from real text with an accuracy of {accuracy:.3f} and V(D, G) = "
        f"{value:.3f}, so its rewards hardly say which completion is better. Lower discriminator_learning_rate or "
        "discriminator_steps, or let it skip updates with discriminator_update_gating={'ceiling': 0.9}; if it is so "
        "from the first step on, fine-tune the generator on the real texts first (SFT)."
    )


def discriminator_uninformative(mean: Means, start: Means, thresholds: Thresholds) -> str | None:
    """Tell a discriminator that is uninformative from one that a good generator beats."""
    accuracy = mean.get(ACCURACY, 1.0)
    if not NEAR_CHANCE[0] <= accuracy <= NEAR_CHANCE[1]:
        return None
    # A generator that says one thing gets one reward from any discriminator.
    differ = mean.get(DUPLICATES, 0.0) < 0.9
    spread, grad_norm = (mean.get(name, math.inf) for name in (REWARD_SPREAD, GRAD_NORM))
    if spread < thresholds.informative_std and differ:
        sign = f"it gives different completions the same reward (their rewards deviate by {spread:.1e})"
    elif grad_norm < thresholds.informative_std:
        sign = f"its gradient has a norm of {grad_norm:.1e}"
    else:
        return None
    return (
        f"the discriminator is near chance (accuracy {accuracy:.3f}), and {sign}: it is uninformative, where one "
        "that a good generator beats still rewards different texts differently. To find out, score real texts and the "
        "same texts with their words shuffled (trainer.discriminator.score): one that knows the language tells "
        "them apart. Raise discriminator_learning_rate or discriminator_warmup_steps, and check that its "
        "parameters are trained (discriminator_peft_config) and that discriminator_max_length leaves it the text."
    )


def discriminator_cold(accuracy: float, num_texts: int) -> str | None:
    """Tell a discriminator whose warm-up has left it at chance.

    Args:
        accuracy (`float`): Its mean accuracy in the second half of the warm-up, on texts that it had not learnt from.
        num_texts (`int`): Completions among them. By chance the accuracy is above 0.5 by twice its standard error,
            1 / sqrt(num_texts), in one of 40 warm-ups.
    """
    if accuracy > 0.5 + 1 / math.sqrt(num_texts):
        return None
    return (
        f"the discriminator's warm-up ends at chance (accuracy {accuracy:.3f} on its last {num_texts} completions), "
        "so its rewards are noise, which the generator follows. Raise discriminator_warmup_steps; discriminator_steps "
        "above 1 has several updates on each batch, and discriminator_learning_rate larger ones. If it stays at "
        "chance, it cannot tell this generator from real text, and has nothing to teach it."
    )


def generator_collapsed(mean: Means, start: Means, thresholds: Thresholds) -> str | None:
    """Tell a generator that repeats itself far more than real texts do."""
    signs = []
    if DUPLICATES in mean and REAL_DUPLICATES in mean:
        repeated, usual = mean[DUPLICATES], mean[REAL_DUPLICATES]
        if 1 - repeated < thresholds.variety_share * (1 - usual):
            signs.append(f"{repeated:.0%} of the completions occur earlier in their batch (real texts: {usual:.0%})")
    if SELF_BLEU in mean and REAL_SELF_BLEU in mean:
        alike, usual = mean[SELF_BLEU], max(mean[REAL_SELF_BLEU], start.get(SELF_BLEU, 0.0))
        if 1 - alike < thresholds.variety_share * (1 - usual):
            signs.append(f"their self-BLEU is {alike:.2f} (real texts, or the start: {usual:.2f})")
    if ENTROPY in mean and ENTROPY in start and mean[ENTROPY] < thresholds.entropy_share * start[ENTROPY]:
        signs.append(f"the entropy is {mean[ENTROPY]:.3f}, {start[ENTROPY]:.3f} at the start")
    if not signs:
        return None
    return (
        f"the generator says the same again and again: {'; '.join(signs)}. Go back to an earlier checkpoint; "
        "lower learning_rate, or anchor the generator with beta or real_text_coef."
    )


def no_reward_variance(mean: Means, start: Means, thresholds: Thresholds) -> str | None:
    """Tell rewards from which the generator learns nothing."""
    share, spread = mean.get(ZERO_STD, 0.0), mean.get(REWARD_STD, math.inf)
    if share <= thresholds.zero_std_share and spread >= thresholds.reward_std:
        return None
    return (
        f"{share:.0%} of the groups have equal rewards, and all rewards deviate by {spread:.1e}, so the generator "
        "learns nothing. If completions are equal too, raise temperature or num_generations; if they differ, the "
        "discriminator rewards them alike: see its accuracy, or try discriminator_reward='logit', which does not "
        "flatten out."
    )


def length_runaway(mean: Means, start: Means, thresholds: Thresholds) -> str | None:
    """Tell completions of quite another length than that of real texts."""
    ratio = mean.get(LENGTH_RATIO, 1.0)
    if abs(ratio - 1) <= thresholds.length_tolerance:
        return None
    return (
        f"completions have {ratio:.2f} times the length of real texts, so the discriminator need not read them. "
        "Set real_text_coef=0.1; if they are cut off, raise max_completion_length; if it is so from the first step "
        "on, fine-tune the generator on the real texts first (SFT)."
    )


def length_hacking(mean: Means, start: Means, thresholds: Thresholds) -> str | None:
    """Tell a reward for length that completions follow, away from the length of real texts."""
    correlation, ratio = mean.get(LENGTH_CORRELATION, 0.0), mean.get(LENGTH_RATIO, 1.0)
    if abs(correlation) <= thresholds.length_correlation or ratio <= 0:
        return None
    # Distance from the length of real texts, in the direction that is rewarded.
    distance = math.copysign(1.0, correlation) * math.log(ratio)
    before = abs(math.log(max(start.get(LENGTH_RATIO, 1.0), 1e-9)))
    if distance <= before + math.log(1.1):
        return None
    longer = "longer" if correlation > 0 else "shorter"
    return (
        f"rewards go along with length (correlation {correlation:.2f}), and completions have got {longer}, to "
        f"{ratio:.2f} times the length of real texts: the reward is hacked through length. Set real_text_coef=0.1, or "
        "lower learning_rate so that the discriminator keeps up."
    )


def reward_hacking(mean: Means, start: Means, thresholds: Thresholds) -> str | None:
    """Tell a reward of the user's that rises while completions become easier to tell from real text."""
    before, now = start.get(ACCURACY), mean.get(ACCURACY)
    if before is None or now is None or now - before <= thresholds.hacking_accuracy:
        return None
    risen = []
    for metric in sorted(mean):
        name = metric.removeprefix("rewards/").removesuffix("/mean")
        if metric != f"rewards/{name}/mean" or metric not in start:
            continue
        rise = mean[metric] - start[metric]
        if rise > 0.5 * start.get(f"rewards/{name}/std", 0.0):
            risen.append(f"{name} has risen from {start[metric]:.3g} to {mean[metric]:.3g}")
    if not risen:
        return None
    return (
        f"{', '.join(risen)}, and the discriminator tells completions from real text with an accuracy of {now:.3f}, "
        f"{before:.3f} at the start: the reward is hacked, by text that nobody would write. Raise "
        "discriminator_weight or lower the weight of that reward in reward_weights; give as real_dataset the real "
        "texts that the reward likes; lower learning_rate so that the discriminator keeps up."
    )


def unsafe(metrics: dict[str, Any], limit: float) -> str | None:
    """Tell a share of unsafe completions above a limit."""
    rate = max(metrics.get(name) or 0.0 for name in UNSAFE_RATES)
    if rate <= limit:
        return None
    return (
        f"{rate:.1%} of the completions are unsafe, more than unsafe_limit={limit:.1%}. Raise the "
        "margin of the SafetyGate, look for unsafe texts among the real ones, or go back to an earlier checkpoint."
    )


def non_finite(metrics: dict[str, Any]) -> str | None:
    """Tell metrics that are not finite; so are those that are missing beside an accuracy.

    Samples are measured, not computed with: what is nan there says that texts are too much alike, and no more.
    """
    numbers = {
        name: value
        for name, value in metrics.items()
        if isinstance(value, float) and not name.startswith(SAMPLES_PREFIX)
    }
    bad = {name: str(value) for name, value in numbers.items() if not math.isfinite(value)}
    if ACCURACY in metrics:
        bad |= {name: "nan" for name in LOGGED_WITH_THE_ACCURACY if metrics.get(name) is None}
    if not bad:
        return None
    causes = []
    if any(name.startswith(("discriminator/", "rewards/discriminator/")) for name in bad):
        causes.append("lower discriminator_learning_rate")
    further = sorted({name.split("/")[1] for name in bad if name.startswith("rewards/")} - {"discriminator"})
    causes += [f"check the reward function {name}" for name in further]
    causes.append("lower learning_rate or max_grad_norm")
    return (
        f"{', '.join(f'{name} is {value}' for name, value in bad.items())}. Go back to the last checkpoint before, "
        f"and {', or '.join(causes)}; in half precision try bf16 or float32."
    )


FAILURE_MODES: dict[str, Callable[[Means, Means, Thresholds], str | None]] = {
    "discriminator_saturated": discriminator_saturated,
    "discriminator_uninformative": discriminator_uninformative,
    "generator_collapsed": generator_collapsed,
    "no_reward_variance": no_reward_variance,
    "length_runaway": length_runaway,
    "length_hacking": length_hacking,
    "reward_hacking": reward_hacking,
}
