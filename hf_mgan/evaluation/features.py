"""Features of texts: what an encoder from the Hub makes of them, for the measures that compare clouds of features."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def encoder_features(
    encoder: str, batch_size: int = 64, max_length: int | None = None, device: str | torch.device = "cpu"
) -> Callable[[Sequence[str]], Tensor]:
    """Load an encoder and return the function from texts to the means of its last hidden states.

    The mean is over a text's own tokens, its special tokens among them, as sentence-transformers pools
    (Reimers and Gurevych 2019, "Sentence-BERT" ([1908.10084](https://huggingface.co/papers/1908.10084))). The encoder
    is frozen, and without dropout.

    Args:
        encoder (`str`): Id on the Hub or folder of a model that `AutoModel` loads and of its tokenizer.
        batch_size (`int`, *optional*, defaults to 64): Texts a forward pass; texts of similar length go together.
        max_length (`int`, *optional*): Tokens at which texts are cut, at most what the tokenizer says the encoder
            reads, which is the default.
        device (`str` or `torch.device`, *optional*, defaults to `"cpu"`): Where the encoder runs.

    Returns:
        `Callable`: From N texts to a `Tensor` of shape `(N, D)`, float32, on the CPU.

    Example:
        ```python
        >>> features = encoder_features("sentence-transformers/all-MiniLM-L6-v2")
        >>> features(["A dog barks", "A cat sleeps"]).shape
        torch.Size([2, 384])
        ```
    """
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = AutoModel.from_pretrained(encoder, dtype=torch.float32).to(device).eval()

    @torch.no_grad()
    def features(texts: Sequence[str]) -> Tensor:
        means = torch.empty(len(texts), model.config.hidden_size)
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = tokenizer(
                [texts[row] for row in rows], padding=True, truncation=True, max_length=max_length, return_tensors="pt"
            ).to(device)
            mask = batch["attention_mask"][..., None]
            hidden = model(**batch).last_hidden_state  # (rows, tokens, D)
            means[rows] = ((hidden * mask).sum(1) / mask.sum(1)).cpu()
        return means

    return features
