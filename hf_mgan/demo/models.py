"""The models of the demo: small ones of real architectures, made from configurations and trained on sentences.

The generator is a GPT-Neo with one layer of local attention that sees two words back. Maximum likelihood converges
within a minute, and what is then missing (agreement over a distance) is what its memory cannot hold, so that training
it for longer does not help. The discriminator is a BERT that has read the same sentences as a masked language model,
as the encoders on the Hub have read theirs: one that starts from nothing learns too little in the time.
"""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer


SPECIAL_TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
# The longest sentence of the language has 19 words, and an end.
MAX_TOKENS = 24
# Settings that all trainers of the demo share.
TRAINING: dict[str, Any] = {
    "adam_beta2": 0.99,
    "lr_scheduler_type": "linear",
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "logging_strategy": "no",
    "disable_tqdm": True,
}


def make_tokenizer(words: list[str], adds_ends: bool) -> PreTrainedTokenizerFast:
    """Make a tokenizer with one token per word.

    Args:
        words (`list[str]`): The vocabulary.
        adds_ends (`bool`): Whether it sets a text between `<s>` and `</s>`, as an encoder's tokenizer does; a
            generator's adds nothing.

    Returns:
        `PreTrainedTokenizerFast`: Its first tokens are the special ones, the others follow in the order of `words`.
    """
    vocabulary = {token: number for number, token in enumerate([*SPECIAL_TOKENS, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if adds_ends:
        ends = [(token, vocabulary[token]) for token in ("<s>", "</s>")]
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=MAX_TOKENS + 2,
        padding_side="right" if adds_ends else "left",
    )


def train_generator(
    sentences: list[str],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    steps: int,
    batch_size: int,
    seed: int,
    callback: TrainerCallback,
    start: PreTrainedModel | None = None,
    learning_rate: float = 1e-2,
) -> PreTrainedModel:
    """Train a generator by maximum likelihood, with TRL's `SFTTrainer`.

    Args:
        sentences (`list[str]`): Real sentences.
        tokenizer (`PreTrainedTokenizerBase`): The generator's.
        folder (`Path`): Where model and tokenizer are saved, as a Hub folder.
        steps (`int`): Steps; the learning rate falls linearly to 0 over them.
        batch_size (`int`): Sentences per step.
        seed (`int`): Seed of the weights and of the order.
        callback (`TrainerCallback`): Told of the progress.
        start (`PreTrainedModel`, *optional*): A model to go on with; a new one by default.
        learning_rate (`float`, *optional*, defaults to 1e-2): The greatest.

    Returns:
        `PreTrainedModel`: The trained model.
    """
    torch.manual_seed(seed)
    model = start or GPTNeoForCausalLM(
        GPTNeoConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=32,
            hidden_size=24,
            num_layers=1,
            num_heads=3,
            attention_types=[[["local"], 1]],
            window_size=2,
            intermediate_size=96,
            resid_dropout=0.0,
            embed_dropout=0.0,
            attention_dropout=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    arguments = SFTConfig(
        str(folder),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=50,
        gradient_checkpointing=False,
        seed=seed,
        **TRAINING,
    )
    whole = [f"{tokenizer.bos_token} {sentence} {tokenizer.eos_token}" for sentence in sentences]
    data = Dataset.from_dict({"input_ids": tokenizer(whole)["input_ids"]})
    trainer = SFTTrainer(model, arguments, train_dataset=data, processing_class=tokenizer, callbacks=[callback])
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model()
    return model


def train_encoder(
    sentences: list[str],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    steps: int,
    batch_size: int,
    seed: int,
    callback: TrainerCallback,
) -> None:
    """Train an encoder as a masked language model and save it; arguments as in [`train_generator`]."""
    torch.manual_seed(seed)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=32,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=256,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    arguments = TrainingArguments(
        str(folder),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=3e-3,
        weight_decay=0.01,
        warmup_steps=50,
        seed=seed,
        **TRAINING,
    )
    collator = DataCollatorForLanguageModeling(
        tokenizer, mlm_probability=0.2, mask_replace_prob=1.0, random_replace_prob=0.0
    )
    data = Dataset.from_dict({"input_ids": tokenizer(sentences)["input_ids"]})
    trainer = Trainer(model, arguments, collator, data, processing_class=tokenizer, callbacks=[callback])
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model()


def adapters() -> LoraConfig:
    """Return the adapters of the generator: every linear layer, as wide as the model; the embeddings stay."""
    return LoraConfig(r=24, lora_alpha=24, target_modules="all-linear", task_type="CAUSAL_LM")
