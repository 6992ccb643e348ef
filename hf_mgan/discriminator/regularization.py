"""What keeps the discriminator from being too confident: the settings, checked.

Smoothing of labels and the penalty on logits need nothing of the model, see `objectives`; instance noise is in
`token_dropout`.
"""

from dataclasses import dataclass

from ..checks import NOT_NEGATIVE, Check, Number, check_fields
from ..objectives import NEEDS_PENALTY, SMOOTHABLE


REGULARIZATION: dict[str, Check] = {
    "label_smoothing": Number(least=0, below=0.5),
    "logit_penalty": NOT_NEGATIVE,
    "token_dropout": Number(least=0, below=1),
}


@dataclass(frozen=True)
class Regularization:
    """How the discriminator is kept from being too confident; everything is off by default.

    Attributes:
        label_smoothing (`float`, *optional*, defaults to 0.0): Real texts are learnt as real with a probability that
            is this much less than 1; [0, 0.5). See [`~objectives.bce`].
        logit_penalty (`float`, *optional*, defaults to 0.0): Coefficient of [`~objectives.logit_penalty`], [0, inf).
        token_dropout (`float`, *optional*, defaults to 0.0): Probability in [0, 1) that a token is replaced, see
            [`TokenDropout`].

    Raises:
        TypeError: If a value is no number.
        ValueError: If a value is out of range; the message names the setting of [`AdversarialConfig`].
    """

    label_smoothing: float = 0.0
    logit_penalty: float = 0.0
    token_dropout: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, REGULARIZATION, " in discriminator_regularization")


def check_regularization(loss: str, regularization: Regularization) -> None:
    """Check that a loss, a key of [`~objectives.LOSSES`], goes together with a regularisation.

    Raises:
        ValueError: If the loss has no labels to smooth, or no minimum without a penalty.
    """
    if regularization.label_smoothing and loss not in SMOOTHABLE:
        raise ValueError(
            "label_smoothing in discriminator_regularization moves the target of real texts, and "
            f"discriminator_loss={loss!r} has no targets: leave it out, or use one of {sorted(SMOOTHABLE)}."
        )
    if loss in NEEDS_PENALTY and not regularization.logit_penalty:
        raise ValueError(
            f"discriminator_loss={loss!r} falls without end as the logits grow, so something has to hold them: set "
            "discriminator_regularization={'logit_penalty': 0.01} or another coefficient."
        )
