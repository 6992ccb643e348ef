import pytest
from datasets import Dataset, IterableDataset

from hf_mgan.data import RealSampler, RealTexts, as_completions, as_prompts, plain_text


def test_a_reference_is_written_as_the_generator_would_write_it(tokenizer):
    # Unknown words become <unk>, which is a special token and drops out; three tokens are left of five.
    assert as_completions(["the unknown dog sees a cat"], tokenizer, 4) == ["the dog sees"]
    assert as_completions([[{"role": "assistant", "content": "a cat"}]], tokenizer, None) == ["a cat"]


def test_a_bare_start_of_sequence_is_no_prompt(tokenizer):
    assert as_prompts(["<s>", "<s>the dog"], tokenizer) == ["", "the dog"]


def test_plain_text_of_messages():
    blocks = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    assert plain_text([{"role": "user", "content": blocks}]) == "a b"
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None}]
    assert plain_text(talk) == "user: hi\nassistant: "


def test_an_epoch_of_draws_meets_every_row_once_and_ranks_share_it():
    samplers = [RealSampler(12, seed=3, rank=rank, world_size=2) for rank in (0, 1)]
    drawn = [index for _ in range(2) for sampler in samplers for index in sampler.draw(3)]
    assert sorted(drawn) == list(range(12))
    following = [index for _ in range(2) for sampler in samplers for index in sampler.draw(3)]
    assert sorted(following) == list(range(12))
    assert following != drawn


def test_the_number_of_rows_drawn_is_the_whole_state():
    sampler = RealSampler(7, seed=0)
    sampler.draw(10)
    restored = RealSampler(7, seed=0)
    restored.drawn = sampler.drawn
    assert restored.draw(9) == sampler.draw(9)
    assert RealSampler(7, seed=1).draw(7) != RealSampler(7, seed=0).draw(7)


def reals(tokenizer, train=None, real=None, paired=False):
    return RealTexts(train, real, paired, tokenizer, max_completion_length=8, seed=0)


def test_a_paired_loss_meets_the_references_of_the_batch(tokenizer):
    train = Dataset.from_dict({"prompt": ["a", "the"], "completion": ["dog", "cat"]})
    rows = [train[1], train[1], train[0]]
    assert reals(tokenizer, train, paired=True).draw(rows) == (["cat", "cat", "dog"], ["the", "the", "a"])


def test_an_unpaired_loss_draws_from_the_whole_training_set(tokenizer):
    train = Dataset.from_dict({"prompt": ["<s>"] * 4, "completion": ["one", "two", "three", "four"]})
    texts, prompts = reals(tokenizer, train).draw([train[0]] * 4)
    assert sorted(texts) == ["four", "one", "three", "two"]
    assert prompts == ["<s>"] * 4


def test_real_texts_of_no_prompt_hide_the_prompts_of_both_sides(tokenizer):
    train = Dataset.from_dict({"prompt": ["the dog"]})
    texts = reals(tokenizer, train, Dataset.from_dict({"text": ["a cat"]}))
    assert texts.draw([train[0]]) == (["a cat"], [""])
    assert texts.shown_prompts(["the dog"]) == [""]


def test_evaluation_leaves_the_order_of_training_alone(tokenizer):
    train = Dataset.from_dict({"prompt": ["the dog"]})
    texts = reals(tokenizer, train, Dataset.from_dict({"text": ["one", "two", "three"]}))
    before = texts.drawn
    assert len(texts.held_out([train[0]] * 2)[0]) == 2
    assert texts.drawn == before
    assert texts.held_out([{"prompt": "a", "completion": "king"}]) == (["king"], ["a"])


def test_missing_real_texts_are_reported_at_construction(tokenizer):
    prompts = Dataset.from_dict({"prompt": ["a"]})
    with pytest.raises(ValueError, match=r"no `completion` column.*real_dataset="):
        reals(tokenizer, prompts)
    with pytest.raises(ValueError, match=r"belong to no prompt.*'bce'"):
        reals(tokenizer, prompts, Dataset.from_dict({"text": ["x"]}), paired=True)
    with pytest.raises(ValueError, match="map-style Dataset with a `text` column"):
        reals(tokenizer, prompts, Dataset.from_dict({"body": ["x"]}))
    with pytest.raises(ValueError, match=r"empty"):
        reals(tokenizer, prompts, Dataset.from_dict({"text": []}))
    stream = IterableDataset.from_generator(lambda: iter([{"prompt": "a", "completion": "b"}]))
    with pytest.raises(ValueError, match=r"streaming.*bradley_terry"):
        reals(tokenizer, stream)
    assert reals(tokenizer, stream, paired=True).draw([{"prompt": "a", "completion": "cat"}]) == (["cat"], ["a"])
