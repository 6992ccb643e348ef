"""Tiny tokenizers of the kinds that people have, trained here on a few sentences: no files, no network.

Each has the normalisation, the pieces, the decoder and the special tokens of its family, and a few hundred tokens.
"""

import json
from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast


SENTENCES = [
    "The dog sees a small cat near the old house.",
    "A king runs, and the birds sleep in the trees!",
    "This is one of the days when nobody comes home early.",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002",
    "\u72d7\u770b\u89c1\u4e00\u53ea\u5c0f\u732b\u3002",
    "Caf\u00e9 cr\u00e8me \u2014 tr\u00e8s bon, na\u00efve fa\u00e7ade.",
    "I like it \U0001f600\U0001f680 and you do \u2764\ufe0f too",
    "first line\nsecond line\n  indented line",
    "two  spaces and a tab\there",
]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TURNS = (
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role'])"
    " + '\\n' + m['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


def trained(normalizer, pre_tokenizer, alphabet, size):
    """Return the vocabulary and the merges of byte-pair encoding on the sentences."""
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def of_bytes(special, size=400, **names):
    """Byte-level: every character can be written, and a token may be a part of one."""
    pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocabulary, merges = trained(None, pre_tokenizer, pre_tokenizers.ByteLevel.alphabet(), size)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **names)


def of_pieces(special, has_dummy_space, template, **names):
    """SentencePiece: white space is a part of pieces; what is no piece is written in bytes."""
    steps = [normalizers.Replace(" ", "\u2581")]
    if has_dummy_space:
        steps.insert(0, normalizers.Prepend("\u2581"))
    normalizer = normalizers.Sequence(steps)
    words = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split("\u2581", "merged_with_next")]
    )
    vocabulary, merges = trained(normalizer, words, [], 300)
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *vocabulary]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    # Characters that are no piece: those of one sentence are left to the bytes.
    model = models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizer
    parts = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*parts, *([decoders.Strip(" ", 1, 0)] if has_dummy_space else [])])
    tokenizer.add_special_tokens(special)
    used = [(token, vocabulary[token]) for token in special if token in template]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", unk_token="<unk>", **names)


@cache
def gpt2():
    return of_bytes(["<|endoftext|>"], bos_token="<|endoftext|>", eos_token="<|endoftext|>", pad_token="<|endoftext|>")


@cache
def qwen():
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return of_bytes(special, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML)


@cache
def single_bytes():
    return of_bytes(["<pad>", "</s>"], size=256, eos_token="</s>", pad_token="<pad>")


@cache
def llama():
    special = ["<unk>", "<s>", "</s>"]
    return of_pieces(special, True, "<s> $A", bos_token="<s>", eos_token="</s>", pad_token="</s>")


@cache
def llama_with_eos():
    special = ["<unk>", "<s>", "</s>"]
    return of_pieces(special, True, "<s> $A </s>", bos_token="<s>", eos_token="</s>", pad_token="</s>")


@cache
def gemma():
    special = ["<unk>", "<pad>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "chat_template": TURNS}
    return of_pieces(special, False, "<bos> $A", **names)


@cache
def byt5():
    """Bytes without a trained part, by a tokenizer in Python, which knows no places of its tokens in a text."""
    return ByT5Tokenizer(padding_side="left")


KINDS = {kind.__name__: kind for kind in (gpt2, qwen, single_bytes, llama, llama_with_eos, gemma, byt5)}
