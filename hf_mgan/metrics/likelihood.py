"""Likelihood: how probable texts are to a language model, and how well generated texts teach one about real texts.

In: token ids and a causal language model. Out: nats. All of it comes from [`token_losses`], one term per token of a
completion: the sums per text ([`sequence_logps`], [`token_nlls`], so that a bootstrap can draw from texts), what
summarises them ([`nll_per_token`], [`perplexity`]), and what a model trains on ([`completion_losses`]). Perplexities
compare only between models of one tokenizer.
"""

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..checks import COUNT, INDEX, POSITIVE, SEED, Check, Items, checked, optional
from ..models import evaluation_mode


if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

IGNORED = -100  # label of a token that is no part of a completion, as transformers has it
MAX_GRADIENT_NORM = 1.0
TEMPERATURES = Items(each=POSITIVE, several="a list of numbers greater than 0")
TRAINING: dict[str, Check] = {
    "start_token_id": INDEX,
    "epochs": COUNT,
    "learning_rate": POSITIVE,
    "batch_size": COUNT,
    "seed": SEED,
}
SMALL_MODEL: dict[str, Check] = {"vocab_size": COUNT, "max_length": COUNT, "seed": SEED}


class TextNll(NamedTuple):
    """The negative log-likelihood of one text.

    Args:
        nll (`float`): Summed over its tokens, in nats, [0, inf).
        tokens (`int`): Number of its tokens.
    """

    nll: float
    tokens: int


class ReversePerplexity(NamedTuple):
    """Perplexities of real texts under a language model that has learnt from other texts.

    Args:
        generated (`float`): Perplexity of the model that has learnt from generated texts, [1, inf).
        real (`float`): Perplexity of the same model after as many real texts, to read the first by; nan if not
            asked for.
    """

    generated: float
    real: float


def padded_batch(prompt_ids: Sequence[list[int]], completion_ids: Sequence[list[int]]) -> dict[str, Tensor]:
    """Make the tensors of prompts and completions that [`completion_losses`] takes.

    Args:
        prompt_ids (`Sequence[list[int]]` of length B): Tokens of the prompts, at least one each: a text without a
            prompt starts from the token that the generator starts from.
        completion_ids (`Sequence[list[int]]` of length B): Tokens of the completions, with the end token where there
            is one.

    Returns:
        `dict[str, Tensor]`: `input_ids`, `attention_mask` and `labels`, each of shape `(B, L)`, on the CPU and padded
        on the right; the labels are -100 outside of the completions.

    Raises:
        ValueError: If prompts and completions do not pair up, or if a prompt is empty.

    Example:
        ```python
        >>> padded_batch([[1], [1, 5]], [[7, 2], [8]])["labels"]
        tensor([[-100,    7,    2],
                [-100, -100,    8]])

        ```
    """
    _check_pairs(prompt_ids, completion_ids)
    pairs = list(zip(prompt_ids, completion_ids, strict=True))

    def padded(rows: list[list[int]], value: int) -> Tensor:
        return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)

    return {
        # What stands in the padding is of no consequence: causal attention never looks to the right.
        "input_ids": padded([[*prompt, *text] for prompt, text in pairs], 0),
        "attention_mask": padded([[1] * (len(prompt) + len(text)) for prompt, text in pairs], 0),
        "labels": padded([[IGNORED] * len(prompt) + list(text) for prompt, text in pairs], IGNORED),
    }


def token_losses(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """Compute -log q of each token of the completions, the one place where a likelihood is computed.

    Args:
        logits (`Tensor` of shape `(B, L, V)`): What a causal language model returns; those of virtual tokens may stand
            before them.
        labels (`Tensor` of shape `(B, L)`): As [`padded_batch`] makes them, -100 outside of the completions.
        temperature (`float`, *optional*, defaults to 1.0): Divides the logits: that at which the model is sampled.

    Returns:
        `Tensor` of shape `(B, L - 1)`: In nats, float32, 0 outside of the completions; with the gradient of the
        logits. The last logit predicts nothing.
    """
    # From the right: virtual tokens, as prompt tuning has them, stand before the text and have logits too.
    scaled = logits[:, -labels.size(1) : -1].float()
    if temperature != 1.0:
        scaled = scaled / temperature
    targets = labels[:, 1:]
    is_completion = targets != IGNORED
    logps = scaled.log_softmax(-1).gather(2, targets.clamp(min=0)[..., None]).squeeze(2)
    return -logps.masked_fill(~is_completion, 0)


def completion_losses(model: nn.Module, batch: dict[str, Tensor], temperature: float = 1.0) -> Tensor:
    """Compute -log q of each token of the completions under a model, in its mode and with its gradient.

    The mean over the tokens, `losses.sum() / (batch["labels"] != -100).sum()`, is the loss of language modelling.

    Args:
        model (`nn.Module`): A causal language model.
        batch (`dict[str, Tensor]`): What [`padded_batch`] returns.
        temperature (`float`, *optional*, defaults to 1.0): As in [`token_losses`].

    Returns:
        `Tensor` of shape `(B, L - 1)`: In nats, float32, 0 outside of the completions, on the model's device.
    """
    return token_losses(*_logits_and_labels(model, batch), temperature)


def sequence_logps(
    model: nn.Module,
    prompt_ids: Sequence[list[int]],
    completion_ids: Sequence[list[int]],
    temperature: float = 1.0,
    batch_size: int | None = None,
) -> Tensor:
    """Compute log q(completion | prompt), summed over the tokens of each completion.

    Args:
        model (`nn.Module`): A causal language model, put into evaluation mode; its mode is restored.
        prompt_ids (`Sequence[list[int]]` of length B): Tokens of the prompts, as in [`padded_batch`].
        completion_ids (`Sequence[list[int]]` of length B): Tokens of the completions, as there.
        temperature (`float`, *optional*, defaults to 1.0): Temperature at which the model is sampled.
        batch_size (`int`, *optional*): Sequences per forward pass; all of them by default.

    Returns:
        `Tensor` of shape `(B,)`: In nats, float32, without gradient.

    Raises:
        ValueError: If prompts and completions do not pair up, or if a prompt is empty.
    """
    temperature = POSITIVE("temperature", temperature)
    return tempered_logps(model, prompt_ids, completion_ids, [temperature], batch_size)[0]


def tempered_logps(
    model: nn.Module,
    prompt_ids: Sequence[list[int]],
    completion_ids: Sequence[list[int]],
    temperatures: Sequence[float],
    batch_size: int | None = None,
) -> Tensor:
    """Compute what [`sequence_logps`] does at several temperatures, in the forward passes of one.

    Args:
        model (`nn.Module`): A causal language model, put into evaluation mode; its mode is restored.
        prompt_ids (`Sequence[list[int]]` of length B): Tokens of the prompts, as in [`padded_batch`].
        completion_ids (`Sequence[list[int]]` of length B): Tokens of the completions, as there.
        temperatures (`Sequence[float]` of length T): Temperatures at which the model is sampled.
        batch_size (`int`, *optional*): Sequences per forward pass; all of them by default.

    Returns:
        `Tensor` of shape `(T, B)`: In nats, float32, without gradient.

    Raises:
        ValueError: If prompts and completions do not pair up, or if a prompt is empty.
    """
    temperatures, batch_size = TEMPERATURES("temperatures", temperatures), optional(COUNT)("batch_size", batch_size)
    _check_pairs(prompt_ids, completion_ids)
    # Sequences of one length stand together, so that little is padded.
    order = sorted(range(len(prompt_ids)), key=lambda place: len(prompt_ids[place]) + len(completion_ids[place]))
    totals = torch.empty(len(temperatures), len(order), device=next(model.parameters()).device)
    size = batch_size or max(len(order), 1)
    with torch.no_grad(), evaluation_mode(model):
        for start in range(0, len(order), size):
            places = order[start : start + size]
            batch = padded_batch([prompt_ids[place] for place in places], [completion_ids[place] for place in places])
            logits, labels = _logits_and_labels(model, batch)
            for row, temperature in enumerate(temperatures):
                totals[row, places] = -token_losses(logits, labels, temperature).sum(1)
    return totals


def token_nlls(
    model: nn.Module, prompt_ids: Sequence[list[int]], completion_ids: Sequence[list[int]], batch_size: int = 16
) -> list[TextNll]:
    """Compute -log q(completion | prompt) of each text at temperature 1, beside its number of tokens.

    Args:
        model (`nn.Module`): A causal language model, put into evaluation mode; its mode is restored.
        prompt_ids (`Sequence[list[int]]` of length N): Tokens of the prompts, as in [`padded_batch`].
        completion_ids (`Sequence[list[int]]` of length N): Tokens of the texts, as there; the end token counts.
        batch_size (`int`, *optional*, defaults to 16): Texts per forward pass.

    Returns:
        `list[TextNll]` of length N: The sums, each with its number of tokens.

    Raises:
        ValueError: If prompts and texts do not pair up, or if a prompt is empty.
    """
    batch_size = COUNT("batch_size", batch_size)
    logps = sequence_logps(model, prompt_ids, completion_ids, batch_size=batch_size).tolist()
    return [TextNll(0.0 - logp, len(ids)) for logp, ids in zip(logps, completion_ids, strict=True)]


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
    """Compute exp of [`nll_per_token`]: the effective number of tokens among which the model chooses.

    Args:
        nlls (`Sequence[TextNll]`): What [`token_nlls`] returns, or a draw from it.

    Returns:
        `float`: [1, inf); nan where there is no token.

    Example:
        ```python
        >>> round(perplexity([TextNll(math.log(4), 1), TextNll(math.log(4), 1)]), 6)
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
    way on real texts. Both learn from as many texts, the first ones of each side. Both perplexities depend on the
    model, on the number of texts and on the steps, so read them side by side and compare only what was computed alike.

    Args:
        generated_ids (`Sequence[list[int]]`): Tokens of generated texts, at least one each, with the end token where
            there is one.
        real_ids (`Sequence[list[int]]`, *optional*): Tokens of real texts, in the same form; None where their
            perplexity is known already.
        test_ids (`Sequence[list[int]]`): Tokens of other real texts, whose perplexity is computed.
        model (`nn.Module`): A causal language model such as [`small_language_model`]; copies of it are trained, and it
            stays as it is.
        start_token_id (`int`): The token from which each text starts; it is not counted.
        epochs (`int`, *optional*, defaults to 5): Passes over the texts.
        learning_rate (`float`, *optional*, defaults to 1e-3): Of AdamW without weight decay, for a model of that size.
        batch_size (`int`, *optional*, defaults to 32): Texts per step.
        seed (`int`, *optional*, defaults to 0): Seed of the order of the texts and of dropout; the state of the
            caller's random numbers stays as it is.

    Returns:
        [`ReversePerplexity`]: The perplexity of the test texts after training on generated and on real texts.

    Raises:
        ValueError: If one of the three sets is empty.
    """
    start_token_id, epochs, learning_rate, batch_size, seed = checked(TRAINING, locals()).values()
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

    vocab_size, max_length, seed = checked(SMALL_MODEL, locals()).values()
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
                losses = completion_losses(model, padded_batch([[start_token_id]] * len(chosen), chosen))
                (losses.sum() / sum(map(len, chosen))).backward()
                nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
                optimizer.step()
                torch.clear_autocast_cache()  # of a caller's autocast, which would go on with the weights of before
                optimizer.zero_grad()


def _logits_and_labels(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the logits of a batch and its labels, both on the model's device."""
    ids, mask, labels = (
        batch[name].to(next(model.parameters()).device) for name in ("input_ids", "attention_mask", "labels")
    )
    return model(input_ids=ids, attention_mask=mask).logits, labels


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
