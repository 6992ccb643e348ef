import math
import random
import time

import pytest

from hf_mgan.metrics.memorisation import (
    Copying,
    longest_copied_ngram,
    memorisation,
    near_duplicate_share,
    near_duplicates,
)


def words(*texts):
    return [text.split() for text in texts]


def drawn(draw, count, vocabulary=2000, shortest=10, longest=30):
    return [[str(draw.randrange(vocabulary)) for _ in range(draw.randint(shortest, longest))] for _ in range(count)]


def longest_by_hand(text, corpus):
    def common(first, second):
        return next((k for k, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), None)

    best = 0
    for other in corpus:
        for start in range(len(text)):
            for place in range(len(other)):
                length = common(text[start:], other[place:])
                best = max(best, min(len(text) - start, len(other) - place) if length is None else length)
    return best


def resemblance_by_hand(first, second):
    runs = [{tuple(text[i : i + 3]) for i in range(len(text) - 2)} or {tuple(text)} for text in (first, second)]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


def test_longest_copied_ngram_by_hand():
    """ "sees the cat" of the first corpus text; "dog" alone; all of it; nothing; nothing to copy."""
    corpus = words("the old king sees the cat", "a dog runs")
    texts = words("who sees the cat runs", "one dog", "old king sees the", "two birds", "")
    assert longest_copied_ngram(texts, corpus) == [3, 1, 4, 0, 0]


def test_longest_copied_ngram_stays_within_a_text():
    assert longest_copied_ngram(words("a b c d"), words("a b", "c d")) == [2]
    assert longest_copied_ngram(words("a b", "c d"), words("a b c d")) == [2, 2]


def test_longest_copied_ngram_ignores_the_other_texts():
    assert longest_copied_ngram(words("a b c", "a b c"), words("x a y b")) == [1, 1]


def test_longest_copied_ngram_of_nothing():
    assert longest_copied_ngram([], words("a")) == []
    assert longest_copied_ngram(words("a", "b"), []) == [0, 0]
    assert longest_copied_ngram([[]], [[]]) == [0]


def test_longest_copied_ngram_agrees_with_a_full_search():
    draw = random.Random(0)
    for _ in range(60):
        vocabulary = draw.choice([1, 2, 3, 8])
        texts, corpus = drawn(draw, 4, vocabulary, 0, 12), drawn(draw, 6, vocabulary, 0, 12)
        assert longest_copied_ngram(texts, corpus) == [longest_by_hand(text, corpus) for text in texts]


def test_near_duplicates_by_hand():
    """Texts of 11 words have 9 runs of 3; another last word changes one: 8 of 10 runs are common, 0.8.

    Another word in the middle changes three: 6 of 12.
    """
    corpus = words("a b c d e f g h i j k")
    end, middle = words("a b c d e f g h i j X", "a b c d e X g h i j k")
    assert near_duplicates([end, middle], corpus) == [True, False]
    assert near_duplicates([end, middle], corpus, 0.81) == [False, False]
    assert near_duplicates([end, middle], corpus, 0.5) == [True, True]
    assert near_duplicate_share([end, middle], corpus) == 0.5


def test_near_duplicates_count_repeated_runs_once():
    """Both have the runs (a b a) and (b a b) alone."""
    assert near_duplicates(words("a b a b"), words("a b a b a b a b"), 1.0) == [True]


def test_near_duplicates_of_a_text_shorter_than_a_run():
    assert near_duplicates(words("a b", "a", "b a"), words("a b", "x"), 1.0) == [True, False, False]


def test_near_duplicates_agree_with_a_full_comparison():
    draw = random.Random(0)
    found = 0
    for _ in range(60):
        texts, corpus = drawn(draw, 5, 2, 0, 12), drawn(draw, 8, 2, 0, 12)
        for threshold in (0.2, 0.55, 0.7, 0.8, 1.0):
            expected = [any(resemblance_by_hand(text, other) >= threshold for other in corpus) for text in texts]
            assert near_duplicates(texts, corpus, threshold) == expected
            found += sum(expected)
    assert 300 < found < 1200  # of 1500, so that both answers are tried


def test_near_duplicates_survive_rounding_of_the_threshold():
    """0.28 * 25 is 7.000000000000001 in floats; 7 of 25 runs are common."""
    text = [str(word) for word in range(27)]
    assert near_duplicates([text], [text[:9]], 0.28) == [True]


def test_near_duplicates_refuse_a_threshold_out_of_range():
    for threshold in (0, 1.1, 80):
        with pytest.raises(ValueError, match=f"at most 1, got {threshold}"):
            near_duplicates(words("a"), words("a"), threshold)


def test_memorisation_shows_copies_beside_held_out_texts():
    draw = random.Random(0)
    corpus, held_out = drawn(draw, 300, 50), drawn(draw, 40, 50)
    result = memorisation(corpus[:20], held_out, corpus)
    assert result.generated.longest_share == 1.0
    assert result.generated.near_duplicate_share == 1.0
    assert result.held_out.longest_share < 0.4
    assert result.held_out.near_duplicate_share == 0.0
    assert result.generated.longest_ngram > 3 * result.held_out.longest_ngram


def test_memorisation_of_each_side_is_its_own():
    """Generated: 2 of 3 and 1 of 1 words copied; held out: 0 of 2."""
    result = memorisation(words("a dog runs", "dog"), words("one bird"), words("see a dog"))
    assert result.generated == pytest.approx(Copying(1.5, (2 / 3 + 1) / 2, 0.0))
    assert result.held_out == Copying(0.0, 0.0, 0.0)


def test_memorisation_of_shuffled_words_is_none():
    draw = random.Random(0)
    corpus = drawn(draw, 100)
    shuffled = [draw.sample(text, len(text)) for text in corpus]
    assert memorisation(shuffled, corpus, corpus).generated.longest_share < 0.3


def test_memorisation_of_no_texts_is_nan():
    assert all(map(math.isnan, memorisation([], words("a"), words("a")).generated))
    assert math.isnan(near_duplicate_share([], words("a")))


def test_memorisation_of_many_texts_is_fast():
    """Even if all texts begin alike: each of 200 against each of 5000 takes 10 seconds, rare words first a second."""
    draw = random.Random(0)
    texts, corpus = ([["once", "upon", "a", "time", *text] for text in drawn(draw, count)] for count in (200, 5000))
    start = time.process_time()
    memorisation(texts, texts, corpus)
    assert time.process_time() - start < 4
