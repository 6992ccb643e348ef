"""Likelihood: how probable texts are to a language model, and how well generated texts teach one about real texts.

In: token ids and a causal language model, at temperature 1. Out: nats, one sum a text, so that a bootstrap can draw
from texts; [`nll_per_token`] and [`perplexity`] summarise them. Perplexities compare only between models of one
tokenizer.
"""

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

IGNORED = -100
MAX_GRADIENT_NORM = 1.0


class TextNll(NamedTuple):
    """The negative log-likelihood of one text.

    Args:
        nll (`float`): Summed over its tokens, in nats, [0, inf).
        tokens (`int`): Number of its tokens.
    """

    nll: float
    tokens: int


class ReversePerplexity(NamedTuple):
    """What a language model makes of real texts after it has learnt from others.

    Args:
        generated (`float`): Perplexity of the model that has learnt from generated texts, [1, inf).
        real (`float`): Perplexity of the same model after as many real texts, to read the first by; nan if not
            asked for.
    """

    generated: float
    real: float


def token_nlls(
    model: nn.Module, prompt_ids: Sequence[list[int]], completion_ids: Sequence[list[int]], batch_size: int = 16
) -> list[TextNll]:
    """Compute -log q(completion | prompt) of each text at temperature 1, in evaluation mode and without gradient.

    Args:
        model (`nn.Module`): A causal language model; its mode is restored.
        prompt_ids (`Sequence[list[int]]` of length N): Tokens of the prompts, at least one each: a text from nothing
            starts from the token that the generator starts from.
        completion_ids (`Sequence[list[int]]` of length N): Tokens of the texts, with the end token where there is one,
            which counts as a token.
        batch_size (`int`, *optional*, defaults to 16): Texts a forward pass.

    Returns:
        `list[TextNll]` of length N: The sums, each with its number of tokens.

    Raises:
        ValueError: If prompts and texts do not pair up, or if a prompt is empty.
    """
    _check_pairs(prompt_ids, completion_ids)
    training = model.training
    model.eval()
    results: list[TextNll] = []
    for start in range(0, len(prompt_ids), batch_size):
        chunk = slice(start, start + batch_size)
        with torch.no_grad():
            losses = _token_losses(model, prompt_ids[chunk], completion_ids[chunk])
        sums = losses.sum(1).tolist()
        results += [TextNll(nll, len(ids)) for nll, ids in zip(sums, completion_ids[chunk], strict=True)]
    model.train(training)
    return results


def nll_per_token(nlls: Sequence[TextNll]) -> float:
    """Compute the mean negative log-likelihood of a token, over the tokens of all texts together.

    Args:
        nlls (`Sequence[TextNll]`): What [`token_nlls`] returns, or a draw from it.

    Returns:
        `float`: In nats, [0, inf); nan where there is no token.

    Example:
        ```python
        >>> nll_per_token([TextNll(6.0, 2), TextNll(0.0, 1)])
        2.0
        ```
    """
    tokens = sum(text.tokens for text in nlls)
    return sum(text.nll for text in nlls) / tokens if tokens else math.nan


def perplexity(nlls: Sequence[TextNll]) -> float:
    """Compute exp of [`nll_per_token`]: among how many equally likely tokens the model is torn.

    Args:
        nlls (`Sequence[TextNll]`): What [`token_nlls`] returns, or a draw from it.

    Returns:
        `float`: [1, inf); nan where there is no token.

    Example:
        ```python
        >>> perplexity([TextNll(math.log(4), 1), TextNll(math.log(4), 1)])
        4.0
        ```
    """
    return math.exp(nll_per_token(nlls))


def reverse_perplexity(
    generated_ids: Sequence[list[int]],
    real_ids: Sequence[list[int]] | None,
    test_ids: Sequence[list[int]],
    *,
    model: nn.Module,
    start_token_id: int,
    epochs: int = 5,
    learning_rate: float = 1e-3,
    batch_size: int = 32,
    seed: int = 0,
) -> ReversePerplexity:
    """Train a language model on generated texts and compute the perplexity of real texts under it.

    Zhao et al. 2018, "Adversarially regularized autoencoders"
    ([1706.04223](https://huggingface.co/papers/1706.04223)), who call it reverse perplexity; Semeniuta et al. 2018
    ([1806.04936](https://huggingface.co/papers/1806.04936)) find that it tells collapse. What the generator never
    writes, the model never learns, and finds unlikely in real texts. A copy of the same model is trained in the same
    way on real texts. Both learn from as many texts, the first ones of each side. Both figures depend on the model, on
    the number of texts and on the steps, so read them side by side and compare only what was computed alike.

    Args:
        generated_ids (`Sequence[list[int]]`): Tokens of generated texts, at least one each, with the end token where
            there is one.
        real_ids (`Sequence[list[int]]`, *optional*): Tokens of real texts, in the same form; None where their figure
            is known already.
        test_ids (`Sequence[list[int]]`): Tokens of other real texts, whose perplexity is computed.
        model (`nn.Module`): A causal language model such as [`small_language_model`]; copies of it are trained, and it
            stays as it is.
        start_token_id (`int`): The token from which each text starts; it is not counted.
        epochs (`int`, *optional*, defaults to 5): Passes over the texts.
        learning_rate (`float`, *optional*, defaults to 1e-3): Of AdamW without weight decay, for a model of that size.
        batch_size (`int`, *optional*, defaults to 32): Texts a step.
        seed (`int`, *optional*, defaults to 0): Seed of the order of the texts and of dropout; the state of the
            caller's random numbers stays as it is.

    Returns:
        [`ReversePerplexity`]: The perplexity of the test texts after training on generated and on real texts.

    Raises:
        ValueError: If one of the three sets is empty.
    """
    sizes = {"generated": len(generated_ids), "test": len(test_ids)}
    if real_ids is not None:
        sizes["real"] = len(real_ids)
    if not all(sizes.values()):
        raise ValueError(f"reverse_perplexity needs texts of each kind, got {sizes}.")
    count = len(generated_ids) if real_ids is None else min(len(generated_ids), len(real_ids))

    def perplexity_after(texts: Sequence[list[int]]) -> float:
        learner = copy.deepcopy(model)
        _train(learner, texts, start_token_id, epochs, learning_rate, batch_size, seed)
        return perplexity(token_nlls(learner, [[start_token_id]] * len(test_ids), test_ids, batch_size))

    return ReversePerplexity(
        perplexity_after(generated_ids[:count]), math.nan if real_ids is None else perplexity_after(real_ids[:count])
    )


def small_language_model(vocab_size: int, max_length: int = 128, seed: int = 0) -> "GPT2LMHeadModel":
    """Make a language model that learns on a CPU: 2 layers of width 128 with 4 heads, in the manner of GPT-2.

    It has 0.4 million weights, and 128 more for each token of the vocabulary and each place.

    Args:
        vocab_size (`int`): Number of tokens.
        max_length (`int`, *optional*, defaults to 128): Number of tokens of the longest text, with its start token.
        seed (`int`, *optional*, defaults to 0): Seed of its weights; the state of the caller's random numbers stays as
            it is.

    Returns:
        `GPT2LMHeadModel`: With random weights.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=vocab_size, n_positions=max_length, n_embd=128, n_layer=2, n_head=4,
        bos_token_id=None, eos_token_id=None,  # those of GPT-2 by default, which lie beyond a small vocabulary
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config)


def _train(
    model: nn.Module,
    texts: Sequence[list[int]],
    start_token_id: int,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for _ in range(epochs):
            for batch in torch.randperm(len(texts)).split(batch_size):
                chosen = [texts[index] for index in batch.tolist()]
                losses = _token_losses(model, [[start_token_id]] * len(chosen), chosen)
                (losses.sum() / sum(map(len, chosen))).backward()
                nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
                optimizer.step()
                optimizer.zero_grad()


def _token_losses(model: nn.Module, prompt_ids: Sequence[list[int]], completion_ids: Sequence[list[int]]) -> Tensor:
    """Return the cross-entropy of each token of the completions, of shape `(B, T)`, 0 elsewhere."""
    device = next(model.parameters()).device
    pairs = list(zip(prompt_ids, completion_ids, strict=True))

    def padded(rows: list[list[int]], value: int) -> Tensor:
        tensors = [torch.tensor(row) for row in rows]
        return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value).to(device)

    # What stands in the padding is of no consequence: it is on the right and has no label.
    ids = padded([[*prompt, *text] for prompt, text in pairs], 0)
    mask = padded([[1] * (len(prompt) + len(text)) for prompt, text in pairs], 0)
    labels = padded([[IGNORED] * len(prompt) + list(text) for prompt, text in pairs], IGNORED)
    logits = model(input_ids=ids, attention_mask=mask).logits
    return F.cross_entropy(logits[:, :-1].float().transpose(1, 2), labels[:, 1:], reduction="none")


def _check_pairs(prompt_ids: Sequence[list[int]], completion_ids: Sequence[list[int]]) -> None:
    if len(prompt_ids) != len(completion_ids):
        raise ValueError(
            f"Each text follows its own prompt, but got {len(prompt_ids)} prompts and {len(completion_ids)} texts."
        )
    if not all(prompt_ids):
        raise ValueError(
            f"Prompt {list(prompt_ids).index([])} is empty, so that nothing predicts the first token of its text. "
            "Start it from the token that the generator starts from."
        )
