"""The language: its tables, the probability of a sentence, and what its grammar allows."""

import math
from itertools import pairwise

import pytest
import torch

from hf_mgan.demo.language import NOUNS, Language, zipf


@pytest.fixture(scope="module")
def language():
    return Language()


def test_tables_of_every_state_are_a_distribution(language):
    torch.testing.assert_close(language.probs.sum(1), torch.ones(len(language.probs), dtype=torch.float64))
    assert ((language.probs > 0)[:, : language.end] == (language.following >= 0)[:, : language.end]).all()


def test_logps_of_a_sentence_worked_out_by_hand(language):
    """ "this child sleeps": determiner .6 (not "the") * .6 singular * (1/2)/(3/2); no adjective .8;
    person is the first of four classes, 1/(25/12); child the third of four persons, (1/3)/(25/12);
    straight to the verb .7; sleep the third of five verbs open to a person, (1/3)/(137/60); no adverb .8; no clause
    .75.
    """
    determiner = 0.6 * 0.6 * (1 / 2) / (3 / 2)
    noun = 0.8 * 12 / 25 * (1 / 3) * 12 / 25
    verb = 0.7 * (1 / 3) * 60 / 137
    expected = math.log(determiner * noun * verb * 0.8 * 0.75)
    assert language.logps([["this", "child", "sleeps"]]).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("the dogs near a child sleep", "the dogs near a child sleeps"),  # agreement across an attractor
        ("the king that sees the dogs sleeps", "the king that sees the dogs sleep"),  # and across a clause
        ("a man eats the cake", "a man eats the stone"),  # selectional preference
        ("the door falls", "the door sings"),
        ("a woman sleeps and she sings", "a woman sleeps and he sings"),  # the pronoun agrees in gender
        ("the men sleep but they sing", "the men sleep but it sings"),  # and in number
        ("these cakes smell", "these cake smell"),
        ("the child sleeps", "the child"),  # an end too soon
    ],
)
def test_logps_of_an_ungrammatical_sentence_are_infinite(language, good, bad):
    yes, no = language.logps([good.split(), bad.split()]).tolist()
    assert yes > -math.inf
    assert no == -math.inf


def test_sample_is_grammatical_and_repeats_with_its_seed(language):
    sentences = language.sample(500, seed=3)
    assert (language.logps(sentences) > -math.inf).all()
    assert sentences == language.sample(500, seed=3)
    assert sentences != language.sample(500, seed=4)


def test_sample_has_the_entropy_of_the_tables(language):
    # -log p of a sentence has the entropy as its mean; its standard deviation is below 5 nats, so four errors are 0.2.
    mean = -language.logps(language.sample(10_000, seed=0)).mean().item()
    assert mean == pytest.approx(language.entropy(), abs=0.2)


def test_sample_counts_match_the_probabilities(language):
    sentences = language.sample(20_000, seed=1)
    texts = [" ".join(sentence) for sentence in sentences]
    for text in ["the man sees a man", "the man sleeps", "a man sleeps"]:
        expected = language.logps([text.split()]).exp().item() * len(texts)
        assert texts.count(text) == pytest.approx(expected, abs=4 * math.sqrt(expected) + 1)


def test_zipf_falls_with_the_rank():
    assert dict(zipf(["x", "y", "z"])) == pytest.approx({"x": 6 / 11, "y": 3 / 11, "z": 2 / 11})
    assert all(a[1] > b[1] for a, b in pairwise(zipf(NOUNS["person"])))
