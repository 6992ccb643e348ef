"""The path shared by real and generated text, from prompts to tokens and from tokens to plain text.

A discriminator learns whatever tells real from generated text, so they may differ in nothing but content. Generated
text is made of the generator's tokens: after those of its prompt, at most `max_completion_length`, up to an end token.
[`TextPath.encode`] writes a reference in the same way, and [`TextPath.decode`] reads both. What follows, the
discriminator's own encoding, is one function for both.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from .prompts import (
    IDS_ALONE,
    Text,
    answer_text,
    encode_beginnings,
    encode_prompts,
    end_of_turn,
    start_of_sequence,
    templated,
)


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTEXT = 16  # tokens of a prompt that a completion is decoded behind; the last one is what matters
UNDECODABLE = "\ufffd"  # what a tokenizer writes for bytes that are no character


def with_boundary(texts: Sequence[str], boundary: str | None) -> list[str]:
    """Return completions that all begin with the same white space, or as they are with None."""
    if boundary is None:
        return list(texts)
    return [boundary + text.lstrip() if text.strip() else text for text in texts]


def shown_texts(
    prompts: Sequence[str], texts: Sequence[str], with_prompt: bool, are_whole: bool
) -> tuple[list[str], list[str]]:
    """Return prompts and completions as a discriminator is shown them.

    Args:
        prompts (`Sequence[str]` of length N): Plain prompts.
        texts (`Sequence[str]` of length N): Plain completions.
        with_prompt (`bool`): Whether it sees prompts.
        are_whole (`bool`): Without prompts: whether a prompt and its completion are one text.

    Returns:
        `tuple[list[str], list[str]]`: Prompts, "" each without them, and texts.
    """
    if with_prompt:
        return list(prompts), list(texts)
    wholes = [prompt + text for prompt, text in zip(prompts, texts, strict=True)] if are_whole else texts
    return [""] * len(texts), [text.lstrip() for text in wholes]


@dataclass(frozen=True)
class TextPath:
    """The way of real and generated text of one generator, prompts included.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): The generator's.
        max_completion_length (`int`, *optional*): Number of tokens at which completions are cut.
        end_ids (`Collection[int]`, *optional*): The tokens at which the generator ends; the tokenizer's EOS token, and
            what ends an answer in its chat template, always do.
        template_kwargs (`Mapping`, *optional*): Further arguments of the chat template, such as `tools`.
        boundary (`str`, *optional*): The white space that every completion begins with. None leaves it as it is: see
            [`~data.inspection.boundary_of`].
    """

    tokenizer: "PreTrainedTokenizerBase"
    max_completion_length: int | None = None
    end_ids: Collection[int] = ()
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    boundary: str | None = None

    @cached_property
    def ends(self) -> frozenset[int]:
        """All end tokens."""
        own = self.tokenizer.eos_token_id, self._end_of_turn
        return frozenset([*self.end_ids, *(token for token in own if token is not None)])

    @cached_property
    def _end_of_turn(self) -> int | None:
        return end_of_turn(self.tokenizer, self.template_kwargs)

    def encode_prompts(self, prompts: Sequence[Text | list[int]]) -> list[list[int]]:
        """Return the tokens of prompts, as [`encode_prompts`] does."""
        return encode_prompts(prompts, self.tokenizer, self.template_kwargs)

    def encode(
        self, prompts: Sequence[Text], references: Sequence[Text], further: Sequence[int] | None = None
    ) -> list[list[int]]:
        """Write references as the tokens that the generator would write after their prompts.

        Prompt and reference are encoded together, so that the tokens of both are those of the whole text; where a
        token would lie on both sides of the boundary, the reference is encoded by itself. A reference goes on to its
        first end token, which is added where it has none, and is then cut.

        Args:
            prompts (`Sequence[str or list[dict]]` of length N): Prompts as the dataset has them; "" for none.
            references (`Sequence[str or list[dict]]` of length N): Real texts, or an answer each.
            further (`Sequence[int]` of length N, *optional*): Tokens that each may have beyond the limit.

        Returns:
            `list[list[int]]` of length N: The tokens of each; the last one is an end token, unless the text is cut
            before it or the tokenizer has none.
        """
        rows: list[list[int]] = [[] for _ in references]
        is_text = [
            isinstance(prompt, str) and isinstance(text, str) for prompt, text in zip(prompts, references, strict=True)
        ]
        places = [place for place, plain in enumerate(is_text) if plain]
        texts = self._of_texts(
            [cast(str, prompts[place]) for place in places], [cast(str, references[place]) for place in places]
        )
        for place, row in zip(places, texts, strict=True):
            rows[place] = self._ended(row, self.tokenizer.eos_token_id)
        answers: dict[str, list[int]] = {}  # a batch repeats its references
        for place, plain in enumerate(is_text):
            if not plain:
                key = repr((prompts[place], references[place]))
                if key not in answers:
                    answers[key] = self._of_messages(prompts[place], references[place])
                rows[place] = answers[key]
        limit = self.max_completion_length
        if limit is None or further is None:
            return [row[:limit] for row in rows]
        return [row[: limit + more] for row, more in zip(rows, further, strict=True)]

    def decode(self, prompt_ids: Sequence[list[int]], completion_ids: Sequence[list[int]]) -> list[str]:
        """Read completions, or encoded references, as plain text: what stands before the first end token.

        A completion is decoded behind its prompt, since many a tokenizer drops the white space that a text begins
        with. Special tokens are left out, and so is a character that the cut leaves unfinished.

        Args:
            prompt_ids (`Sequence[list[int]]` of length N): Tokens of the prompts.
            completion_ids (`Sequence[list[int]]` of length N): Tokens of the completions.

        Returns:
            `list[str]` of length N: Plain texts, each with the `boundary` if there is one.
        """
        if not completion_ids:
            return []
        ends = self.ends
        lengths = [next((n for n, token in enumerate(row) if token in ends), len(row)) for row in completion_ids]
        rows = [row[:length] for row, length in zip(completion_ids, lengths, strict=True)]
        contexts = [tuple(ids[-CONTEXT:]) for ids in prompt_ids]
        different = list(dict.fromkeys(contexts))
        before = dict(zip(different, self._decoded([list(one) for one in different]), strict=True))
        wholes = self._decoded([[*context, *row] for context, row in zip(contexts, rows, strict=True)])
        texts = []
        for context, row, whole in zip(contexts, rows, wholes, strict=True):
            start = before[context]
            text = whole[len(start) :] if whole.startswith(start) else self._decoded([row])[0]
            texts.append(text.rstrip(UNDECODABLE))
        return with_boundary(texts, self.boundary)

    def as_completions(self, prompts: Sequence[Text], references: Sequence[Text]) -> list[str]:
        """Write references as the generator would have: `decode` of `encode`.

        Args:
            prompts (`Sequence[str or list[dict]]` of length N): Their prompts; "" for none.
            references (`Sequence[str or list[dict]]` of length N): Real texts, or an answer each.

        Returns:
            `list[str]` of length N: Plain texts.
        """
        prompt_ids = self.encode_prompts([self.started(prompt) for prompt in prompts])
        return self.decode(prompt_ids, self.encode(prompts, references))

    def read(self, prompts: Sequence[Text], completions: Sequence[Text], ids: Sequence[list[int]]) -> list[str]:
        """Read completions as TRL hands them over, with their tokens.

        Its own text is kept where it is another than that of the tokens: a parsed answer, or one with calls of tools.

        Args:
            prompts (`Sequence[str or list[dict]]` of length N): Their prompts.
            completions (`Sequence[str or list[dict]]` of length N): Texts or messages.
            ids (`Sequence[list[int]]` of length N): Their tokens.

        Returns:
            `list[str]` of length N: Plain texts.
        """
        read = self.decode(self.encode_prompts([self.started(prompt) for prompt in prompts]), ids)
        if all(isinstance(completion, str) for completion in completions):
            return read
        given = [answer_text(completion) for completion in completions]
        of_tokens = self._decoded(list(ids))
        return [text if theirs == raw else theirs for theirs, raw, text in zip(given, of_tokens, read, strict=True)]

    def started(self, prompt: Text) -> Text:
        """Return a prompt; the start of the sequence where it is empty."""
        return prompt or self._start

    @cached_property
    def _start(self) -> str:
        return start_of_sequence(self.tokenizer)

    def _decoded(self, rows: list[list[int]]) -> list[str]:
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True)

    def _ended(self, row: list[int], end: int | None) -> list[int]:
        """Return a row up to its first end token, with `end` where it has none."""
        first = next((place for place, token in enumerate(row) if token in self.ends), None)
        if first is not None:
            return row[: first + 1]
        return row if end is None else [*row, end]

    def _of_texts(self, prompts: Sequence[str], references: Sequence[str]) -> list[list[int]]:
        """Return the tokens of references behind their prompts."""
        started = [cast(str, self.started(prompt)) for prompt in prompts]
        different = list(dict.fromkeys(started))
        encoded = dict(zip(different, encode_beginnings(different, self.tokenizer), strict=True))
        wholes = encode_beginnings(
            [prompt + reference for prompt, reference in zip(started, references, strict=True)], self.tokenizer
        )
        rows = []
        for prompt, reference, whole in zip(started, references, wholes, strict=True):
            ids = encoded[prompt]
            rows.append(whole[len(ids) :] if whole[: len(ids)] == ids else self._by_itself(ids, reference))
        return rows

    def _by_itself(self, prompt_ids: list[int], reference: str) -> list[int]:
        """Return the tokens of a reference that read as it does behind the tokens of its prompt.

        Those of the reference alone may begin with a white space that it does not have; behind a line break they
        do not.
        """
        alone = self.tokenizer(reference, add_special_tokens=False, **IDS_ALONE)["input_ids"]
        line, after = (
            self.tokenizer(text, add_special_tokens=False, **IDS_ALONE)["input_ids"]
            for text in ("\n", "\n" + reference)
        )
        candidates = [alone, *([after[len(line) :]] if after[: len(line)] == line else [])]
        context = prompt_ids[-CONTEXT:]
        before, *wholes = self._decoded([context, *([*context, *row] for row in candidates)])
        for row, whole in zip(candidates, wholes, strict=True):
            if whole == before + reference:
                return row
        return alone

    def _of_messages(self, prompt: Text, reference: Text) -> list[int]:
        """Return the tokens of an answer as the chat template writes it, its end included.

        Where the template writes more or less than the answer, such as an empty line of thought, or calls of tools,
        the tokens are those of its text.
        """
        text, end = answer_text(reference), self._end_of_turn
        if not isinstance(prompt, str) and not isinstance(reference, str) and len(reference) == 1 and end is not None:
            start = templated(prompt, self.tokenizer, self.template_kwargs, add_generation_prompt=True)
            whole = templated([*prompt, *reference], self.tokenizer, self.template_kwargs, add_generation_prompt=False)
            row = self._ended(whole[len(start) :], None)
            if whole[: len(start)] == start and row and row[-1] in self.ends:
                [written] = self.decode([start], [row])
                if written.strip() == text.strip():
                    return row
        ids = self.tokenizer(text, add_special_tokens=False, **IDS_ALONE)["input_ids"]
        return self._ended(list(ids), self.tokenizer.eos_token_id if end is None else end)
