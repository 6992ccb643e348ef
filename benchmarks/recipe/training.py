"""One run of `benchmarks.recipe` under one condition, and what is measured on it.

In: a condition, a seed and the initial models of that seed. Out: a dict of plain values. Nothing is saved.
"""

import tempfile
import time
from dataclasses import fields, replace
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
)
from transformers.trainer_callback import PrinterCallback

from hf_mgan import AdversarialConfig, AdversarialTrainer
from hf_mgan.demo.exact_metrics import BATCH_SIZE, sample_sentences
from hf_mgan.demo.language import Language
from hf_mgan.demo.models import adapters
from hf_mgan.demo.parts import adversarial_config
from hf_mgan.demo.run import DemoArguments
from hf_mgan.metrics import sequence_logps
from hf_mgan.objectives import REWARDS

from ..sweep.stopwatch import Stopwatch
from ..warmup import after_warmup, freeze
from .conditions import Condition
from .initial_models import RealSentences
from .metrics import against_perfect


DISCRIMINATOR_SAMPLES = 4000
# Of the sentences on which discriminators are measured; the demo's own are 2 * seed and 2 * seed + 1.
HELD_OUT_SEED = 1_000_000


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
        """Return one reward per completion, given as tokens with the end where there is one."""
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


class DiscriminatorComparison:
    """Compares the discriminator of a running training with the perfect one, on held-out sentences of both sides.

    Args:
        trainer ([`AdversarialTrainer`]): The trainer.
        reals ([`~recipe.initial_models.RealSentences`]): What it is trained on.
        seed (`int`): Seed of the sentences.
        count (`int`): Sentences per side.

    Attributes:
        seen (`list[str]`): The real sentences that the discriminator was trained on.
    """

    def __init__(self, trainer: AdversarialTrainer, reals: RealSentences, seed: int, count: int) -> None:
        self.trainer, self.reals, self.seed, self.count = trainer, reals, seed, count
        self.real = [" ".join(words) for words in reals.language.sample(count, HELD_OUT_SEED + seed)]
        self.seen: list[str] = []
        update = trainer.discriminator.update

        def recorded(prompts: Any, completions: Any, references: list[str], *args: Any, **kwargs: Any) -> Any:
            self.seen += references
            return update(prompts, completions, references, *args, **kwargs)

        trainer.discriminator.update = recorded  # type: ignore[method-assign]

    def __call__(self) -> dict[str, Any]:
        """Return [`~recipe.metrics.against_perfect`] and how much better D knows the real sentences it has seen.

        `overfit` is the share of those that it takes for real, less the same share of held-out ones.
        """
        model, tokenizer = self.trainer.model, self.reals.tokenizer
        training = model.training
        ids, _ = sample_sentences(model, tokenizer, self.count, 1.0, HELD_OUT_SEED + self.seed)
        fake = tokenizer.batch_decode(ids, skip_special_tokens=True)  # as the trainer shows it
        real_ids = tokenizer(self.real, add_special_tokens=False)["input_ids"]
        real_ids = [[*row, tokenizer.eos_token_id] for row in real_ids]
        fake_ratios, real_ratios = (
            log_ratios(model, self.reals.language, tokenizer, rows) for rows in (ids, real_ids)
        )
        real_logits = self.logits(self.real)
        result: dict[str, Any] = against_perfect(real_logits, self.logits(fake), real_ratios, fake_ratios)
        model.train(training)
        order = torch.randperm(len(self.seen), generator=torch.Generator().manual_seed(self.seed))
        seen = [self.seen[place] for place in order[: self.count].tolist()]
        if seen:
            shares = [(logits > 0).double().mean().item() for logits in (self.logits(seen), real_logits)]
            result["overfit"] = shares[0] - shares[1]
        return {**result, "updates": self.trainer.discriminator.num_updates}

    def logits(self, texts: list[str]) -> Tensor:
        """Return the discriminator's logits, shape `(B,)`."""
        chunks = [texts[start : start + BATCH_SIZE] for start in range(0, len(texts), BATCH_SIZE)]
        return torch.cat([self.trainer.discriminator.score([""] * len(chunk), chunk) for chunk in chunks])


def config_of(condition: Condition, sizes: DemoArguments, folder: str, seed: int) -> AdversarialConfig:
    """Return the demo's settings with the condition's, checked as a user's are."""
    config = adversarial_config(sizes, Path(folder), seed)
    # TRL fills in one of these two from the other, and refuses both.
    return replace(config, generation_batch_size=None, **condition.config)


def trainer_of(condition: Condition, config: AdversarialConfig, **arguments: Any) -> AdversarialTrainer:
    """Make the trainer that the condition asks for."""
    if not condition.token_credit:
        return AdversarialTrainer(args=config, **arguments)
    from hf_mgan.experimental.token_credit import TokenCreditConfig, TokenCreditTrainer

    settings = {one.name: getattr(config, one.name) for one in fields(config) if one.init}
    return TokenCreditTrainer(args=TokenCreditConfig(**settings | {"generation_batch_size": None}), **arguments)


def discriminator_of(condition: Condition, models: Path, seed: int) -> dict[str, Any]:
    """Return the trainer's arguments for the discriminator that the condition starts with."""
    if condition.discriminator != "fresh":
        return {"discriminator": str(models / condition.discriminator)}
    torch.manual_seed(seed)
    config = AutoConfig.from_pretrained(models / "encoder", num_labels=1)
    return {
        "discriminator": BertForSequenceClassification(config),
        "discriminator_processing_class": AutoTokenizer.from_pretrained(models / "encoder"),
    }


def train(condition: Condition, sizes: DemoArguments, seed: int, models: Path) -> dict[str, Any]:
    """Train under a condition and measure both models.

    Args:
        condition ([`Condition`]): What is different from the demo's.
        sizes ([`DemoArguments`]): Sizes.
        seed (`int`): The seed.
        models (`Path`): Folder of the initial models of this seed.

    Returns:
        `dict`: `generator`, `discriminator` at the end of the warm-up and of training, and `seconds`.
    """
    stopwatch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder, stopwatch.part("all"):
        reals = RealSentences(sizes, seed)
        rewards = []
        if condition.perfect is not None:
            rewards = [PerfectReward(reals.language, reals.tokenizer, condition.perfect, condition.clip)]
        trainer = trainer_of(
            condition,
            config_of(condition, sizes, folder, seed),
            model=str(models / "maximum_likelihood"),
            reward_funcs=list(rewards),
            train_dataset=Dataset.from_dict({"text": reals.sentences[: condition.sentences]}),
            peft_config=adapters(),
            **discriminator_of(condition, models, seed),
        )
        trainer.remove_callback(PrinterCallback)
        for reward in rewards:
            reward.model = trainer.model
        compared: dict[str, Any] = {}

        def at_end_of_warmup() -> None:
            stopwatch.seconds["warm-up"] = time.process_time() - began
            with stopwatch.part("comparison"):
                compared["after_warmup"] = compare()
            if condition.frozen:
                freeze(trainer)

        count = min(DISCRIMINATOR_SAMPLES, sizes.samples)
        compare = DiscriminatorComparison(trainer, reals, seed, count)
        after_warmup(trainer, at_end_of_warmup)
        began = time.process_time()
        with stopwatch.part("training"):
            trainer.train()
        for inner in ("warm-up", "comparison"):
            stopwatch.seconds["training"] -= stopwatch.seconds.get(inner, 0.0)
        with stopwatch.part("comparison"):
            compared["after_training"] = compare()
        with stopwatch.part("measurement"):
            quality = reals.measure(trainer.model)
    return {"generator": reals.metrics(quality), "discriminator": compared, "seconds": stopwatch.seconds}
