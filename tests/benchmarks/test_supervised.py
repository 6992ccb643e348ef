"""Supervised fine-tuning of the benchmarks: a token weighs the same in a batch of short texts and of long ones."""

import pytest
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from benchmarks.supervised import EvenSFTTrainer
from hf_mgan import prepare_dataset

from ..conftest import causal_generator, generators_tokenizer


SHORT, LONG = "a dog runs", "the old king sees a small bird near this one , the cat sleeps"


def losses_per_token(trainer_class, folder):
    """Return the loss of a batch of short and of one of long texts, over the sum of their tokens' losses."""
    tokenizer, model = generators_tokenizer(), causal_generator()
    texts = Dataset.from_dict({"text": [SHORT] * 4 + [LONG] * 4})
    config = SFTConfig(
        str(folder), per_device_train_batch_size=4, max_length=64, report_to="none", use_cpu=True, bf16=False
    )
    trainer = trainer_class(
        model, args=config, train_dataset=prepare_dataset(texts, tokenizer), processing_class=tokenizer
    )
    trainer.model.eval()  # no dropout
    ratios = []
    for rows in (range(4), range(4, 8)):
        batch = trainer.data_collator([trainer.train_dataset[row] for row in rows])
        with torch.no_grad():
            number = (batch["labels"][:, 1:] != -100).sum()
            of_all = float(trainer.model(**batch).loss) * int(number)
            ratios.append(float(trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=number)) / of_all)
            in_evaluation = float(trainer.compute_loss(trainer.model, dict(batch)))
            assert in_evaluation == pytest.approx(of_all / int(number))
    return ratios


def test_tokens_weigh_the_same_in_short_and_in_long_texts(tmp_path):
    short, long = losses_per_token(EvenSFTTrainer, tmp_path)
    assert short == pytest.approx(long)
    # 4 texts of an average of (4 + 15) / 2 tokens that are predicted: words and the end.
    assert short == pytest.approx(1 / (4 * 9.5))


def test_tokens_of_short_texts_weigh_more_without_it(tmp_path):
    short, long = losses_per_token(SFTTrainer, tmp_path)
    assert short > 3 * long
