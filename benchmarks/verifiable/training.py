"""One run of `benchmarks.verifiable`: a way to raise a reward, and what is measured on it.

In: a condition, a reward, a seed and the initial models of that seed. Out: a dict of plain values. Nothing is saved.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import GPTNeoForCausalLM, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from hf_mgan import AdversarialTrainer, Discriminator, Watchdog
from hf_mgan.decoding import DecodingConfig, guided_sample
from hf_mgan.demo.exact_metrics import BATCH_SIZE, ExactMetrics, sample_sentences
from hf_mgan.demo.guidance import HELD_OUT, HELD_OUT_SEED, dataset_of, held_out_sentences
from hf_mgan.demo.language import Language
from hf_mgan.demo.models import MAX_TOKENS, adapters, make_tokenizer, train_generator
from hf_mgan.demo.parts import adversarial_config
from hf_mgan.demo.run import DemoArguments
from hf_mgan.metrics import jensen_shannon, sequence_logps
from hf_mgan.training.final_updates import fit_discriminator

from ..recipe.conditions import CLIP
from ..recipe.training import PerfectReward
from .conditions import CONDITIONS, LONGER, ROUNDS, THRESHOLDS, Condition
from .target import Reward, Target


TEMPERATURES = (0.7, 0.8, 0.9, 1.0)
LEVEL, MULTIPLIER_RATE = 0.9, 0.05  # of the constraint: mean reward asked for, as a share of the highest; and its pace
GUIDING_UPDATES = 5  # times the demo's, of the discriminator at generation
TAUGHT_AT = 1.0  # threshold of the sentences that imitation learns from
MOST_TRIES = 400  # candidates per sentence that imitation learns from
PROMPT = "<s>"
TARGET_SEED = 3_000_000  # of sentences of the target to learn from


def total_by_product(rewards: Tensor, reward: Reward) -> Tensor:
    """Return the discriminator's reward, of shape `(B,)`, paid as far as the verifiable one is met."""
    return rewards[:, -1] * (rewards[:, 0] / reward.highest).clamp(0, 1)


class Constraint:
    """The discriminator's reward, and the verifiable one times a multiplier that rises while too little is met."""

    def __init__(self) -> None:
        self.multiplier = 0.0

    def __call__(self, rewards: Tensor, reward: Reward) -> Tensor:
        """Return the rewards of shape `(B,)`, and move the multiplier."""
        met = rewards[:, 0] / reward.highest
        total = rewards[:, -1] + self.multiplier * met
        self.multiplier = max(0.0, self.multiplier + MULTIPLIER_RATE * (LEVEL - met.mean().item()))
        return total


COMBINATIONS: dict[str, Callable[[], Any]] = {
    "sum": lambda: None,  # as TRL does
    "product": lambda: total_by_product,
    "constraint": Constraint,
}
"""From rewards of shape `(B, 2)`, the verifiable one first, to one of each completion."""


class CombiningTrainer(AdversarialTrainer):
    """Combines the verifiable reward and the discriminator's in another way than by a weighted sum."""

    combination: Any = None
    reward: Reward

    def _calculate_rewards(self, *arguments: Any, **further: Any) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(*arguments, **further)
        if self.combination is None:
            return rewards
        total = self.combination(rewards, self.reward)
        # TRL adds the columns, each times its weight. All of it stands in the last one; the verifiable reward, whose
        # weight is 0, is there to be logged, and for the watchdog to read.
        return torch.stack([rewards[:, 0], total / self.reward_weights[-1]], 1)


class RewardFunction:
    """The verifiable reward as TRL calls it."""

    def __init__(self, reward: Reward) -> None:
        self._reward, self.__name__ = reward, reward.name

    def __call__(self, completions: list[str], **_: Any) -> list[float]:
        """Return the reward of each completion."""
        return [self._reward.value(text.split()) for text in completions]


class Measurement:
    """What is measured on generators and samplers, against the target of a reward.

    Args:
        sizes ([`DemoArguments`]): Sizes.
        seed (`int`): The seed.
        reward ([`Reward`]): The reward.

    Attributes:
        sentences (`list[str]`): Real sentences to learn from.
        rewarded (`list[str]`): Those of them that the reward likes, as if drawn from the target.
    """

    def __init__(self, sizes: DemoArguments, seed: int, reward: Reward) -> None:
        self.language, self.reward, self.seed, self.sizes = Language(), reward, seed, sizes
        self.sentences = [" ".join(words) for words in self.language.sample(sizes.sentences, 2 * seed)]
        words = [text.split() for text in self.sentences]
        self.rewarded = [self.sentences[place] for place in reward.kept(words, seed)]
        self.target = Target(self.language, reward, 20 * sizes.samples)
        self.tokenizer = make_tokenizer(self.language.words, adds_ends=False)
        self.unseen = self.target.sample(sizes.samples, 2 * seed + 1)
        self.metrics = ExactMetrics(self.target, self.tokenizer, self.unseen, seed)  # type: ignore[arg-type]

    def __call__(self, model: Any) -> list[dict[str, float]]:
        """Measure a generator at the temperature of the least divergence; one row, as `guided` returns them."""
        quality = self.metrics.best(model, TEMPERATURES)[0]
        coldest = self._at(model, min(TEMPERATURES))["both"]
        return [{**asdict(quality), **self._at(model, quality.temperature), "draws": 1.0, "both_coldest": coldest}]

    def _at(self, model: Any, temperature: float) -> dict[str, float]:
        # The sentences that the metrics have drawn.
        _, words = sample_sentences(model, self.tokenizer, len(self.unseen), temperature, self.seed)
        return self._rewarded(words, torch.full((len(words),), 1 / len(words), dtype=torch.float64))

    def guided(
        self, model: Any, discriminator: Discriminator | None, thresholds: Sequence[float], filters: bool = True
    ) -> list[dict[str, float]]:
        """Measure a generator with a filter on the reward, and with its discriminator behind it, sampled by rejection.

        The filter keeps a sentence with the probability that the target's weight asks for: all that is rewarded where
        the reward is one or nothing. Kept sentences stand for themselves with their weights, as in
        [`~demo.exact_metrics.ExactMetrics.guided`].

        Args:
            model: The generator.
            discriminator ([`Discriminator`], *optional*): Without one only the filter decides.
            thresholds (`Sequence[float]`): c of rejection, in nats.
            filters (`bool`, *optional*, defaults to `True`): Whether there is a filter. A discriminator of the target
                asks for the reward already, so one that is no yes or no would count twice.
        """
        count = len(self.unseen)
        ids, words = sample_sentences(model, self.tokenizer, count, 1.0, self.seed)
        start = [[self.tokenizer.bos_token_id]] * count
        real, fake = (
            sequence_logps(model, start, rows, 1.0, BATCH_SIZE).double() for rows in (self.metrics.real_ids, ids)
        )
        truth = self.target.logps(words)
        sides = self.unseen, words
        free = torch.zeros(count, dtype=torch.float64)
        filtered = [self.reward.log_weights(side) if filters else free for side in sides]
        ratios = [self._log_ratios(discriminator, side) for side in sides]
        found = []
        for threshold in thresholds:
            of_real, of_fake = (
                weight + (ratio - threshold).clamp(max=0) for weight, ratio in zip(filtered, ratios, strict=True)
            )
            accepted = of_fake.exp()
            share = accepted.mean()
            weights = accepted / accepted.sum()
            logps, real_logps = fake + of_fake - share.log(), real + of_real - share.log()
            divergence, error = jensen_shannon(self.metrics.real_logps, real_logps, truth, logps, accepted)
            entropy = -(weights * logps.where(accepted > 0, 0)).sum().item()
            found.append(
                {
                    "threshold": threshold,
                    "draws": 1 / share.item(),
                    "divergence": divergence,
                    "standard_error": error,
                    "entropy": entropy,
                    **self._rewarded(words, weights),
                }
            )
        return found

    def _rewarded(self, words: list[list[str]], weights: Tensor) -> dict[str, float]:
        """Return the mean reward, the share of grammatical sentences, and the mean reward of what is grammatical."""
        values, is_grammatical = self.reward.of(words), self.language.logps(words).isfinite()
        return {
            "reward": (weights * values).sum().item(),
            "grammatical": (weights * is_grammatical).sum().item(),
            "both": (weights * values * is_grammatical).sum().item(),
        }

    @staticmethod
    def _log_ratios(discriminator: Discriminator | None, sentences: list[list[str]]) -> Tensor:
        ratios = torch.full((len(sentences),), math.inf, dtype=torch.float64)  # accepted, whatever c
        if discriminator is None:
            return ratios
        for start in range(0, len(sentences), BATCH_SIZE):
            texts = [" ".join(words) for words in sentences[start : start + BATCH_SIZE]]
            ratios[start : start + BATCH_SIZE] = discriminator.log_ratio([""] * len(texts), texts).double()
        return ratios


def run(condition: Condition, reward: Reward, sizes: DemoArguments, seed: int, models: Path) -> dict[str, Any]:
    """Raise the reward under a condition and measure what comes of it."""
    measurement = Measurement(sizes, seed, reward)
    with tempfile.TemporaryDirectory() as folder:
        if condition.name in BEYOND_RL:
            return BEYOND_RL[condition.name](Parts(measurement, models, Path(folder)))
        trainer = _trainer(condition, measurement, models, Path(folder))
        trainer.train()
        return {"rows": {"": measurement(trainer.model)}, "alarms": alarms_of(trainer)}


def alarms_of(trainer: GRPOTrainer) -> list[list[Any]]:
    """Return step and name of each alarm of the watchdog, if there was one."""
    watchdogs = [one for one in trainer.callback_handler.callbacks if isinstance(one, Watchdog)]
    return [[alarm.step, alarm.name] for watchdog in watchdogs for alarm in watchdog.alarms]


def _trainer(
    condition: Condition, measurement: Measurement, models: Path, folder: Path, start: Path | None = None
) -> GRPOTrainer:
    sizes, reward = measurement.sizes, measurement.reward
    config = adversarial_config(sizes, folder, measurement.seed)
    steps = condition.times * sizes.steps
    given: dict[str, Any] = {"generation_batch_size": None, "max_steps": steps, **condition.config}
    pays: Any = RewardFunction(reward)
    if condition.perfect:
        pays = PerfectReward(measurement.target, measurement.tokenizer, "minimax", CLIP)  # type: ignore[arg-type]
    shared: dict[str, Any] = {
        "model": str(start or models / "maximum_likelihood"),
        "reward_funcs": [pays],
        "peft_config": adapters(),
    }
    if not condition.discriminator:
        names = {one.name for one in fields(GRPOConfig) if one.init}
        settings = {name: getattr(config, name) for name in names} | given
        prompts = Dataset.from_dict({"prompt": [PROMPT] * sizes.batch_size})
        alone = GRPOTrainer(args=GRPOConfig(**settings), train_dataset=prompts, **shared)
        alone.remove_callback(PrinterCallback)
        if condition.perfect:
            pays.model = alone.model  # whose density it knows
        return alone
    weight = condition.weight if condition.combined == "sum" else 0.0  # where the discriminator's column has it all
    config = replace(config, reward_weights=[weight], **given)
    real = measurement.rewarded if condition.rewarded else measurement.sentences
    trainer = CombiningTrainer(
        args=config, train_dataset=dataset_of(real), discriminator=str(models / "encoder"), **shared
    )
    trainer.combination, trainer.reward = COMBINATIONS[condition.combined](), reward
    trainer.remove_callback(PrinterCallback)
    return trainer


class Parts:
    """What the ways of training and decoding beyond reinforcement learning are made of.

    Args:
        measurement ([`Measurement`]): Sizes, reward and seed.
        models (`Path`): The initial models of the seed.
        folder (`Path`): For what is made on the way.

    Attributes:
        alarms (`list[list]`): Step and name of each alarm of the watchdog in adversarial training.
    """

    def __init__(self, measurement: Measurement, models: Path, folder: Path) -> None:
        self.measurement, self.models, self.folder = measurement, models, folder
        self.alarms: list[list[Any]] = []
        self.config = adversarial_config(measurement.sizes, folder, measurement.seed)

    def maximum_likelihood(self) -> Any:
        """Load the generator that all begin with."""
        return GPTNeoForCausalLM.from_pretrained(self.models / "maximum_likelihood")

    def guide(self, generator: Any, of_target: bool) -> Discriminator:
        """Train and calibrate a discriminator, of the language or of the target, against a generator."""
        measurement = self.measurement
        if of_target:
            real = measurement.rewarded
            words = measurement.target.sample(HELD_OUT, HELD_OUT_SEED + measurement.seed)
            held_out = dataset_of([" ".join(sentence) for sentence in words])
        else:
            real = measurement.sentences
            held_out = held_out_sentences(measurement.language, measurement.seed)
        discriminator = Discriminator.from_pretrained(self.models / "encoder")
        given = generator, measurement.tokenizer, discriminator, dataset_of(real), held_out, self.config
        fit_discriminator(*given, GUIDING_UPDATES * measurement.sizes.final_steps)
        return discriminator

    def supervised(self, texts: list[str], start: Any, name: str, steps: int) -> Any:
        """Train a generator on texts."""
        measurement = self.measurement
        return train_generator(
            texts,
            measurement.tokenizer,
            self.folder / name,
            steps,
            measurement.sizes.batch_size,
            measurement.seed,
            TrainerCallback(),
            start=start,
            learning_rate=5e-3,
        )

    def supervised_on_rewarded(self) -> Any:
        """Train the generator that all begin with on the real texts that the reward likes."""
        measurement = self.measurement
        given = measurement.rewarded, self.maximum_likelihood(), "supervised", measurement.sizes.likelihood_steps
        return self.supervised(*given)

    def adversarial(self, model: Any, name: str, times: int = 1, condition: str = "real_0") -> Any:
        """Train as a condition does, by default against a D of rewarded real texts, for times the demo's steps."""
        start = self.folder / name
        for part in (model, self.measurement.tokenizer):
            part.save_pretrained(start)
        longer = replace(CONDITIONS[condition], times=times)
        trainer = _trainer(longer, self.measurement, self.models, self.folder / f"{name}_adversarial", start)
        trainer.train()
        self.alarms += alarms_of(trainer)
        return trainer.model

    def accepted(self, model: Any, discriminator: Discriminator, filters: bool) -> tuple[list[str], float]:
        """Return sentences of the guided sampler, filtered or not, and how many candidates were drawn for them."""
        measurement = self.measurement
        config = DecodingConfig(
            threshold=TAUGHT_AT,
            num_candidates=MOST_TRIES,
            max_new_tokens=MAX_TOKENS,
            batch_size=BATCH_SIZE,
            seed=measurement.seed + 1,
        )
        chance = torch.Generator().manual_seed(measurement.seed)

        def keeps(_: list[str], texts: list[str]) -> Tensor:
            uniforms = torch.rand(len(texts), generator=chance, dtype=torch.float64)
            return uniforms.log() < measurement.reward.log_weights([text.split() for text in texts])

        tokenizer = measurement.tokenizer
        prompts = [[tokenizer.bos_token_id]] * (measurement.sizes.sentences // 8)
        found = guided_sample(model, tokenizer, discriminator, prompts, config, keeps if filters else None)
        return [text for text in found.texts if text], float(sum(found.tries))


def _supervise(parts: Parts) -> dict[str, Any]:
    """Train on the real texts that the reward likes, then against a discriminator or with one at generation."""
    measurement, model = parts.measurement, parts.supervised_on_rewarded()
    filters = not measurement.reward.temperature
    guided = "filter + D" if filters else "D of the target"
    made = {
        "supervised on rewarded real texts": measurement(model),
        "supervised, then D on rewarded real texts": measurement(parts.adversarial(model, "start")),
        f"supervised, {guided}": measurement.guided(model, parts.guide(model, True), THRESHOLDS, filters),
    }
    return {"rows": made, "alarms": parts.alarms}


def _train_longer(parts: Parts) -> dict[str, Any]:
    """The second of these ways, with more steps."""
    model = parts.adversarial(parts.supervised_on_rewarded(), "start", LONGER)
    title = f"supervised, then D on rewarded real texts, {LONGER} times the steps"
    return {"rows": {title: parts.measurement(model)}, "alarms": parts.alarms}


def _train_perfectly(parts: Parts) -> dict[str, Any]:
    """What this generator could reach: with texts of the target without end, or its perfect discriminator."""
    measurement, model = parts.measurement, parts.supervised_on_rewarded()
    seed = TARGET_SEED + measurement.seed
    texts = [" ".join(words) for words in measurement.target.sample(measurement.sizes.sentences, seed)]
    start, steps = parts.maximum_likelihood(), measurement.sizes.likelihood_steps
    title = f"supervised on {len(texts):,} texts of the target"
    made = {title: measurement(parts.supervised(texts, start, "unlimited", steps))}
    for times, title in ((1, ""), (LONGER, f", {LONGER} times the steps")):
        trained = parts.adversarial(model, f"start_{times}", times, "perfect")
        made[f"supervised, then a perfect D of the target{title}"] = measurement(trained)
    return {"rows": made}


def _decode(parts: Parts) -> dict[str, Any]:
    """Filter and guide maximum likelihood, imitate that in rounds of a new discriminator, and go on from there."""
    measurement, model = parts.measurement, parts.maximum_likelihood()
    discriminator = parts.guide(model, of_target=False)
    made = {
        "maximum likelihood": measurement(model),
        "filter": measurement.guided(model, None, (0.0,)),
        "filter + D": measurement.guided(model, discriminator, THRESHOLDS),
    }
    drawn = []
    for number in range(1, ROUNDS + 1):
        filters = number == 1 or not measurement.reward.temperature
        texts, cost = parts.accepted(model, discriminator, filters)
        drawn.append(cost)
        model = parts.supervised(texts, model, f"round_{number}", measurement.sizes.likelihood_steps // 2)
        made[f"imitation, round {number}"] = measurement(model)
        if number < ROUNDS:  # from now on the target itself is what is imitated
            discriminator = parts.guide(model, of_target=True)
    made["imitation, then D on rewarded real texts"] = measurement(parts.adversarial(model, "imitation"))
    return {"rows": made, "sentences_drawn": drawn, "alarms": parts.alarms}


BEYOND_RL = {
    "supervised": _supervise,
    "supervised_longer": _train_longer,
    "supervised_perfect": _train_perfectly,
    "decoding": _decode,
}
