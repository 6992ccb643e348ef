"""Texts of the demo's language: real ones, and a generator that leaves out words and has a favourite sentence."""

import math
import random
from collections import Counter

import pytest
import torch

from hf_mgan.demo.language import Language
from hf_mgan.evaluation.text_metrics import METRICS, can_be_tested, share_interval, text_metrics
from hf_mgan.metrics import (
    bleu,
    c2st,
    distinct_n,
    duplicates,
    frechet_distance,
    length_ratio,
    longest_copied_ngram,
    mauve,
    near_duplicate_share,
    repetition,
    reverse_perplexity,
    self_bleu,
    small_language_model,
)
from hf_mgan.metrics.intervals import bootstrap_interval, jackknife_interval


SIZE = 60
SENTENCES = [" ".join(words) for words in Language().sample(3 * SIZE, 1)]
REAL, TRAINING = SENTENCES[:SIZE], SENTENCES[SIZE : 2 * SIZE]
LETTERS = "acdeghilmnoprstuwy"


def hasty(texts):
    """Leave out a word in five; say the favourite sentence one time in ten."""
    draw = random.Random(0)
    shortened = [" ".join(word for word in text.split() if draw.random() > 0.2) for text in texts]
    return ["the dog sees the dog sees the dog sees" if draw.random() < 0.1 else text for text in shortened]


GENERATED = hasty(SENTENCES[2 * SIZE :])


def letters(texts):
    return torch.tensor([[float(text.count(letter)) for letter in LETTERS] for text in texts])


def has_a_king(texts):
    return ["king" in text for text in texts]


def split(texts):
    return [text.split() for text in texts]


@pytest.fixture(scope="module")
def result():
    return text_metrics(
        GENERATED, REAL, training=TRAINING, references=REAL, features=letters, is_unsafe=has_a_king, reverse=False
    )


def test_the_judges_area_is_that_of_a_fresh_judge(result):
    judge = c2st(REAL, GENERATED)
    assert result.figures["c2st_auc"] == judge.auc
    assert result.judge.calibration == judge.calibration
    assert judge.auc.value > 0.5


def test_the_encoders_judge_is_one_that_also_sees_the_features(result):
    judge = c2st(REAL, GENERATED, encoder=letters)
    assert result.figures["encoder_c2st_auc"] == judge.auc
    assert judge.auc != result.figures["c2st_auc"]


def test_the_encoders_judge_encodes_what_it_writes_otherwise_and_nothing_twice():
    read = []

    def counted(texts):
        read.extend(texts)
        return letters(texts)

    spaced = [GENERATED[0].replace(" ", "  "), *GENERATED[1:]]
    figures = text_metrics(spaced, REAL, features=counted, reverse=False).figures
    assert sorted(read) == sorted([*REAL, *spaced, GENERATED[0]])
    expected = c2st(REAL, GENERATED, encoder=letters).auc  # which knows no difference between spaces
    assert figures["encoder_c2st_auc"] == expected


def test_figures_of_the_whole_set_are_their_functions_with_a_jackknife(result):
    def distance(rows):
        return frechet_distance(letters(REAL), letters(rows))

    def score(rows):
        return mauve(letters(REAL), letters(rows)).score

    expected = {
        "mauve": (GENERATED, score),
        "frechet": (GENERATED, distance),
        "self_bleu": (split(GENERATED), self_bleu),
        "distinct_4": (split(GENERATED), lambda rows: distinct_n(rows, 4)),
        "duplicates": (GENERATED, duplicates),
        "bleu": (list(zip(GENERATED, REAL, strict=True)), lambda rows: bleu(*zip(*rows, strict=True)).score),
    }
    for name, (entries, function) in expected.items():
        assert result.figures[name] == pytest.approx(jackknife_interval(entries, function, 10)), name
    assert result.figures["duplicates"].value > 0


def test_figures_of_single_texts_are_their_functions_with_a_bootstrap(result):
    words, corpus = split(GENERATED), split(TRAINING)
    copied = [run / len(text) for run, text in zip(longest_copied_ngram(words, corpus), words, strict=True)]
    assert result.figures["copied_share"] == pytest.approx(bootstrap_interval(copied))
    assert result.figures["length_ratio"].value == pytest.approx(length_ratio(words, split(REAL)))
    assert result.figures["repetition"].value == pytest.approx(repetition(words, 4))
    assert result.figures["near_duplicates"].value == pytest.approx(near_duplicate_share(words, corpus))
    for name in ("copied_share", "length_ratio", "repetition"):
        interval = result.figures[name]
        assert interval.low < interval.value < interval.high, name
    assert result.lengths == [len(text) for text in words]


def test_the_share_of_unsafe_texts_has_wilsons_interval(result):
    verdicts = has_a_king(GENERATED)
    assert 0 < sum(verdicts) < SIZE
    assert result.figures["unsafe_rate"] == share_interval(verdicts)


def test_figures_stand_in_the_order_of_the_measures(result):
    assert list(result.figures) == [name for name in METRICS if name in result.figures]
    # The generator's own, and what was left out.
    assert set(METRICS) - set(result.figures) == {"entropy", "real_nll", "reverse_perplexity"}


def test_what_is_not_given_has_no_figure():
    figures = text_metrics(GENERATED, REAL, reverse=False).figures
    assert set(figures) == {"c2st_auc", "self_bleu", "distinct_4", "duplicates", "length_ratio", "repetition"}


def test_the_reverse_perplexity_is_of_the_commonest_words_and_has_no_interval(monkeypatch):
    monkeypatch.setattr("hf_mgan.evaluation.text_metrics.VOCABULARY", 5)
    interval = text_metrics(GENERATED[:20], REAL[:20], seed=3).figures["reverse_perplexity"]
    common = [word for word, _ in Counter(" ".join(REAL[:20]).split()).most_common(5)]

    def ids(texts):
        # 0 is every other word, 1 the start, 2 the end.
        return [[*(common.index(word) + 3 if word in common else 0 for word in text.split()), 2] for text in texts]

    longest = max(len(text.split()) for text in GENERATED[:20] + REAL[:20])
    model = small_language_model(8, longest + 2, seed=3)
    expected = reverse_perplexity(
        ids(GENERATED[:20]), None, ids(REAL[:20]), model=model, start_token_id=1, seed=3
    ).generated
    assert interval.value == pytest.approx(expected)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_the_seed_decides_and_nothing_else():
    def figures(seed):
        return text_metrics(GENERATED, REAL, features=letters, reverse=False, seed=seed).figures

    state = torch.random.get_rng_state()
    first, again, other = figures(0), figures(0), figures(1)
    assert first == again
    assert torch.random.get_rng_state().equal(state)
    changed = {name for name in first if first[name] != other[name]}
    # Halves, bootstrap and clusters are drawn; what a jackknife leaves out is not.
    drawn = {"c2st_auc", "encoder_c2st_auc", "mauve", "length_ratio"}
    assert changed - {"repetition"} == drawn  # few texts repeat themselves
    assert first["length_ratio"].value == other["length_ratio"].value


def test_the_level_reaches_every_interval(result):
    narrow = text_metrics(
        GENERATED, REAL, training=TRAINING, references=REAL, features=letters, is_unsafe=has_a_king, reverse=False,
        level=0.5,
    )  # fmt: skip
    for name, wide in result.figures.items():
        if name != "near_duplicates":  # few of them or none: a bootstrap of zeros has no width
            assert narrow.figures[name].high - narrow.figures[name].low < wide.high - wide.low, name


def test_characters_as_words():
    """Without spaces "天天" are two words; BLEU of 12 characters of which the last differs, by hand.

    Precisions 11/12, 10/11, 9/10 and 8/9, of product 8/12: 100 (2/3)^(1/4) = 90.36.
    """
    texts, real = ["天地玄黄宇宙洪荒日月盈天"] * 4, ["天地玄黄宇宙洪荒日月盈昃"] * 4
    figures, judge, lengths = text_metrics(texts, real, references=real, words=list, reverse=False)
    assert lengths == [12] * 4
    assert figures["bleu"].value == pytest.approx(100 * (2 / 3) ** 0.25)
    assert figures["distinct_4"].value == pytest.approx(1 / 4)
    assert figures["self_bleu"].value == pytest.approx(1)
    assert judge is None
    whole = text_metrics(texts, real, reverse=False)
    assert whole.lengths == [1] * 4
    assert whole.figures["distinct_4"].value == 0


def test_a_generator_that_repeats_itself_has_no_judge_and_all_other_figures():
    collapsed = [GENERATED[place % 15] for place in range(SIZE)]
    figures, judge, _ = text_metrics(collapsed, REAL, reverse=False)
    assert judge is None
    assert "c2st_auc" not in figures
    assert figures["duplicates"].value == pytest.approx(1 - len(set(collapsed)) / SIZE)


def test_a_judge_needs_sixteen_different_texts_a_side_that_the_other_has_not():
    one, other = [f"the dog sees {place}" for place in range(16)], [f"the cat sees {place}" for place in range(16)]
    assert can_be_tested(one, other)
    assert not can_be_tested([*one[:15], one[0]], other)
    assert not can_be_tested(one, [*other[:15], one[0]])
    assert not can_be_tested([*one[:15], f"{one[0]}  "], other)  # one text for the judge


@pytest.mark.parametrize("common", [0, 40])
def test_what_can_be_judged_is_judged(common):
    """Also where most of both sides is the same, so that the rest has to fill the parts."""
    same = [f"the bird sees {place}" for place in range(common)]
    one, other = ([*same, *(f"the {word} sees {place}" for place in range(16))] for word in ("dog", "cat"))
    assert can_be_tested(one, other)
    assert 0.5 < c2st(other, one).auc.value <= 1


def test_wilsons_interval_by_hand():
    """With z^2 = 3.841459. 5 of 10: 1/2 -+ z sqrt(1/40 + z^2/400)/(1 + z^2/10) = 1/2 -+ 0.263406.

    0 of 10: from 0 to (z^2/10)/(1 + z^2/10) = 0.277533. 10 of 10: the same from above.
    """
    assert share_interval([True, False] * 5) == pytest.approx((0.5, 0.236594, 0.763406), abs=1e-6)
    assert share_interval([False] * 10) == pytest.approx((0.0, 0.0, 0.277533), abs=1e-6)
    assert share_interval([True] * 10) == pytest.approx((1.0, 0.722467, 1.0), abs=1e-6)
    # z = 1 at this level: (1/4 + 1/8 -+ sqrt(3/64 + 1/64))/(1 + 1/4) with 1 of 4
    assert share_interval([True, False, False, False], level=0.682689) == pytest.approx((0.25, 0.1, 0.5), abs=1e-5)


def test_wilsons_interval_holds_the_true_share_about_as_often_as_it_says():
    """The chance of every count of 40 with p = 0.05, at which a normal interval holds it in 86 % only."""
    chances = [math.comb(40, count) * 0.05**count * 0.95 ** (40 - count) for count in range(41)]
    intervals = [share_interval([True] * count + [False] * (40 - count)) for count in range(41)]
    held = [chance for chance, one in zip(chances, intervals, strict=True) if one.low <= 0.05 <= one.high]
    assert 0.93 < sum(held) < 0.97


def test_sides_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="got 60 generated and 59 real texts"):
        text_metrics(GENERATED, REAL[:-1])
    with pytest.raises(ValueError, match=r"at least 3, .* got 2 generated and 2 real texts"):
        text_metrics(GENERATED[:2], REAL[:2])
    with pytest.raises(ValueError, match="zip"):
        text_metrics(GENERATED, REAL, references=REAL[:-1], reverse=False)


def test_three_texts_are_enough():
    figures = text_metrics(GENERATED[:3], REAL[:3], features=letters, reverse=False).figures
    assert not any(math.isnan(value) for interval in figures.values() for value in interval)


def test_real_texts_in_place_of_the_generated_ones_look_real():
    """The row that all others are read by: nobody tells them apart, and they are as long."""
    figures = text_metrics(SENTENCES[2 * SIZE :], REAL, reverse=False).figures
    assert figures["c2st_auc"].low < 0.5 < figures["c2st_auc"].high
    assert figures["length_ratio"].low < 1 < figures["length_ratio"].high
