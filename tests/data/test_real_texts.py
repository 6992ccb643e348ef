import pytest
from datasets import Dataset, IterableDataset

from hf_mgan.data import RealSampler, RealTexts, as_completions, as_prompts, plain_text


def test_as_completions_cuts_and_drops_special_tokens(tokenizer):
    # Unknown words become <unk>, which is a special token and drops out; three tokens are left of five.
    assert as_completions(["the unknown dog sees a cat"], tokenizer, 4) == ["the dog sees"]
    assert as_completions([[{"role": "assistant", "content": "a cat"}]], tokenizer, None) == ["a cat"]


def test_as_prompts_of_a_bare_start_of_sequence(tokenizer):
    assert as_prompts(["<s>", "<s>the dog"], tokenizer) == ["", "the dog"]


def test_plain_text_of_messages():
    blocks = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    assert plain_text([{"role": "user", "content": blocks}]) == "a b"
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None}]
    assert plain_text(talk) == "user: hi\nassistant: "


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


def reals(tokenizer, train=None, real=None, paired=False):
    return RealTexts(train, real, paired, tokenizer, max_completion_length=8, seed=0)


def test_real_texts_of_a_paired_loss(tokenizer):
    train = Dataset.from_dict({"prompt": ["a", "the"], "completion": ["dog", "cat"]})
    texts = reals(tokenizer, train, paired=True)
    prompts, references = ["the", "the", "a"], ["cat", "cat", "dog"]
    assert texts.draw(prompts, references) == (references, prompts)
    assert texts.are_references(training=True)
    assert texts.drawn == 0


def test_real_texts_of_an_unpaired_loss(tokenizer):
    train = Dataset.from_dict({"prompt": ["<s>"] * 4, "completion": ["one", "two", "three", "four"]})
    real = reals(tokenizer, train)
    texts, prompts = real.draw(["<s>"] * 4, ["one"] * 4)
    assert sorted(texts) == ["four", "one", "three", "two"]
    assert prompts == ["<s>"] * 4
    assert not real.are_references(training=True)
    assert real.are_references(training=False)


def test_real_dataset_hides_prompts(tokenizer):
    train = Dataset.from_dict({"prompt": ["the dog"]})
    texts = reals(tokenizer, train, Dataset.from_dict({"text": ["a cat"]}))
    assert texts.draw(["the dog"], None) == (["a cat"], [""])
    assert not texts.are_references(training=False)
    assert texts.shown_prompts(["the dog"]) == [""]


def test_held_out_leaves_the_order_of_training_alone(tokenizer):
    train = Dataset.from_dict({"prompt": ["the dog"]})
    texts = reals(tokenizer, train, Dataset.from_dict({"text": ["one", "two", "three"]}))
    before = texts.drawn
    assert len(texts.held_out(["the dog"] * 2, None)[0]) == 2
    assert texts.drawn == before
    assert texts.held_out(["a"], ["king"]) == (["king"], ["a"])


def test_missing_real_texts_are_refused(tokenizer):
    prompts = Dataset.from_dict({"prompt": ["a"]})
    with pytest.raises(ValueError, match=r"train_dataset .*`completion` column"):
        reals(tokenizer, prompts)
    with pytest.raises(ValueError, match="real_dataset belong to no prompt"):
        reals(tokenizer, prompts, Dataset.from_dict({"text": ["x"]}), paired=True)
    with pytest.raises(ValueError, match="real_dataset must be"):
        reals(tokenizer, prompts, Dataset.from_dict({"body": ["x"]}))
    with pytest.raises(ValueError, match="empty"):
        reals(tokenizer, prompts, Dataset.from_dict({"text": []}))
    stream = IterableDataset.from_generator(lambda: iter([{"prompt": "a", "completion": "b"}]))
    with pytest.raises(ValueError, match="discriminator_loss='bradley_terry'"):
        reals(tokenizer, stream)
    texts = reals(tokenizer, stream, paired=True)
    assert texts.draw(["a"], ["cat"]) == (["cat"], ["a"])
    with pytest.raises(ValueError, match="real_dataset="):
        texts.draw(["a"], None)
    with pytest.raises(ValueError, match="eval_dataset"):
        texts.held_out(["a"], None)
