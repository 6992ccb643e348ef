"""What the discriminator reports of the texts that it was shown: logits, the loss, and the figures of its step."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class DiscriminatorOutput:
    """What one update saw and did.

    Attributes:
        fake_logits (`Tensor` of shape `(B,)`): Logits of the generated texts *before* the step, float32, detached: the
            discriminator had not been trained on these texts, so a reward made of them is out of sample.
        real_logits (`Tensor` of shape `(R,)`): Logits of the real texts before the step.
        loss (`Tensor` of shape `()`): The loss before the step.
        grad_norm (`Tensor` of shape `()`): Norm of the gradient before clipping.
        learning_rate (`float`): Learning rate of the step.
        fake_length (`Tensor` of shape `()`): Mean number of tokens the discriminator sees of a generated text and its
            prompt.
        real_length (`Tensor` of shape `()`): The same of a real text.
        further_figures (`dict[str, Tensor]`): Of the step, a tensor of shape `()` each: `gradient_penalty` and
            `logit_penalty` before their coefficients, `replayed_prob` (mean D of the generated texts of earlier
            batches, nan while there are none); each only where it is switched on.
        threshold (`Tensor` of shape `()`): The logit above which a text counts as taken for real: 0, or, where the
            loss leaves the logits free to shift ([`~objectives.FREE_TO_SHIFT`]), the middle between the means of both
            sides.
        fake_prefix_logits (`Tensor` of shape `(B, T)`, *optional*): With `prefixes`, the logits of all prefixes of the
            generated texts, see [`~prefixes.PrefixScorer`].
        fake_prefix_ends (`Tensor` of shape `(B, T)`, *optional*): After how many characters each of them ends.
    """

    fake_logits: Tensor
    real_logits: Tensor
    loss: Tensor
    grad_norm: Tensor
    learning_rate: float
    fake_length: Tensor
    real_length: Tensor
    further_figures: dict[str, Tensor] = field(default_factory=dict)
    threshold: Tensor = field(default_factory=lambda: torch.zeros(()))
    fake_prefix_logits: Tensor | None = None
    fake_prefix_ends: Tensor | None = None

    def figures(self) -> dict[str, Tensor]:
        """Return what is worth logging, under the names of the metrics: a tensor of shape `()` each.

        `real_prob` is D(x), `fake_prob` D(G(s)), `value` V(D, G) in nats. After an evaluation `grad_norm` and
        `learning_rate` are nan.
        """
        real, fake = self.real_logits, self.fake_logits
        return {
            "loss": self.loss,
            "real_prob": real.sigmoid().mean(),
            "fake_prob": fake.sigmoid().mean(),
            "accuracy": torch.cat([real > self.threshold, fake <= self.threshold]).float().mean(),
            "value": nn.functional.logsigmoid(real).mean() + nn.functional.logsigmoid(-fake).mean(),
            "grad_norm": self.grad_norm,
            "learning_rate": torch.tensor(self.learning_rate),
            "real_length": self.real_length,
            "fake_length": self.fake_length,
            **self.further_figures,
        }
