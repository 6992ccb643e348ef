"""What keeps the discriminator smooth: settings, and the penalty on the gradient of its logits.

In: the classifier and encoded texts. Out: their logits and the penalty, with a graph, to be added to the loss. The
penalty on the logits themselves and the smoothing of labels need nothing of the model, see `objectives`; instance
noise is in `token_dropout`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import BatchEncoding, PreTrainedModel

from ..objectives import NEEDS_PENALTY, SMOOTHABLE, gradient_penalty, noise_penalty


Forward: TypeAlias = Callable[[nn.Module, BatchEncoding], Tensor]

TYPES = ("exact", "noise")
PENALTY_ON_PREFIXES = (
    "discriminator_gradient_penalty is on the gradient of a text's logit, and discriminator_credit='token' gives a "
    "text one for each of its prefixes: leave out one of the two. discriminator_logit_penalty goes with both."
)
# Attention that torch can differentiate twice; the fused kernels have no second derivative.
DIFFERENTIABLE_TWICE = ("eager", "sdpa")


@dataclass(frozen=True)
class Regularization:
    """How the discriminator is kept from being too sure; everything is off by default.

    Attributes:
        label_smoothing (`float`, *optional*, defaults to 0.0): Real texts are learnt as real with this probability
            less than 1; [0, 0.5). See [`~objectives.bce`].
        logit_penalty (`float`, *optional*, defaults to 0.0): Coefficient of [`~objectives.logit_penalty`].
        gradient_penalty (`float`, *optional*, defaults to 0.0): Coefficient of [`GradientPenalty`].
        gradient_penalty_type (`str`, *optional*, defaults to `"noise"`): `"noise"` or `"exact"`.
        gradient_penalty_noise (`float`, *optional*, defaults to 0.1): Standard deviation of the noise, in units of the
            root mean square of the word embeddings.
        token_dropout (`float`, *optional*, defaults to 0.0): Probability in [0, 1) that a token is replaced, see
            [`TokenDropout`].

    Raises:
        ValueError: If a value is out of range; the message names the argument of [`AdversarialConfig`].
    """

    label_smoothing: float = 0.0
    logit_penalty: float = 0.0
    gradient_penalty: float = 0.0
    gradient_penalty_type: str = "noise"
    gradient_penalty_noise: float = 0.1
    token_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, beyond in (
            ("label_smoothing", 0.5),
            ("logit_penalty", float("inf")),
            ("gradient_penalty", float("inf")),
            ("token_dropout", 1.0),
        ):
            if not 0 <= getattr(self, name) < beyond:
                raise ValueError(
                    f"discriminator_{name} must be at least 0 and less than {beyond}, got {getattr(self, name)}."
                )
        if self.gradient_penalty_type not in TYPES:
            raise ValueError(
                f"discriminator_gradient_penalty_type must be one of {[*TYPES]}, got {self.gradient_penalty_type!r}."
            )
        if not 0 < self.gradient_penalty_noise < float("inf"):
            raise ValueError(
                f"discriminator_gradient_penalty_noise must be greater than 0, got {self.gradient_penalty_noise}."
            )


def check_regularization(loss: str, regularization: Regularization) -> None:
    """Check that a loss, a key of [`~objectives.LOSSES`], goes together with a regularisation.

    Raises:
        ValueError: If the loss has no labels to smooth, or no minimum without a penalty.
    """
    if regularization.label_smoothing and loss not in SMOOTHABLE:
        raise ValueError(
            f"discriminator_label_smoothing moves the target of real texts, and discriminator_loss={loss!r} has no "
            f"targets: leave it out, or use one of {sorted(SMOOTHABLE)}."
        )
    if loss in NEEDS_PENALTY and not regularization.gradient_penalty and not regularization.logit_penalty:
        raise ValueError(
            f"discriminator_loss={loss!r} falls without end as the logits grow, so something has to hold them: set "
            "discriminator_gradient_penalty or discriminator_logit_penalty."
        )


class GradientPenalty:
    """The penalty on the gradient of a logit with respect to the word embeddings, of real and of generated text.

    1/2 E_t[|grad D(t)|^2] + 1/2 E_s[|grad D(G(s))|^2], with D the logit: R1 + R2 of Mescheder et al. 2018
    ([1801.04406](https://huggingface.co/papers/1801.04406), equations 9 and 10), both together as in R3GAN (Huang et
    al. 2025, [2501.05441](https://huggingface.co/papers/2501.05441)). Tokens have no gradient, so it is taken at the
    output of the input embeddings, in units of their root mean square over the vocabulary as the model comes: one
    coefficient then fits models whose embeddings are of different size.

    `"exact"` differentiates the gradient once more, `"noise"` estimates it from a second forward pass with Gaussian
    noise on the embeddings, see [`~objectives.noise_penalty`].

    Args:
        model (`PreTrainedModel` or `PeftModel`): The classifier.
        regularization ([`Regularization`]): What to compute.
        probe (`BatchEncoding`): Some texts to try the model on.

    Raises:
        ValueError: If the model does not embed its texts once in a forward pass, or has attention without a second
            derivative where one is needed.
    """

    def __init__(
        self, model: PreTrainedModel | PeftModel, regularization: Regularization, probe: BatchEncoding
    ) -> None:
        self.exact = regularization.gradient_penalty_type == "exact"
        self.sigma = regularization.gradient_penalty_noise
        self._model = model
        self._base = cast("PreTrainedModel", model.get_base_model() if isinstance(model, PeftModel) else model)
        attention = self._base.config.get_text_config()._attn_implementation
        if self.exact and attention not in (*DIFFERENTIABLE_TWICE, None):
            raise ValueError(
                f"discriminator_gradient_penalty_type='exact' differentiates twice, and the attention {attention!r} "
                "can be differentiated once: load the discriminator with attn_implementation='sdpa', or use 'noise'."
            )
        self._check_embeddings(probe)
        self.scale = _root_mean_square(self._base.get_input_embeddings())

    def kernels(self) -> AbstractContextManager[None]:
        """Return the context in which to run forward and backward passes: attention that has a second derivative."""
        return sdpa_kernel(SDPBackend.MATH) if self.exact else nullcontext()

    def __call__(
        self, forward: Forward, trained: nn.Module, batch: BatchEncoding, sides: Sequence[tuple[Tensor, float]]
    ) -> tuple[Tensor, Tensor]:
        """Run the forward pass of a batch; compute its part of the penalty.

        Args:
            forward (`Callable`): From a module and a batch to the logits of its texts.
            trained (`nn.Module`): The model, or the model within DistributedDataParallel.
            batch (`BatchEncoding`): The texts.
            sides (`Sequence` of `(Tensor, float)`): For each side, the rows that it has in this batch, as often as it
                has them, and which share of the side they are.

        Returns:
            `tuple` of `Tensor` of shape `(B,)` and `Tensor` of shape `()`: Logits and penalty. The parts of all
                batches add up to the penalty of the whole.
        """
        mask = batch["attention_mask"]
        if self.exact:
            logits, embeddings = self._exposed(forward, trained, batch)
            # Not scaled in float16: it is the gradient of logits, not of their mean, and so no small number.
            (gradients,) = torch.autograd.grad(logits.sum(), embeddings, create_graph=True)
            gradients = gradients.float() * self.scale
            parts = [share * gradient_penalty(gradients[rows], mask[rows]) for rows, share in sides]
        else:
            logits = forward(trained, batch)
            # DistributedDataParallel averages gradients where they arrive, at the parameters, and so these too. Called
            # twice before one backward pass, it would send its buffers round once more.
            with self._hooked(lambda output: output + self._noise(output, mask)):
                noisy = forward(self._model, batch)
            parts = [share * noise_penalty(logits[rows], noisy[rows], self.sigma) for rows, share in sides]
        return logits, torch.stack(parts).sum()

    def _exposed(self, forward: Forward, trained: nn.Module, batch: BatchEncoding) -> tuple[Tensor, Tensor]:
        """Run the forward pass, and return the output of the embeddings too, as a part of its graph."""
        seen: list[Tensor] = []

        def expose(output: Tensor) -> Tensor:
            # Where embeddings are frozen the graph begins behind them.
            seen.append(output if output.requires_grad else output.detach().requires_grad_())
            return seen[0]

        with self._hooked(expose):
            logits = forward(trained, batch)
        return logits, seen[0]

    def _noise(self, output: Tensor, mask: Tensor) -> Tensor:
        return self.sigma * self.scale * standard_normal(output) * mask.unsqueeze(-1).to(output.dtype)

    @contextmanager
    def _hooked(self, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Change the output of the embeddings within this context only: the generator may use the same module."""
        hook: Any = lambda module, inputs, output: change(output)  # noqa: E731
        handle = self._base.get_input_embeddings().register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    @torch.no_grad()
    def _check_embeddings(self, probe: BatchEncoding) -> None:
        shapes: list[tuple[int, ...]] = []

        def note(output: Tensor) -> Tensor:
            shapes.append(tuple(output.shape[:2]))
            return output

        with self._hooked(note):
            self._model(**probe)
        if shapes != [tuple(probe["input_ids"].shape)]:
            raise ValueError(
                "discriminator_gradient_penalty acts on the output of the input embeddings, and "
                f"{type(self._base).__name__} runs its own {len(shapes)} times on a batch of texts, or in another "
                "layout than (texts, tokens). Leave the penalty out, or take a discriminator that embeds its texts "
                "once, as encoders such as BERT and causal models do."
            )


def standard_normal(like: Tensor) -> Tensor:
    """Return standard Gaussian noise of the shape, type and device of a tensor."""
    return torch.randn_like(like)


@torch.no_grad()
def _root_mean_square(embeddings: nn.Module) -> float:
    """Return the root mean square of what embeddings put out over their vocabulary: some scale their weights."""
    weight: Any = embeddings.weight
    chunks = torch.arange(weight.size(0), device=weight.device).split(4096)
    means = torch.stack([embeddings(ids[None]).float().square().mean() * len(ids) for ids in chunks])
    return (means.sum() / weight.size(0)).sqrt().item()
