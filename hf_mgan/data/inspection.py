"""What a sample of the references says about a dataset and the generator that is to write like it.

In: prepared rows and the path of texts. Out: the path with the boundary that all texts share; errors and warnings
where the generator cannot write the references, or would not begin or end where they do.
"""

import warnings
from collections import Counter
from dataclasses import replace
from typing import Any, cast

from datasets import Dataset, IterableDataset

from ..checks import shown
from ..metrics.units import HAS_NO_SPACES
from .prompts import Text, answer_text
from .text_path import TextPath


SAMPLE = 1000  # rows of a map-style dataset that are looked at, in equal distances
STREAMED = 64  # rows of a stream
# Share of the references that must begin alike for that to be the data's way of joining prompt and completion. Text
# that is cut between tokens is far from it: punctuation and parts of words begin without white space.
ALIKE = 0.99
LOST = 0.5  # share of its characters from which on a text counts as one that the tokenizer cannot write
TOLD = 0.1  # share of rows from which on a warning says so


def inspected(path: TextPath, dataset: Dataset | IterableDataset, name: str = "train_dataset") -> TextPath:
    """Look at a sample of the references, and return the path with the boundary that they share.

    Args:
        path ([`TextPath`]): The path of the texts.
        dataset (`Dataset` or `IterableDataset`): Prepared rows, with or without `completion`.
        name (`str`, *optional*, defaults to `"train_dataset"`): What the dataset is called.

    Returns:
        [`TextPath`]: With `boundary`, see [`boundary_of`]; as it is if there are no references.

    Raises:
        ValueError: If the tokenizer can write none of the references.

    Warns:
        UserWarning: If it cannot write many of them, many are cut at the limit, or prompt and completion are joined
            as the generator would not.
    """
    pairs = sampled_pairs(dataset)
    if not pairs:
        return path
    whole = replace(path, max_completion_length=None, boundary=None)
    prompts, references = (list(side) for side in zip(*pairs, strict=True))
    ids = whole.encode(prompts, references)
    texts = whole.decode(whole.encode_prompts([whole.started(prompt) for prompt in prompts]), ids)
    plain = [answer_text(reference) for reference in references]
    _check_writable(plain, texts, name)
    lengths = [len(row) - bool(row and row[-1] in path.ends) for row in ids]
    _check_lengths(lengths, path.max_completion_length, name)
    boundary = boundary_of(plain)
    _check_boundary(pairs, boundary, name)
    return replace(path, boundary=boundary)


def boundary_of(texts: list[str]) -> str | None:
    """Return the white space that completions begin with, if nearly all begin alike.

    A dataset of prompts and completions joins them in one way, with a space or without, and a generator has its own;
    the difference says nothing of the texts. Both are then shown to the discriminator with the white space of the
    data.

    Args:
        texts (`list[str]`): References as the dataset has them.

    Returns:
        `str`: "" for none; None if they begin in different ways, which then belong to the text.
    """
    beginnings = Counter(text[: len(text) - len(text.lstrip())] for text in texts if text.strip())
    if not beginnings:
        return None
    [(boundary, count)] = beginnings.most_common(1)
    return boundary if count >= ALIKE * beginnings.total() else None


def sampled_pairs(dataset: Dataset | IterableDataset) -> list[tuple[Text, Text]]:
    """Return prompts and references of a sample of rows, none if the dataset has no references."""
    rows: Any
    if isinstance(dataset, IterableDataset):
        rows = dataset.take(STREAMED)
    else:
        step = max(1, len(dataset) // SAMPLE)
        rows = dataset.select(range(0, len(dataset), step))
    return [
        (cast(Text, row.get("prompt", "")), cast(Text, row["completion"])) for row in rows if row.get("completion")
    ]


def _check_writable(references: list[str], texts: list[str], name: str) -> None:
    """Check that the references are there once they have been through the generator's tokenizer."""
    sizes = [
        (len("".join(reference.split())), len("".join(text.split())))
        for reference, text in zip(references, texts, strict=True)
    ]
    lost = [place for place, (before, after) in enumerate(sizes) if after < (1 - LOST) * before]
    if not lost:
        return
    example = shown(references[lost[0]])
    said = (
        f"The generator's tokenizer cannot write the references of {name}: of {len(lost)} of {len(texts)} it keeps "
        f"less than half of the characters, for example of {example}. It has no tokens for them"
    )
    if not any(after for _, after in sizes):
        raise ValueError(f"{said}, and nothing is left of any. Take a generator that knows the language.")
    if len(lost) >= TOLD * len(texts):
        warnings.warn(
            f"{said}. Real text is shown to the discriminator as the generator could write it: take a generator that "
            "knows the language, or drop such rows.",
            stacklevel=4,
        )


def _check_lengths(lengths: list[int], limit: int | None, name: str) -> None:
    """Say how many references are longer than completions may be."""
    if limit is None:
        return
    cut = sum(length > limit for length in lengths)
    if cut >= TOLD * len(lengths):
        longest = max(lengths)
        warnings.warn(
            f"{cut} of {len(lengths)} references of {name} ({cut / len(lengths):.0%}) are longer than "
            f"max_completion_length={limit} tokens, the longest {longest}, and are cut there, as completions are. "
            "Raise it to see them whole.",
            stacklevel=4,
        )


def _check_boundary(pairs: list[tuple[Text, Text]], boundary: str | None, name: str) -> None:
    """Say where prompts and completions are joined as a generator would not join them."""
    texts = [(prompt, text) for prompt, text in pairs if isinstance(prompt, str) and isinstance(text, str) and prompt]
    if boundary is None or not texts:
        return
    trailing = sum(prompt.endswith((" ", "\t")) for prompt, _ in texts)
    joined = sum(_runs_together(prompt, text) for prompt, text in texts)
    prompt, text = texts[0]
    example = f"{prompt[-20:]!r} + {text[:20]!r}"
    if trailing > len(texts) / 2:
        warnings.warn(
            f"{trailing} of {len(texts)} prompts of {name} end in a space (for example {example}), and most "
            "tokenizers have a space at the beginning of a word: the tokens of prompt and completion are then other "
            "ones than those of the text. Move it: {'prompt': row['prompt'].rstrip(), 'completion': ' ' + "
            "row['completion']}.",
            stacklevel=4,
        )
    elif joined > len(texts) / 2:
        warnings.warn(
            f"{joined} of {len(texts)} completions of {name} follow their prompts without white space (for example "
            f"{example}), where a language model begins with one. The discriminator is shown both kinds of text "
            "without it; the likelihood of references is that of the text as it stands. Add it, if it is missing: "
            "{'completion': ' ' + row['completion']}.",
            stacklevel=4,
        )


def _runs_together(prompt: str, text: str) -> bool:
    """Return whether a prompt and a text meet without white space, in a script that has some between words."""
    last, first = prompt[-1], text[0]
    return (
        not last.isspace()
        and first.isalnum()
        and not first.isdigit()
        and not HAS_NO_SPACES.match(first)
        and last != ">"
    )
