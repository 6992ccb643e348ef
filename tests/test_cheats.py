"""What each metric of text catches and what it lets through, which is why several are reported.

Beside eight honest sets of as many texts, a metric

- catches a cheat that is worse than the worst of them by more than they differ among themselves,
- is flattered by one that is better than the best of them by as much,
- and misses what lies between.

The two-sample test has an interval of its own: it catches a cheat if the interval lies above 0.5, and misses it
otherwise. What is not stated of a cheat and a metric is not claimed.

The honest texts are drawn from the demo's language, whose density is known, or are sentences of WordNet where they can
be had.
"""

import copy
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import nn

from hf_mgan.demo.language import Language
from hf_mgan.metrics import (
    c2st,
    distinct_n,
    duplicates,
    frechet_distance,
    jensen_shannon,
    length_ratio,
    mauve,
    memorisation,
    reverse_perplexity,
    self_bleu,
)


SIZE = 200  # texts per set
HONEST = 8  # sets
COLD = 0.5  # temperature
FREQUENT = 300  # words that have a feature of their own
START, END, OTHER = range(3)
pytestmark = pytest.mark.statistics

DATA = Path(__file__).parents[2] / "shared" / "data" / "wordnet_examples.train.jsonl"


class Reality(NamedTuple):
    """Held-out and training sentences, each a list of words, and a model that knows how likely a sentence is."""

    held_out: list
    corpus: list
    nll: Callable


class Table(nn.Module):
    """A language model that looks at the last token alone; it learns in a second what a set of texts can teach."""

    def __init__(self, vocab_size):
        super().__init__()
        self.logits = nn.Embedding.from_pretrained(torch.zeros(vocab_size, vocab_size), freeze=False)

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(logits=self.logits(input_ids))


class Bigrams:
    """A generator that has counted which word follows which: a real model, which errs, to cool the softmax of."""

    def __init__(self, texts):
        self.counts = defaultdict(Counter)
        for text in texts:
            for word, following in zip(["<s>", *text], [*text, "</s>"], strict=True):
                self.counts[word][following] += 1
        self.words = sorted({word for counts in self.counts.values() for word in counts})

    def sample(self, count, seed, temperature=1.0):
        """Draw sentences word by word from p^(1/T), scaled to a sum of 1, over the words that p lets follow."""
        draw = random.Random(seed)
        steps = {
            word: (list(counts), [number ** (1 / temperature) for number in counts.values()])
            for word, counts in self.counts.items()
        }
        texts = []
        for _ in range(count):
            text = [draw.choices(*steps["<s>"])[0]]
            while text[-1] != "</s>":
                text += draw.choices(*steps[text[-1]])
            texts.append(text[:-1])
        return texts

    def nll(self, texts):
        """Compute -log p of each text; a twentieth of p is spread over all words, so that no pair is impossible."""
        totals = []
        for text in texts:
            total = 0.0
            for word, following in zip(["<s>", *text], [*text, "</s>"], strict=True):
                counts = self.counts[word] if word in self.counts else Counter()
                seen = counts[following] / counts.total() if counts else 0.0
                total -= math.log(0.95 * seen + 0.05 / len(self.words))
            totals.append(total)
        return totals


def cooled(language, temperature):
    """Cool every step of the automaton: p^(1/T), scaled to a sum of 1. The result knows its density too."""
    colder = copy.copy(language)
    powers = language.probs ** (1 / temperature)
    colder.probs = powers / powers.sum(1, keepdim=True)
    return colder


def tokens(texts, vocabulary):
    return [[*(vocabulary.get(word, OTHER) for word in text), END] for text in texts]


def badness(texts, reality):
    """Compute each metric, signed so that more is worse; that of the test is the lower end of its interval."""
    real = reality.held_out
    words = [word for word, _ in Counter(word for text in reality.corpus for word in text).most_common(FREQUENT)]
    vocabulary = {word: index for index, word in enumerate(words, OTHER + 1)}
    generated_ids, corpus_ids, real_ids = (tokens(batch, vocabulary) for batch in (texts, reality.corpus, real))

    def bags(rows):
        """Count words: the simplest features, which do not see their order."""
        return torch.stack([torch.tensor(row).bincount(minlength=len(words) + 3).float() for row in rows])

    reverse = reverse_perplexity(
        generated_ids,
        corpus_ids,
        real_ids,
        model=Table(len(words) + 3),
        start_token_id=START,
        learning_rate=0.2,
    )
    copying = memorisation(texts, real, reality.corpus)
    test = c2st([" ".join(text) for text in real], [" ".join(text) for text in texts])
    return {
        "duplicates": duplicates([" ".join(text) for text in texts]),
        "self_bleu": self_bleu(texts),
        "distinct_2": -distinct_n(texts, 2),
        "length": abs(math.log(length_ratio(texts, real))),
        "copied_share": copying.generated.longest_share - copying.held_out.longest_share,
        "near_duplicates": copying.generated.near_duplicate_share - copying.held_out.near_duplicate_share,
        "nll": sum(reality.nll(texts)) / sum(len(text) + 1 for text in texts),
        "reverse_perplexity": reverse.generated / reverse.real,
        "mauve": -mauve(bags(real_ids), bags(generated_ids)).score,
        "frechet": frechet_distance(bags(real_ids), bags(generated_ids)),
        "c2st": test.auc.low,
    }


def verdict(metric, cheat, honest):
    if metric == "c2st":
        return "caught" if cheat["c2st"] > 0.5 else "missed"
    values = [one[metric] for one in honest]
    worst, best = max(values), min(values)
    if cheat[metric] > worst + (worst - best):
        return "caught"
    return "flattered" if cheat[metric] < best - (worst - best) else "missed"


def take(texts, count):
    return list(islice(texts, count))


def shuffled(texts):
    draw = random.Random(0)
    return [draw.sample(text, len(text)) for text in texts]


def collapsed(texts):
    """Say a few honest sentences over and over."""
    return random.Random(0).choices(texts[:20], k=SIZE)


def over_long(texts):
    """Choose the longest of many honest sentences, so that nothing but their length is wrong."""
    return sorted(texts, key=len)[-SIZE:]


METRICS = (
    "duplicates",
    "self_bleu",
    "distinct_2",
    "length",
    "copied_share",
    "near_duplicates",
    "nll",
    "reverse_perplexity",
    "mauve",
    "frechet",
    "c2st",
)
LANGUAGE = {
    "collapsed": {
        "caught": ("duplicates", "self_bleu", "distinct_2", "reverse_perplexity", "mauve", "frechet"),
        "missed": ("nll", "copied_share", "near_duplicates", "c2st"),
    },
    "copied": {
        "caught": ("copied_share", "near_duplicates"),
        "missed": tuple(metric for metric in METRICS if metric not in ("copied_share", "near_duplicates")),
    },
    "colder": {
        "caught": ("self_bleu", "distinct_2", "reverse_perplexity", "mauve", "frechet", "c2st"),
        "flattered": ("nll",),
    },
    "over-long": {
        "caught": ("length", "mauve", "frechet", "c2st"),
        "missed": ("duplicates", "nll", "reverse_perplexity"),
        "flattered": ("copied_share",),
    },
    "shuffled": {
        "caught": ("nll", "reverse_perplexity", "c2st"),
        "missed": ("duplicates", "length", "mauve", "frechet"),  # the features do not see the order of words
        "flattered": ("self_bleu", "distinct_2", "copied_share"),
    },
    "real": {"missed": METRICS},
}
WORDNET = {
    "collapsed": {
        "caught": ("duplicates", "self_bleu", "distinct_2", "reverse_perplexity", "mauve", "frechet"),
        "missed": ("nll", "c2st"),
    },
    "copied": {
        "caught": ("copied_share", "near_duplicates"),
        "missed": ("duplicates", "self_bleu", "distinct_2", "length", "nll", "reverse_perplexity", "mauve", "c2st"),
    },
    "over-long": {
        "caught": ("length", "frechet", "c2st"),
        "missed": ("duplicates", "self_bleu", "nll", "reverse_perplexity"),
        "flattered": ("copied_share",),
    },
    "shuffled": {
        "caught": ("nll", "reverse_perplexity", "c2st"),
        "missed": ("duplicates", "length", "mauve", "frechet"),
        "flattered": ("copied_share",),
    },
    "real": {"missed": METRICS},
}
# Beside the same model at temperature 1, which the test tells from real text already.
COLDER_MODEL = {
    "colder": {
        "caught": ("self_bleu", "distinct_2", "reverse_perplexity", "mauve", "frechet"),
        "flattered": ("nll",),
    }
}


def claims(verdicts):
    return [
        (cheat, metric, expected)
        for cheat, kinds in verdicts.items()
        for expected, metrics in kinds.items()
        for metric in metrics
    ]


class Trial(NamedTuple):
    """The metrics of the honest sets, and those of each cheat."""

    honest: list
    cheats: dict


def model_trial(model, reality):
    return Trial(
        [badness(model.sample(SIZE, seed), reality) for seed in range(4)],
        {"colder": badness(model.sample(SIZE, 200, COLD), reality)},
    )


@pytest.fixture(scope="module")
def language():
    return Language()


@pytest.fixture(scope="module")
def reality(language):
    return Reality(
        language.sample(SIZE, 100), language.sample(4 * SIZE, 101), lambda texts: (-language.logps(texts)).tolist()
    )


@pytest.fixture(scope="module")
def trial(language, reality):
    cheats = {
        "collapsed": collapsed(language.sample(SIZE, 200)),
        "copied": random.Random(0).sample(reality.corpus, SIZE),
        "colder": cooled(language, COLD).sample(SIZE, 201),
        "over-long": over_long(language.sample(4 * SIZE, 202)),
        "shuffled": shuffled(language.sample(SIZE, 203)),
        "real": language.sample(SIZE, 204),
    }
    return Trial(
        [badness(language.sample(SIZE, seed), reality) for seed in range(HONEST)],
        {name: badness(texts, reality) for name, texts in cheats.items()},
    )


@pytest.mark.parametrize(("cheat", "metric", "expected"), claims(LANGUAGE))
def test_metrics_on_cheats_in_a_known_language(trial, cheat, metric, expected):
    assert verdict(metric, trial.cheats[cheat], trial.honest) == expected


def test_claims_name_all_metrics_and_no_other(trial):
    assert set(trial.honest[0]) == set(METRICS)
    for verdicts in (LANGUAGE, WORDNET):
        assert {metric for cheat in verdicts for metric in chain(*verdicts[cheat].values())} == set(METRICS)
        caught = {metric for cheat in verdicts for metric in verdicts[cheat].get("caught", ())}
        assert caught == set(METRICS)  # each is of use
        # and none is enough
        for metric in METRICS:
            assert any(metric not in kinds.get("caught", ()) for name, kinds in verdicts.items() if name != "real")


def test_c2st_of_honest_texts_covers_one_half(language, reality):
    real = [" ".join(text) for text in reality.held_out]
    for seed in range(300, 304):
        area = c2st(real, [" ".join(text) for text in language.sample(SIZE, seed)]).auc
        assert area.low < 0.5 < area.high


def test_one_sentence_over_and_over_is_left_to_duplicates(language, reality):
    """Each different text is learnt once, so that there is nothing to split; the sentence itself is fine."""
    texts = language.sample(1, 0) * SIZE
    assert duplicates([" ".join(text) for text in texts]) == 1 - 1 / SIZE
    assert self_bleu(texts) == pytest.approx(1)
    assert language.logps(texts).isfinite().all()
    with pytest.raises(ValueError, match="their duplicates say enough"):
        c2st([" ".join(text) for text in reality.held_out], [" ".join(text) for text in texts])


def test_colder_softmax_is_likelier_than_the_language(language):
    """Every sentence of both is grammatical. The divergence sees it, which asks for both densities."""
    real, colder = language.sample(SIZE, 0), cooled(language, COLD)
    texts = colder.sample(SIZE, 1)
    assert language.logps(texts).isfinite().all()
    assert language.logps(texts).mean() > -language.entropy() + 1  # one nat per sentence
    assert colder.entropy() < language.entropy() - 1
    divergence, error = jensen_shannon(
        language.logps(real), colder.logps(real), language.logps(texts), colder.logps(texts)
    )
    assert divergence > 5 * error


def test_colder_softmax_of_a_model_is_more_grammatical(language, reality):
    model = Bigrams(reality.corpus)

    def grammatical(temperature, seed):
        return language.logps(model.sample(1000, seed, temperature)).isfinite().double().mean().item()

    assert grammatical(COLD, 200) > max(grammatical(1.0, seed) for seed in range(4)) + 0.02


@pytest.fixture(scope="module")
def colder_model(language, reality):
    another = Bigrams(language.sample(4 * SIZE, 102))  # to which an ungrammatical sentence is possible
    return model_trial(Bigrams(reality.corpus), reality._replace(nll=another.nll))


@pytest.mark.parametrize(("cheat", "metric", "expected"), claims(COLDER_MODEL))
def test_metrics_on_a_colder_model_of_the_language(colder_model, cheat, metric, expected):
    assert verdict(metric, colder_model.cheats[cheat], colder_model.honest) == expected


@pytest.fixture(scope="module")
def wordnet():
    if not DATA.exists():
        pytest.skip(f"there is no {DATA}")
    with DATA.open() as file:
        rows = [json.loads(line)["text"].split() for line in file]
    return iter(random.Random(0).sample(rows, len(rows)))  # neighbours in the file may stem from one source


@pytest.fixture(scope="module")
def wordnet_reality(wordnet):
    return Reality(take(wordnet, SIZE), take(wordnet, 4 * SIZE), Bigrams(take(wordnet, 4000)).nll)


@pytest.fixture(scope="module")
def wordnet_trial(wordnet, wordnet_reality):
    cheats = {
        "collapsed": collapsed(take(wordnet, SIZE)),
        "copied": random.Random(0).sample(wordnet_reality.corpus, SIZE),
        "over-long": over_long(take(wordnet, 4 * SIZE)),
        "shuffled": shuffled(take(wordnet, SIZE)),
        "real": take(wordnet, SIZE),
    }
    return Trial(
        [badness(take(wordnet, SIZE), wordnet_reality) for _ in range(HONEST)],
        {name: badness(texts, wordnet_reality) for name, texts in cheats.items()},
    )


@pytest.mark.real
@pytest.mark.parametrize(("cheat", "metric", "expected"), claims(WORDNET))
def test_metrics_on_cheats_in_wordnet(wordnet_trial, cheat, metric, expected):
    assert verdict(metric, wordnet_trial.cheats[cheat], wordnet_trial.honest) == expected


@pytest.fixture(scope="module")
def wordnet_model(wordnet_trial, wordnet_reality):
    return model_trial(Bigrams(wordnet_reality.corpus), wordnet_reality)


@pytest.mark.real
@pytest.mark.parametrize(("cheat", "metric", "expected"), claims(COLDER_MODEL))
def test_metrics_on_a_colder_model_of_wordnet(wordnet_model, cheat, metric, expected):
    assert verdict(metric, wordnet_model.cheats[cheat], wordnet_model.honest) == expected
