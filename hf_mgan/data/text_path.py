"""The path from datasets and completions to plain text, shared by real and generated text.

A discriminator learns whatever tells real from generated text, so they may differ in nothing but content. Generated
text comes as TRL decodes it: the generator's tokens, at most `max_completion_length`, without special tokens.
`as_completions` puts a reference through the same steps. What follows, the discriminator's own encoding, is one
function for both.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages: TypeAlias = list[dict[str, Any]]
Text: TypeAlias = str | Messages


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
            content = "".join(block.get("text", "") for block in content)
        contents.append(content)
    if len(contents) == 1:
        return contents[0]
    return "\n".join(f"{message['role']}: {content}" for message, content in zip(text, contents, strict=True))


def as_completions(
    references: Sequence[Text], tokenizer: "PreTrainedTokenizerBase", max_completion_length: int | None
) -> list[str]:
    """Write references as the generator would have: in its tokens, as many as it may write, decoded the same way.

    Args:
        references (`Sequence[str or list[dict]]`): Real texts or messages.
        tokenizer (`PreTrainedTokenizerBase`): The generator's tokenizer.
        max_completion_length (`int`, *optional*): The number of tokens at which completions are cut.

    Returns:
        `list[str]`: One plain text per reference.
    """
    ids = tokenizer([plain_text(reference) for reference in references], add_special_tokens=False)["input_ids"]
    return tokenizer.batch_decode([row[:max_completion_length] for row in ids], skip_special_tokens=True)


def encode_completions(
    references: Sequence[str], tokenizer: "PreTrainedTokenizerBase", max_completion_length: int | None
) -> list[list[int]]:
    """Write plain texts as the tokens that the generator would write: the text, its end, and then the cut.

    Args:
        references (`Sequence[str]`): Plain texts, as [`as_completions`] writes them.
        tokenizer (`PreTrainedTokenizerBase`): The generator's tokenizer.
        max_completion_length (`int`, *optional*): The number of tokens at which completions are cut.

    Returns:
        `list[list[int]]`: The tokens of each text; the last one is the EOS token unless the text is cut before it, or
        the tokenizer has none.
    """
    rows = tokenizer(list(references), add_special_tokens=False)["input_ids"] if references else []
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return [[*row, *end][:max_completion_length] for row in rows]


def as_prompts(prompts: Sequence[Text], tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Write prompts as plain text without the generator's special tokens; a bare start of sequence becomes "".

    Args:
        prompts (`Sequence[str or list[dict]]`): Prompts as they stand in the dataset.
        tokenizer (`PreTrainedTokenizerBase`): The generator's tokenizer.

    Returns:
        `list[str]`: One plain text per prompt.
    """
    ids = tokenizer([plain_text(prompt) for prompt in prompts], add_special_tokens=False)["input_ids"]
    return tokenizer.batch_decode(ids, skip_special_tokens=True)
