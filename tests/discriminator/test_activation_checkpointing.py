import copy

import pytest
import torch
from peft import LoraConfig
from torch.testing import assert_close
from transformers import AlbertConfig, AlbertForSequenceClassification

from hf_mgan import Discriminator
from hf_mgan.discriminator import with_adapters

from ..conftest import VOCABULARY, bert_classifier, causal_classifier, texts
from .test_discriminator import COMPLETIONS, PROMPTS, with_optimizer


@pytest.mark.parametrize("adapters", [False, True], ids=["whole", "lora"])
@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_checkpointed_layer_runs_twice_with_same_gradients(
    pair_tokenizer, tokenizer, tmp_path, family, batch_size, adapters
):
    model, own, attention, targets = (
        (bert_classifier(), pair_tokenizer, "attention", ["query"])
        if family == "bert"
        else (causal_classifier(), tokenizer, "attn", ["c_attn"])
    )
    if adapters:
        model = with_adapters(model, LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    gradients, runs = [], []
    for checkpointed in (False, True):
        one = Discriminator(copy.deepcopy(model), own, batch_size=batch_size, gradient_checkpointing=checkpointed)
        with_optimizer(one, tmp_path)
        layer = next(module for name, module in one.model.named_modules() if name.endswith(f".0.{attention}"))
        calls = []
        layer.register_forward_hook(lambda *_, calls=calls: calls.append(torch.is_grad_enabled()))
        step = one._step

        def kept(optimizer, step=step, one=one):
            gradients.append({name: p.grad.clone() for name, p in one.model.named_parameters() if p.grad is not None})
            return step(optimizer)

        one._step = kept
        one.update(PROMPTS, COMPLETIONS, texts(4))
        runs.append(calls.count(True))  # with gradients; before several batches comes a pass without
    assert runs[1] == 2 * runs[0] > 0
    assert set(gradients[0]) == set(gradients[1])
    assert len(gradients[0]) > 2
    for name, gradient in gradients[0].items():
        assert_close(gradients[1][name], gradient, msg=name)


def test_checkpointing_survives_load_state_and_deepcopy(pair_tokenizer, tmp_path):
    one = with_optimizer(Discriminator(bert_classifier(), pair_tokenizer, gradient_checkpointing=True), tmp_path)
    one.save_pretrained(tmp_path / "model")
    one.save_state(tmp_path / "state")
    one.load_state(tmp_path / "state", tmp_path / "model")
    layer = one.model.bert.encoder.layer[0]
    calls = []
    layer.attention.register_forward_hook(lambda *_: calls.append(1))
    one.update(PROMPTS, COMPLETIONS, texts(4))
    assert len(calls) == 2
    assert copy.deepcopy(one.model).bert.encoder.layer[0].forward.forward.__self__ is not layer


def test_model_without_such_layers_is_refused(pair_tokenizer):
    config = AlbertConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, embedding_size=8, num_attention_heads=2, intermediate_size=16,
        num_hidden_layers=1, max_position_embeddings=48, num_labels=1, pad_token_id=0,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"AlbertFor.*discriminator_batch_size"):
        Discriminator(AlbertForSequenceClassification(config), pair_tokenizer, gradient_checkpointing=True)
