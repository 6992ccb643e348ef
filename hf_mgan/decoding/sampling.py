"""Sampling: from a causal language model and prompts to completions, and how probable they are to it.

In: prompts as they stand in a prepared dataset. Out: plain texts, written by the very path by which the trainer's
completions reach the discriminator, and their tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import SequenceBiasLogitsProcessor

from ..checks import (
    COUNT,
    INDEX,
    POSITIVE,
    SEED,
    SHARE,
    Check,
    Dict,
    Instance,
    Items,
    Number,
    checked,
    integer,
    optional,
)
from ..data.prompts import Text, encode_prompts, end_of_turn
from ..data.text_path import TextPath
from ..models import evaluation_mode, max_tokens
from .continuation import complete


if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Nothing but the temperature shapes the distribution, whatever a model's own generation config says. The last
# six change no probability, but what `generate` returns or keeps, or end it early.
PLAIN: dict[str, Any] = {
    "do_sample": True,
    "num_beams": 1,
    "top_k": 0,
    "top_p": 1.0,
    "top_h": None,
    "min_p": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_new_tokens": None,
    "min_length": 0,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "guidance_scale": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "watermarking_config": None,
    "num_return_sequences": 1,
    "return_dict_in_generate": False,
    "max_time": None,
    "stop_strings": None,
    "use_cache": True,
    "cache_implementation": None,
}
# Those of them that a user may name: they say how the next token is drawn, wherever in the text it stands. Not the
# penalties of an encoder, which is the prompt for them: `complete` calls `generate` anew within a text.
NARROWING: dict[str, Check] = {
    "top_k": integer(0, optional=True),
    "top_p": optional(SHARE),
    "top_h": Number(above=0, most=1, optional=True),
    "min_p": optional(SHARE),
    "typical_p": Number(above=0, most=1, optional=True),
    "epsilon_cutoff": Number(least=0, below=1, optional=True),
    "eta_cutoff": Number(least=0, below=1, optional=True),
    "repetition_penalty": optional(POSITIVE),
    "no_repeat_ngram_size": integer(0, optional=True),
    "bad_words_ids": Items(
        each=Items(each=INDEX, several="a list of tokens", least=1),
        several="a list of lists of tokens",
        least=1,
        optional=True,
    ),
    "suppress_tokens": Items(each=INDEX, several="a list of tokens", optional=True),
    "sequence_bias": Instance(of=(dict, list), what="a dict or a list, as transformers takes it", optional=True),
}
ARGUMENTS = {"max_new_tokens": COUNT, "temperature": POSITIVE, "seed": SEED, "batch_size": COUNT}


class Samples(NamedTuple):
    """Completions of a generator.

    Args:
        texts (`list[str]` of length N): As the discriminator would read them: without special tokens.
        prompt_ids (`list[list[int]]` of length N): Tokens of each prompt.
        completion_ids (`list[list[int]]` of length N): Tokens of each completion, with the end token where the
            generator ended by itself.
    """

    texts: list[str]
    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]


@torch.no_grad()
def sample(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Text | list[int]],
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
    on_batch: Callable[[int], None] | None = None,
    generation_kwargs: Mapping[str, Any] | None = None,
) -> Samples:
    """Draw a completion of each prompt from the model's own distribution at a temperature, and from nothing narrower.

    Neither top-k nor top-p nor a penalty, a watermark or a stop string of the model's generation config is applied: a
    comparison of models at equal temperature would otherwise compare what their configs cut away. Its end tokens are
    kept. What `generation_kwargs` names is applied.

    Args:
        model (`PreTrainedModel` or `PeftModel`): A causal language model; its mode is restored.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        prompts (`Sequence[str, list[dict] or list[int]]` of length N): Prompts, see [`encode_prompts`]. One that
            stands there several times gets as many completions, and is read once per batch.
        max_new_tokens (`int`): Number of tokens at which completions are cut.
        temperature (`float`, *optional*, defaults to 1.0): Divides the logits; above 0.
        seed (`int`, *optional*, defaults to 0): The same seed, on the same device and with the same batch size, draws
            the same completions; the state of the caller's random numbers stays as it is.
        batch_size (`int`, *optional*, defaults to 64): Completions at once.
        on_batch (`Callable`, *optional*): Called with the number of completions after each batch.
        generation_kwargs (`Mapping`, *optional*): What else shapes the distribution, see [`check_generation_kwargs`].

    Returns:
        [`Samples`]: In the order of the prompts.

    Raises:
        TypeError: If a value is of another type.
        ValueError: If a number is out of range, a prompt has no token, a completion of `max_new_tokens` would not fit
            behind the longest prompt, or `generation_kwargs` names what it may not.
    """
    max_new_tokens, temperature, seed, batch_size = checked(ARGUMENTS, locals()).values()
    generation_kwargs = check_generation_kwargs(generation_kwargs)
    prompt_ids = encode_prompts(prompts, tokenizer)
    check_room(model, prompt_ids, max_new_tokens)
    ends = end_tokens(model, tokenizer)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    settings = {**PLAIN, **generation_kwargs, "temperature": temperature, "pad_token_id": padding}
    device = next(model.parameters()).device
    completions: list[list[int]] = [[] for _ in prompt_ids]
    # Prompts of one length stand together, so that little is padded.
    order = sorted(range(len(prompt_ids)), key=lambda place: len(prompt_ids[place]))
    with evaluation_mode(model), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            drawn = complete(model, [prompt_ids[place] for place in places], max_new_tokens, ends, settings)
            for place, row in zip(places, drawn, strict=True):
                completions[place] = row
            if on_batch is not None:
                on_batch(len(places))
    return Samples(TextPath(tokenizer, end_ids=ends).decode(prompt_ids, completions), prompt_ids, completions)


def check_room(model: "PreTrainedModel | PeftModel", prompt_ids: Sequence[list[int]], max_new_tokens: int) -> None:
    """Check that a generator has positions for prompts and completions.

    Raises:
        ValueError: If a completion would not fit behind the longest prompt.
    """
    limit = max_tokens(model) if hasattr(model, "config") else None  # anything else with a `generate` states none
    longest = max(map(len, prompt_ids), default=0)
    if limit is not None and longest + max_new_tokens > limit:
        remedy = f"at most {limit - longest} is possible" if limit > longest else "shorten the prompts"
        raise ValueError(
            f"max_new_tokens is {max_new_tokens}, and the generator has {limit} positions, {longest} of which the "
            f"longest prompt takes: {remedy}."
        )


def check_generation_kwargs(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return sampling parameters that say nothing but how the next token is drawn.

    Args:
        given (`Mapping`, *optional*): Arguments of `generate`. Allowed are those that narrow or shift the distribution
            of the next token, such as `top_k`, `top_p`, `min_p`, `repetition_penalty` and `bad_words_ids`.

    Raises:
        TypeError: If they are no dict, or one is of another type.
        ValueError: If another one is named, or one is out of range.
    """
    given = Dict(optional=True)("generation_kwargs", given) or {}
    if unknown := sorted(given.keys() - NARROWING.keys()):
        raise ValueError(
            f"generation_kwargs may name {', '.join(sorted(NARROWING))}, got {', '.join(unknown)}. Temperature, "
            "length, seed and batch size are arguments of their own; searches, such as beam search, draw nothing."
        )
    narrowing = {name: NARROWING[name](f"{name} in generation_kwargs", value) for name, value in given.items()}
    if (bias := narrowing.get("sequence_bias")) is not None:
        try:
            SequenceBiasLogitsProcessor(bias)
        except (TypeError, IndexError, ValueError) as error:
            raise ValueError(f"sequence_bias in generation_kwargs is none to transformers: {error}") from error
    return narrowing


def end_tokens(model: Any, tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """Return the tokens at which generation ends: the config's, the tokenizer's and the chat template's."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {token for token in (*ids, tokenizer.eos_token_id, end_of_turn(tokenizer)) if token is not None}
