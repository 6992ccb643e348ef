"""Token credit: what each token of the generator changes in the discriminator's logit.

Works, and has measured as no better than one reward per completion: +0.006 ± 0.006 bits of Jensen-Shannon divergence
on the demo's language, three seeds (docs/recipe.md). A causal discriminator is needed.

A causal discriminator scores every prefix of a completion (`discriminator.prefixes`). Its logit before a token says
what the completion was worth so far, its logit behind it what the token made of that; the difference is the token's
own. With v_t the logit of the prefix that ends with token t, v_0 = 0 (real and generated texts share their prompts, so
nothing tells two empty completions apart) and R the reward shape, the reward of token t and its return are

    r_t = R(v_t) - R(v_{t-1}),    G_t = sum_{k >= t} discount^(k-t) r_k.

The rewards are differences of a potential (Ng, Harada and Russell 1999, "Policy invariance under reward
transformations"), so they add up to R(v_T) - R(0), whatever the prefixes were worth: a long text earns no more than a
short one, and a discriminator that says 1/2 throughout gives nothing. At a discount of 1 the return is R(v_T) -
R(v_{t-1}), the reward of the whole text less what was known before the token: the discriminator is the critic, too, at
no price. A baseline that does not depend on the token leaves the expected policy gradient as it is, so this is the
gradient of the sequence's reward. A smaller discount looks less far ahead: less variance, and the gradient of another
objective. The relative is ScratchGAN (de Masson d'Autume et al. 2019, "Training language GANs from scratch",
[1905.09922](https://huggingface.co/papers/1905.09922)), whose reward for every token is 2 D - 1, with a discount of
0.23.

Generator and discriminator have tokens of their own, so prefixes are matched by characters: a token is given the logit
of the longest prefix of whole tokens of the discriminator that it has completed. The match is exact where every token
of the generator ends a token of the discriminator, as with a common tokenizer. Elsewhere v_{t-1} can hang on the text
that follows: whether the discriminator reads "dog" and "s" or "dogs" is settled by the token behind "dog".

In: logits and ends of prefixes, tokens of completions. Out: advantages (B, T), which TRL takes in place of (B,).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..checks import SHARE, check_fields
from ..config import AdversarialConfig
from ..objectives import REWARDS
from ..objectives.rewards import RewardShape
from ..trainer import AdversarialTrainer


WINDOW = 32  # tokens; what a token adds to a text hangs on a few tokens before it, and decoding takes time
REPLACEMENT = "\ufffd"  # what decoding writes for the bytes of an unfinished character


def token_ends(tokenizer: PreTrainedTokenizerBase, completion_ids: Sequence[list[int]]) -> list[list[int]]:
    """Find after how many characters of the decoded completion each token ends.

    The text is that of `batch_decode(..., skip_special_tokens=True)`. A token that ends within a character ends with
    the character before it. The last token of a completion, be it an end token or not, ends one character behind the
    text: nothing follows.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): The generator's.
        completion_ids (`Sequence[list[int]]` of length B): Tokens of the completions, without padding.

    Returns:
        `list[list[int]]`: One row per completion, as long as it, never decreasing.
    """
    texts = tokenizer.batch_decode(list(completion_ids), skip_special_tokens=True)
    different = list({token for ids in completion_ids for token in ids})
    alone = tokenizer.batch_decode([[token] for token in different], skip_special_tokens=True)
    pieces = dict(zip(different, alone, strict=True))
    rows = []
    for ids, text in zip(completion_ids, texts, strict=True):
        if "".join(pieces[token] for token in ids) == text:
            # Every token is a piece of text by itself, as ASCII is in byte-level tokenizers.
            ends = list(accumulate(len(pieces[token]) for token in ids))
        else:
            ends = _ends_in_context(tokenizer, ids, text)
        rows.append([*ends[:-1], len(text) + 1] if ids else [])
    return rows


def _ends_in_context(tokenizer: PreTrainedTokenizerBase, ids: list[int], text: str) -> list[int]:
    """Decode up to each token: from the window before its own, or from the beginning if that does not add up."""
    for window in (WINDOW, len(ids)):
        starts = range(0, len(ids), window)
        spans = [ids[max(start - window, 0) : start] for start in starts]
        spans += [ids[max(at // window * window - window, 0) : at + 1] for at in range(len(ids))]
        decoded = tokenizer.batch_decode(spans, skip_special_tokens=True)
        contexts, beginnings = decoded[: len(starts)], decoded[len(starts) :]
        lengths: list[int] = []
        for context, start in zip(contexts, starts, strict=True):
            settled, known = lengths[-1] if lengths else 0, len(context.rstrip(REPLACEMENT))
            new = [beginning[known:] for beginning in beginnings[start : start + window]]
            lengths += [settled + length for length in _common_lengths(new, text[settled:])]
        if lengths[-1] == len(text):
            break
    return lengths


def _common_lengths(beginnings: list[str], text: str) -> list[int]:
    """Return how much of the text each beginning settles: what is said of an unfinished character can still change."""
    lengths, latest = [], 0
    for beginning in beginnings:
        settled = beginning if text.startswith(beginning) else beginning.rstrip(REPLACEMENT)
        if not text.startswith(settled):  # decoders may tidy the text around its end
            shared = zip(settled, text, strict=False)
            settled = settled[: next((at for at, (one, other) in enumerate(shared) if one != other), len(text))]
        latest = max(latest, len(settled))
        lengths.append(latest)
    return lengths


def token_values(prefix_logits: Tensor, prefix_ends: Tensor, ends: Sequence[list[int]], width: int) -> Tensor:
    """Give each token of the generator the logit of the prefix that it completes.

    Args:
        prefix_logits (`Tensor` of shape `(B, P)`): The discriminator's, from [`PrefixScorer.logits`].
        prefix_ends (`Tensor` of shape `(B, P)`): Where its tokens end, from [`PrefixScorer.encode`].
        ends (`Sequence[list[int]]` of length B): Where the generator's tokens end, from [`token_ends`].
        width (`int`): T, the number of tokens that the completions are padded to on the right.

    Returns:
        `Tensor` of shape `(B, T)`: float32. 0 before the discriminator's first token has ended; the last token, and
            the padding, have the sequence's logit.
    """
    rows = [[*row, *[torch.iinfo(torch.int64).max] * (width - len(row))] for row in ends]
    wanted = torch.tensor(rows, dtype=torch.int64, device=prefix_logits.device).view(len(rows), width)
    reached = torch.searchsorted(prefix_ends.to(wanted).contiguous(), wanted, right=True)  # tokens that have ended
    nothing_read = prefix_logits.new_zeros(len(rows), 1)
    return torch.cat([nothing_read, prefix_logits], 1).gather(1, reached).float()


def token_advantages(
    values: Tensor, mask: Tensor, reward: RewardShape, discount: float = 1.0, baseline: bool = True
) -> Tensor:
    """Compute each token's advantage: its discounted return, less that of the other completions at its place.

    Args:
        values (`Tensor` of shape `(B, T)`): Logits of the prefixes, v_1 to v_T, from [`token_values`].
        mask (`Tensor` of shape `(B, T)`): 1 for the tokens of the completions, 0 for the padding on the right and for
            completions that do not count.
        reward (`RewardShape`): The reward shape R, one of [`~objectives.REWARDS`].
        discount (`float`, *optional*, defaults to 1.0): Weight of the next token's reward, in [0, 1]. At 1 the
            gradient is that of the sequence's reward.
        baseline (`bool`, *optional*, defaults to `True`): Whether to subtract the mean return of the *other*
            completions that have a token at this place, 0 if there is none. It depends on nothing that the completion
            itself does from here on, so the expected gradient stays as it is. The critic alone is enough where the
            discriminator is the best one: the noise then grows by a factor of at most sqrt(n / (n - 1)), n the number
            of completions. It is not where all logits lie off by the same, in which the baseline takes over: 2 nats
            too low, the noise would be twice as great without it.

    Returns:
        `Tensor` of shape `(B, T)`: float32, 0 where the mask is.
    """
    counts = mask.float()
    before = torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], 1)
    rewards = (reward(values) - reward(before)) * counts
    places = torch.arange(values.size(1), device=values.device)
    ahead = (places[:, None] - places[None, :]).float()  # Shape (T, T): from the column's token to the row's
    weights = torch.where(ahead >= 0, discount ** ahead.clamp(min=0), 0.0)
    returns = rewards @ weights
    if baseline:
        others = counts.sum(0) - counts
        returns = returns - (returns.sum(0) - returns) / others.clamp(min=1)
    return returns * counts


def with_sequence_advantages(credit: Tensor, weight: float, sequence_advantages: Tensor, mask: Tensor) -> Tensor:
    """Add up the advantages of the tokens and those of whole completions, which every token of theirs gets.

    Args:
        credit (`Tensor` of shape `(B, T)`): From [`token_advantages`].
        weight (`float`): The discriminator's weight beside the further rewards.
        sequence_advantages (`Tensor` of shape `(B,)`): Those of the further rewards alone.
        mask (`Tensor` of shape `(B, T)`): 1 for the tokens of the completions.

    Returns:
        `Tensor` of shape `(B, T)`: 0 where the mask is.
    """
    return (weight * credit + sequence_advantages[:, None]) * mask


@dataclass
class TokenCreditConfig(AdversarialConfig):
    """Configuration of [`TokenCreditTrainer`]: that of [`AdversarialTrainer`] and a discount.

    Args:
        discount (`float`, *optional*, defaults to 1.0): Weight in [0, 1] of what the next token earns in the return of
            a token. At 1 the gradient is that of the reward of the whole; less has less variance, and looks less far
            ahead.

    Raises:
        ValueError: If the discount is out of range, or a setting works on whole completions.
    """

    scores_prefixes = True

    discount: float = field(
        default=1.0, metadata={"help": "Weight in [0, 1] of what the next token earns in the return of a token."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, {"discount": SHARE})
        for name, given, reason in (
            ("loss_type='vespo'", self.loss_type == "vespo", "weighs whole completions"),
            (
                "off_policy_mask_threshold",
                self.off_policy_mask_threshold is not None,
                "leaves out whole completions by their advantage",
            ),
            (
                f"scale_rewards={self.scale_rewards!r}",
                self.scale_rewards != "none",
                "divides the other rewards by the deviation of a group (set scale_rewards='none')",
            ),
        ):
            if given:
                raise ValueError(f"Token credit gives each token a reward of its own, and {name} {reason}: change it.")


class TokenCreditTrainer(AdversarialTrainer):
    """[`AdversarialTrainer`] with a reward for every token.

    The only change is to advantages: the discriminator's part of those of whole completions gives way to the credit of
    single tokens. The discriminator has to be causal, and learns from all prefixes.

    Args:
        *args: As in [`AdversarialTrainer`]; `args` is a [`TokenCreditConfig`].
        **kwargs: As there, without `tools`, `rollout_func` and `environment_factory`, which put text of their own into
            completions, and `safety_gate`, which ranks whole completions.

    Raises:
        TypeError: If `args` is no [`TokenCreditConfig`].
        ValueError: If an argument does not go with token credit, or the discriminator is not causal.
    """

    args: TokenCreditConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        config = kwargs.get("args", args[2] if len(args) > 2 else None)
        if not isinstance(config, TokenCreditConfig):
            raise TypeError(f"args must be a TokenCreditConfig, got {type(config).__name__}.")
        for name, reason in (
            ("tools", "puts text of its own into completions"),
            ("rollout_func", "puts text of its own into completions"),
            ("environment_factory", "puts text of its own into completions"),
            ("safety_gate", "ranks whole completions, which the credit of single tokens could turn round"),
        ):
            if kwargs.get(name) is not None:
                raise ValueError(
                    f"Token credit rewards the tokens that the generator has written, and {name} {reason}: use "
                    "AdversarialTrainer."
                )
        super().__init__(*args, **kwargs)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Put the credit of tokens in the place of the discriminator's part of the advantages."""
        warming_up = self._reward.is_warming_up
        output = super()._generate_and_score_completions(inputs)
        if self.model.training and not warming_up:
            output["advantages"] = self._token_advantages(output["advantages"], output["completion_mask"])
        return output

    def _token_advantages(self, advantages: Tensor, mask: Tensor) -> Tensor:
        """Return the advantages of tokens.

        Args:
            advantages (`Tensor` of shape `(B,)`): TRL's, of all rewards: sums of weighted rewards less the mean of the
                group, undivided.
            mask (`Tensor` of shape `(B, T)`): 1 for the tokens of the completions.

        Returns:
            `Tensor` of shape `(B, T)`: See [`token_advantages`].
        """
        output = self._reward.round.output
        assert output is not None
        assert output.fake_prefix_logits is not None
        assert output.fake_prefix_ends is not None  # the discriminator scores prefixes (`scores_prefixes`)
        weight, reward = self.args.discriminator_weight, REWARDS[self.args.discriminator_reward]
        groups = self.accelerator.gather(reward(output.fake_logits)).view(-1, self.num_generations)
        own = (groups - groups.mean(1, keepdim=True)).flatten()
        own = own[len(advantages) * self.accelerator.process_index :][: len(advantages)]
        ends = token_ends(self._tokenizer, self._reward.round.completion_ids)
        values = token_values(output.fake_prefix_logits, output.fake_prefix_ends, ends, mask.size(1)).to(mask.device)
        # Of all processes: each completion is compared with all others, and theirs may be longer.
        of_all = [
            self.accelerator.gather(self.accelerator.pad_across_processes(part, dim=1)) for part in (values, mask)
        ]
        credit = token_advantages(of_all[0], of_all[1], reward, self.args.discount)
        credit = credit[len(advantages) * self.accelerator.process_index :][: len(advantages), : mask.size(1)]
        return with_sequence_advantages(credit, weight, advantages - weight * own.to(advantages), mask)
