"""BLEU and chrF: how many n-grams of words, or of characters, of a set of texts occur in the reference of each."""

from collections.abc import Sequence, Sized
from typing import Any, NamedTuple

from ..checks import TEXTS, Choice, Texts
from .extras import require_packages


REFERENCES = Texts(of=Sized, what="a list with a reference, or a list of several, for each text")


class ReferenceScore(NamedTuple):
    """A score against references and what it takes to compute it again.

    Args:
        score (`float`): [0, 100].
        signature (`str`): sacrebleu's own, with its version, the tokenization and the number of references.
    """

    score: float
    signature: str


def bleu(texts: Sequence[str], references: Sequence[str | Sequence[str]], tokenize: str = "13a") -> ReferenceScore:
    """Compute the BLEU of a set of texts with sacrebleu, as a share of 100.

    Papineni et al. 2002, "BLEU: a method for automatic evaluation of machine translation"
    ([P02-1040](https://aclanthology.org/P02-1040)), over the whole set, up to 4-grams, in the form of Post 2018, "A
    call for clarity in reporting BLEU scores" ([1804.08771](https://huggingface.co/papers/1804.08771)): mixed case,
    the tokenization of mteval-v13a, and exponential smoothing, method 3 of Chen and Cherry 2014
    ([W14-3346](https://aclanthology.org/W14-3346)), for an order without a match. With sacrebleu 2.6.0 and one
    reference the signature is `nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0`.

    Args:
        texts (`Sequence[str]` of length N): Plain texts, not tokenized.
        references (`Sequence[str | Sequence[str]]` of length N): One or several references per text; their number may
            differ from text to text.
        tokenize (`str`, *optional*, defaults to `"13a"`): One of sacrebleu's tokenizations: `"zh"` for Chinese,
            `"char"` for languages without spaces, `"none"` for texts that are tokenized already.

    Returns:
        [`ReferenceScore`]: The score, 100 where every text is one of its references and has four words, and the
        signature.

    Raises:
        ImportError: If sacrebleu is missing.
        TypeError: If an argument is of another type, such as a single string in place of texts.
        ValueError: If there is no text, if texts and references differ in number, or if a text has no reference.

    Example:
        ```python
        >>> bleu(["a b c d e f g h i j"], ["a b c d e f g h i z"]).score  # precisions 9/10, 8/9, 7/8 and 6/7
        88.01117367933934

        ```
    """
    require_packages("BLEU", "sacrebleu")
    from sacrebleu.metrics import BLEU

    Choice(among=BLEU.TOKENIZERS)("tokenize", tokenize)
    metric = BLEU(tokenize=tokenize)
    score = metric.corpus_score(texts, _streams("bleu", texts, references)).score
    return ReferenceScore(min(score, 100.0), str(metric.get_signature()))


def chrf(texts: Sequence[str], references: Sequence[str | Sequence[str]]) -> ReferenceScore:
    """Compute the chrF of a set of texts with sacrebleu, as a share of 100.

    Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation"
    ([W15-3049](https://aclanthology.org/W15-3049)), over the whole set, up to 6-grams of characters without spaces,
    recall counting twice as much as precision. It needs no tokenization, so it serves every language alike, and an
    inflected form counts for what it shares.

    Args:
        texts (`Sequence[str]` of length N): Plain texts, not tokenized.
        references (`Sequence[str | Sequence[str]]` of length N): One or several references per text, the nearest of
            which counts.

    Returns:
        [`ReferenceScore`]: The score, 100 where every text is one of its references, and the signature.

    Raises:
        ImportError: If sacrebleu is missing.
        TypeError: If an argument is of another type, such as a single string in place of texts.
        ValueError: As in [`bleu`].

    Example:
        ```python
        >>> round(chrf(["abc"], ["abd"]).score, 2)  # 2 of 3 characters, 1 of 2 pairs, no run of 3
        38.89

        ```
    """
    require_packages("chrF", "sacrebleu")
    from sacrebleu.metrics import CHRF

    metric = CHRF()
    score = metric.corpus_score(texts, _streams("chrf", texts, references)).score
    return ReferenceScore(score, str(metric.get_signature()))


def _streams(name: str, texts: Sequence[str], references: Sequence[str | Sequence[str]]) -> list[list[Any]]:
    """Check both sides and return the references as sacrebleu takes them, one list for each of a text's several."""
    TEXTS("texts", texts)
    REFERENCES("references", references)
    lists = [[reference] if isinstance(reference, str) else list(reference) for reference in references]
    if not texts or len(texts) != len(lists):
        raise ValueError(
            f"{name} compares each text with its own references, but got {len(texts)} texts and {len(lists)} entries "
            "of references. Give at least one text, and one entry per text."
        )
    if not all(lists):
        raise ValueError(f"Text {lists.index([])} has no reference. Give at least one reference per text.")
    # It takes None where a text has fewer references than others; its annotations do not say so.
    most = max(map(len, lists))
    return [[own[index] if index < len(own) else None for own in lists] for index in range(most)]
