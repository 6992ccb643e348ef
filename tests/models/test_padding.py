"""Classifiers that padding changes are found, at random init too, and those that it does not change are left alone."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, BatchEncoding

from hf_mgan.discriminator.encoding import TextEncoder
from hf_mgan.models import needs_equal_lengths, unpadded_batches

from ..conftest import VOCABULARY, tokenizer_of_pairs


SIZES = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 48,
    "pad_token_id": 0,
}
XLNET = {"vocab_size": len(VOCABULARY), "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16, "pad_token_id": 0}
GPT = {"vocab_size": len(VOCABULARY), "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 48, "pad_token_id": 0}
CHANGED = {"fnet": SIZES, "convbert": SIZES, "yoso": SIZES, "nystromformer": SIZES, "xlnet": XLNET}
UNCHANGED = {
    **dict.fromkeys(("bert", "roberta", "electra", "albert", "mpnet", "deberta-v2", "distilbert"), SIZES),
    **dict.fromkeys(("modernbert", "llama", "bloom"), SIZES),
    "gpt2": GPT,
}


def classifier(family, settings, seed=0):
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, num_labels=1, **settings)
    return AutoModelForSequenceClassification.from_config(config).eval()


def tried(model):
    encoder = TextEncoder(tokenizer_of_pairs(), 40)
    return needs_equal_lengths(model, encoder.probe_rows(), encoder.pad)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("family", "settings"), CHANGED.items(), ids=CHANGED.keys())
def test_family_that_padding_changes_is_found(family, settings, seed):
    assert tried(classifier(family, settings, seed))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("family", "settings"), UNCHANGED.items(), ids=UNCHANGED.keys())
def test_family_that_padding_leaves_alone_is_padded(family, settings, seed):
    assert not tried(classifier(family, settings, seed))


def test_classifier_that_reads_no_short_texts_is_refused():
    with pytest.raises(ValueError, match=r"CanineFor.* cannot read a text of 2 tokens.*another classifier"):
        tried(classifier("canine", SIZES))


def test_batches_have_one_length_and_one_number_of_ends():
    ids = torch.tensor([[5, 2, 0], [5, 6, 2], [6, 2, 0], [2, 6, 2], [7, 2, 0]])
    encoded = BatchEncoding({"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 0], [1] * 3] * 2 + [[1, 1, 0]])})
    batches, places = unpadded_batches(encoded, 2, [2])
    assert [batch["input_ids"].tolist() for batch in batches] == [
        [[5, 2], [6, 2]],
        [[7, 2]],
        [[5, 6, 2]],
        [[2, 6, 2]],
    ]
    assert all(batch["attention_mask"].all() for batch in batches)
    assert places.tolist() == [0, 3, 1, 4, 2]


def test_padding_is_no_end_where_both_are_one_token():
    encoded = BatchEncoding(
        {"input_ids": torch.tensor([[5, 2, 2], [6, 2, 2]]), "attention_mask": torch.tensor([[1, 1, 0], [1, 1, 0]])}
    )
    batches, _ = unpadded_batches(encoded, 2, [2])
    assert [batch["input_ids"].tolist() for batch in batches] == [[[5, 2], [6, 2]]]
