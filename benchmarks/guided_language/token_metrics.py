"""Exact metrics of rejection token by token, whose density is known up to one number.

In: a generator, its discriminator of prefixes, the language. Out: divergence and costs. A text is drawn with the
density prod_t q(v | x) a(v | x) (1 - R(x)^k) / (1 - R(x)) / P, where a(v | x) = min(1, exp(r(xv) - r(x) - c)) is how
often a token is accepted, R(x) = 1 - sum_v q(v | x) a(v | x), and P the share of the texts that are not abandoned
(`hf_mgan.decoding.token_rejection`). For R the discriminator reads every token of the vocabulary at every place.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hf_mgan import Discriminator
from hf_mgan.decoding import DecodingConfig, guided_sample
from hf_mgan.decoding.prefix_reading import PrefixReader
from hf_mgan.demo.exact_metrics import ExactMetrics
from hf_mgan.demo.models import MAX_TOKENS
from hf_mgan.metrics import duplicates, jensen_shannon


BATCH_SIZE = 100  # texts, each with every token of the vocabulary


@torch.no_grad()
def token_metrics(
    metrics: ExactMetrics,
    generator: Any,
    discriminator: Discriminator,
    settings: Sequence[tuple[int, float]],
    count: int,
) -> list[dict[str, Any]]:
    """Sample token by token at several settings and compute what the texts are like.

    Args:
        metrics ([`~hf_mgan.demo.exact_metrics.ExactMetrics`]): The language and its real sentences.
        generator (`PreTrainedModel`): The generator.
        discriminator ([`~hf_mgan.Discriminator`]): Scores prefixes.
        settings (`Sequence[tuple[int, float]]`): k and c of each.
        count (`int`): Sentences of each, at most as many as there are real ones.

    Returns:
        `list[dict]`: One per setting.
    """
    tokenizer, start = metrics.tokenizer, metrics.tokenizer.bos_token_id
    real = log_densities(generator, tokenizer, discriminator, metrics.real_ids[:count], settings)
    results = []
    for number, (most, threshold) in enumerate(settings):
        config = DecodingConfig(
            "token_rejection", threshold, most, max_new_tokens=MAX_TOKENS, batch_size=500, seed=metrics.seed
        )
        drawn = guided_sample(generator, tokenizer, discriminator, [[start]] * count, config)
        ids = drawn.completion_ids
        own = log_densities(generator, tokenizer, discriminator, ids, [(most, threshold)])[0]
        success = torch.tensor(1 / drawn.draws, dtype=torch.float64).log()
        words = [tokenizer.decode([i for i in row if i != tokenizer.eos_token_id]).split() for row in ids]
        truth, real_logps = metrics.language.logps(words), real[number] - success
        divergence, error = jensen_shannon(metrics.real_logps[:count], real_logps, truth, own - success)
        results.append(
            {
                "num_candidates": most,
                "threshold": threshold,
                "draws": drawn.draws,
                "tokens": drawn.tokens_per_text,
                "exhausted": drawn.num_exhausted,
                "divergence": divergence,
                "standard_error": error,
                "grammatical": truth.isfinite().double().mean().item(),
                "entropy": -(own - success).mean().item(),
                "real_nll": -real_logps.mean().item(),
                "mean_length": sum(map(len, words)) / count,
                "duplicates": duplicates([" ".join(row) for row in words]),
            }
        )
    return results


@torch.no_grad()
def log_densities(
    generator: Any,
    tokenizer: Any,
    discriminator: Discriminator,
    texts: list[list[int]],
    settings: Sequence[tuple[int, float]],
) -> Tensor:
    """Compute the log-densities of texts up to log P, at several settings.

    Args:
        generator (`PreTrainedModel`): The generator.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        discriminator ([`~hf_mgan.Discriminator`]): Scores prefixes.
        texts (`list[list[int]]` of length N): Tokens, with the end token where a text ended by itself.
        settings (`Sequence[tuple[int, float]]`): k and c of each.

    Returns:
        `Tensor` of shape `(len(settings), N)`: float64, in nats.
    """
    parts = [texts[at : at + BATCH_SIZE] for at in range(0, len(texts), BATCH_SIZE)]
    return torch.cat([_of_batch(generator, tokenizer, discriminator, part, settings) for part in parts], 1)


def _of_batch(
    generator: Any,
    tokenizer: Any,
    discriminator: Discriminator,
    texts: list[list[int]],
    settings: Sequence[tuple[int, float]],
) -> Tensor:
    start, end, padding = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    width = max(map(len, texts))
    rows = torch.tensor([[start, *row, *[padding] * (width - len(row))] for row in texts])
    logps = generator(input_ids=rows).logits.double().log_softmax(-1)
    vocabulary = list(range(logps.size(2)))
    reader = PrefixReader(discriminator, tokenizer)
    read = reader.read([""] * len(texts))
    total = torch.zeros(len(settings), len(texts), dtype=torch.float64)
    places = torch.arange(len(texts))
    for at in range(width):
        is_last = at == MAX_TOKENS - 1
        further = [reader.tokens(token, is_last or token == end) for token in vocabulary]
        every = torch.arange(len(places)).repeat_interleave(len(vocabulary))
        values = read.logits_with(every, further * len(places)).view(len(places), len(vocabulary))
        gains = (reader.slope * (values - read.logits[:, None])).double()
        of_q, chosen = logps[places, at], rows[places, at + 1][:, None]
        for number, (most, threshold) in enumerate(settings):
            accepts = (gains - threshold).clamp(max=0)
            rejected = (1 - (of_q + accepts).exp().sum(1)).clamp(0, 1)
            kept = (of_q + accepts).gather(1, chosen)[:, 0]
            total[number, places] += kept + ((1 - rejected**most) / (1 - rejected).clamp(min=1e-12)).log()
        goes_on = [row for row, place in enumerate(places.tolist()) if len(texts[place]) > at + 1]
        if not goes_on:
            break
        on = torch.tensor(goes_on)
        tokens = [reader.tokens(texts[place][at], False) for place in places[on].tolist()]
        read.go_on(on, tokens, values.gather(1, chosen)[:, 0][on])
        places = places[on]
    return total
