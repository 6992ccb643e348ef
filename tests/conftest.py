"""Tiny models and tokenizers built from configs: no network, no files, seconds on a CPU."""

import os

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from hf_mgan import AdversarialConfig, AdversarialTrainer


torch.set_num_threads(1)
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "[CLS]", "[SEP]"]
WORDS = [
    "a",
    "the",
    "dog",
    "cat",
    "bird",
    "king",
    "sees",
    "eats",
    "runs",
    "sleeps",
    "near",
    "old",
    "small",
    "this",
    ",",
    ".",
    "one",
    "two",
    "three",
    "four",
]
VOCABULARY = {word: index for index, word in enumerate(SPECIAL + WORDS)}


def word_tokenizer(vocabulary=VOCABULARY):
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def texts(count, seed=0, length=6):
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(len(WORDS), (count, length), generator=generator)
    return [" ".join(WORDS[index] for index in row) for row in draws.tolist()]


def generators_tokenizer():
    return PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=64,
    )


def tokenizer_of_pairs():
    tokenizer = word_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, VOCABULARY[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=48,
    )


def causal_generator():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(VOCABULARY),
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        # Wide enough that samples differ and rewards have a spread.
        initializer_range=0.3,
    )
    return GPT2LMHeadModel(config)


def bert_classifier(num_labels=1, seed=1, hidden_size=32):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=hidden_size,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * hidden_size,
        max_position_embeddings=48,
        num_labels=num_labels,
        pad_token_id=0,
        initializer_range=0.3,
    )
    return BertForSequenceClassification(config)


def causal_classifier(seed=1):
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(VOCABULARY), n_embd=16, n_layer=1, n_head=2, n_positions=48, num_labels=1, initializer_range=0.3
    )
    return GPT2ForSequenceClassification(config)


@pytest.fixture
def tokenizer():
    """The generator's: adds nothing by itself, as GPT-2's."""
    return generators_tokenizer()


@pytest.fixture
def pair_tokenizer():
    """A discriminator's that knows text pairs, as BERT's."""
    return tokenizer_of_pairs()


@pytest.fixture
def generator():
    return causal_generator()


@pytest.fixture
def classifier():
    return bert_classifier()


@pytest.fixture
def dataset():
    return Dataset.from_dict({"text": texts(64)})


@pytest.fixture
def make_config(tmp_path):
    def make(config_class=AdversarialConfig, **changes):
        settings = {
            "max_steps": 4,
            "per_device_train_batch_size": 4,
            "num_generations": 4,
            "max_completion_length": 8,
            "learning_rate": 1e-2,
            "discriminator_learning_rate": 1e-2,
            "discriminator_warmup_steps": 0,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "disable_tqdm": True,
        }
        return config_class(str(tmp_path / "out"), **{**settings, **changes})

    return make


@pytest.fixture
def make_trainer(generator, tokenizer, classifier, pair_tokenizer, dataset, make_config):
    def make(config=None, trainer_class=AdversarialTrainer, **changes):
        arguments = {
            "model": generator,
            "args": config or make_config(),
            "train_dataset": dataset,
            "processing_class": tokenizer,
            "discriminator": classifier,
            "discriminator_processing_class": pair_tokenizer,
        }
        return trainer_class(**{**arguments, **changes})

    return make
