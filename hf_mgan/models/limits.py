"""What a model can read: how many tokens, and which.

In: a model, loaded or without weights, and its tokenizer. Out: numbers of tokens, and errors that say what to do.
"""

from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase


FALLBACK_MAX_LENGTH = 512  # tokens, where neither model nor tokenizer states a limit
# What families call the number of their positions; the first has a synonym in most that call it otherwise.
STATED = ("max_position_embeddings", "max_seq_len")
NO_LIMIT = 10**9  # a tokenizer without a limit states a number with thirty digits


def max_tokens(model: PreTrainedModel | PeftModel) -> int | None:
    """Return the number of tokens that a model can read at once, as far as it states one.

    It is the number of its positions, less those that texts cannot use: RoBERTa and its kin (XLM-R, CamemBERT,
    Longformer, MPNet, ESM, ...) count positions from behind that of the padding, and virtual tokens (prompt tuning,
    prefix tuning) stand before every text.

    Args:
        model (`PreTrainedModel` or `PeftModel`): Any model of transformers; its weights may be missing (`meta`).

    Returns:
        `int`, *optional*: None for a family without a limit, such as XLNet, BLOOM, T5 or Mamba.
    """
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    config = inner.config.get_text_config()
    stated = next((value for value in (getattr(config, name, None) for name in STATED) if value is not None), None)
    if stated is None or stated < 0:  # XLNet says -1
        return None
    tables = [module for name, module in inner.named_modules() if name.rpartition(".")[2] == "position_embeddings"]
    padding = [index for table in tables if (index := getattr(table, "padding_idx", None)) is not None]
    return stated - max((index + 1 for index in padding), default=0) - num_virtual_tokens(model)


def num_virtual_tokens(model: PreTrainedModel | PeftModel) -> int:
    """Return how many virtual tokens (prompt tuning, p-tuning, prefix tuning) stand before every text."""
    if not isinstance(model, PeftModel) or not model.active_peft_config.is_prompt_learning:
        return 0
    return model.active_peft_config.num_virtual_tokens


def length_limit(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the number of tokens that both the model and its tokenizer can take, None if neither has a limit."""
    limits = [tokenizer.model_max_length, max_tokens(model)]
    return min((limit for limit in limits if limit is not None and limit < NO_LIMIT), default=None)


def checked_max_length(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None,
    argument: str,
    least: int = 1,
) -> int:
    """Return the number of tokens to cut texts to, no more than tokenizer and model can take.

    Args:
        model (`PreTrainedModel` or `PeftModel`): The model.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        max_length (`int`, *optional*): What was asked for; the most that both can take by default, or
            [`FALLBACK_MAX_LENGTH`] where they state no limit.
        argument (`str`): Name of the argument that holds it, for errors.
        least (`int`, *optional*, defaults to 1): The least that makes sense.

    Returns:
        `int`: At least `least`.

    Raises:
        ValueError: If it is out of range.
    """
    limit = length_limit(model, tokenizer)
    chosen = (FALLBACK_MAX_LENGTH if limit is None else limit) if max_length is None else max_length
    if chosen < least or (limit is not None and chosen > limit):
        raise ValueError(f"{argument} must lie between {least} and the model's limit of {limit}, got {chosen}.")
    return chosen


def check_vocabulary(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, of: str, argument: str
) -> None:
    """Check that a model has a row of weights for every token of its tokenizer.

    Args:
        model (`PreTrainedModel` or `PeftModel`): The model.
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer.
        of (`str`): Which model it is, such as "generator", for the error.
        argument (`str`): Name of the argument that takes a tokenizer, for the error.

    Raises:
        ValueError: If the tokenizer has a token that the model has not.
    """
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    rows = getattr(inner.config.get_text_config(), "vocab_size", None)
    if rows is None:  # CANINE hashes characters
        return
    # Placeholders of images and sound have names of their own; Gemma 3 has one more token than its text models.
    names = set(tokenizer.SPECIAL_TOKENS_ATTRIBUTES) - set(PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES)
    unread = {str(getattr(tokenizer, name)) for name in names}
    known = ((token, index) for token, index in tokenizer.get_vocab().items() if token not in unread)
    token, index = max(known, key=lambda item: item[1])
    if index >= rows:
        raise ValueError(
            f"The {of}'s tokenizer has tokens that the {of} has not: {token!r} has the index {index}, and there are "
            f"{rows} embeddings. Give the tokenizer that belongs to the model as {argument}, or, if tokens were added "
            "to it, load the model and call model.resize_token_embeddings(len(tokenizer))."
        )
