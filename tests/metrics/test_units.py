import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_mgan.metrics import split_into_units
from hf_mgan.metrics.units import HAS_NO_SPACES


SPLIT = {
    "chinese": ("我们 去学校。", ["我", "们", "去", "学", "校", "。"]),
    "japanese": ("カレーを食べる", ["カ", "レ", "ー", "を", "食", "べ", "る"]),
    "thai": ("น้ำ กิน", ["น้ำ", "กิ", "น"]),
    "lao": ("ກິນນ້ຳ", ["ກິ", "ນ", "ນ້ຳ"]),
    "khmer": ("កម្ពុជា", ["ក", "ម្ពុ", "ជា"]),
    "burmese": ("စာပေ", ["စ", "ာ", "ပေ"]),
    "tibetan": ("བོད་", ["བོ", "ད", "་"]),
    "zero width spaces of khmer": ("ខ្ញុំ\u200bទៅ", ["ខ្ញុំ", "ទៅ"]),
    "chinese with other words": ("我用iPhone手机 in 2024年", ["我", "用", "iPhone", "手", "机", "in", "2024", "年"]),
    "english with a chinese word": ("the word 中文 means Chinese", ["the", "word", "中", "文", "means", "Chinese"]),
    "korean": ("한국어를 배운다.", ["한국어를", "배운다."]),
    "white space": (" \n\u3000", []),
}


@pytest.mark.parametrize(("text", "units"), SPLIT.values(), ids=SPLIT)
def test_auto_splits_as_the_script_asks(text, units):
    assert split_into_units([text]) == [units]


@given(st.text().filter(lambda text: not HAS_NO_SPACES.search(text)))
def test_auto_splits_other_scripts_at_white_space(text):
    assert split_into_units([text]) == [text.split()]


@given(st.text(alphabet=st.sampled_from("我们のカーกิ้น a1,.é\u200b\n👩\u200d")))
def test_auto_loses_nothing_but_white_space(text):
    (units,) = split_into_units([text])
    assert "".join(units).replace("\u200b", "") == "".join(text.split()).replace("\u200b", "")
    assert all(units)


def test_word_and_character():
    texts = ["我们 go", "e\u0301a"]
    assert split_into_units(texts, "word") == [["我们", "go"], ["e\u0301a"]]
    assert split_into_units(texts, "character") == [["我", "们", "g", "o"], ["e\u0301", "a"]]


@pytest.mark.parametrize("given", [None, 3, ["a"], float("nan")])
def test_a_text_that_is_none(given):
    with pytest.raises(TypeError, match=r"Text 1 is .*, and a metric of texts takes strings"):
        split_into_units(["a", given])


def test_no_such_unit():
    with pytest.raises(ValueError, match=r"unit must be one of \['auto', 'word', 'character'\], got 'syllable'"):
        split_into_units(["a"], "syllable")
