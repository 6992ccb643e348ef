"""Rows of a dataset, checked and split: from every shape to pairs of a prompt and a reference.

In: a row and its number. Out: no pair (a row without text in a corpus), one, or several (more than one reference).
What is no row of its shape is an error that says which row, what it has, and the line that mends it.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ..checks import shown
from .prompts import IDS_ALONE, Text, encode_beginnings, plain_text, start_of_sequence


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRANSLATION_TEMPLATE = "Translate from {source_lang} to {target_lang}.\n{source}\n"
ATTEMPTS = 16  # tokens by which a cut is moved, at most
REACH = 16  # characters of a token that are read of a long text; few have more


class Pair(NamedTuple):
    """A prompt, and the real text that stands where its completion stands; None where the dataset has none."""

    prompt: Text
    completion: Text | None


def row_error(number: int, problem: str, mend: str) -> ValueError:
    """Return the error of a row that is none of its shape.

    Args:
        number (`int`): Which row.
        problem (`str`): What is wrong with it, as the end of a sentence that begins with "Row 3".
        mend (`str`): What to do.
    """
    return ValueError(f"Row {number} {problem} {mend}")


def is_messages(value: Any) -> bool:
    """Return whether a value is a conversation: a list of dicts."""
    return isinstance(value, list) and bool(value) and all(isinstance(part, dict) for part in value)


def text_of(number: int, name: str, value: Any) -> str:
    """Return the text of a column.

    Raises:
        ValueError: If it is no string.
    """
    if isinstance(value, str):
        return value
    mend = f"Drop such rows: dataset.filter(lambda row: row[{name!r}] is not None)."
    if isinstance(value, (int, float)):
        mend = f"Write it out: dataset.map(lambda row: {{{name!r}: str(row[{name!r}])}})."
    elif isinstance(value, list):
        mend = (
            f"Join it: dataset.map(lambda row: {{{name!r}: ' '.join(row[{name!r}])}}); conversations go to `messages`."
        )
    raise row_error(number, f"has {shown(value)} as {name!r}, which must be a string.", mend)


def conversation_of(number: int, name: str, value: Any) -> list[dict[str, Any]]:
    """Return the messages of a column, with ShareGPT's keys `from` and `value` under the names of chat templates.

    Raises:
        ValueError: If it is no list of messages with a role and a content.
    """
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        mend = f"Read it: dataset.map(lambda row: {{{name!r}: json.loads(row[{name!r}])}})."
        raise row_error(number, f"has {shown(value)} as {name!r}, a conversation written as JSON.", mend)
    expected = "a list of messages like {'role': 'user', 'content': 'Hello'}"
    drop = f"Drop such rows, or mend them: dataset.filter(lambda row: row[{name!r}])."
    if not is_messages(value):
        raise row_error(number, f"has {shown(value)} as {name!r}, which must be {expected}.", drop)
    messages = [_message(message) for message in value]
    for message in messages:
        if not isinstance(message.get("role"), str) or not {"content", "tool_calls"} & message.keys():
            raise row_error(
                number,
                f"has a message {shown(message)} in {name!r} without a role and a content: it must be {expected}.",
                f"Rename its keys, or drop such rows: dataset.map(lambda row: {{{name!r}: ...}}).",
            )
        if not isinstance(message.get("content"), (str, list, type(None))):
            raise row_error(
                number,
                f"has a message whose content is {shown(message['content'])} in {name!r}; it must be a string.",
                "Write it out, or drop such rows.",
            )
    return messages


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message without what Arrow adds to the rows of a dataset, in the names of chat templates."""
    names = {"from": "role", "value": "content"} if "from" in message and "role" not in message else {}
    roles = {"human": "user", "gpt": "assistant", "bot": "assistant"} if names else {}
    renamed = {names.get(name, name): value for name, value in message.items()}
    if roles:
        renamed["role"] = roles.get(renamed["role"], renamed["role"])
    return {name: value for name, value in renamed.items() if value is not None or name == "content"}


def answer_of(number: int, name: str, value: Any) -> list[dict[str, Any]]:
    """Return an answer, a list of messages with some text.

    Raises:
        ValueError: If it has none, as a call of tools has none.
    """
    messages = conversation_of(number, name, value)
    if any(plain_text([message]).strip() for message in messages):
        return messages
    what = "a call of tools without text" if any(message.get("tool_calls") for message in messages) else "empty"
    raise row_error(
        number,
        f"has an answer that is {what}, {shown(messages[-1])}, and the discriminator compares texts.",
        "Drop such rows: dataset.filter(lambda row: row['messages'][-1]['content'])."
        if name == "messages"
        else f"Drop such rows: dataset.filter(lambda row: row[{name!r}][-1]['content']).",
    )


@dataclass(frozen=True)
class PromptRows:
    """Rows with `prompt`, and a reference or several in `completion` where the dataset has them.

    Args:
        start (`str`): What stands for an empty prompt.
    """

    start: str

    def pairs(self, numbers: Sequence[int], rows: Mapping[str, list[Any]]) -> list[list[Pair]]:
        """Return the pairs of each row."""
        references = rows.get("completion")
        return [
            self._of_row(number, prompt, *([] if references is None else [references[at]]))
            for at, (number, prompt) in enumerate(zip(numbers, rows["prompt"], strict=True))
        ]

    def _of_row(self, number: int, prompt: Any, *references: Any) -> list[Pair]:
        is_chat = not isinstance(prompt, str) and isinstance(prompt, list)
        given: Text = conversation_of(number, "prompt", prompt) if is_chat else text_of(number, "prompt", prompt)
        if isinstance(given, str) and not given.strip():
            given = self.start
        if not references:
            return [Pair(given, None)]
        [reference] = references
        several = (
            isinstance(reference, list) and bool(reference) and all(isinstance(one, (str, list)) for one in reference)
        )
        return [Pair(given, self._reference(number, is_chat, one)) for one in (reference if several else [reference])]

    @staticmethod
    def _reference(number: int, is_chat: bool, reference: Any) -> Text:
        if is_messages(reference) != is_chat and isinstance(reference, (str, list)):
            raise row_error(
                number,
                f"has a prompt of {'messages' if is_chat else 'plain text'} and the completion {shown(reference)}.",
                "Both must be plain text, or both messages: {'prompt': [{'role': 'user', 'content': ...}], "
                "'completion': [{'role': 'assistant', 'content': ...}]}.",
            )
        if is_chat:
            return answer_of(number, "completion", reference)
        text = text_of(number, "completion", reference)
        if not text.strip():
            raise row_error(
                number,
                f"has the empty completion {shown(text)}: there is no real text to compare with.",
                "Drop such rows: dataset.filter(lambda row: row['completion'].strip()).",
            )
        return text


@dataclass(frozen=True)
class MessageRows:
    """Rows with `messages` that end in an answer: the answer is the reference, what stands before it the prompt."""

    name: str = "messages"

    def pairs(self, numbers: Sequence[int], rows: Mapping[str, list[Any]]) -> list[list[Pair]]:
        """Return the pair of each row."""
        return [[self._of_row(number, row)] for number, row in zip(numbers, rows[self.name], strict=True)]

    def _of_row(self, number: int, row: Any) -> Pair:
        messages = conversation_of(number, self.name, row)
        *prompt, answer = messages
        if not prompt or answer["role"] != "assistant":
            raise row_error(
                number,
                "must be a conversation that ends in the assistant's answer, but its roles are "
                f"{[message['role'] for message in messages]}.",
                "Drop such rows, or cut them after an answer.",
            )
        return Pair(prompt, answer_of(number, self.name, [answer]))


@dataclass(frozen=True)
class TranslationRows:
    """Rows with `translation`, a dict from languages to a text each.

    Args:
        source (`str`, *optional*): Language of the prompt; the first key by default.
        target (`str`, *optional*): Language of the reference; the second key by default.
        template (`str`): The prompt, with the fields `source_lang`, `target_lang` and `source`.
    """

    source: str | None
    target: str | None
    template: str

    def pairs(self, numbers: Sequence[int], rows: Mapping[str, list[Any]]) -> list[list[Pair]]:
        """Return the pair of each row."""
        return [[self._of_row(number, row)] for number, row in zip(numbers, rows["translation"], strict=True)]

    def _of_row(self, number: int, pair: Any) -> Pair:
        if not isinstance(pair, Mapping):
            raise row_error(
                number,
                f"has {shown(pair)} as 'translation', which must be a dict from languages to texts.",
                "For example {'en': 'The dog', 'es': 'El perro'}.",
            )
        first, second = [*pair, None, None][:2]
        source, target = self.source or first, self.target or second
        if source not in pair or target not in pair or source == target:
            raise row_error(
                number,
                f"has the languages {list(pair)}, so it cannot be translated from {source!r} to {target!r}.",
                "Set source_lang and target_lang to two of them.",
            )
        for language in (source, target):
            if not isinstance(pair[language], str) or not pair[language].strip():
                raise row_error(
                    number,
                    f"has {shown(pair[language])} as its text in {language!r}.",
                    f"Drop such rows: dataset.filter(lambda row: row['translation'][{language!r}]).",
                )
        prompt = self.template.format(source_lang=source, target_lang=target, source=pair[source])
        return Pair(prompt, pair[target])


@dataclass(frozen=True)
class TextRows:
    """Rows with `text`: its first k tokens become the prompt, the rest the reference.

    Prompt and reference are the text, cut between two characters at a place where the tokens of the prompt by itself
    are those that it has in the text; where there is none at k tokens, at the next one before it.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Counts the tokens.
        start (`str`): The start of the sequence, with which the prompt begins.
        low (`int`): The least k.
        high (`int`): The greatest; k is drawn uniformly for each row.
        seed (`int`): Of the draws.
        window (`int`, *optional*): Tokens of a window. A longer text becomes several rows, one after the other, each
            treated as a text.
    """

    tokenizer: "PreTrainedTokenizerBase"
    start: str
    low: int
    high: int
    seed: int
    window: int | None = None

    def pairs(self, numbers: Sequence[int], rows: Mapping[str, list[Any]]) -> list[list[Pair]]:
        """Return the pair of each row, none of one without text."""
        texts: list[str] = [
            "" if text is None else text_of(number, "text", text)
            for number, text in zip(numbers, rows["text"], strict=True)
        ]
        places = [place for place, text in enumerate(texts) if text.strip()]
        windows = self._windows([texts[place] for place in places])
        owners = [place for place, parts in zip(places, windows, strict=True) for _ in parts]
        names = [
            f"{numbers[place]}-{part}" if part else str(numbers[place])
            for place, parts in zip(places, windows, strict=True)
            for part in range(len(parts))
        ]
        kept = [text for parts in windows for text in parts]
        cuts = self._cuts(names, kept) if self.high and kept else [0] * len(kept)
        pairs: list[list[Pair]] = [[] for _ in texts]
        for place, text, cut in zip(owners, kept, cuts, strict=True):
            pairs[place].append(Pair(self.start + text[:cut], text[cut:]))
        return pairs

    def _windows(self, texts: list[str]) -> list[list[str]]:
        """Return the windows of each text, which it is made of."""
        if self.window is None or not texts:
            return [[text] for text in texts]
        encoded = self.tokenizer(texts, add_special_tokens=False, **IDS_ALONE)
        windows = []
        for place, (text, ids) in enumerate(zip(texts, encoded["input_ids"], strict=True)):
            ends: list[int] = []
            for count in range(self.window, len(ids), self.window):
                start = ends[-1] if ends else 0
                earlier = (
                    self._end(encoded, place, at, text, ids) for at in range(count, max(count - ATTEMPTS, 0), -1)
                )
                # A window holds more than white space.
                fitting = (end for end in earlier if end is not None and end > start and text[start:end].strip())
                ends += itertools.islice(fitting, 1)
            ends = [end for end in ends if text[end:].strip()]
            windows.append([text[begin:end] for begin, end in zip([0, *ends], [*ends, len(text)], strict=True)])
        return windows

    def _cuts(self, names: list[str], texts: list[str]) -> list[int]:
        """Return the number of characters of each prompt; its draw depends on the name of the text."""
        # Of a long text the beginning is enough, unless it has unusually long tokens.
        beginnings = [text[: REACH * (self.high + 1)] for text in texts]
        encoded = self.tokenizer(beginnings, add_special_tokens=False, **IDS_ALONE)
        is_enough = (
            len(row) >= self.high + ATTEMPTS or len(beginning) == len(text)
            for row, beginning, text in zip(encoded["input_ids"], beginnings, texts, strict=True)
        )
        if not all(is_enough):
            encoded = self.tokenizer(texts, add_special_tokens=False, **IDS_ALONE)
        ids = encoded["input_ids"]
        counts = [max(0, min(self._drawn(name), len(row) - 1)) for name, row in zip(names, ids, strict=True)]
        [before] = encode_beginnings([self.start], self.tokenizer)
        cuts, open_places = [0] * len(texts), [place for place, count in enumerate(counts) if count]
        for _ in range(ATTEMPTS):
            ends = [self._end(encoded, place, counts[place], texts[place], ids[place]) for place in open_places]
            prompts = [self.start + texts[place][: end or 0] for place, end in zip(open_places, ends, strict=True)]
            again = []
            for place, end, row in zip(open_places, ends, encode_beginnings(prompts, self.tokenizer), strict=True):
                if end is not None and row == [*before, *ids[place][: counts[place]]] and texts[place][end:].strip():
                    cuts[place] = end
                elif counts[place] > 1:
                    counts[place] -= 1
                    again.append(place)
            open_places = again
            if not open_places:
                break
        return cuts

    def _drawn(self, name: str) -> int:
        """Return a number of tokens from `low` to `high` that depends on the seed and the name alone."""
        drawn = hashlib.blake2b(f"{self.seed}-{name}".encode(), digest_size=8).digest()
        return self.low + int.from_bytes(drawn, "big") % (self.high - self.low + 1)

    def _end(self, encoded: Any, place: int, count: int, text: str, ids: list[int]) -> int | None:
        """Return the character at which the first `count` tokens of a text end, None if they end within one."""
        if self.tokenizer.is_fast:
            last, following = (encoded.token_to_chars(place, at) for at in (count - 1, count))
            if last is None or following is None or following.start < last.end:
                return None
            return last.end
        beginning = cast(str, self.tokenizer.decode(ids[:count]))
        return len(beginning) if text.startswith(beginning) else None


def rows_of(
    form: str,
    tokenizer: "PreTrainedTokenizerBase",
    prompt_tokens: tuple[int, int],
    source_lang: str | None,
    target_lang: str | None,
    translation_template: str,
    seed: int,
    window: int | None = None,
) -> PromptRows | TextRows | MessageRows | TranslationRows:
    """Return what reads the rows of a shape; the arguments are those of [`prepare_dataset`]."""
    if form == "prompt":
        return PromptRows(_start_or_empty(tokenizer))
    if form == "text":
        return TextRows(tokenizer, start_of_sequence(tokenizer), *prompt_tokens, seed, window)
    if form == "translation":
        return TranslationRows(source_lang, target_lang, translation_template)
    return MessageRows(form)


def _start_or_empty(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return the start of the sequence; "" without one, which matters where a prompt is empty alone."""
    return start_of_sequence(tokenizer) if tokenizer.bos_token or tokenizer.eos_token else ""
