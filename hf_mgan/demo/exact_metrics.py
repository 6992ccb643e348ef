"""Exact metrics of a generator of the demo's language: both densities are known, so nothing has to be estimated.

In: a causal language model. Out: [`Quality`], with the Jensen-Shannon divergence between the language and the model.
"""

import math
from dataclasses import dataclass

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data import encode_completions
from ..decoding import sample
from ..metrics import best_value, distinct_n, jensen_shannon, kullback_leibler
from ..metrics.likelihood import sequence_logps
from .language import Language
from .models import MAX_TOKENS


BATCH_SIZE = 500


@dataclass(frozen=True)
class Quality:
    """What a generator's sentences are like.

    Attributes:
        temperature (`float`): Temperature at which they were drawn.
        divergence (`float`): Jensen-Shannon divergence to the language in bits, [0, 1].
        standard_error (`float`): Its standard error.
        grammatical (`float`): Share of grammatical sentences.
        distinct_4 (`float`): Share of different ones among the 4-grams.
        entropy (`float`): Entropy of a sentence in nats.
        real_nll (`float`): Negative log-likelihood of a real sentence in nats.
        mean_length (`float`): Words per sentence.
        forward_kl (`float`): KL divergence of the model from the language, KL(language, model), in nats.
        reverse_kl (`float`, *optional*): KL(model, language) in nats, of the model without its ungrammatical
            sentences, with which it is infinite; None where there are no others.
        best_value (`float`): V(D, G) of the best possible discriminator in nats, [-log 4, 0].
    """

    temperature: float
    divergence: float
    standard_error: float
    grammatical: float
    distinct_4: float
    entropy: float
    real_nll: float
    mean_length: float
    forward_kl: float
    reverse_kl: float | None
    best_value: float


def sample_sentences(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, count: int, temperature: float, seed: int
) -> tuple[list[list[int]], list[list[str]]]:
    """Draw sentences from a generator.

    Args:
        model (`PreTrainedModel` or `PeftModel`): A causal language model; its mode is restored.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        count (`int`): How many.
        temperature (`float`): Temperature of the softmax, over the whole vocabulary.
        seed (`int`): The same seed draws the same sentences.

    Returns:
        `tuple[list[list[int]], list[list[str]]]`: Token ids of each, with the end where there is one, and its words.
    """
    start = [[tokenizer.bos_token_id]] * count
    ids = sample(model, tokenizer, start, MAX_TOKENS, temperature, seed, BATCH_SIZE).completion_ids
    end = tokenizer.eos_token_id
    # Every token but the end counts as a word, special ones too: a sentence that holds one is not grammatical, and one
    # that was cut at the limit has MAX_TOKENS words, which no real sentence has.
    words = [text.split() for text in tokenizer.batch_decode([row[:-1] if row[-1] == end else row for row in ids])]
    return ids, words


class ExactMetrics:
    """Compares generators with the language on the same real sentences.

    Args:
        language ([`Language`]): The language.
        tokenizer (`PreTrainedTokenizerBase`): The generators' tokenizer.
        sentences (`list[list[str]]`): Real sentences that neither model has seen.
        seed (`int`): Seed of the generated sentences.
    """

    def __init__(
        self, language: Language, tokenizer: PreTrainedTokenizerBase, sentences: list[list[str]], seed: int
    ) -> None:
        self.language = language
        self.tokenizer = tokenizer
        self.real_logps = language.logps(sentences)
        texts = [" ".join(sentence) for sentence in sentences]
        self.real_ids = encode_completions(texts, tokenizer, max_completion_length=None)
        self.seed = seed

    def __call__(
        self, model: PreTrainedModel | PeftModel, temperature: float = 1.0, count: int | None = None
    ) -> Quality:
        """Compute the metrics of a generator.

        Args:
            model (`PreTrainedModel` or `PeftModel`): A causal language model.
            temperature (`float`, *optional*, defaults to 1.0): Temperature of the softmax.
            count (`int`, *optional*): Generated sentences, compared with as many real ones. As many as there
                are real ones by default.

        Returns:
            [`Quality`]: Of the model at this temperature.
        """
        count = count or len(self.real_ids)
        ids, words = sample_sentences(model, self.tokenizer, count, temperature, self.seed)
        start = [[self.tokenizer.bos_token_id]] * count
        training = model.training
        model.eval()
        real, fake = (
            sequence_logps(model, start, rows, temperature, BATCH_SIZE) for rows in (self.real_ids[:count], ids)
        )
        model.train(training)
        truth = self.language.logps(words)
        divergence, standard_error = jensen_shannon(self.real_logps[:count], real, truth, fake)
        grammatical = truth.isfinite()
        share = grammatical.double().mean().item()
        return Quality(
            temperature=temperature,
            divergence=divergence,
            standard_error=standard_error,
            grammatical=share,
            distinct_4=distinct_n(words, 4),
            entropy=-fake.double().mean().item(),
            real_nll=-real.double().mean().item(),
            mean_length=sum(map(len, words)) / count,
            forward_kl=kullback_leibler(self.real_logps[:count], real)[0],
            # q without its ungrammatical sentences is q / share.
            reverse_kl=(fake - truth)[grammatical].double().mean().item() - math.log(share) if share else None,
            best_value=best_value(divergence),
        )

    def best(self, model: PreTrainedModel | PeftModel, temperatures: tuple[float, ...]) -> list[Quality]:
        """Compute the metrics of a generator at several temperatures, those of the least divergence first."""
        return sorted((self(model, temperature) for temperature in temperatures), key=lambda it: it.divergence)
