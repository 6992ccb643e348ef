"""Supervised fine-tuning in which batches hold texts of about one length, and yet each token weighs the same."""

from statistics import fmean
from typing import Any

from trl import SFTTrainer


class EvenSFTTrainer(SFTTrainer):
    """TRL's trainer with the loss summed over a batch's tokens, and divided by those of an average batch.

    With `train_sampling_strategy="group_by_length"` the mean over a batch's own tokens gives a token of a short text
    more weight than one of a long text: a generator then learns to end early.

    Takes the arguments of [`SFTTrainer`](https://huggingface.co/docs/trl/sft_trainer); for one device.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The texts are cut here already; the first token of each is not predicted.
        length = fmean(len(ids) - 1 for ids in self.train_dataset["input_ids"])
        self.tokens_of_update = length * self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a batch in training; in evaluation the mean over its tokens, as TRL does."""
        if model.training:
            num_items_in_batch = self.tokens_of_update
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
