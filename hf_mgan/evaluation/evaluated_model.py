"""One model of an evaluation beside the real texts, each loaded when it is needed."""

import json
import random
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..data import TextPath, answer_text, as_prompts, inspected
from ..data.text_path import with_boundary
from ..metrics.likelihood import TextNll, tempered_logps
from ..safety import SafetyGate
from .guided_model import GuidedModel
from .models import Model, configured_ends, load_generator, load_tokenizer
from .report import NUM_SHOWN
from .rows import check_real, places_with_text, prepared_rows
from .settings import EvaluationConfig


class EvaluatedModel:
    """A model of the evaluation, and the real texts as it has them: through its tokenizer, as its completions are.

    Nothing is loaded before it is needed.

    Args:
        model (`str`, `PreTrainedModel`, `PeftModel` or [`GuidedModel`]): The generator, guided or not.
        processing_class (`PreTrainedTokenizerBase`, *optional*): Its tokenizer, if it is not loaded with the model.
        held_out (`Dataset`): Real texts that nothing was trained on.
        training (`Dataset`, *optional*): Those that were trained on.
        order (`list[int]`): Which of the held-out texts count: one half to compare with, then the other.
        config ([`EvaluationConfig`]): Settings.
        prepare (`dict`): Further arguments of [`prepare_dataset`].

    Attributes:
        guided ([`GuidedModel`], *optional*): The model, if its discriminator guides it.
    """

    def __init__(
        self,
        model: Model,
        processing_class: PreTrainedTokenizerBase | None,
        held_out: Dataset,
        training: Dataset | None,
        order: list[int],
        config: EvaluationConfig,
        prepare: dict[str, Any],
    ) -> None:
        self.guided = model if isinstance(model, GuidedModel) else None
        self._model = model.generator if isinstance(model, GuidedModel) else model
        self._processing_class = processing_class
        self._held_out, self._training, self._order = held_out, training, order
        self.config, self._prepare = config, prepare

    @property
    def temperatures(self) -> list[float]:
        """The temperatures at which it is sampled."""
        return self.config.temperatures if self.guided is None else [self.guided.temperature]

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The generator's tokenizer."""
        return load_tokenizer(self._model, self._processing_class)

    @cached_property
    def generator(self) -> Any:
        """The generator."""
        return load_generator(self._model, self.tokenizer, dtype=self.config.dtype)[0]

    def free(self) -> None:
        """Let go of a generator that was loaded."""
        self.__dict__.pop("generator", None)

    def prepare(self) -> None:
        """Prepare all rows: what is wrong with one is said before the generator is loaded."""
        _ = self._rows, self.training

    @cached_property
    def _dataset(self) -> Dataset:
        prepared = self._prepared(self._held_out, self._order, "held_out")
        return prepared.select(range(len(self._order)))  # several references make several rows

    @cached_property
    def path(self) -> TextPath:
        """The path of real and generated text."""
        path = TextPath(self.tokenizer, self.config.max_completion_length, configured_ends(self._model))
        return inspected(path, self._dataset, "the held-out data")

    def shown(self, texts: Sequence[str]) -> list[str]:
        """Return generated texts with the boundary of the real ones."""
        return with_boundary(texts, self.path.boundary)

    @cached_property
    def _rows(self) -> tuple[list[Any], list[str]]:
        """Prompts and real texts, those to compare with before those of the row of real texts."""
        prompts = list(self._dataset["prompt"])
        texts = self.path.as_completions(prompts, list(self._dataset["completion"]))
        check_real(texts, self._dataset, "held_out", self.config.max_completion_length)
        return prompts, texts

    def _prepared(self, data: Dataset, places: Sequence[int], name: str) -> Dataset:
        return prepared_rows(data.select(places), places, name, self.tokenizer, self._prepare)

    @property
    def prompts(self) -> list[Any]:
        """The prompts of the texts to compare with."""
        return self._rows[0][: len(self._order) // 2]

    @property
    def real(self) -> list[str]:
        """The real texts to compare with, each the reference of its prompt."""
        return self._rows[1][: len(self._order) // 2]

    @property
    def further(self) -> list[str]:
        """The real texts that take the generated ones' place in the first row."""
        return self._rows[1][len(self._order) // 2 :]

    @property
    def further_prompts(self) -> list[Any]:
        """Their prompts."""
        return self._rows[0][len(self._order) // 2 :]

    @property
    def shown_prompts(self) -> list[str]:
        """The prompts of the first texts as they are shown beside them, none where all texts begin alike."""
        return self._plain(self.prompts)

    @property
    def further_shown_prompts(self) -> list[str]:
        """The same of the real texts in the first row."""
        return self._plain(self.further_prompts)

    def _plain(self, prompts: list[Any]) -> list[str]:
        return as_prompts(prompts[:NUM_SHOWN], self.tokenizer) if self.has_prompts else []

    def nlls(
        self, prompt_ids: list[list[int]], ids: list[list[int]], temperatures: list[float]
    ) -> list[list[TextNll]]:
        """Return -log q and the number of tokens of each text that has one, at each temperature."""
        pairs = [(prompt, row) for prompt, row in zip(prompt_ids, ids, strict=True) if row]
        if not pairs:
            return [[] for _ in temperatures]
        prompts, rows = map(list, zip(*pairs, strict=True))
        logps = tempered_logps(self.generator, prompts, rows, temperatures, self.config.batch_size).tolist()
        return [[TextNll(-logp, len(row)) for logp, row in zip(one, rows, strict=True)] for one in logps]

    @cached_property
    def real_nlls(self) -> list[list[TextNll]]:
        """The same of the real texts at every temperature of the evaluation, in one pass.

        A text that ends within the limit has the end token.
        """
        references = list(self._dataset["completion"])[: len(self.prompts)]
        ids = self.path.encode(self.prompts, references)
        return self.nlls(self.path.encode_prompts(self.prompts), ids, self.config.temperatures)

    def unsafe(self, safety: SafetyGate, prompts: list[Any], texts: Sequence[str]) -> list[bool]:
        """Return the verdicts on texts, whose prompts the classifier reads as it does in training."""
        return safety.is_unsafe(as_prompts(prompts, self.tokenizer), texts).tolist()

    @property
    def has_prompts(self) -> bool:
        """Whether texts follow prompts of their own."""
        return len({json.dumps(prompt) for prompt in self._rows[0]}) > 1

    @cached_property
    def training(self) -> list[str] | None:
        """The training texts that copies are looked for in."""
        if self._training is None:
            return None
        places = places_with_text(self._training, "training")
        chosen = random.Random(self.config.seed).sample(places, min(len(places), self.config.num_training_texts))
        rows = self._prepared(self._training, chosen, "training")
        texts = [answer_text(text) for text in rows["completion"]]
        check_real(texts, rows, "training")
        return texts
