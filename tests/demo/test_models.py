"""The tokenizers of the demo's models."""

from hf_mgan.demo.language import Language
from hf_mgan.demo.models import MAX_TOKENS, SPECIAL_TOKENS, make_tokenizer


LANGUAGE = Language()


def test_make_tokenizer_adds_ends_where_asked():
    plain, ended = make_tokenizer(LANGUAGE.words, False), make_tokenizer(LANGUAGE.words, True)
    words = ["the", "dog", "sleeps"]
    ids = [LANGUAGE.words.index(word) + len(SPECIAL_TOKENS) for word in words]
    assert plain(" ".join(words))["input_ids"] == ids
    assert ended(" ".join(words))["input_ids"] == [1, *ids, 2]
    assert plain.decode(ids) == " ".join(words)


def test_max_tokens_holds_every_sentence_with_its_end():
    longest = max(len(sentence) for sentence in LANGUAGE.sample(20_000, 0))
    assert longest + 1 <= MAX_TOKENS
