"""The template of the modules for Hugging Face's `evaluate`, which needs the extra `evaluation`.

A module names the pure function that it hands texts to, what it takes and what to cite; its docstring describes the
inputs. In: plain texts, `predictions` that a model has written and, for some, as many real texts as `references`. Out:
numbers, as a flat dictionary that `json` can write.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import evaluate
from datasets import Features, Value
from torch import Tensor

from .features import encoder_features
from .units import split_into_units


PREDICTIONS = Features({"predictions": Value("string")})
PREDICTIONS_AND_REFERENCES = Features({"predictions": Value("string"), "references": Value("string")})


class TextMetric(evaluate.Metric):
    """A metric of texts, by a function of [`hf_mgan.metrics`] that takes them as units and returns a number.

    `evaluate` loads the first metric that it finds by name in a script, which therefore imports this module and not
    this class.

    Attributes:
        FUNCTION (`Callable`): The function; its docstring describes the metric.
        FEATURES (`Features`): [`PREDICTIONS`] or [`PREDICTIONS_AND_REFERENCES`].
        CITATION (`str`): In BibTeX.
    """

    FUNCTION: ClassVar[Callable[..., Any]]
    FEATURES: ClassVar[Features] = PREDICTIONS
    CITATION: ClassVar[str] = ""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(self.FUNCTION.__doc__),
            citation=self.CITATION,
            inputs_description=str(self.__doc__),
            features=self.FEATURES,
        )

    def _compute(self, *args: Any, **given: Any) -> dict[str, float]:
        unit = given.pop("unit", "auto")
        sides = [split_into_units(given.pop(name), unit) for name in self.FEATURES]
        return {self.name: self.FUNCTION(*sides, **given)}


def features_of(
    encoder: str | Callable[[list[str]], Tensor], references: list[str], predictions: list[str]
) -> tuple[Tensor, Tensor]:
    """Compute the features of real and of generated texts, each of shape `(N, D)`.

    Args:
        encoder (`str` or `Callable`): Id or folder of a Hub encoder, or a function from texts to features, such as
            [`encoder_features`] makes with settings of its own.
        references (`list[str]`): Real texts.
        predictions (`list[str]`): Generated texts.
    """
    features = encoder_features(encoder) if isinstance(encoder, str) else encoder
    return features(references), features(predictions)
