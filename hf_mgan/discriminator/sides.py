"""The two sides that the discriminator compares, generated and real texts, in one row of batches.

In: both sides' encoded texts, every different text once. Out: the logits dealt out to the sides again, and the
[`DiscriminatorOutput`] made of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import BatchEncoding

from .output import DiscriminatorOutput
from .prefixes import ENDS
from .replay import PastText


@dataclass(frozen=True)
class Sides:
    """Generated and real texts, encoded together; every different text once.

    In order: the B generated texts, those of earlier batches, the R real texts, and those that belong to the texts of
    earlier batches.

    Attributes:
        batches (`list[BatchEncoding]`): The different texts.
        places (`Tensor` of shape `(N,)`): The place of each text among the different ones.
        num_fake (`int`): B, the number of generated texts.
        num_replayed (`int`): Number of generated texts of earlier batches.
        num_real (`int`): R, the number of real texts.
        fake_offsets (`Tensor` of shape `(B,)`, *optional*): What is added to the logits of the generated texts.
        real_offsets (`Tensor` of shape `(R,)`, *optional*): The same of the real texts.
    """

    batches: list[BatchEncoding]
    places: Tensor
    num_fake: int
    num_replayed: int
    num_real: int
    fake_offsets: Tensor | None
    real_offsets: Tensor | None

    @classmethod
    def encoded(
        cls,
        encode: Callable[[list[tuple[str, str]]], list[BatchEncoding]],
        prompts: Sequence[str],
        completions: Sequence[str],
        references: Sequence[str],
        reference_prompts: Sequence[str] | None = None,
        completion_offsets: Tensor | None = None,
        reference_offsets: Tensor | None = None,
        past: Sequence[PastText] = (),
    ) -> "Sides":
        """Encode both sides with `encode`, together with texts of earlier batches; the rest as in `update`."""
        fakes = [*zip(prompts, completions, strict=True), *(text.fake for text in past)]
        reals = [
            *zip(prompts if reference_prompts is None else reference_prompts, references, strict=True),
            *(text.real for text in past if text.real is not None),
        ]
        texts, places = different_texts([*fakes, *reals])
        return cls(
            batches=encode(texts),
            places=places,
            num_fake=len(completions),
            num_replayed=len(past),
            num_real=len(references),
            fake_offsets=completion_offsets,
            real_offsets=reference_offsets,
        )

    def of_loss(self, logits: Tensor, with_offsets: bool = True) -> tuple[Tensor, Tensor]:
        """Deal out the logits, in the order of a loss: real, then generated, each with what is of earlier batches.

        Logits of prefixes, of shape `(N, T)`, come out in one row, text after text: every text has as many.
        """
        fake, real = (side.flatten() for side in self._split(logits))
        if with_offsets and self.fake_offsets is not None:
            fake = fake + self.fake_offsets.to(fake.device)
        if with_offsets and self.real_offsets is not None:
            real = real + self.real_offsets.to(real.device)
        return real, fake

    def shares(self, number: int) -> list[tuple[Tensor, float]]:
        """Return what each side has in a batch: its rows, as often as it has them, and their share of the side."""
        sizes = [len(batch["input_ids"]) for batch in self.batches]
        start, shares = sum(sizes[:number]), []
        for places in self.places.tensor_split([self._num_generated]):
            rows = places[(places >= start) & (places < start + sizes[number])] - start
            if len(rows):
                shares.append((rows.to(self.batches[number]["input_ids"].device), len(rows) / len(places)))
        return shares

    def output(
        self,
        logits: Tensor,
        loss: Tensor,
        grad_norm: Tensor,
        learning_rate: float,
        further_figures: dict[str, Tensor] | None = None,
        free_to_shift: bool = False,
    ) -> DiscriminatorOutput:
        """Put the logits of the sides and the figures of a step together with the lengths of the texts."""
        lengths = torch.cat([batch["attention_mask"].sum(1) for batch in self.batches]).float()
        fake_lengths, real_lengths = self._split(lengths)
        whole = logits.detach() if logits.dim() == 1 else logits.detach()[:, -1]
        real, fake = self.of_loss(whole)
        prefixes: dict[str, Tensor] = {}
        if logits.dim() == 2:
            ends = torch.cat([batch[ENDS] for batch in self.batches])
            named = (("fake_prefix_logits", logits.detach()), ("fake_prefix_ends", ends))
            prefixes = {name: self._split(values)[0][: self.num_fake] for name, values in named}
        fake, real = fake[: self.num_fake], real[: self.num_real]
        threshold = (fake.mean() + real.mean()) / 2 if free_to_shift else torch.zeros((), device=fake.device)
        return DiscriminatorOutput(
            **prefixes,
            threshold=threshold,
            fake_logits=fake,
            real_logits=real,
            loss=loss.detach(),
            grad_norm=grad_norm.detach(),
            learning_rate=learning_rate,
            fake_length=fake_lengths[: self.num_fake].mean(),
            real_length=real_lengths[: self.num_real].mean(),
            further_figures=further_figures or {},
        )

    def replayed_prob(self, logits: Tensor) -> Tensor:
        """Return the mean D of the generated texts of earlier batches; nan if there are none."""
        whole = logits if logits.dim() == 1 else logits[:, -1]
        return self._split(whole)[0][self.num_fake :].sigmoid().mean()

    def _split(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Deal out a value for each different text to all generated and to all real texts."""
        fake, real = values[self.places.to(values.device)].tensor_split([self._num_generated])
        return fake, real

    @property
    def _num_generated(self) -> int:
        return self.num_fake + self.num_replayed


def different_texts(texts: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, str]], Tensor]:
    """Return the different texts, and the place of each given text among them: none is run through twice."""
    index: dict[tuple[str, str], int] = {}
    places = [index.setdefault(text, len(index)) for text in texts]
    return list(index), torch.tensor(places, dtype=torch.int64)
