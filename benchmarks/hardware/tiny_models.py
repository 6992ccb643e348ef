"""Tiny random models of many families, with tokenizers of the sorts that matter, made in code.

In: a family of [`GENERATORS`] or [`DISCRIMINATORS`]. Out: a folder as a user has it, model and tokenizer; and a
training set that fits the tokenizer. A `sort` of tokenizer is a string that names what it has: `bos` (put before each
text), `pad`, `chat` (a template), `pairs` (of texts, with or without types). All have an end token, `plain` ones
nothing else.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    set_seed,
)


SEED = 0
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "[CLS]", "[SEP]"]
WORDS = ["a", "the", "dog", "cat", "bird", "king", "sees", "eats", "runs", "sleeps", "near", "old", "one", "two", "."]
VOCABULARY = {word: index for index, word in enumerate(SPECIAL + WORDS)}
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<s> ' + message['role'] + ' ' + message['content'] + ' </s> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s> assistant ' }}{% endif %}"
)
# What the tokenizer puts around one text and around two.
AROUND = {
    "bos": ("<s> $A", "<s> $A <s> $B:1"),
    "pairs": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
    "pairs without types": ("<s> $A </s>", "<s> $A </s> </s> $B </s>"),
}


@dataclass(frozen=True)
class Family:
    """A tiny model of a family.

    Attributes:
        model_type (`str`): What transformers calls the family.
        settings (`dict[str, Any]`): Arguments of its configuration.
        tokenizer (`str`): What its tokenizer has.
        targets (`str` or `list[str]`): What LoRA is put on.
        unquantised (`list[str]`, *optional*): What has to be left out of the quantisation by name.
    """

    model_type: str
    settings: dict[str, Any]
    tokenizer: str
    targets: str | list[str] = "all-linear"
    unquantised: list[str] | None = None


# bitsandbytes wants rows of whole blocks of 64 weights.
COMMON = {
    "vocab_size": len(VOCABULARY),
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,  # wide enough that samples differ and rewards have a spread
}
GPT2 = {**COMMON, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
SIZES = {
    **COMMON,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
}
GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": 16}
# Its embeddings are scaled and are its head too: wide ones would repeat the last token for ever.
GEMMA = {"initializer_range": 0.03, "sliding_window": 32, "query_pre_attn_scalar": 16}

GENERATORS = {
    "GPT-2": Family("gpt2", GPT2, "plain"),
    "OPT": Family("opt", {**SIZES, "ffn_dim": 128, "word_embed_proj_dim": 64}, "bos, pad"),
    "GPT-NeoX": Family("gpt_neox", SIZES, "plain"),
    "Llama": Family("llama", GROUPED, "bos"),
    "Mistral": Family("mistral", {**GROUPED, "sliding_window": 32}, "bos"),
    "Qwen3": Family("qwen3", GROUPED, "pad, chat"),
    "Gemma 3": Family("gemma3_text", {**GROUPED, **GEMMA}, "bos, pad, chat"),
    "Phi": Family("phi", SIZES, "plain"),
    "BLOOM": Family("bloom", {**SIZES, "n_layer": 2, "n_head": 4}, "bos, pad"),
    "Falcon": Family("falcon", {**SIZES, "alibi": True}, "plain"),
    "Mixtral": Family("mixtral", {**GROUPED, "num_local_experts": 4}, "bos"),
    "Qwen3-MoE": Family(
        "qwen3_moe",
        {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
        "pad, chat",
    ),
    "Mamba": Family(
        "mamba",
        {**SIZES, "state_size": 16, "time_step_rank": 64},
        "plain",
        targets=["in_proj", "x_proj"],
        unquantised=["lm_head", "dt_proj"],
    ),
    "Falcon-H1": Family(
        "falcon_h1",
        {
            **GROUPED,
            "mamba_d_ssm": 64,
            "mamba_n_heads": 32,
            "mamba_d_head": 2,
            "mamba_d_state": 16,
            "mamba_n_groups": 1,
            "mamba_chunk_size": 16,
        },
        "plain",
        targets=["in_proj", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    ),
}
DEBERTA = {
    "relative_attention": True,
    "position_buckets": 32,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
    "pooler_hidden_size": 64,
}
# As many positions as tokens: RoBERTa counts them from behind the padding's.
ROBERTA = {**SIZES, "max_position_embeddings": 66, "type_vocab_size": 1}
DISCRIMINATORS = {
    "BERT": Family("bert", SIZES, "pairs"),
    "DistilBERT": Family("distilbert", {**SIZES, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128}, "pairs"),
    "RoBERTa": Family("roberta", ROBERTA, "pairs without types"),
    "XLM-R": Family("xlm-roberta", ROBERTA, "pairs without types"),
    "ELECTRA": Family("electra", {**SIZES, "embedding_size": 64}, "pairs"),
    "ALBERT": Family("albert", {**SIZES, "embedding_size": 64}, "pairs"),
    "DeBERTa-v2": Family("deberta-v2", {**SIZES, **DEBERTA}, "pairs"),
    "ModernBERT": Family("modernbert", {**SIZES, "local_attention": 16}, "pairs"),
    "GPT-2": Family("gpt2", GPT2, "plain"),
    "Llama": Family("llama", GROUPED, "bos"),
    "Qwen3": Family("qwen3", GROUPED, "pad, chat"),
    "Gemma": Family("gemma", GROUPED, "bos, pad, chat"),
}


def make_tokenizer(sort: str) -> PreTrainedTokenizerFast:
    """Make a tokenizer of words that has what `sort` names and nothing else; all have an end token."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    around = AROUND.get(sort.split(",")[0])
    if around is not None:
        special = [(token, VOCABULARY[token]) for token in SPECIAL if any(token in text for text in around)]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=around[0], pair=around[1], special_tokens=special
        )
    tokens = {"eos_token": "</s>", "unk_token": "<unk>"}
    if "bos" in sort or sort == "pairs without types":
        tokens["bos_token"] = "<s>"
    if "pad" in sort or "pairs" in sort:
        tokens["pad_token"] = "<pad>"
    inputs = ["input_ids", "attention_mask"] + (["token_type_ids"] if sort == "pairs" else [])
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, model_input_names=inputs, **tokens)
    if "chat" in sort:
        made.chat_template = CHAT_TEMPLATE
    return made


def texts(count: int, seed: int, length: int = 6) -> list[str]:
    draws = torch.randint(len(WORDS), (count, length), generator=torch.Generator().manual_seed(seed))
    return [" ".join(WORDS[index] for index in row) for row in draws.tolist()]


def rows(sort: str) -> Dataset:
    """Return a training set: messages for a tokenizer with a chat template, else texts."""
    if "chat" not in sort:
        return Dataset.from_dict({"text": texts(16, 0)})
    pairs = zip(texts(16, 1), texts(16, 0), strict=True)
    messages = [[{"role": "user", "content": one}, {"role": "assistant", "content": two}] for one, two in pairs]
    return Dataset.from_dict({"messages": messages})


def save_model(family: Family, folder: Path, num_labels: int | None) -> Path:
    """Save a random model and its tokenizer.

    A generator (`num_labels` is None) and a classifier with one label are saved as what models are pre-trained as, a
    language model or a masked one, so that a classifier gets a fresh head; one with several has a head already.
    """
    set_seed(SEED)
    encoder = "pairs" in family.tokenizer
    settings = {**family.settings, "pad_token_id": 0 if "pad" in family.tokenizer or encoder else None}
    if num_labels in (None, 1):
        config = AutoConfig.for_model(family.model_type, **settings)
        model = (AutoModelForMaskedLM if encoder else AutoModelForCausalLM).from_config(config)
    else:
        config = AutoConfig.for_model(family.model_type, num_labels=num_labels, **settings)
        model = AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(folder)
    make_tokenizer(family.tokenizer).save_pretrained(folder)
    return folder
