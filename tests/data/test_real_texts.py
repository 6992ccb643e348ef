import pytest
from datasets import Dataset, IterableDataset

from hf_mgan.data import RealSampler, RealTexts, TextPath
from hf_mgan.data.real_texts import StreamSampler


def test_real_sampler_epoch_is_shared_by_ranks():
    samplers = [RealSampler(12, seed=3, rank=rank, world_size=2) for rank in (0, 1)]
    drawn = [index for _ in range(2) for sampler in samplers for index in sampler.draw(3)]
    assert sorted(drawn) == list(range(12))
    following = [index for _ in range(2) for sampler in samplers for index in sampler.draw(3)]
    assert sorted(following) == list(range(12))
    assert following != drawn


def test_real_sampler_state_is_the_rows_drawn():
    sampler = RealSampler(7, seed=0)
    sampler.draw(10)
    restored = RealSampler(7, seed=0)
    restored.drawn = sampler.drawn
    assert restored.draw(9) == sampler.draw(9)
    assert RealSampler(7, seed=1).draw(7) != RealSampler(7, seed=0).draw(7)


def reals(tokenizer, train=None, real=None, paired=False, **others):
    return RealTexts(train, real, paired, TextPath(tokenizer, 8, boundary=""), seed=0, **others)


def shown(batch):
    return batch.texts, batch.prompts


def test_real_texts_of_a_paired_loss(tokenizer):
    train = Dataset.from_dict({"prompt": ["a", "the"], "completion": ["dog", "cat"]})
    texts = reals(tokenizer, train, paired=True)
    prompts, references = ["the", "the", "a"], ["cat", "cat", "dog"]
    assert shown(texts.draw(prompts, references)) == (references, prompts)
    assert texts.are_references(training=True)
    assert texts.drawn == 0


def test_real_texts_of_an_unpaired_loss(tokenizer):
    train = Dataset.from_dict({"prompt": ["<s>"] * 4, "completion": ["one", "two", "three", "four"]})
    real = reals(tokenizer, train)
    texts, prompts = shown(real.draw(["<s>"] * 4, ["one"] * 4))
    assert sorted(texts) == ["four", "one", "three", "two"]
    assert prompts == [""] * 4
    assert not real.are_references(training=True)
    assert real.are_references(training=False)


def test_real_dataset_hides_prompts(tokenizer):
    train = Dataset.from_dict({"prompt": ["the dog"]})
    texts = reals(tokenizer, train, Dataset.from_dict({"text": ["a cat"]}))
    assert shown(texts.draw(["the dog"], None)) == (["a cat"], [""])
    assert not texts.are_references(training=False)
    assert texts.shown(["the dog"], ["runs"]) == ([""], ["runs"])


def test_real_dataset_beside_beginnings_of_texts(tokenizer):
    """A text is cut where its prompt and 8 tokens would be, since the completion is shown with its prompt."""
    train = Dataset.from_dict({"prompt": ["the dog"]})
    long = " ".join(["a"] * 20)
    texts = reals(tokenizer, train, Dataset.from_dict({"text": [long]}), begins_with_prompt=True)
    assert texts.shown(["<s>the dog"], [" runs"]) == ([""], ["the dog runs"])
    assert shown(texts.draw(["<s>the dog"], None)) == ([" ".join(["a"] * 10)], [""])
    assert shown(texts.held_out(["<s>the dog"], [" sees"])) == (["the dog sees"], [""])


def test_held_out_leaves_the_order_of_training_alone(tokenizer):
    train = Dataset.from_dict({"prompt": ["the dog"]})
    texts = reals(tokenizer, train, Dataset.from_dict({"text": ["one", "two", "three"]}))
    before = texts.drawn
    assert len(texts.held_out(["the dog"] * 2, None).texts) == 2
    assert texts.drawn == before
    assert shown(texts.held_out(["a"], ["king"])) == (["king"], [""])


def test_missing_real_texts_are_refused(tokenizer):
    prompts = Dataset.from_dict({"prompt": ["a"]})
    with pytest.raises(ValueError, match=r"train_dataset .*`completion` column"):
        reals(tokenizer, prompts)
    with pytest.raises(ValueError, match="real_dataset belong to no prompt"):
        reals(tokenizer, prompts, Dataset.from_dict({"text": ["x"]}), paired=True)
    with pytest.raises(ValueError, match="real_dataset has the columns"):
        reals(tokenizer, prompts, Dataset.from_dict({"body": ["x"]}))
    with pytest.raises(ValueError, match="no rows"):
        reals(tokenizer, prompts, Dataset.from_dict({"text": []}))
    stream = IterableDataset.from_generator(lambda: iter([{"prompt": "a", "completion": "b"}]))
    texts = reals(tokenizer, stream, paired=True)
    assert shown(texts.draw(["a"], ["cat"])) == (["cat"], ["a"])
    with pytest.raises(ValueError, match="real_dataset="):
        texts.draw(["a"], None)
    with pytest.raises(ValueError, match="eval_dataset"):
        texts.held_out(["a"], None)


def numbered(count):
    return IterableDataset.from_generator(lambda: ({"prompt": "<s>", "completion": str(n)} for n in range(count)))


def test_stream_is_drawn_pass_after_pass_by_ranks_in_turn():
    samplers = [StreamSampler(numbered(12), seed=3, rank=rank, world_size=2) for rank in (0, 1)]
    passes = [
        [row["completion"] for _ in range(2) for sampler in samplers for row in sampler.draw(3)] for _ in range(2)
    ]
    assert [sorted(map(int, texts)) for texts in passes] == [list(range(12))] * 2
    assert passes[0] != passes[1]


def test_stream_goes_on_from_the_rows_drawn():
    sampler, restored = (StreamSampler(numbered(7), seed=0) for _ in range(2))
    sampler.draw(10)
    restored.drawn = sampler.drawn
    assert restored.draw(9) == sampler.draw(9)


def test_real_texts_of_an_unpaired_loss_on_a_stream(tokenizer):
    words = ["one", "two", "three", "four"]
    stream = IterableDataset.from_generator(lambda: ({"prompt": "<s>", "completion": word} for word in words))
    texts = reals(tokenizer, stream)
    assert sorted(texts.draw(["<s>"] * 4, ["one"] * 4).texts) == sorted(words)
    assert texts.drawn == 4


def test_empty_stream_of_real_texts_is_refused():
    with pytest.raises(ValueError, match="stream of real texts is empty"):
        StreamSampler(numbered(0), seed=0).draw(1)
