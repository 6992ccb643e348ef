"""Texts of the demo's language: real ones, and a generator that leaves out words and has a favourite sentence."""

import math
import random
from collections import Counter

import pytest
import torch

from hf_mgan.demo.language import Language
from hf_mgan.evaluation.text_metrics import METRICS, OF_GENERATOR, can_be_tested, text_metrics
from hf_mgan.metrics import (
    Interval,
    bleu,
    c2st,
    chrf,
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
from hf_mgan.metrics.intervals import bootstrap_interval, jackknife_interval, share_interval


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


def test_text_metrics_c2st_auc_is_that_of_c2st(result):
    test = c2st(REAL, GENERATED)
    assert result.metrics["c2st_auc"] == test.auc
    assert result.c2st.calibration == test.calibration
    assert test.auc.value > 0.5


def test_text_metrics_encoder_c2st_also_sees_features(result):
    test = c2st(REAL, GENERATED, encoder=letters)
    assert result.metrics["encoder_c2st_auc"] == test.auc
    assert test.auc != result.metrics["c2st_auc"]


def test_text_metrics_fine_tune_the_encoder_they_are_given(monkeypatch):
    given = []

    def watched(*sides, **settings):
        given.append((*sides, settings))
        return c2st(*sides[:2])._replace(auc=Interval(0.7, 0.6, 0.8))

    monkeypatch.setattr("hf_mgan.evaluation.text_metrics.fine_tuned_c2st", watched)
    metrics = text_metrics(GENERATED, REAL, encoder="one", reverse=False, seed=3, level=0.9).metrics
    assert given == [(REAL, GENERATED, "one", {"seed": 3, "level": 0.9})]
    assert next(iter(metrics.items())) == ("fine_tuned_c2st_auc", (0.7, 0.6, 0.8))
    assert "fine_tuned_c2st_auc" not in text_metrics(["a dog"] * 20, REAL[:20], encoder="one", reverse=False).metrics
    assert len(given) == 1


def test_text_metrics_encode_nothing_twice():
    read = []

    def counted(texts):
        read.extend(texts)
        return letters(texts)

    spaced = [GENERATED[0].replace(" ", "  "), *GENERATED[1:]]
    metrics = text_metrics(spaced, REAL, features=counted, reverse=False).metrics
    assert sorted(read) == sorted([*REAL, *spaced, GENERATED[0]])
    expected = c2st(REAL, GENERATED, encoder=letters).auc  # which knows no difference between spaces
    assert metrics["encoder_c2st_auc"] == expected


def test_text_metrics_of_the_set_have_a_jackknife(result):
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
        "chrf": (list(zip(GENERATED, REAL, strict=True)), lambda rows: chrf(*zip(*rows, strict=True)).score),
    }
    for name, (entries, function) in expected.items():
        assert result.metrics[name] == pytest.approx(jackknife_interval(entries, function, 10)), name
    assert result.metrics["duplicates"].value > 0


def test_text_metrics_of_single_texts_have_a_bootstrap(result):
    words, corpus = split(GENERATED), split(TRAINING)
    copied = [run / len(text) for run, text in zip(longest_copied_ngram(words, corpus), words, strict=True)]
    assert result.metrics["copied_share"] == pytest.approx(bootstrap_interval(copied))
    assert result.metrics["length_ratio"].value == pytest.approx(length_ratio(words, split(REAL)))
    assert result.metrics["repetition"].value == pytest.approx(repetition(words, 4))
    assert result.metrics["near_duplicates"].value == pytest.approx(near_duplicate_share(words, corpus))
    for name in ("copied_share", "length_ratio", "repetition"):
        interval = result.metrics[name]
        assert interval.low < interval.value < interval.high, name
    assert result.lengths == [len(text) for text in words]


def test_text_metrics_unsafe_rate_has_wilsons_interval(result):
    verdicts = has_a_king(GENERATED)
    assert 0 < sum(verdicts) < SIZE
    assert result.metrics["unsafe_rate"] == share_interval(verdicts)


def test_text_metrics_stand_in_the_order_of_metrics(result):
    assert list(result.metrics) == [name for name in METRICS if name in result.metrics]
    # The generator's own, and what was left out.
    assert set(METRICS) - set(result.metrics) == {*OF_GENERATOR, "reverse_perplexity", "fine_tuned_c2st_auc"}
    assert next(iter(METRICS)) == "fine_tuned_c2st_auc"


def test_text_metrics_without_optional_inputs():
    metrics = text_metrics(GENERATED, REAL, reverse=False).metrics
    assert set(metrics) == {"c2st_auc", "self_bleu", "distinct_4", "duplicates", "length_ratio", "repetition"}


def test_text_metrics_reverse_perplexity_by_hand(monkeypatch):
    monkeypatch.setattr("hf_mgan.evaluation.text_metrics.VOCABULARY", 5)
    interval = text_metrics(GENERATED[:20], REAL[:20], seed=3).metrics["reverse_perplexity"]
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


def test_text_metrics_depend_on_the_seed_alone():
    def metrics(seed):
        return text_metrics(GENERATED, REAL, features=letters, reverse=False, seed=seed).metrics

    state = torch.random.get_rng_state()
    first, again, other = metrics(0), metrics(0), metrics(1)
    assert first == again
    assert torch.random.get_rng_state().equal(state)
    changed = {name for name in first if first[name] != other[name]}
    # Halves, bootstrap and clusters are drawn; what a jackknife leaves out is not.
    drawn = {"c2st_auc", "encoder_c2st_auc", "mauve", "length_ratio"}
    assert changed - {"repetition"} == drawn  # few texts repeat themselves
    assert first["length_ratio"].value == other["length_ratio"].value


def test_text_metrics_level_reaches_every_interval(result):
    narrow = text_metrics(
        GENERATED, REAL, training=TRAINING, references=REAL, features=letters, is_unsafe=has_a_king, reverse=False,
        level=0.5,
    )  # fmt: skip
    for name, wide in result.metrics.items():
        if name != "near_duplicates":  # few of them or none: a bootstrap of zeros has no width
            assert narrow.metrics[name].high - narrow.metrics[name].low < wide.high - wide.low, name


def test_text_metrics_of_chinese():
    """Without spaces "天天" are two words; BLEU of 12 characters of which the last differs, by hand.

    Precisions 11/12, 10/11, 9/10 and 8/9, of product 8/12: 100 (2/3)^(1/4) = 90.36.
    """
    texts, real = ["天地玄黄宇宙洪荒日月盈天"] * 4, ["天地玄黄宇宙洪荒日月盈昃"] * 4
    metrics, test, lengths = text_metrics(texts, real, references=real, reverse=False)
    assert lengths == [12] * 4
    assert metrics["bleu"].value == pytest.approx(100 * (2 / 3) ** 0.25)
    assert metrics["distinct_4"].value == pytest.approx(1 / 4)
    assert metrics["self_bleu"].value == pytest.approx(1)
    assert test is None
    whole = text_metrics(texts, real, unit="word", reverse=False)
    assert whole.lengths == [1] * 4
    assert whole.metrics["distinct_4"].value == 0


def test_text_metrics_of_a_collapsed_generator():
    collapsed = [GENERATED[place % 15] for place in range(SIZE)]
    metrics, test, _ = text_metrics(collapsed, REAL, reverse=False)
    assert test is None
    assert "c2st_auc" not in metrics
    assert metrics["duplicates"].value == pytest.approx(1 - len(set(collapsed)) / SIZE)


def test_can_be_tested_takes_sixteen_different_texts():
    one, other = [f"the dog sees {place}" for place in range(16)], [f"the cat sees {place}" for place in range(16)]
    assert can_be_tested(one, other)
    assert not can_be_tested([*one[:15], one[0]], other)
    assert not can_be_tested(one, [*other[:15], one[0]])
    assert not can_be_tested([*one[:15], f"{one[0]}  "], other)  # one text for the test


@pytest.mark.parametrize("common", [0, 40])
def test_can_be_tested_agrees_with_c2st(common):
    """Also where most of both sides is the same, so that the rest has to fill the parts."""
    same = [f"the bird sees {place}" for place in range(common)]
    one, other = ([*same, *(f"the {word} sees {place}" for place in range(16))] for word in ("dog", "cat"))
    assert can_be_tested(one, other)
    assert 0.5 < c2st(other, one).auc.value <= 1


def test_text_metrics_refuse_sides_of_two_sizes():
    with pytest.raises(ValueError, match="got 60 generated and 59 real texts"):
        text_metrics(GENERATED, REAL[:-1])
    with pytest.raises(ValueError, match=r"at least 3, .* got 2 generated and 2 real texts"):
        text_metrics(GENERATED[:2], REAL[:2])
    with pytest.raises(ValueError, match="references are one per text, got 59 for 60 texts"):
        text_metrics(GENERATED, REAL, references=REAL[:-1], reverse=False)


NO_TEXTS = {
    "None": (None, TypeError, "is None and must be a string: write it out, or leave the row out"),
    "number": (3, TypeError, "is 3 and must be a string"),
    "list": (["a"], TypeError, r"is \['a'\] and must be a string"),
    "empty": ("", ValueError, "is an empty text, '': leave the row out on all sides"),
    "white space": (" \n", ValueError, "is an empty text"),
}


@pytest.mark.parametrize("side", ["real", "training", "references"])
@pytest.mark.parametrize(("given", "error", "message"), NO_TEXTS.values(), ids=NO_TEXTS)
def test_text_metrics_refuse_real_texts_that_are_none(side, given, error, message):
    sides = {"real": REAL, "training": TRAINING, "references": REAL}
    sides[side] = [*sides[side][:7], given, *sides[side][8:]]
    with pytest.raises(error, match=rf"^{side}\[7\] {message}"):
        text_metrics(GENERATED, **sides, reverse=False)


@pytest.mark.parametrize("given", [None, 3, ["a"]])
def test_text_metrics_refuse_generated_texts_that_are_none(given):
    with pytest.raises(TypeError, match=r"^Text 7 is .*, and a metric of texts takes strings"):
        text_metrics([*GENERATED[:7], given, *GENERATED[8:]], REAL, reverse=False)


@pytest.mark.parametrize("side", ["texts", "real", "training", "references"])
def test_text_metrics_refuse_one_string_as_texts(side):
    sides = {"texts": GENERATED, "real": REAL, "training": TRAINING, "references": REAL, side: "x " * (SIZE // 2)}
    with pytest.raises(TypeError, match=rf"^{side} must be a list of strings, got the string 'x x"):
        text_metrics(**sides, reverse=False)


def test_text_metrics_refuse_training_without_texts():
    with pytest.raises(ValueError, match=r"^training has no texts: give some, or None"):
        text_metrics(GENERATED, REAL, training=[], reverse=False)


def test_text_metrics_refuse_too_few_verdicts():
    with pytest.raises(ValueError, match="is_unsafe returned 1 verdicts on 60 texts"):
        text_metrics(GENERATED, REAL, is_unsafe=lambda texts: [True], reverse=False)


def test_text_metrics_of_a_generator_that_says_nothing():
    """Empty texts are all the same, have no n-grams and no length, and copy nothing."""
    metrics, test, lengths = text_metrics(["", " "] * 30, REAL, training=TRAINING, references=REAL, reverse=False)
    assert test is None
    assert lengths == [0] * 60
    assert metrics["duplicates"].value == pytest.approx(1 - 2 / 60)
    for name in ("self_bleu", "distinct_4", "length_ratio", "copied_share", "near_duplicates", "bleu", "chrf"):
        assert metrics[name].value == 0, name


def test_text_metrics_of_three_texts():
    metrics = text_metrics(GENERATED[:3], REAL[:3], features=letters, reverse=False).metrics
    assert not any(math.isnan(value) for interval in metrics.values() for value in interval)


def test_text_metrics_of_real_texts_look_real():
    """The row that all others are read by: nobody tells them apart, and they are as long."""
    metrics = text_metrics(SENTENCES[2 * SIZE :], REAL, reverse=False).metrics
    assert metrics["c2st_auc"].low < 0.5 < metrics["c2st_auc"].high
    assert metrics["length_ratio"].low < 1 < metrics["length_ratio"].high
