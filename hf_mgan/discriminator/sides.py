"""The two sides that the discriminator compares, generated and real texts, in one row of batches.

In: both sides' encoded texts, every different text once. Out: the logits dealt out to the sides again, and the
[`DiscriminatorOutput`] made of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import BatchEncoding

from .output import DiscriminatorOutput


@dataclass(frozen=True)
class Sides:
    """Generated and real texts, encoded together; every different text once.

    Attributes:
        batches (`list[BatchEncoding]`): The different texts.
        places (`Tensor` of shape `(B + R,)`): The place of each text among the different ones, generated texts first.
        num_fake (`int`): B, the number of generated texts.
        fake_offsets (`Tensor` of shape `(B,)`, *optional*): What is added to the logits of the generated texts.
        real_offsets (`Tensor` of shape `(R,)`, *optional*): The same of the real texts.
    """

    batches: list[BatchEncoding]
    places: Tensor
    num_fake: int
    fake_offsets: Tensor | None
    real_offsets: Tensor | None

    def split_logits(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Deal out the logits and add the offsets."""
        fake, real = self.split(logits)
        if self.fake_offsets is not None:
            fake = fake + self.fake_offsets.to(fake.device)
        if self.real_offsets is not None:
            real = real + self.real_offsets.to(real.device)
        return fake, real

    def split(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Deal out a value for each different text to the generated (B,) and the real texts (R,)."""
        dealt = values[self.places.to(values.device)]
        return dealt[: self.num_fake], dealt[self.num_fake :]

    def output(
        self, fake: Tensor, real: Tensor, loss: Tensor, grad_norm: Tensor, learning_rate: float
    ) -> DiscriminatorOutput:
        """Put the logits of the sides and the figures of a step together with the lengths of the texts."""
        lengths = torch.cat([batch["attention_mask"].sum(1) for batch in self.batches]).float()
        fake_lengths, real_lengths = self.split(lengths)
        return DiscriminatorOutput(
            fake_logits=fake.detach(),
            real_logits=real.detach(),
            loss=loss.detach(),
            grad_norm=grad_norm.detach(),
            learning_rate=learning_rate,
            fake_length=fake_lengths.mean(),
            real_length=real_lengths.mean(),
        )


def different_texts(prompts: Sequence[str], completions: Sequence[str]) -> tuple[list[tuple[str, str]], Tensor]:
    """Return the different texts, and the place of each given text among them: none is run through twice."""
    index: dict[tuple[str, str], int] = {}
    places = [index.setdefault(text, len(index)) for text in zip(prompts, completions, strict=True)]
    return list(index), torch.tensor(places, dtype=torch.int64)
