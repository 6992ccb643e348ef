"""A text's loss is that of its own positions, whatever stands beside it."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.testing import assert_close
from transformers import (
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
)

from hf_mgan.training.positions import count_positions_by_mask

from ..conftest import VOCABULARY, causal_generator


SIZES = {"vocab_size": len(VOCABULARY), "initializer_range": 0.3}
ROWS = torch.tensor([[0, 0, 5, 6, 7], [1, 9, 8, 5, 6]])
MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])


def adapted():
    model = get_peft_model(causal_generator(), LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    return model


MAKERS = {
    "GPT-2": causal_generator,
    "GPT-2 with LoRA": adapted,
    "GPT": lambda: OpenAIGPTLMHeadModel(OpenAIGPTConfig(n_embd=16, n_layer=1, n_head=2, n_positions=64, **SIZES)),
    "GPT-Neo": lambda: GPTNeoForCausalLM(
        GPTNeoConfig(
            hidden_size=16, num_layers=1, attention_types=[[["global"], 1]], num_heads=2, intermediate_size=16, **SIZES
        )
    ),
    "Llama": lambda: LlamaForCausalLM(
        LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, **SIZES)
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_padding_on_the_left_changes_no_logit(name):
    torch.manual_seed(0)
    model = MAKERS[name]().eval()
    count_positions_by_mask(model)
    with torch.no_grad():
        alone = model(input_ids=ROWS[:1, 2:], attention_mask=MASK[:1, 2:]).logits[0]
        beside = model(input_ids=ROWS, attention_mask=MASK).logits[0, 2:]
    assert_close(beside, alone, atol=1e-5, rtol=0)


def test_trainer_counts_as_sampling_does(make_trainer, make_config, tmp_path, tokenizer):
    """The loss of greedy completions: every token is the likeliest one at its own position."""
    causal_generator().save_pretrained(tmp_path / "g")
    tokenizer.save_pretrained(tmp_path / "g")
    trainer = make_trainer(make_config(beta=0.1), model=str(tmp_path / "g"))
    for model in (trainer.model, trainer.ref_model):
        model.eval()
        with torch.no_grad():
            sampled = model.generate(input_ids=ROWS, attention_mask=MASK, do_sample=False, max_new_tokens=4)
            mask = torch.cat([MASK, torch.ones_like(sampled[:, 5:])], 1)
            logits = model(input_ids=sampled, attention_mask=mask).logits[:, 4:-1]
        ended = (sampled[:, 5:] == 2).cumsum(1).bool()
        assert torch.equal(logits.argmax(-1).masked_fill(ended, 2), sampled[:, 5:].masked_fill(ended, 2))
