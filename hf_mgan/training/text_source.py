"""Where a discriminator's final updates have their texts from: both kinds, as the discriminator reads them.

In: a generator, rows with real texts and the settings of sampling; perhaps a discriminator that chooses among the
generator's texts. Out: [`Pairs`], to learn from, to stop by and to calibrate with.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..config import AdversarialConfig
from ..data import RealBatch, RealSampler, RealTexts, TextPath, form_of, inspected, prepare_dataset
from ..decoding import DecodingConfig, GuidedSamples, guided_sample, sample
from ..decoding.sampling import Samples, end_tokens
from ..decoding.selection import threshold_for
from ..discriminator import Discriminator


if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

MOST_HELD_OUT = 2000  # held-out texts that are used: a half stops the training, a half calibrates
LEAST_AT_ONCE = 64  # completions that are drawn, and texts that are scored, at a time
DRAWS = 4.0  # per text that a previous discriminator keeps: what the second one of docs/frontier.md has learnt from
MOST_DRAWS = 64  # for one text
PROMPT_SEED = 104_729  # added to the run's seed, as those below
HELD_OUT_SEED = 7_919
THRESHOLD_SEED = 15_485_863


class Pairs(NamedTuple):
    """Generated texts and as many real ones, as the discriminator reads them.

    Args:
        prompts (`list[str]` of length B): "" where the discriminator sees none.
        completions (`list[str]` of length B): Generated.
        references (`list[str]` of length B): Real.
    """

    prompts: list[str]
    completions: list[str]
    references: list[str]


class TextSource:
    """Where both kinds of text come from: fresh samples of a generator, and the references of their prompts.

    Args:
        generator (`PreTrainedModel` or `PeftModel`): See [`~final_updates.fit_discriminator`], as all that
            follow.
        tokenizer (`PreTrainedTokenizerBase`): See there.
        rows (`Dataset`): The training set.
        args ([`AdversarialConfig`]): See there.
        real_dataset (`Dataset`, *optional*): See there.

    Attributes:
        real_texts ([`~data.RealTexts`]): The real ones.
        generation_kwargs (`dict`): What beside the temperature shapes the samples.
        choice (`dict`): What a calibration says of a previous discriminator that chooses among them; else empty.
    """

    def __init__(
        self,
        generator: "PreTrainedModel | PeftModel",
        tokenizer: PreTrainedTokenizerBase,
        rows: Dataset,
        args: AdversarialConfig,
        real_dataset: Dataset | None = None,
    ) -> None:
        self._generator, self._tokenizer, self._args = generator, tokenizer, args
        self._rows = self._prepared(rows)
        self._seed, self._share = args.seed + PROMPT_SEED, (args.process_index, args.world_size)
        template = cast("dict[str, Any]", args.chat_template_kwargs or {})
        path = TextPath(tokenizer, args.max_completion_length, end_tokens(generator, tokenizer), template)
        self.real_texts = RealTexts(
            self._rows,
            real_dataset,
            paired=False,
            path=inspected(path, self._rows),
            seed=self._seed,
            rank=args.process_index,
            world_size=args.world_size,
            begins_with_prompt=form_of(rows.column_names) in ("text", "prompt"),
        )
        defaults = {"top_k": 0, "top_p": 1.0, "min_p": None, "repetition_penalty": 1.0}
        given = {name: getattr(args, name) for name in defaults}
        self.generation_kwargs = {name: value for name, value in given.items() if value != defaults[name]}
        self.generation_kwargs |= cast("dict[str, Any]", args.generation_kwargs or {})
        self._previous: Discriminator | None = None
        self.choice: dict[str, Any] = {}

    @property
    def form(self) -> dict[str, Any]:
        """How texts are sampled and shown, by the names of [`~discriminator.Calibration`], which holds for it."""
        return {
            "with_prompt": self.real_texts.shows_prompts,
            "temperature": self._args.temperature,
            "max_new_tokens": cast(int, self._args.max_completion_length),
            "generation_kwargs": self.generation_kwargs,
            "boundary": self.real_texts.path.boundary,
            "are_whole": self.real_texts.are_whole,
        }

    def choose_by(self, previous: Discriminator, rows: Dataset) -> None:
        """Let a discriminator choose which generated texts there are from now on, at four draws per text kept.

        Args:
            previous ([`Discriminator`]): It, calibrated.
            rows (`Dataset`): Held-out ones, whose prompts serve to find the threshold.

        Raises:
            ValueError: If it is not calibrated, or for texts that are sampled or shown otherwise.
        """
        calibration = previous.calibration
        if calibration is None:
            raise ValueError(
                "previous is not calibrated, so that what it keeps has no known density. Fit it first: with "
                "discriminator_final_steps, or fit_discriminator."
            )
        theirs = {name: getattr(calibration, name) for name in self.form}
        if differing := [name for name in theirs if theirs[name] != self.form[name]]:
            have, ask = ({name: form[name] for name in differing} for form in (theirs, self.form))
            raise ValueError(
                f"previous is calibrated for texts with {have}, and these have {ask}: take the settings and the data "
                "that it was fitted with, or fit it anew."
            )
        prompts = self._used(rows)["prompt"]
        plain = self._guided(previous, prompts, self._args.seed + THRESHOLD_SEED, method="best_of_k", num_candidates=1)
        threshold = threshold_for(torch.tensor(plain.log_ratios, dtype=torch.float64), DRAWS)
        self._previous, self.choice = previous, {"previous_threshold": threshold, "previous_draws": DRAWS}

    def batches(self, size: int, count: int) -> Iterator[Pairs]:
        """Yield batches of `size` texts of each kind for this process, at least `count`.

        Texts are drawn for several batches at once, which is faster, and serve `discriminator_steps` times, each time
        beside other real texts if these belong to no prompt.
        """
        prompts = RealSampler(len(self._rows), self._seed, *self._share)
        rank, processes = self._share
        count = math.ceil(count / self._args.discriminator_steps)
        at_once = max(1, LEAST_AT_ONCE // size)
        for start in range(0, count, at_once):
            texts = min(at_once, count - start) * size
            rows = self._rows[prompts.draw(texts)]
            pairs = self._pairs(rows["prompt"], self._real(rows), self._seed + start * processes + rank)
            for use in range(self._args.discriminator_steps):
                if use and not self.real_texts.shows_prompts:
                    pairs = pairs._replace(references=self._real(rows).texts)
                for first in range(0, texts, size):
                    yield Pairs(*(side[first : first + size] for side in pairs))

    def _real(self, rows: dict[str, list[Any]]) -> RealBatch:
        """Return the references of the prompts themselves, whatever the loss: each is drawn as often as others."""
        if self.real_texts.shows_prompts:
            return self.real_texts.held_out(rows["prompt"], rows["completion"])
        return self.real_texts.draw(rows["prompt"], None)

    def held_out(self, rows: Dataset) -> tuple[Pairs, Pairs]:
        """Return held-out texts of each kind in two halves."""
        used = self._used(rows)
        real = self.real_texts.held_out(used["prompt"], used.get("completion"))
        pairs = self._pairs(used["prompt"], real, self._args.seed + HELD_OUT_SEED)
        return Pairs(*(texts[::2] for texts in pairs)), Pairs(*(texts[1::2] for texts in pairs))

    def _used(self, rows: Dataset) -> dict[str, list[Any]]:
        return self._prepared(rows.select(range(min(len(rows), MOST_HELD_OUT))))[:]

    def _prepared(self, rows: Dataset) -> Dataset:
        return cast(Dataset, prepare_dataset(rows, self._tokenizer, **self._args.prompt_arguments()))

    def _pairs(self, prompts: list[Any], real: RealBatch, seed: int) -> Pairs:
        drawn = self._drawn(prompts, seed)
        texts = self.real_texts.path.decode(drawn.prompt_ids, drawn.completion_ids)
        shown, completions = self.real_texts.shown(prompts, texts)
        return Pairs(shown, completions, real.texts)

    def _drawn(self, prompts: list[Any], seed: int) -> Samples | GuidedSamples:
        if self._previous is not None:
            threshold = self.choice["previous_threshold"]
            return self._guided(self._previous, prompts, seed, threshold=threshold, num_candidates=MOST_DRAWS)
        return sample(
            self._generator,
            self._tokenizer,
            prompts,
            cast(int, self._args.max_completion_length),
            self._args.temperature,
            seed,
            self._at_once,
            generation_kwargs=self.generation_kwargs,
        )

    def _guided(self, discriminator: Discriminator, prompts: list[Any], seed: int, **settings: Any) -> GuidedSamples:
        config = DecodingConfig(
            temperature=self._args.temperature,
            max_new_tokens=cast(int, self._args.max_completion_length),
            batch_size=self._at_once,
            seed=seed,
            generation_kwargs=self.generation_kwargs,
            **settings,
        )
        return guided_sample(self._generator, self._tokenizer, discriminator, prompts, config)

    @property
    def _at_once(self) -> int:
        return max(cast(int, self._args.generation_batch_size), LEAST_AT_ONCE)
