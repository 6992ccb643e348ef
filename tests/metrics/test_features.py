import pytest
import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

from hf_mgan.metrics import encoder_features

from ..conftest import VOCABULARY, texts


@pytest.fixture
def folder(pair_tokenizer, tmp_path):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(tmp_path)
    pair_tokenizer.save_pretrained(tmp_path)
    return str(tmp_path)


def test_encoder_features_are_means_of_own_tokens(folder, pair_tokenizer):
    text = "the old dog"
    with torch.no_grad():
        hidden = (
            BertModel.from_pretrained(folder).eval()(**pair_tokenizer(text, return_tensors="pt")).last_hidden_state
        )
    torch.testing.assert_close(encoder_features(folder)([text])[0], hidden[0].mean(0))


def test_encoder_features_are_padding_invariant(folder):
    batch = [*texts(5), "a", *texts(3, seed=1, length=20)]
    alone = torch.cat([encoder_features(folder)([text]) for text in batch])
    torch.testing.assert_close(encoder_features(folder, batch_size=4)(batch), alone)
    assert alone.shape == (9, 16)
    assert not alone.requires_grad


def test_encoder_features_cut_at_max_length(folder):
    short = encoder_features(folder, max_length=5)  # [CLS] the old dog [SEP]
    torch.testing.assert_close(short(["the old dog sees a cat"]), short(["the old dog"]))


@pytest.mark.parametrize("side", ["left", "right"])
def test_encoder_features_of_an_empty_text_are_zero(side, tokenizer, tmp_path):
    tokenizer.padding_side = side
    assert not tokenizer("")["input_ids"]  # as the tokenizers of most causal models: neither a start nor an end
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2
    )
    GPT2Model(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    features = encoder_features(str(tmp_path), batch_size=3)
    batch = ["the old dog sees a cat", "", "the dog", "", "", ""]  # sorted by length, a whole batch is empty
    found = features(batch)
    assert found[[1, 3, 4, 5]].eq(0).all()
    torch.testing.assert_close(found[[0, 2]], torch.cat([features([batch[0]]), features([batch[2]])]))
    assert features([]).shape == (0, 16)
