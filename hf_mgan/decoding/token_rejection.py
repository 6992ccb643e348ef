"""Rejection token by token: a causal discriminator corrects every next token of the generator.

In: prompts, a generator, and a discriminator that reads every prefix. Out: [`TokenTexts`]. With r(x) = log p(x) -
log q(x) the log-ratio of a beginning x of a text, real text goes on by

    p(v | x) = q(v | x) exp(r(xv) - r(x)).

So a token is drawn from q(. | x) and kept with probability min(1, exp(r(xv) - r(x) - c)), or drawn anew from the same
q(. | x), which the generator has computed already: only the discriminator reads again. Rejection of whole texts
([`~selection.rejection`]) throws a text away for its last word; this draws the word anew. With a perfect discriminator
and c at least as great as the greatest difference the texts are those of p. FUDGE (Yang and Klein 2021,
[2104.05218](https://huggingface.co/papers/2104.05218)) too weighs next tokens by a classifier of prefixes, and reads
all likely ones for it.

Where none of k tokens is kept, the beginning was a mistake that the discriminator sees too late: the text is abandoned
and drawn anew. What is kept has the density, up to a constant,

    prod_t q(v | x) min(1, exp(r(xv) - r(x) - c)) (1 - R^k) / (1 - R),

R(x) being the probability that one token is rejected. Texts are independent of one another: none shares its beginning
with another one, as those of sequential Monte Carlo do.

r of an empty completion is 0, since real and generated texts share their prompts. Calibration scales differences: its
slope counts, and its intercept, which is fitted to whole texts, does not.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from .continuation import accepts, cache_name, keeps_cache, positions, read_prompts
from .prefix_reading import GrowingTexts, PrefixReader
from .sampling import end_tokens
from .selection import is_accepted, resampling
from .settings import DecodingConfig


if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class TokenTexts(NamedTuple):
    """Texts of one try each.

    Args:
        completion_ids (`list[list[int]]` of length N): Tokens of each completion, with the end token where the
            generator ended by itself; of an abandoned text those before the token that was not found.
        log_ratios (`list[float]` of length N): Log-ratio of each text, in nats.
        tokens (`list[int]` of length N): Tokens drawn for each, those that were rejected included.
        accepted (`list[bool]` of length N): False where a token was not accepted in k draws: the text is abandoned,
            or, if that was not asked for, has one of the k tokens there, drawn by its log-ratio.
    """

    completion_ids: list[list[int]]
    log_ratios: list[float]
    tokens: list[int]
    accepted: list[bool]


class TokenRejection:
    """Draws texts token by token from a generator that a causal discriminator corrects; it holds the random numbers.

    Args:
        model (`PreTrainedModel` or `PeftModel`): The generator, in evaluation mode.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        reader ([`PrefixReader`]): Reads what it writes.
        config ([`DecodingConfig`]): `threshold` is c, `num_candidates` k.

    Raises:
        ValueError: If the generator's keys and values cannot be kept.
    """

    def __init__(
        self,
        model: "PreTrainedModel | PeftModel",
        tokenizer: "PreTrainedTokenizerBase",
        reader: PrefixReader,
        config: DecodingConfig,
    ) -> None:
        if not keeps_cache(model):
            raise ValueError(
                f"token_rejection keeps the generator's keys and values, which {type(model).__name__} does not hand "
                "out. Use rejection, which reads whole texts."
            )
        self._model, self._reader, self._config = model, reader, config
        self._ends = end_tokens(model, tokenizer)
        self._padding = tokenizer.pad_token_id or 0
        self._generator = torch.Generator(next(model.parameters()).device).manual_seed(config.seed)
        # Logits of one token are read; those of a whole prompt would take much memory.
        self._last = {"logits_to_keep": 1} if accepts(model, "logits_to_keep") else {}

    @torch.no_grad()
    def __call__(self, prompt_ids: list[list[int]], shown: list[str], abandons: bool = False) -> TokenTexts:
        """Draw a text for each prompt, all in one batch.

        Args:
            prompt_ids (`list[list[int]]` of length B): Tokens of the prompts, at least one each.
            shown (`list[str]` of length B): The prompts as the discriminator reads them.
            abandons (`bool`, *optional*, defaults to `False`): Whether a text ends where k tokens are rejected.

        Returns:
            [`TokenTexts`]: In the order of the prompts.
        """
        count, limit = len(prompt_ids), self._config.max_new_tokens
        drawn = TokenTexts([[] for _ in prompt_ids], [0.0] * count, [0] * count, [True] * count)
        rows, mask = self._padded(prompt_ids)
        cache = read_prompts(self._model, rows, mask)
        read = self._reader.read(shown)
        places = list(range(count))
        for written in range(1, limit + 1):
            probs = self._probs(rows, mask, cache)
            tokens, values, draws, accepted = self._next(probs, read, written == limit)
            log_ratios, goes_on = self._reader.log_ratios(values).tolist(), []
            for at, (place, token) in enumerate(zip(places, tokens, strict=True)):
                drawn.tokens[place] += draws[at]
                drawn.accepted[place] &= accepted[at]
                if abandons and not accepted[at]:
                    continue
                drawn.completion_ids[place].append(token)
                drawn.log_ratios[place] = log_ratios[at]
                if token not in self._ends:
                    goes_on.append(at)
            if not goes_on or written == limit:
                break
            kept = torch.tensor(goes_on, device=rows.device)
            places, tokens = [places[at] for at in goes_on], [tokens[at] for at in goes_on]
            of_reader = kept.to(values.device)  # the discriminator may lie on another device
            read.go_on(of_reader, [self._reader.tokens(token, False) for token in tokens], values[of_reader])
            cache.batch_select_indices(kept)
            rows = torch.cat([rows[kept], torch.tensor(tokens, device=rows.device)[:, None]], 1)
            mask = torch.cat([mask[kept], mask.new_ones(len(kept), 1)], 1)
        return drawn

    def _padded(self, prompt_ids: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Return prompts, padded on the left, and their mask, both of shape `(B, L)` on the model's device."""
        width, device = max(map(len, prompt_ids)), next(self._model.parameters()).device
        rows = [[self._padding] * (width - len(row)) + row for row in prompt_ids]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in prompt_ids]
        return torch.tensor(rows, device=device), torch.tensor(mask, device=device)

    def _probs(self, rows: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        """Return the generator's next-token distributions, shape `(n, V)`, and read what the cache does not hold."""
        new = rows[:, cache.get_seq_length() :]
        logits: Tensor = self._model(
            input_ids=new,
            attention_mask=mask,
            **positions(self._model, mask, new.size(1)),
            **{cache_name(self._model): cache},
            **self._last,
        ).logits[:, -1]
        return (logits.float() / self._config.temperature).softmax(-1)

    def _next(
        self, probs: Tensor, read: GrowingTexts, is_last: bool
    ) -> tuple[list[int], Tensor, list[int], list[bool]]:
        """Draw the next token of each text.

        Args:
            probs (`Tensor` of shape `(n, V)`): The generator's distributions of it.
            read ([`GrowingTexts`]): The texts so far.
            is_last (`bool`): Whether the texts are cut behind this token.

        Returns:
            `tuple`: The tokens, the discriminator's logits of the texts with them, shape `(n,)`, the draws, and
                whether the token was accepted.
        """
        most, threshold = self._config.num_candidates, self._config.threshold
        candidates = torch.multinomial(probs, most, replacement=True, generator=self._generator).cpu()
        shape, generator = (2, *candidates.shape), self._generator
        uniforms, others = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64).cpu()
        values, ratios = self._values(candidates, uniforms, read, is_last)
        accepts_one = is_accepted(ratios, uniforms, threshold)
        accepted, first = accepts_one.any(1), accepts_one.float().argmax(1)
        # By random numbers of their own: those of rejected tokens are no longer uniform.
        kept = torch.where(accepted, first, resampling(ratios, others).kept)[:, None]
        draws = torch.where(accepted, first + 1, most)
        values = values.gather(1, kept.to(values.device))[:, 0]
        return candidates.gather(1, kept)[:, 0].tolist(), values, draws.tolist(), accepted.tolist()

    def _values(
        self, candidates: Tensor, uniforms: Tensor, read: GrowingTexts, is_last: bool
    ) -> tuple[Tensor, Tensor]:
        """Read candidates, shape `(n, k)`, until one of each text is accepted.

        Returns:
            `tuple[Tensor, Tensor]` of shape `(n, k)` each: The logits of the texts with them, and log-ratios less
                those of the texts without, on the CPU; -inf where a candidate has not been read.
        """
        values = read.logits.new_zeros(candidates.shape)
        ratios = torch.full_like(uniforms, -torch.inf)
        pending, start = torch.arange(len(candidates)), 0
        while len(pending) and start < candidates.size(1):
            # One candidate, then two, then four: few passes where many are rejected, and few tokens read in vain.
            block = pending[:, None], torch.arange(start, min(2 * start + 1, candidates.size(1)))
            tokens = candidates[block]
            rows = pending[:, None].expand_as(tokens).flatten().to(values.device)
            flat: list[int] = tokens.flatten().tolist()
            ends = [is_last or token in self._ends for token in flat]
            new = read.logits_with(rows, list(map(self._reader.tokens, flat, ends)))
            gains = self._reader.slope * (new - read.logits[rows])
            values[tuple(part.to(values.device) for part in block)] = new.view(tokens.shape)
            ratios[block] = gains.double().cpu().view(tokens.shape)
            pending = pending[~is_accepted(ratios[block], uniforms[block], self._config.threshold).any(1)]
            start += tokens.size(1)
        return values, ratios
