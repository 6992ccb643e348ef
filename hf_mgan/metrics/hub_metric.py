"""What the modules for Hugging Face's `evaluate` have in common. It needs the extra `evaluation`.

In: plain texts, `predictions` that a model has written and, for some, as many real texts as `references`. A module
hands them to the pure function of the same name; where that takes words, these are the runs between white space.
Out: numbers, as a flat dictionary that `json` can write.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import evaluate
from datasets import Features, Value
from torch import Tensor

from .features import encoder_features


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PREDICTIONS = Features({"predictions": Value("string")})
PREDICTIONS_AND_REFERENCES = Features({"predictions": Value("string"), "references": Value("string")})


class TextMetric(evaluate.Metric, ABC):
    """A metric of texts that refuses what is no text.

    `evaluate` itself turns what is no string into one, takes a single text for a list of letters, and leaves `None` as
    it is. It loads the first class of a script that is not abstract, so this one has to be.
    """

    @abstractmethod
    def _compute(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Compute the measure of all texts."""

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add texts to those of which the measure is computed.

        Raises:
            ValueError: If predictions and references differ in number.
            TypeError: If they are not lists of texts.
        """
        given = {"predictions": predictions, "references": references}
        for name in self.features:
            check_texts(name, given[name])
        super().add_batch(predictions=predictions, references=references, **kwargs)


def check_texts(name: str, texts: Any) -> None:
    """Raise a `TypeError` unless what is given by a name is a list, a tuple or a column of strings."""
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise TypeError(f"`{name}` must be a list of texts, got {type(texts).__name__}.")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"`{name}` must be a list of texts, got {type(text).__name__} at {index}: {text!r}.")


def words(texts: Sequence[str]) -> list[list[str]]:
    """Split texts at white space, which parts neither punctuation nor languages written without spaces."""
    return [text.split() for text in texts]


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


def tokens_with_end(
    texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase", max_length: int | None
) -> tuple[int, list[list[int]]]:
    """Write texts in tokens as a generator writes them from nothing: a start token, the text, an end token.

    Args:
        texts (`Sequence[str]`): Plain texts.
        tokenizer (`PreTrainedTokenizerBase`): The language model's.
        max_length (`int`, *optional*): Tokens at which a text is cut, the start not counted.

    Returns:
        `tuple[int, list[list[int]]]`: The start token (BOS, or EOS where there is none, as in GPT-2) and the tokens of
        each text, the last one EOS unless they are cut before it.

    Raises:
        ValueError: If the tokenizer has no EOS token.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise ValueError("The end of a text counts as a token, and this tokenizer has no EOS token.")
    rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    start = end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return start, [[*row, end][:max_length] for row in rows]
