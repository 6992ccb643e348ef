"""What the card of a run tells: facts, gathered from its trainer.

In: a trainer. Out: [`RunFacts`], plain values and both models, which [`~training.model_card`] writes down.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..config import AdversarialConfig
from ..data import start_of_sequence
from ..data.prompts import Text, as_prompts, plain_text
from ..discriminator import Discriminator
from ..discriminator.card import source_of
from ..safety import GATE
from .card_metrics import safety_section
from .reward import NAME


SAMPLED = 4  # samples in a card


@dataclass(frozen=True)
class RunFacts:
    """What a card tells of a run.

    Args:
        args ([`AdversarialConfig`]): The settings.
        generator (`PreTrainedModel` or `PeftModel`): The generator.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        discriminator ([`Discriminator`]): The discriminator.
        log (`Sequence[dict]`): The trainer's log.
        steps (`int`): Steps of the generator so far.
        processes (`int`): How many processes have trained.
        prompt (`str` or `list[dict]`): A prompt of the data.
        repo_id (`str`, *optional*): Where both models are pushed to.
        num_rows (`int`, *optional*): Rows of the training set; None for a stream.
        rewards (`Mapping[str, float]`): Weight of each further reward, by its name.
        samples (`Sequence[tuple[str, str]]`): Prompts and completions of the generator, not chosen.
        safety (`str`): The section on safety, "" without a gate.
    """

    args: AdversarialConfig
    generator: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    discriminator: Discriminator
    log: Sequence[dict[str, Any]]
    steps: int
    processes: int
    prompt: Text
    repo_id: str | None = None
    num_rows: int | None = None
    rewards: Mapping[str, float] = field(default_factory=dict)
    samples: Sequence[tuple[str, str]] = ()
    safety: str = ""

    @property
    def name(self) -> str:
        """What the model is called where nobody says it."""
        return (self.repo_id or "").rpartition("/")[2] or Path(self.args.output_dir).resolve().name


def first_samples(
    prompts: Iterable[Text], completions: Iterable[Text], tokenizer: PreTrainedTokenizerBase
) -> list[tuple[str, str]]:
    """Return the first completions of a batch as plain texts, of different prompts where it has several.

    Args:
        prompts (`Iterable[str or list[dict]]`): Its prompts.
        completions (`Iterable[str or list[dict]]`): Its completions.
        tokenizer (`PreTrainedTokenizerBase`): The generator's.

    Returns:
        `list[tuple[str, str]]`: Prompts, "" for the start of a text, and completions.
    """
    rows = list(zip(as_prompts(list(prompts), tokenizer), map(plain_text, completions), strict=True))
    different = list({prompt: (prompt, completion) for prompt, completion in reversed(rows)}.values())[::-1]
    return (different if len(different) > 1 else rows)[:SAMPLED]


def run_facts(trainer: Any) -> RunFacts:
    """Return what a card tells of a run.

    Args:
        trainer ([`AdversarialTrainer`]): Its trainer.
    """
    prompts = list(trainer._logs["prompt"])
    samples = first_samples(prompts, list(trainer._logs["completion"]), trainer._tokenizer)
    if not prompts and isinstance(trainer.train_dataset, Dataset):
        prompts = [trainer.train_dataset[0]["prompt"]]
    safety = ""
    if trainer._safety is not None:
        gate = trainer._safety.gate
        unsafe = gate.is_unsafe(*map(list, zip(*samples, strict=True))).tolist() if samples else []
        samples = [sample for sample, is_unsafe in zip(samples, unsafe, strict=True) if not is_unsafe]
        of_gate = "a function" if gate.model is None else source_of(gate.model)
        safety = safety_section(trainer.state.log_history, of_gate, gate.threshold, sum(unsafe))
    weights = dict(zip(trainer.reward_func_names, trainer.reward_weights.tolist(), strict=False))
    return RunFacts(
        args=trainer.args,
        generator=trainer.accelerator.unwrap_model(trainer.model),
        tokenizer=trainer._tokenizer,
        discriminator=trainer.discriminator,
        log=trainer.state.log_history,
        steps=trainer.state.global_step,
        processes=trainer.accelerator.num_processes,
        prompt=prompts[0] if prompts else start_of_sequence(trainer._tokenizer),
        repo_id=trainer.hub_model_id,
        num_rows=trainer._num_rows(),
        rewards={name: weight for name, weight in weights.items() if name not in (NAME, GATE)},
        samples=samples,
        safety=safety,
    )
