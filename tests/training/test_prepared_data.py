"""The data of a run, refused while the trainer is made."""

import pytest
from datasets import Dataset, DatasetDict, Features, IterableDataset, Value

from ..conftest import texts


TEXTS = Dataset.from_dict({"text": texts(8)})


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"train_dataset": TEXTS.select([0])}, ValueError, "train_dataset has 1 rows, and a generation batch takes 2"),
        ({"train_dataset": TEXTS.select([])}, ValueError, "The dataset has no rows"),
        ({"train_dataset": DatasetDict(train=TEXTS)}, TypeError, r"train_dataset=dataset\['train'\]"),
        ({"train_dataset": list(TEXTS)}, TypeError, "Dataset.from_list"),
        ({"eval_dataset": [1]}, TypeError, "eval_dataset must be a datasets.Dataset"),
        ({"eval_dataset": {"a": TEXTS, "b": "stories"}}, TypeError, r"eval_dataset\['b'\] must be"),
        ({"real_dataset": list(TEXTS)}, TypeError, "real_dataset must be a datasets.Dataset"),
        ({"train_dataset": TEXTS.add_column("image", [0] * 8)}, ValueError, "train_dataset has the column 'image'"),
        ({"eval_dataset": TEXTS.add_column("images", [0] * 8)}, ValueError, "eval_dataset has the column 'images'"),
        ({"train_dataset": TEXTS.add_column("prompts", ["a"] * 8)}, ValueError, "columns prompts, and reward"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused(make_trainer, make_config, given, error, message):
    with pytest.raises(error, match=message):
        make_trainer(make_config(per_device_train_batch_size=4, num_generations=2), **given)


def test_stream_without_a_row_is_refused(make_trainer, make_config):
    features = Features({"prompt": Value("string"), "completion": Value("string")})
    stream = IterableDataset.from_generator(lambda: iter([]), features=features)
    with pytest.raises(ValueError, match="train_dataset is a stream without any row"):
        make_trainer(make_config(), train_dataset=stream)


def test_discriminator_alone_needs_no_full_batch(make_trainer, make_config):
    data = Dataset.from_dict({"text": texts(60)})
    config = make_config(
        num_train_epochs=0, max_steps=-1, discriminator_final_steps=1, per_device_train_batch_size=128
    )
    assert make_trainer(config, train_dataset=data, eval_dataset=data).train_dataset.num_rows == 60
