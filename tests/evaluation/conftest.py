"""Two saved generators: one with random weights, and adapters on it that were saved without a tokenizer."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from ..conftest import VOCABULARY, word_tokenizer


def new_tokenizer(vocabulary=None):
    return PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(vocabulary or VOCABULARY),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=64,
    )


def new_generator(seed=0):
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(VOCABULARY),
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.3,
    )
    return GPT2LMHeadModel(config)


def save(model, folder):
    model.save_pretrained(folder)
    new_tokenizer().save_pretrained(folder)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Return the folders of the model and of its adapters."""
    root = tmp_path_factory.mktemp("models")
    save(new_generator(), root / "start")
    base = GPT2LMHeadModel.from_pretrained(root / "start")
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    adapted.save_pretrained(root / "tuned")
    return {name: str(root / name) for name in ("start", "tuned")}
