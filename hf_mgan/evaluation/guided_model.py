"""A generator with the discriminator that guides it, as one of the models of an evaluation."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..decoding import DecodingConfig, Filter, GuidedSamples, guided_sample
from ..discriminator import Discriminator
from ..discriminator.calibration import saved_calibration
from .settings import EvaluationConfig


if TYPE_CHECKING:
    from typing import Any

    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class GuidedModel:
    """A generator and its discriminator, sampled together.

    It has one temperature, since its discriminator is trained for one: that of `config`, or that of the calibration.
    Several thresholds are several models.

    Args:
        generator (`str`, `PreTrainedModel` or `PeftModel`): Hub id, folder or model.
        discriminator (`str` or [`Discriminator`]): Hub id or folder of a discriminator, or the discriminator itself.
        config ([`~decoding.DecodingConfig`], *optional*): How they are sampled; lengths, batch size and seed are those
            of the evaluation.
        keep (`Callable`, *optional*): A hard filter, as in [`~decoding.guided_sample`].
    """

    generator: "str | PreTrainedModel | PeftModel"
    discriminator: "str | Discriminator"
    config: DecodingConfig = field(default_factory=DecodingConfig)
    keep: Filter | None = None

    @property
    def temperature(self) -> float:
        """The temperature of the generator."""
        given = self.discriminator
        calibration = saved_calibration(given) if isinstance(given, str) else given.calibration
        return self.config.completed(calibration).temperature

    def sample(
        self,
        generator: "Any",
        tokenizer: "PreTrainedTokenizerBase",
        prompts: list["Any"],
        config: EvaluationConfig,
    ) -> GuidedSamples:
        """Draw a text for each prompt.

        Args:
            generator (`PreTrainedModel` or `PeftModel`): The generator, loaded.
            tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
            prompts (`list`): The prompts.
            config ([`EvaluationConfig`]): Lengths, batch size and seed.
        """
        discriminator = self.discriminator
        if isinstance(discriminator, str):
            discriminator = load_guide(discriminator, self.config).to(next(generator.parameters()).device)
        settings = replace(
            self.config,
            max_new_tokens=config.max_completion_length,
            batch_size=config.batch_size,
            seed=config.seed,
        )
        return guided_sample(generator, tokenizer, discriminator, prompts, settings, self.keep)


def load_guide(discriminator: str, config: DecodingConfig, **kwargs: "Any") -> Discriminator:
    """Load a discriminator for a method of guidance: one that reads tokens has learnt from prefixes.

    Args:
        discriminator (`str`): Hub id or folder.
        config ([`~decoding.DecodingConfig`]): The method.
        **kwargs: Further arguments of [`Discriminator.from_pretrained`].
    """
    if config.method == "token_rejection":
        kwargs["prefixes"] = True
    return Discriminator.from_pretrained(discriminator, **kwargs)
