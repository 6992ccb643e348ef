"""Prompts: as plain text, and as the tokens that the generator is given.

In: prompts as a prepared dataset has them, texts or messages. Out: their plain texts, or their tokens, and what the
tokenizer and its chat template put around a text: the start of a sequence, and the end of an answer.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from jinja2 import TemplateError


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages: TypeAlias = list[dict[str, Any]]
Text: TypeAlias = str | Messages
# Of many short texts the lists of the masks take longer than the tokens; a text that is longer than a model can read
# is cut later.
IDS_ALONE: dict[str, Any] = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}


def plain_text(text: Text) -> str:
    """Return the text of a string or of messages; the content of a message is a string or a list of blocks.

    Args:
        text (`str` or `list[dict]`): A text, or messages with `role` and `content`.

    Returns:
        `str`: The text itself; a single message without its role; several messages each on a line after its role.
    """
    if isinstance(text, str):
        return text
    contents = []
    for message in text:
        content = message.get("content") or ""
        if not isinstance(content, str):
            content = "".join(block.get("text") or "" for block in content)
        contents.append(content)
    if len(contents) == 1:
        return contents[0]
    return "\n".join(f"{message['role']}: {content}" for message, content in zip(text, contents, strict=True))


def answer_text(text: Text) -> str:
    """Return what the assistant says in a completion: of several messages its own, without those of tools.

    A completion with calls of tools is several messages, and its reference most often one. By the names of the roles,
    or by what a tool writes, a discriminator would tell them apart without reading what the assistant says.

    Args:
        text (`str` or `list[dict]`): A completion, or a reference.

    Returns:
        `str`: The text itself, or the contents of the assistant's messages, a line each.
    """
    if isinstance(text, str) or len(text) == 1:
        return plain_text(text)
    said = [plain_text([message]) for message in text if message["role"] == "assistant"]
    return "\n".join(one for one in said if one.strip())


def as_prompts(prompts: Sequence[Text], tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Write prompts as plain text without the generator's special tokens; a bare start of sequence becomes "".

    Args:
        prompts (`Sequence[str or list[dict]]`): Prompts as they stand in the dataset.
        tokenizer (`PreTrainedTokenizerBase`): The generator's tokenizer.

    Returns:
        `list[str]`: One plain text per prompt.
    """
    if not prompts:
        return []
    texts = [plain_text(prompt) for prompt in prompts]
    different = list(dict.fromkeys(texts))  # a batch repeats its prompts
    ids = tokenizer(different, add_special_tokens=False, **IDS_ALONE)["input_ids"]
    written = dict(zip(different, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True))
    return [written[text] for text in texts]


def added_tokens(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """Return the special tokens that a tokenizer puts before and behind every text."""
    plain, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start], whole[start + len(plain) :]
    return [], []


def start_of_sequence(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return the prompt that stands for "no prompt": what makes the tokenizer give the start token, once.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): The generator's tokenizer.

    Returns:
        `str`: "" where the tokenizer adds a start token by itself, or else its BOS token, or else its EOS token
        (GPT-2).

    Raises:
        ValueError: If the tokenizer has none of them.
    """
    if added_tokens(tokenizer)[0]:
        return ""
    start = tokenizer.bos_token or tokenizer.eos_token
    if start is None:
        raise ValueError(
            "Text without a prompt starts from the tokenizer's BOS or EOS token, and this tokenizer has neither. Set "
            "tokenizer.bos_token, or give a dataset with a `prompt` column."
        )
    return start


def encode_prompts(
    prompts: Sequence[Text | list[int]],
    tokenizer: "PreTrainedTokenizerBase",
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[list[int]]:
    """Encode prompts as TRL's trainers do: a string with the tokenizer's special tokens, messages by its template.

    What a tokenizer puts behind every text, such as an end token, is left out: a prompt goes on.

    Args:
        prompts (`Sequence[str, list[dict] or list[int]]` of length N): Prompts as [`prepare_dataset`] makes them, or
            their tokens, which stay as they are.
        tokenizer (`PreTrainedTokenizerBase`): The generator's tokenizer.
        template_kwargs (`Mapping`, *optional*): Further arguments of the chat template, as the trainer has them.

    Returns:
        `list[list[int]]` of length N: Their tokens.

    Raises:
        ValueError: If a prompt has no token, so that nothing would predict the first one of its completion.
    """
    strings = list(dict.fromkeys(prompt for prompt in prompts if isinstance(prompt, str)))
    encoded = dict(zip(strings, encode_beginnings(strings, tokenizer), strict=True))
    rows = []
    for place, prompt in enumerate(prompts):
        if not isinstance(prompt, str) and all(isinstance(part, int) for part in prompt):
            row = cast("list[int]", list(prompt))
        else:
            key = prompt if isinstance(prompt, str) else repr(prompt)  # a batch repeats its prompts
            if key not in encoded:
                messages = cast(Messages, prompt)
                encoded[key] = templated(messages, tokenizer, template_kwargs or {}, add_generation_prompt=True)
            row = list(encoded[key])
        if not row:
            raise ValueError(
                f"Prompt {place} is {prompt!r} and has no token, so that nothing predicts the first token of its "
                "completion. Pass the data through prepare_dataset, which starts texts from the start of the sequence."
            )
        rows.append(row)
    return rows


def encode_beginnings(texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
    """Encode texts that go on: with what the tokenizer puts before them, without what it puts behind them."""
    if not texts:
        return []
    return without_added_end(tokenizer(list(texts), **IDS_ALONE)["input_ids"], tokenizer)


def without_added_end(rows: Sequence[list[int]], tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
    """Return encoded texts without what the tokenizer puts behind each.

    A row of nothing else stays: T5's tokenizers put no second end behind an end token, which starts a text here.
    """
    num_behind = len(added_tokens(tokenizer)[1])
    return [row[: len(row) - num_behind] or row for row in rows] if num_behind else list(rows)


def templated(
    messages: Messages, tokenizer: "PreTrainedTokenizerBase", kwargs: Mapping[str, Any], add_generation_prompt: bool
) -> list[int]:
    """Return the tokens of messages by the tokenizer's template, with the beginning of an answer if asked for."""
    encoded: Any = tokenizer.apply_chat_template(
        messages, add_generation_prompt=add_generation_prompt, return_dict=True, **kwargs
    )
    return list(encoded["input_ids"])


def end_of_turn(tokenizer: "PreTrainedTokenizerBase", template_kwargs: Mapping[str, Any] | None = None) -> int | None:
    """Return the special token that the chat template puts behind an answer, None where it has none.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): The generator's tokenizer.
        template_kwargs (`Mapping`, *optional*): Further arguments of the template.
    """
    if tokenizer.chat_template is None:
        return None
    question, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}
    kwargs = template_kwargs or {}
    try:
        prompt = templated([question], tokenizer, kwargs, add_generation_prompt=True)
        whole = templated([question, answer], tokenizer, kwargs, add_generation_prompt=False)
    except TemplateError:  # one that takes other conversations than this
        return None
    alike = next((n for n, pair in enumerate(zip(prompt, whole, strict=False)) if pair[0] != pair[1]), len(prompt))
    special = special_tokens(tokenizer)
    return next((token for token in whole[alike:] if token in special), None)


def special_tokens(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """Return the ids of the tokens that decoding leaves out."""
    added = {token for token, content in tokenizer.added_tokens_decoder.items() if content.special}
    return added | set(tokenizer.all_special_ids)
