import pytest
from datasets import Dataset, IterableDataset

from hf_mgan import prepare_dataset
from hf_mgan.data import start_of_sequence


def test_whole_texts_start_from_the_bos_token(tokenizer):
    dataset = Dataset.from_dict({"text": ["the dog runs", "a cat"], "source": ["x", "y"]})
    prepared = prepare_dataset(dataset, tokenizer)
    assert prepared["prompt"][:] == ["<s>", "<s>"]
    assert prepared["completion"][:] == ["the dog runs", "a cat"]
    assert prepared["source"][:] == ["x", "y"]
    assert prepared.column_names == ["source", "prompt", "completion"]


def test_start_of_sequence_stands_once_in_the_prompt(tokenizer, pair_tokenizer):
    assert tokenizer(start_of_sequence(tokenizer))["input_ids"] == [tokenizer.bos_token_id]
    # A tokenizer that adds its start token by itself must not get a second one.
    assert start_of_sequence(pair_tokenizer) == ""


def test_start_of_sequence_without_bos(tokenizer):
    tokenizer.bos_token = None
    assert start_of_sequence(tokenizer) == "</s>"
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="`prompt` column"):
        start_of_sequence(tokenizer)


def test_prompt_tokens_from_least_to_greatest(tokenizer):
    dataset = Dataset.from_dict({"text": ["the dog sees a cat ."] * 200})
    prepared = prepare_dataset(dataset, tokenizer, prompt_tokens=(1, 3))
    lengths = [len(prompt.removeprefix("<s>").split()) for prompt in prepared["prompt"]]
    assert set(lengths) == {1, 2, 3}
    for row in prepared:
        assert row["prompt"] + row["completion"] == "<s>the dog sees a cat ."


def test_prompt_tokens_are_drawn_by_seed(tokenizer):
    dataset = Dataset.from_dict({"text": ["the dog sees a cat ."] * 50})
    first, again, other = (prepare_dataset(dataset, tokenizer, (0, 4), seed=seed)["prompt"][:] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_short_text_keeps_one_token_for_the_completion(tokenizer):
    prepared = prepare_dataset(Dataset.from_dict({"text": ["the dog"]}), tokenizer, prompt_tokens=(5, 5))
    assert prepared[0] == {"prompt": "<s>the", "completion": " dog"}


def test_prompt_and_completion_are_returned_as_they_are(tokenizer):
    dataset = Dataset.from_dict({"prompt": ["a"], "completion": ["b"], "text": ["kept"]})
    assert prepare_dataset(dataset, tokenizer) is dataset


def test_last_answer_of_a_conversation_is_the_completion(tokenizer):
    talk = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "four"},
    ]
    row = prepare_dataset(Dataset.from_dict({"messages": [talk]}), tokenizer)[0]
    assert row == {"prompt": talk[:3], "completion": talk[3:]}


@pytest.mark.parametrize("roles", [["assistant"], ["user", "assistant", "user"]])
def test_conversation_without_a_last_answer_is_refused(tokenizer, roles):
    talk = [{"role": role, "content": "x"} for role in roles]
    with pytest.raises(ValueError, match="Row 0 must be a conversation"):
        prepare_dataset(Dataset.from_dict({"messages": [talk]}), tokenizer)


def test_translation_languages(tokenizer):
    dataset = Dataset.from_dict({"translation": [{"en": "the dog", "es": "el perro"}]})
    row = prepare_dataset(dataset, tokenizer)[0]
    assert row == {"prompt": "Translate from en to es.\nthe dog\n", "completion": "el perro"}
    row = prepare_dataset(dataset, tokenizer, source_lang="es", target_lang="en", translation_template="{source} =")[0]
    assert row == {"prompt": "el perro =", "completion": "the dog"}
    with pytest.raises(ValueError, match="from 'en' to 'fr'"):
        prepare_dataset(dataset, tokenizer, target_lang="fr")


def test_streamed_rows_equal_map_style_rows(tokenizer):
    dataset = Dataset.from_dict({"text": ["the dog sees a cat", "a king runs near this dog"]})
    stream = IterableDataset.from_generator(lambda: iter(dataset))
    assert list(prepare_dataset(stream, tokenizer, (0, 3))) == list(prepare_dataset(dataset, tokenizer, (0, 3)))


def test_bad_datasets_are_refused(tokenizer):
    with pytest.raises(ValueError, match=r"columns \['story'\]"):
        prepare_dataset(Dataset.from_dict({"story": ["x"]}), tokenizer)
    with pytest.raises(ValueError, match=r"got \(3, 2\)"):
        prepare_dataset(Dataset.from_dict({"text": ["a"]}), tokenizer, prompt_tokens=(3, 2))
