"""The small generator of `benchmarks.real_text`: a vocabulary learnt from the corpus, and a GPT-2 made in code."""

import argparse

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast


MOST_TOKENS = 128  # of a text in supervised training


def small_tokenizer(texts: list[str], size: int) -> PreTrainedTokenizerFast:
    """Learn a byte-level vocabulary of the corpus."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="left"
    )


def small_generator(tokenizer: PreTrainedTokenizerBase, arguments: argparse.Namespace) -> GPT2LMHeadModel:
    """Make a GPT-2 of 5.8 million weights, where the sizes are the default ones."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=MOST_TOKENS,
            n_embd=arguments.width,
            n_layer=arguments.layers,
            n_head=4,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
