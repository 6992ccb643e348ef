"""Supervised fine-tuning of the benchmarks: a token weighs the same in a batch of short texts and of long ones."""

import re
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

import benchmarks
from benchmarks.supervised import EvenSFTTrainer
from hf_mgan import prepare_dataset

from ..conftest import causal_generator, generators_tokenizer


SHORT, LONG = "a dog runs", "the old king sees a small bird near this one , the cat sleeps"


def losses_per_token(trainer_class, folder, max_length=64):
    """Return the loss of a batch of short and of one of long texts, over the sum of their tokens' losses."""
    tokenizer, model = generators_tokenizer(), causal_generator()
    texts = Dataset.from_dict({"text": [SHORT] * 4 + [LONG] * 4})
    config = SFTConfig(
        str(folder), per_device_train_batch_size=4, max_length=max_length, report_to="none", use_cpu=True, bf16=False
    )
    trainer = trainer_class(
        model, args=config, train_dataset=prepare_dataset(texts, tokenizer), processing_class=tokenizer
    )
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    ratios = []
    for rows in (range(4), range(4, 8)):
        batch = trainer.data_collator([trainer.train_dataset[row] for row in rows])
        with torch.no_grad():
            number = (batch["labels"][:, 1:] != -100).sum()
            trainer.model.eval()
            of_all = float(trainer.model(**batch).loss) * int(number)
            for given in (None, number):  # what TRL gives in evaluation, and what Transformers does
                in_evaluation = float(trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=given))
                assert in_evaluation == pytest.approx(of_all / int(number))
            trainer.model.train()
            ratios.append(float(trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=number)) / of_all)
    return ratios


def test_tokens_weigh_the_same_in_short_and_in_long_texts(tmp_path):
    short, long = losses_per_token(EvenSFTTrainer, tmp_path)
    assert short == pytest.approx(long)
    # 4 texts of an average of (4 + 15) / 2 tokens that are predicted: words and the end.
    assert short == pytest.approx(1 / (4 * 9.5))


def test_tokens_of_short_texts_weigh_more_without_it(tmp_path):
    short, long = losses_per_token(SFTTrainer, tmp_path)
    assert short > 3 * long


def test_texts_are_cut_before_their_tokens_are_counted(tmp_path):
    short, _ = losses_per_token(EvenSFTTrainer, tmp_path, max_length=6)
    assert short == pytest.approx(1 / (4 * (4 + 5) / 2))


def test_every_benchmark_that_groups_by_length_weighs_each_token_alike():
    sources = {path: path.read_text() for path in Path(benchmarks.__file__).parent.glob("*/*.py")}
    grouping = {path: text for path, text in sources.items() if '"group_by_length"' in text}
    assert len(grouping) == 3
    for path, text in grouping.items():
        assert "= EvenSFTTrainer(" in text, path
        assert not re.search(r"\bSFTTrainer\b", text), path
