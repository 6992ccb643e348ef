import sys

import pytest

from hf_mgan.metrics.bleu import bleu, chrf


pytest.importorskip("sacrebleu")


def test_bleu_precisions_by_hand():
    """Ten words, the last one wrong: 9/10, 8/9, 7/8 and 6/7, of product 6/10; 100 * 0.6^(1/4) = 88.011174."""
    assert bleu(["a b c d e f g h i j"], ["a b c d e f g h i z"]).score == pytest.approx(88.011174, abs=1e-6)


def test_bleu_adds_the_counts_of_all_texts_before_dividing():
    """Of the two texts 4 + 4 words, 3 + 3 pairs, 2 + 2 threes and 1 + 1 fours, one text's are right: each 1/2.

    The mean over texts would be 50 only with a score of 0 for the other one, which smoothing does not give.
    """
    assert bleu(["a b c d", "e f g h"], ["a b c d", "i j k l"]).score == pytest.approx(50)


def test_bleu_penalises_a_short_text():
    """All that is there is right; 5 words of 8: 100 * exp(1 - 8/5) = 54.881164."""
    assert bleu(["a b c d e"], ["a b c d e f g h"]).score == pytest.approx(54.881164, abs=1e-6)


def test_bleu_smooths_an_order_without_a_match():
    """3/4, 2/3, 1/2 and 0 of 1, taken for 1/2: 100 * (1/8)^(1/4) = 59.460356."""
    assert bleu(["a b c d"], ["a b c e"]).score == pytest.approx(59.460356, abs=1e-6)


def test_bleu_of_several_references_takes_any():
    result = bleu(["a b c d", "e f g h"], [["x", "a b c d"], "e f g h"])
    assert result.score == pytest.approx(100)
    assert "nrefs:var" in result.signature


def test_bleu_missing_reference_is_no_empty_reference():
    """ "a b" is two words short of "a b c d", its only reference; an empty one would be as close, and no penalty.

    1 and 1 and two orders without n-grams leave the score to the brevity of all texts: 7 words of 9.
    """
    with_one = bleu(["a b c d e", "a b"], ["a b c d e", "a b c d"]).score
    with_two = bleu(["a b c d e", "a b"], [["a b c d e", "z"], "a b c d"]).score
    assert with_two == pytest.approx(with_one)


def test_bleu_signature_says_how_it_was_computed():
    assert bleu(["a b c d"], ["a b c d"]).signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert "tok:char" in bleu(["a b"], ["a b"], tokenize="char").signature


def test_bleu_falls_for_shuffled_words():
    texts = ["the old king sees a small dog near the cat"]
    assert bleu(["near sees cat the small old a dog the king"], texts).score < bleu(texts, texts).score / 5


def test_chrf_by_hand():
    """Of "abc" 2 of 3 characters, 1 of 2 pairs and no run of three are right: 100 (2/3 + 1/2 + 0) / 3 = 38.89."""
    result = chrf(["abc"], ["abd"])
    assert result.score == pytest.approx(100 * (2 / 3 + 1 / 2) / 3)
    assert result.signature.startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")


def test_chrf_weighs_recall_twice():
    """All of "ab" is right, and half of "abcd": F of 1 and 1/2 is 5/9, with 1 and 1/3 of the pairs 5/13, for 2."""
    recalls = (1 + 1) / 2, (1 / 2 + 1 / 3) / 2
    expected = 5 * recalls[0] * recalls[1] / (4 * recalls[0] + recalls[1])
    assert chrf(["ab"], ["abcd"]).score == pytest.approx(100 * expected, abs=0.01)


def test_chrf_of_several_references_takes_the_nearest():
    assert chrf(["abcdefg", "xyz"], [["other", "abcdefg"], "xyz"]).score == pytest.approx(100)
    assert chrf(["abcdefg"], [["other"]]).score < 20


@pytest.mark.parametrize("score", [bleu, chrf])
def test_scores_refuse_unpaired_texts(score):
    with pytest.raises(ValueError, match=f"{score.__name__} compares each text .* got 1 texts and 2 entries"):
        score(["a"], ["a", "b"])


def test_bleu_refuses_unpaired_texts():
    with pytest.raises(ValueError, match="got 1 texts and 2 entries"):
        bleu(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="got 0 texts"):
        bleu([], [])
    with pytest.raises(ValueError, match="Text 1 has no reference"):
        bleu(["a", "b"], ["a", []])


def test_bleu_names_the_extra_without_sacrebleu(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ImportError, match=r"BLEU needs sacrebleu.*hf-mgan\[evaluation\]"):
        bleu(["a"], ["a"])
