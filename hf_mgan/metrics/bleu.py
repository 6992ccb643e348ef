"""BLEU: how many n-grams of a set of texts occur in the reference of each."""

from collections.abc import Sequence, Sized
from typing import Any, NamedTuple

from ..checks import TEXTS, Choice, Texts
from .extras import require_packages


REFERENCES = Texts(of=Sized, what="a list with a reference, or a list of several, for each text")


class BleuResult(NamedTuple):
    """A BLEU score and what it takes to compute it again.

    Args:
        score (`float`): [0, 100].
        signature (`str`): sacrebleu's own, with its version, the tokenization and the number of references.
    """

    score: float
    signature: str


def bleu(texts: Sequence[str], references: Sequence[str | Sequence[str]], tokenize: str = "13a") -> BleuResult:
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
        [`BleuResult`]: The score, 100 where every text is one of its references and has four words, and the
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

    TEXTS("texts", texts)
    REFERENCES("references", references)
    Choice(among=BLEU.TOKENIZERS)("tokenize", tokenize)
    lists = [[reference] if isinstance(reference, str) else list(reference) for reference in references]
    if not texts or len(texts) != len(lists):
        raise ValueError(
            f"bleu compares each text with its own references, but got {len(texts)} texts and {len(lists)} entries of "
            "references. Give at least one text, and one entry per text."
        )
    if not all(lists):
        raise ValueError(f"Text {lists.index([])} has no reference. Give at least one reference per text.")
    # sacrebleu takes one list per reference, and None where a text has fewer; its annotations do not say so.
    most = max(map(len, lists))
    streams: list[list[Any]] = [[own[index] if index < len(own) else None for own in lists] for index in range(most)]
    metric = BLEU(tokenize=tokenize)
    score = metric.corpus_score(texts, streams).score
    return BleuResult(min(score, 100.0), str(metric.get_signature()))
