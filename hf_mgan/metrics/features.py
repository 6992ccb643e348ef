"""Features of texts: what an encoder from the Hub makes of them, for the metrics that compare clouds of features."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..checks import COUNT, PLACE, optional


def encoder_features(
    encoder: str, batch_size: int = 64, max_length: int | None = None, device: str | torch.device = "cpu"
) -> Callable[[Sequence[str]], Tensor]:
    """Load an encoder and return the function from texts to the means of its last hidden states.

    The mean is over a text's own tokens, its special tokens among them, as sentence-transformers pools
    (Reimers and Gurevych 2019, "Sentence-BERT" ([1908.10084](https://huggingface.co/papers/1908.10084))). A text
    without tokens, which the tokenizer of a causal model makes of an empty one, has the vector 0. The encoder is
    frozen, and without dropout.

    Args:
        encoder (`str`): Id on the Hub or folder of a model that `AutoModel` loads and of its tokenizer.
        batch_size (`int`, *optional*, defaults to 64): Texts per forward pass; texts of similar length go together.
        max_length (`int`, *optional*): Tokens at which texts are cut; by default the most that the encoder and its
            tokenizer can take, if they state a limit.
        device (`str` or `torch.device`, *optional*, defaults to `"cpu"`): Where the encoder runs.

    Returns:
        `Callable`: From N texts to a `Tensor` of shape `(N, D)`, float32, on the CPU.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If a number is less than 1, `encoder` is empty or has no tokenizer, or `max_length` is more than it
            can take.

    Example:
        ```python
        >>> features = encoder_features("sentence-transformers/all-MiniLM-L6-v2")  # doctest: +SKIP
        >>> features(["A dog barks", "A cat sleeps"]).shape  # doctest: +SKIP
        torch.Size([2, 384])

        ```
    """
    from transformers import AutoModel

    from ..models import checked_max_length, length_limit, load_processing_class

    PLACE("encoder", encoder)
    batch_size, max_length = COUNT("batch_size", batch_size), optional(COUNT)("max_length", max_length)

    # On the right, a text's positions are its own, whatever it is padded with.
    tokenizer = load_processing_class(encoder, "encoder", "choose another encoder", padding_side="right")
    model = AutoModel.from_pretrained(encoder, dtype=torch.float32).to(device).eval()
    cut = length_limit(model, tokenizer) if max_length is None else max_length
    if cut is not None:
        cut = checked_max_length(model, tokenizer, cut, "max_length")

    @torch.no_grad()
    def features(texts: Sequence[str]) -> Tensor:
        means = torch.zeros(len(texts), model.config.hidden_size)
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            chosen = [texts[row] for row in rows]
            batch = tokenizer(
                chosen, padding=True, truncation=cut is not None, max_length=cut, return_tensors="pt", verbose=False
            ).to(device)
            has_tokens = batch["attention_mask"].any(1)
            if not has_tokens.any():
                continue
            batch = {name: values[has_tokens] for name, values in batch.items()}
            mask = batch["attention_mask"][..., None]
            hidden = model(**batch).last_hidden_state  # (rows, tokens, D)
            means[torch.tensor(rows)[has_tokens.cpu()]] = ((hidden * mask).sum(1) / mask.sum(1)).cpu()
        return means

    return features


def check_features(real_features: Tensor, generated_features: Tensor) -> None:
    """Refuse what are not two clouds of features in one space.

    Args:
        real_features (`Tensor` of shape `(N, D)`): Features of real texts.
        generated_features (`Tensor` of shape `(M, D)`): Features of generated texts.

    Raises:
        ValueError: If they have other shapes, or a value that is not finite.
    """
    shapes = tuple(real_features.shape), tuple(generated_features.shape)
    if real_features.ndim != 2 or generated_features.ndim != 2 or shapes[0][1] != shapes[1][1]:
        raise ValueError(f"Features must be of shapes (N, D) and (M, D), got {shapes[0]} and {shapes[1]}.")
    for side, features in (("real", real_features), ("generated", generated_features)):
        check_finite(features, side)


def check_finite(features: Tensor, side: str) -> None:
    """Refuse features that are not numbers.

    Args:
        features (`Tensor` of shape `(N, D)`): The features.
        side (`str`): Which texts they are of, for the message.

    Raises:
        ValueError: If a value is infinite or nan.
    """
    wrong = (~features.isfinite().all(1)).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            f"Features must be finite, and those of {len(wrong)} of {len(features)} {side} texts are not, first those "
            f"of text {wrong[0]}. Let the encoder run in float32, and see what it makes of an empty text."
        )
