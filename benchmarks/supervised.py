"""Supervised fine-tuning in which batches hold texts of about one length, and yet each token weighs the same."""

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
        ids = self.train_dataset["input_ids"]
        # A text's first token is not predicted.
        length = sum(min(len(text), self.args.max_length or len(text)) - 1 for text in ids) / len(ids)
        batch = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        self.tokens_of_update = length * batch

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss: in evaluation the mean over the batch's tokens, as TRL does."""
        if num_items_in_batch is not None:
            num_items_in_batch = self.tokens_of_update
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
