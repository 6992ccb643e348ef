"""One game of `benchmarks.recipe` under one condition, and what is measured on it.

In: a condition, a seed and the players of that seed. Out: a dict of plain values. Nothing is saved.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from hf_mgan import AdversarialConfig, AdversarialTrainer
from hf_mgan.demo.exact_metrics import BATCH_SIZE, ExactMetrics, generate
from hf_mgan.demo.language import Language
from hf_mgan.demo.models import adapters
from hf_mgan.demo.run import FIGURES, WINDOW, DemoArguments, adversarial_config
from hf_mgan.metrics.completion_likelihood import log_density_drop, sequence_logps
from hf_mgan.objectives import REWARDS

from .recipe_conditions import Condition
from .recipe_measures import against_perfect
from .recipe_players import Reals, Stopwatch


CURVE_POINTS = 5
CURVE_SAMPLES = 2000
DISCRIMINATOR_SAMPLES = 4000
# Of the sentences on which discriminators are measured; the demo's own are 2 * seed and 2 * seed + 1.
FRESH_SEED = 1_000_000


class PerfectReward:
    """A reward made of both true densities: the shape of the clipped log-ratio log p(x) - log q(x).

    Args:
        language ([`Language`]): The language, p.
        tokenizer (`PreTrainedTokenizerBase`): The generator's.
        shape (`str`): A key of [`~objectives.REWARDS`].
        clip (`float`): Bound of the log-ratio in nats, on both sides.

    Attributes:
        model (`PreTrainedModel`, *optional*): The generator, q, at temperature 1; to be set before the first call.
    """

    __name__ = "perfect"  # of the metric

    def __init__(self, language: Language, tokenizer: PreTrainedTokenizerBase, shape: str, clip: float) -> None:
        self.language, self.tokenizer, self.shape, self.clip = language, tokenizer, REWARDS[shape], clip
        self.model: PreTrainedModel | None = None

    def __call__(self, completion_ids: list[list[int]], **_: Any) -> list[float]:
        """Return one reward a completion, given as tokens with the end where there is one."""
        assert self.model is not None
        ratios = log_ratios(self.model, self.language, self.tokenizer, completion_ids)
        return self.shape(ratios.clamp(-self.clip, self.clip)).tolist()


def log_ratios(
    model: Any, language: Language, tokenizer: PreTrainedTokenizerBase, completion_ids: list[list[int]]
) -> Tensor:
    """Compute log p(x) - log q(x), -inf for what is no sentence of the language or is cut before its end.

    Args:
        model (`PreTrainedModel` or `PeftModel`): The generator, q, at temperature 1.
        language ([`Language`]): The language, p.
        tokenizer (`PreTrainedTokenizerBase`): The generator's.
        completion_ids (`list[list[int]]` of length B): Tokens, with the end where there is one.

    Returns:
        `Tensor` of shape `(B,)`: In nats, float64.
    """
    end = tokenizer.eos_token_id
    words = [text.split() for text in tokenizer.batch_decode([[i for i in row if i != end] for row in completion_ids])]
    start = [[tokenizer.bos_token_id]] * len(completion_ids)
    true = language.logps(words)
    whole = torch.tensor([row[-1] == end for row in completion_ids])
    return true.masked_fill(~whole, float("-inf")) - sequence_logps(model, start, completion_ids, 1.0, BATCH_SIZE)


class RecipeTrainer(AdversarialTrainer):
    """The trainer with one more moment at which something can be done: the end of the discriminator's warm-up.

    Attributes:
        after_warmup (`Callable`): Called then.
    """

    after_warmup: Callable[[], None]

    def _warm_up(self, *args: Any, **kwargs: Any) -> None:
        super()._warm_up(*args, **kwargs)
        self.after_warmup()


class Curve(TrainerCallback):
    """Measures the divergence of the generator five times during a game.

    Attributes:
        points (`list[tuple[int, float]]`): Step and divergence in bits.
    """

    def __init__(self, measure: ExactMetrics, stopwatch: Stopwatch) -> None:
        self.measure, self.stopwatch = measure, stopwatch
        self.points: list[tuple[int, float]] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """ExactMetrics if it is time."""
        if state.global_step % max(state.max_steps // CURVE_POINTS, 1) == 0:
            with self.stopwatch.part("curve"):
                count = min(CURVE_SAMPLES, len(self.measure.real_ids))
                self.points.append((state.global_step, self.measure(kwargs["model"], count=count).divergence))


class Judge:
    """Compares the discriminator of a running game with the perfect one, on fresh sentences of both sides.

    Args:
        trainer ([`AdversarialTrainer`]): The game.
        reals ([`~recipe_players.Reals`]): What the game is played with.
        seed (`int`): Seed of the sentences.
        count (`int`): Sentences of either side.

    Attributes:
        seen (`list[str]`): The real sentences that the discriminator has met.
        reverse_kl (`float`): Of the last call: KL(q, p) in nats, with q the generator without its ungrammatical
            sentences.
    """

    def __init__(self, trainer: AdversarialTrainer, reals: Reals, seed: int, count: int) -> None:
        self.trainer, self.reals, self.seed, self.count = trainer, reals, seed, count
        self.real = [" ".join(words) for words in reals.language.sample(count, FRESH_SEED + seed)]
        self.seen: list[str] = []
        self.reverse_kl = float("nan")
        draw = trainer._real_texts.draw

        def recorded(*args: Any, **kwargs: Any) -> tuple[list[str], list[str]]:
            texts, prompts = draw(*args, **kwargs)
            self.seen += texts
            return texts, prompts

        trainer._real_texts.draw = recorded  # type: ignore[method-assign]

    def __call__(self) -> dict[str, Any]:
        """Return [`~recipe_measures.against_perfect`] and how much better D knows the real sentences it has seen.

        `overfit` is the share of those that it takes for real, less the same share of fresh ones.
        """
        model, tokenizer = self.trainer.model, self.reals.tokenizer
        training = model.training
        ids, _ = generate(model, tokenizer, self.count, 1.0, FRESH_SEED + self.seed)
        fake = tokenizer.batch_decode(ids, skip_special_tokens=True)  # as the trainer shows it
        fake_ratios, real_ratios = (
            log_ratios(model, self.reals.language, tokenizer, rows) for rows in (ids, self.ids_of(self.real))
        )
        result = against_perfect(
            self.logits(self.real, self.ids_of(self.real)), self.logits(fake, ids), real_ratios, fake_ratios
        )
        model.train(training)
        grammatical = fake_ratios[fake_ratios.isfinite()]
        self.reverse_kl = (-grammatical.mean() - torch.tensor(len(grammatical) / self.count).log()).item()
        order = torch.randperm(len(self.seen), generator=torch.Generator().manual_seed(self.seed))
        seen = [self.seen[place] for place in order[: self.count].tolist()]
        if seen:
            fresh_share, seen_share = (
                (self.logits(texts, self.ids_of(texts)) > 0).double().mean().item() for texts in (self.real, seen)
            )
            result["overfit"] = seen_share - fresh_share
        return {**result, "updates": self.trainer.discriminator.num_updates}

    def ids_of(self, texts: list[str]) -> list[list[int]]:
        """Return the generator's tokens of real sentences, with the end."""
        rows = self.reals.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [[*row, self.reals.tokenizer.eos_token_id] for row in rows]

    def logits(self, texts: list[str], ids: list[list[int]]) -> Tensor:
        """Return the discriminator's logits, with the density offset where the game has it; shape `(B,)`."""
        parts = []
        for start in range(0, len(texts), BATCH_SIZE):
            chunk = texts[start : start + BATCH_SIZE]
            parts.append(self.trainer.discriminator.score([""] * len(chunk), chunk))
        logits = torch.cat(parts)
        if self.trainer.args.discriminator_density_offset:
            prompts = [[self.reals.tokenizer.bos_token_id]] * len(ids)
            logits = logits + log_density_drop(self.trainer.model, prompts, ids, batch_size=BATCH_SIZE)
        return logits


def config_of(condition: Condition, sizes: DemoArguments, folder: str, seed: int) -> AdversarialConfig:
    """Return the demo's settings with the condition's, checked as a user's are."""
    config = adversarial_config(sizes, Path(folder), seed)
    # TRL fills in one of these two from the other, and refuses both.
    return replace(config, generation_batch_size=None, **condition.config)


def discriminator_of(condition: Condition, players: Path, seed: int) -> dict[str, Any]:
    """Return the trainer's arguments for the discriminator that the condition starts with."""
    if condition.discriminator != "fresh":
        return {"discriminator": str(players / condition.discriminator)}
    torch.manual_seed(seed)
    config = AutoConfig.from_pretrained(players / "encoder", num_labels=1)
    return {
        "discriminator": BertForSequenceClassification(config),
        "discriminator_processing_class": AutoTokenizer.from_pretrained(players / "encoder"),
    }


def freeze(trainer: AdversarialTrainer) -> None:
    """Keep the discriminator as it is: its updates go on with a learning rate of 0, which decays no weight either."""
    schedule = trainer.discriminator.lr_scheduler
    schedule.base_lrs = [0.0] * len(schedule.base_lrs)
    for group in schedule.optimizer.param_groups:
        group["lr"] = 0.0


def play(condition: Condition, sizes: DemoArguments, seed: int, players: Path) -> dict[str, Any]:
    """Play a game and measure it.

    Args:
        condition ([`Condition`]): What is different from the demo's.
        sizes ([`DemoArguments`]): Sizes.
        seed (`int`): The seed.
        players (`Path`): Folder of the players of this seed.

    Returns:
        `dict`: `generator`, `discriminator` at the end of the warm-up and of the game, `training`, `curve` and
        `seconds`.
    """
    stopwatch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder, stopwatch.part("all"):
        reals = Reals(sizes, seed)
        curve = Curve(reals.measure, stopwatch)
        rewards = []
        if condition.perfect is not None:
            rewards = [PerfectReward(reals.language, reals.tokenizer, condition.perfect, condition.clip)]
        trainer = RecipeTrainer(
            model=str(players / "maximum_likelihood"),
            reward_funcs=list(rewards),
            args=config_of(condition, sizes, folder, seed),
            train_dataset=Dataset.from_dict({"text": reals.sentences[: condition.sentences]}),
            peft_config=adapters(),
            callbacks=[curve],
            **discriminator_of(condition, players, seed),
        )
        trainer.remove_callback(PrinterCallback)
        for reward in rewards:
            reward.model = trainer.model
        judge = Judge(trainer, reals, seed, min(DISCRIMINATOR_SAMPLES, sizes.samples))
        judged: dict[str, Any] = {}

        def after_warmup() -> None:
            if judged:  # the trainer says so too
                return
            stopwatch.seconds["warm-up"] = time.process_time() - began
            with stopwatch.part("judging"):
                judged["after_warmup"] = judge()
            if condition.frozen:
                freeze(trainer)

        trainer.after_warmup = after_warmup
        began = time.process_time()
        with stopwatch.part("game"):
            if not trainer.args.discriminator_warmup_steps:
                after_warmup()
            trainer.train()
        for inner in ("warm-up", "judging", "curve"):
            stopwatch.seconds["game"] -= stopwatch.seconds.get(inner, 0.0)
        with stopwatch.part("judging"):
            judged["after_game"] = judge()
        with stopwatch.part("measuring"):
            quality = reals.measure(trainer.model)
    return {
        "generator": reals.figures(quality) | {"reverse_kl": judge.reverse_kl},
        "discriminator": judged,
        "training": last_steps(trainer.state.log_history),
        "curve": curve.points,
        "seconds": stopwatch.seconds,
    }


def last_steps(log_history: list[dict[str, float]]) -> dict[str, float]:
    """Return the means of the trainer's figures over the last steps of the game."""
    logged = [entry for entry in log_history if "loss" in entry][-WINDOW:]
    return {name: sum(entry[key] for entry in logged) / len(logged) for name, key in FIGURES.items()}
