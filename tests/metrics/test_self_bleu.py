import math
import random
import time

import pytest

from hf_mgan.metrics import self_bleu


def words(*texts):
    return [text.split() for text in texts]


# nltk 3.10.4: the mean over these texts of sentence_bleu(all others, text, weights=(1 / n,) * n,
# smoothing_function=SmoothingFunction().method1). One text occurs twice, one is shorter than n, one shares no word.
TEXTS = words(
    "the old king sees a dog .",
    "a dog sees the old king .",
    "the old king sees the cat , the old dog and the bird .",
    "a bird sleeps",
    "one",
    "a dog sees the old king .",
)
OF_NLTK = {1: 0.6944444444444443, 2: 0.5652171728398582, 3: 0.5146532701773544, 4: 0.47716348373088163}


@pytest.mark.parametrize("n", OF_NLTK)
def test_self_bleu_agrees_with_nltk(n):
    assert self_bleu(TEXTS, n) == pytest.approx(OF_NLTK[n], abs=1e-12)


def test_self_bleu_of_three_texts_by_hand():
    """BLEU-2.

    "a a dog" against "a dog" and "a cat runs": words a, a, dog; a occurs at most once in another text, so p_1 = 2/3.
    Pairs (a a), (a dog): p_2 = 1/2. Three words, the closest other text has three: sqrt(1/3) = 0.577350.
    "a dog": p_1 = 1, p_2 = 1. Two words, both others have three: BP = exp(1 - 3/2) = 0.606531.
    "a cat runs": p_1 = 1/3, no pair occurs elsewhere: p_2 = 0.1/2; sqrt(1/3 * 1/20) = 0.129099.
    """
    score = self_bleu(words("a a dog", "a dog", "a cat runs"), 2)
    assert score == pytest.approx((0.577350 + 0.606531 + 0.129099) / 3, abs=1e-6)


def test_self_bleu_takes_the_shorter_of_two_close_lengths():
    """Unigrams of one word: 2 words lie between 1 and 3; with the shorter one BP = 1, with the longer exp(-1/2).

    "a": p = 1, BP = exp(1 - 2/1). "a a": p = 1, BP = 1. "a a a": p = 2/3, BP = 1.
    """
    assert self_bleu(words("a", "a a", "a a a"), 1) == pytest.approx((math.exp(-1) + 1 + 2 / 3) / 3)


def test_self_bleu_excludes_the_text_itself():
    """Strangers share nothing, though each n-gram occurs in the set; a twin is a reference like any other."""
    assert self_bleu(words("a dog", "the cat"), 2) == 0.0
    assert self_bleu(words("a dog", "a dog", "the cat"), 2) == pytest.approx(2 / 3)


def test_self_bleu_of_a_text_shorter_than_n():
    """Two twins of one word: p_1 = 1 and p_2 = 0.1/1."""
    assert self_bleu(words("one", "one"), 2) == pytest.approx(math.sqrt(0.1))


def test_self_bleu_of_an_empty_text_is_zero():
    assert self_bleu([[], ["a"], ["a"]], 1) == pytest.approx(2 / 3)
    assert self_bleu([[], []], 1) == 0.0


def test_self_bleu_of_one_text_is_nan():
    assert math.isnan(self_bleu(words("a dog")))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        self_bleu(TEXTS, 0)


def test_self_bleu_is_permutation_invariant():
    assert self_bleu(TEXTS[::-1]) == pytest.approx(self_bleu(TEXTS), abs=1e-15)


def test_self_bleu_of_a_batch_is_fast():
    """Each text against all others one by one takes seconds."""
    draw = random.Random(0)
    texts = [[str(draw.randrange(2000)) for _ in range(draw.randint(10, 30))] for _ in range(256)]
    start = time.process_time()
    self_bleu(texts)
    assert time.process_time() - start < 0.2
