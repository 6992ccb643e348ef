"""Exact distributions of what each method keeps, and two tiny models whose texts can be enumerated."""

import itertools

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hf_mgan.discriminator import Discriminator
from hf_mgan.discriminator.calibration import Calibration

from ..conftest import bert_classifier, tokenizer_of_pairs, word_tokenizer


FEW_WORDS = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "dog", "cat", "king"])}
END = FEW_WORDS["</s>"]
METHODS = ["rejection", "resampling", "best_of_k", "metropolis_hastings"]


def exact(method, q, r, k, threshold=0.0):
    """Return the probability of each text to be kept, and behind them that of none, from q and r of shape (V,).

    Both in double precision; r is -inf for a text that a filter refuses.
    """
    if method == "rejection":
        accepts = (r - threshold).exp().clamp(max=1)
        share = (q * accepts).sum()
        of_rejected = resampled(q * (1 - accepts) / (1 - share), r, k)
        return with_none(q * accepts / share) * (1 - (1 - share) ** k) + of_rejected * (1 - share) ** k
    if method == "resampling":
        return resampled(q, r, k)
    if method == "best_of_k":
        up_to, below = (torch.stack([q[is_less(r, one)].sum() for one in r]) ** k for is_less in (torch.le, torch.lt))
        levels = torch.stack([q[r == one].sum() for one in r])
        kept = (up_to - below) * q / levels  # of equals the first, which is any of them
    else:
        # The transitions of Metropolis-Hastings from x to y, and what stays; from -inf to -inf it stays.
        moves = q * (r[None, :] - r[:, None]).nan_to_num(-torch.inf, torch.inf, -torch.inf).exp().clamp(max=1)
        moves.fill_diagonal_(0)
        kept = q @ torch.linalg.matrix_power(moves + torch.diag(1 - moves.sum(1)), k - 1)
    return with_none(kept.where(r > -torch.inf, 0.0), kept[r == -torch.inf].sum())


def resampled(q, r, k):
    """Return the same for one of k draws from q with weights exp(r), by enumeration of all k candidates."""
    places = torch.cartesian_prod(*[torch.arange(len(q))] * k).view(-1, k)
    probs = q[places].prod(1)
    weights = r[places].softmax(1).nan_to_num(0.0)  # nan where all are refused
    kept = torch.zeros(len(q), dtype=q.dtype).index_add_(0, places.flatten(), (probs[:, None] * weights).flatten())
    return with_none(kept, probs[(r[places] == -torch.inf).all(1)].sum())


def with_none(kept, none=0.0):
    return torch.cat([kept, torch.as_tensor(none, dtype=kept.dtype)[None]])


def misfit(counts, probs):
    """Return by how many of its standard deviations Pearson's statistic is above its mean: 0 +- 1 for fair draws."""
    expected, counts = probs * counts.sum(), counts.double()
    common = expected >= 10
    assert counts[expected == 0].sum() == 0
    counts = torch.cat([counts[common], counts[~common].sum()[None]])
    expected = torch.cat([expected[common], expected[~common].sum()[None]])
    counts, expected = counts[expected > 0], expected[expected > 0]
    freedom = len(expected) - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom).item() / (2 * freedom) ** 0.5


class TinyPair:
    """A generator that writes at most two of seven tokens, and its discriminator."""

    def __init__(self):
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=len(FEW_WORDS),
            n_embd=16,
            n_layer=1,
            n_head=2,
            n_positions=32,
            bos_token_id=1,
            eos_token_id=END,
            pad_token_id=0,
            initializer_range=0.3,
        )
        self.model = GPT2LMHeadModel(config).eval()
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=word_tokenizer(FEW_WORDS),
            bos_token="<s>",
            eos_token="</s>",
            pad_token="<pad>",
            unk_token="<unk>",
            padding_side="left",
        )
        self.discriminator = Discriminator(bert_classifier(), tokenizer_of_pairs())
        self.discriminator.calibration = calibration()

    def ids(self, length):
        """Return all completions of at most so many tokens."""
        rows = []
        for size in range(1, length + 1):
            for row in itertools.product(range(len(FEW_WORDS)), repeat=size):
                if END not in row[:-1] and (size == length or row[-1] == END):
                    rows.append(list(row))
        return rows

    def q(self, prompt, length, temperature=1.0):
        """Return the probabilities of these, token by token."""
        probs = []
        for row in self.ids(length):
            sequence = [*self.tokenizer(prompt)["input_ids"], *row]
            with torch.no_grad():
                logits = self.model(torch.tensor([sequence])).logits[0].double() / temperature
            logps = logits.log_softmax(1)
            first = len(sequence) - len(row)
            probs.append(sum(logps[place - 1, sequence[place]] for place in range(first, len(sequence))).exp())
        return torch.stack(probs)

    def r(self, prompt, length):
        """Return their log-ratios."""
        texts = self.tokenizer.batch_decode(self.ids(length), skip_special_tokens=True)
        shown = prompt.replace("<s>", "").strip()
        return self.discriminator.log_ratio([shown] * len(texts), texts).double()

    def counts(self, completion_ids, length):
        """Count how often each of these is among completions; the last number is that of none."""
        numbers = {tuple(row): number for number, row in enumerate([*self.ids(length), []])}
        return torch.tensor([numbers[tuple(row)] for row in completion_ids]).bincount(minlength=len(numbers))


def calibration(**changes):
    settings = {
        "slope": 3.0,
        "intercept": 2.5,
        "label": 0,
        "with_prompt": True,
        "temperature": 1.0,
        "max_new_tokens": 2,
        "num_texts": 100,
        "auc": (0.7, 0.6, 0.8),
        "loss": 0.6,
        "uncalibrated_loss": 0.7,
        "error": 0.01,
        "uncalibrated_error": 0.1,
    }
    return Calibration(**{**settings, **changes})


@pytest.fixture
def pair():
    return TinyPair()
