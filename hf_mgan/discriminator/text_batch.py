"""Real and generated texts in one row of batches, and what the discriminator reports of them.

In: the texts, encoded together, every different text once. Out: the logits dealt out to generated and real texts
again, and the [`DiscriminatorOutput`] made of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import BatchEncoding

from .prefixes import ENDS
from .replay import PastText


@dataclass(frozen=True)
class DiscriminatorOutput:
    """What one update saw and did.

    Attributes:
        fake_logits (`Tensor` of shape `(B,)`): Logits of the generated texts *before* the step, float32, detached: the
            discriminator had not been trained on these texts, so a reward made of them is out of sample.
        real_logits (`Tensor` of shape `(R,)`): Logits of the real texts before the step.
        loss (`Tensor` of shape `()`): The loss before the step, without penalties.
        grad_norm (`Tensor` of shape `()`, *optional*): Norm of the gradient before clipping; None without a step.
        learning_rate (`float`, *optional*): Learning rate of the step; None without one.
        fake_length (`Tensor` of shape `()`): Mean number of tokens the discriminator sees of a generated text and its
            prompt.
        real_length (`Tensor` of shape `()`): The same of a real text.
        threshold (`Tensor` of shape `()`): The logit above which a text counts as taken for real: 0, or, where the
            loss leaves the logits free to shift ([`~objectives.FREE_TO_SHIFT`]), the middle between both means, of all
            processes.
        extra_metrics (`dict[str, Tensor]`): Of the step, a tensor of shape `()` each: `logit_penalty` before its
            coefficient, `replayed_prob` (mean D of the generated texts of earlier batches, once there are some); each
            only where it is switched on.
        fake_prefix_logits (`Tensor` of shape `(B, T)`, *optional*): With `prefixes`, the logits of all prefixes of the
            generated texts, see [`~prefixes.PrefixScorer`].
        fake_prefix_ends (`Tensor` of shape `(B, T)`, *optional*): After how many characters each of them ends.
    """

    fake_logits: Tensor
    real_logits: Tensor
    loss: Tensor
    grad_norm: Tensor | None
    learning_rate: float | None
    fake_length: Tensor
    real_length: Tensor
    threshold: Tensor = field(default_factory=lambda: torch.zeros(()))
    extra_metrics: dict[str, Tensor] = field(default_factory=dict)
    fake_prefix_logits: Tensor | None = None
    fake_prefix_ends: Tensor | None = None

    def accuracy(self) -> Tensor:
        """Return the share of texts on the right side of the threshold, a tensor of shape `()` in [0, 1]."""
        real, fake = self.real_logits > self.threshold, self.fake_logits <= self.threshold
        return torch.cat([real, fake]).float().mean()

    def metrics(self) -> dict[str, Tensor]:
        """Return what is worth logging, by name: a tensor of shape `()` each.

        `real_prob` is D(x), `fake_prob` D(G(s)), `value` V(D, G) in nats; `grad_norm` and `learning_rate` are those of
        an update.
        """
        real, fake = self.real_logits, self.fake_logits
        step = {"grad_norm": self.grad_norm, "learning_rate": self.learning_rate}
        return {
            "loss": self.loss,
            "real_prob": real.sigmoid().mean(),
            "fake_prob": fake.sigmoid().mean(),
            "accuracy": self.accuracy(),
            "value": nn.functional.logsigmoid(real).mean() + nn.functional.logsigmoid(-fake).mean(),
            **{name: torch.as_tensor(value) for name, value in step.items() if value is not None},
            "real_length": self.real_length,
            "fake_length": self.fake_length,
            **self.extra_metrics,
        }


@dataclass(frozen=True)
class TextBatch:
    """Generated and real texts, encoded together; every different text once.

    In order: the B generated texts, those of earlier batches, the R real texts, and those that belong to the texts of
    earlier batches.

    Attributes:
        batches (`list[BatchEncoding]`): The different texts.
        places (`Tensor` of shape `(N,)`): The place of each text among the different ones.
        num_fake (`int`): B, the number of generated texts.
        num_replayed (`int`): Number of generated texts of earlier batches.
        num_real (`int`): R, the number of real texts.
    """

    batches: list[BatchEncoding]
    places: Tensor
    num_fake: int
    num_replayed: int
    num_real: int

    @classmethod
    def encoded(
        cls,
        encode: Callable[[list[tuple[str, str]]], tuple[list[BatchEncoding], Tensor]],
        prompts: Sequence[str],
        completions: Sequence[str],
        references: Sequence[str],
        reference_prompts: Sequence[str] | None = None,
        past: Sequence[PastText] = (),
    ) -> "TextBatch":
        """Encode generated and real texts, together with texts of earlier batches.

        `encode` returns batches, and the place of each text among their rows.
        """
        fakes = [*zip(prompts, completions, strict=True), *(text.fake for text in past)]
        reals = [
            *zip(prompts if reference_prompts is None else reference_prompts, references, strict=True),
            *(text.real for text in past if text.real is not None),
        ]
        texts, places = different_texts([*fakes, *reals])
        batches, order = encode(texts)
        return cls(batches, order[places], len(completions), len(past), len(references))

    def real_and_fake(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Deal out a value for each different text, in the order of a loss: real, then generated and earlier ones."""
        fake, real = self._split(values)
        return real, fake

    def new_real_and_fake(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Deal out the logits of whole texts, without those of earlier batches."""
        fake, real = self._split(_of_whole_texts(logits))
        return real[: self.num_real], fake[: self.num_fake]

    def output(
        self,
        logits: Tensor,
        loss: Tensor,
        threshold: Tensor,
        grad_norm: Tensor | None = None,
        learning_rate: float | None = None,
        extra_metrics: dict[str, Tensor] | None = None,
    ) -> DiscriminatorOutput:
        """Put the logits and the metrics of a step together with the lengths of the texts."""
        lengths = torch.cat([batch["attention_mask"].sum(1) for batch in self.batches]).float()
        fake_lengths, real_lengths = self._split(lengths)
        real, fake = self.new_real_and_fake(logits.detach())
        prefixes: dict[str, Tensor] = {}
        if logits.dim() == 2:
            ends = torch.cat([batch[ENDS] for batch in self.batches])
            named = (("fake_prefix_logits", logits.detach()), ("fake_prefix_ends", ends))
            prefixes = {name: self._split(values)[0][: self.num_fake] for name, values in named}
        return DiscriminatorOutput(
            fake_logits=fake,
            real_logits=real,
            loss=loss.detach(),
            grad_norm=None if grad_norm is None else grad_norm.detach(),
            learning_rate=learning_rate,
            fake_length=fake_lengths[: self.num_fake].mean(),
            real_length=real_lengths[: self.num_real].mean(),
            threshold=threshold,
            extra_metrics=extra_metrics or {},
            **prefixes,
        )

    def replayed(self, logits: Tensor) -> Tensor:
        """Return the logits of the generated texts of earlier batches."""
        return self._split(_of_whole_texts(logits))[0][self.num_fake :]

    def _split(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Deal out a value for each different text to all generated and to all real texts."""
        fake, real = values[self.places.to(values.device)].tensor_split([self.num_fake + self.num_replayed])
        return fake, real


def different_texts(texts: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, str]], Tensor]:
    """Return the different texts, and the place of each given text among them: none is run through twice."""
    index: dict[tuple[str, str], int] = {}
    places = [index.setdefault(text, len(index)) for text in texts]
    return list(index), torch.tensor(places, dtype=torch.int64)


def _of_whole_texts(logits: Tensor) -> Tensor:
    return logits if logits.dim() == 1 else logits[:, -1]
