"""The settings of guided sampling, which the command line has too."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..checks import COUNT, POSITIVE, SEED, Check, Choice, Number, check_fields, integer, optional
from .sampling import check_generation_kwargs


if TYPE_CHECKING:
    from ..discriminator import Calibration

WITHOUT_CALIBRATION: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": 256, "generation_kwargs": {}}
Method = Literal["rejection", "resampling", "best_of_k", "metropolis_hastings", "token_rejection"]
SETTINGS: dict[str, Check] = {
    "method": Choice(among=get_args(Method)),
    "threshold": Number(),
    "num_candidates": integer(1, advice="1 keeps the generator's own text."),
    "temperature": optional(POSITIVE),
    "max_new_tokens": optional(COUNT),
    "batch_size": COUNT,
    "seed": SEED,
}


@dataclass
class DecodingConfig:
    """Settings of [`guided_sample`].

    Args:
        method (`str`, *optional*, defaults to `"rejection"`): How the discriminator corrects the generator:
            `"rejection"`, `"resampling"`, `"best_of_k"` and `"metropolis_hastings"` choose among whole texts, see
            [`~decoding.selection`]; `"token_rejection"` rejects single tokens, which takes a causal discriminator of
            the generator's own tokens that scores prefixes, see [`~decoding.token_rejection`].
        threshold (`float`, *optional*, defaults to 0.0): c of rejection in nats: the greater, the nearer to real
            text, and the more draws per text kept. With `"token_rejection"` c of each token.
        num_candidates (`int`, *optional*, defaults to 16): k, candidates per prompt. All of them are drawn, but with
            rejection, where they are the most that are. With `"token_rejection"` the most draws per token, and the
            most texts begun per prompt: one whose k draws of a token are all rejected is abandoned, but for the last.
        temperature (`float`, *optional*): Divides the generator's logits. By default that which the discriminator is
            calibrated for, 1.0 without a calibration.
        max_new_tokens (`int`, *optional*): Tokens at which completions are cut. By default those which the
            discriminator is calibrated for, 256 without a calibration.
        batch_size (`int`, *optional*, defaults to 64): Texts per forward pass, of the generator and the discriminator.
        seed (`int`, *optional*, defaults to 0): The same seed, on the same device and with the same batch size, gives
            the same texts.
        generation_kwargs (`dict`, *optional*): What else shapes the generator's distribution, such as `top_p`, see
            [`~decoding.sampling.check_generation_kwargs`]. By default what the discriminator is calibrated for; {} for
            nothing.
    """

    method: Method = field(default="rejection", metadata={"help": "How the discriminator corrects the generator."})
    threshold: float = field(
        default=0.0, metadata={"help": "c of rejection in nats: nearer to real text, more draws."}
    )
    num_candidates: int = field(default=16, metadata={"help": "Candidates per prompt; with rejection the most."})
    if TYPE_CHECKING:  # as `completed` leaves them
        temperature: float = 1.0
        max_new_tokens: int = 256
    else:
        temperature: float | None = field(
            default=None, metadata={"help": "Divides the generator's logits; by default as calibrated, or 1."}
        )
        max_new_tokens: int | None = field(
            default=None, metadata={"help": "Tokens at which texts are cut; by default as calibrated, or 256."}
        )
    batch_size: int = field(default=64, metadata={"help": "Texts per forward pass."})
    seed: int = field(default=0, metadata={"help": "Seed of the texts."})
    generation_kwargs: dict[str, Any] | None = field(
        default=None, metadata={"help": "What else shapes the distribution, as JSON, such as '{\"top_p\": 0.9}'."}
    )

    def __post_init__(self) -> None:
        self.check()

    def completed(self, calibration: "Calibration | None") -> "DecodingConfig":
        """Return these settings with what is not set taken from a calibration, if there is one.

        Args:
            calibration ([`~discriminator.Calibration`], *optional*): That of the discriminator.
        """
        values = {name: getattr(calibration, name, default) for name, default in WITHOUT_CALIBRATION.items()}
        return replace(self, **{name: value for name, value in values.items() if getattr(self, name) is None})

    def check(self) -> None:
        """Check the settings, as they are when they are made and again when they are used.

        Raises:
            TypeError: If one is of another type.
            ValueError: If one is out of range, or has no effect.
        """
        check_fields(self, SETTINGS)
        if self.threshold and self.method not in ("rejection", "token_rejection"):
            raise ValueError(
                f"threshold={self.threshold:g} has no effect on {self.method}, which looks at differences of "
                "log-ratios alone. Use rejection or token_rejection, or leave it out."
            )
        self.generation_kwargs = (
            None if self.generation_kwargs is None else check_generation_kwargs(self.generation_kwargs)
        )
        if self.generation_kwargs and self.method == "token_rejection":
            raise ValueError(
                f"generation_kwargs={self.generation_kwargs} cannot be applied by token_rejection, which draws "
                "from the generator's own distribution at the temperature. Leave them out, or use rejection."
            )
