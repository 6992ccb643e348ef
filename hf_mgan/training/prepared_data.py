"""The data of a training run: checked, with prompts and references, and the real texts that the discriminator sees.

In: the datasets as the trainer is given them. Out: prepared ones, and [`~data.RealTexts`].
"""

from typing import TYPE_CHECKING, Any, cast

from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase
from trl.data_utils import is_conversational

from ..config import AdversarialConfig
from ..data import RealTexts, TextPath, form_of, inspected, prepare_dataset, prepare_datasets
from ..data.prepare import dataset_columns
from ..objectives import PAIRED
from .arguments import named_datasets


if TYPE_CHECKING:
    from collections.abc import Iterable


def prepared_data(
    given: dict[str, Any], args: AdversarialConfig, tokenizer: PreTrainedTokenizerBase, processing_class: Any
) -> tuple[dict[str, Any], RealTexts]:
    """Return the datasets with prompts and references, by the names of TRL's arguments, and the real texts."""
    arguments = args.prompt_arguments()
    check_columns(given, processing_class)
    form = None if given["train_dataset"] is None else form_of(dataset_columns(given["train_dataset"]))
    train = None if form is None else prepare_dataset(given["train_dataset"], tokenizer, **arguments)
    data = {
        "train_dataset": train,
        "eval_dataset": prepare_datasets(given["eval_dataset"], tokenizer, **arguments),
    }
    check_number_of_rows(train, args)
    if given["rollout_func"] is None:  # which renders prompts itself
        check_chat_template(datasets_in(data), processing_class)
    template = {"tools": given["tools"] or None, **cast("dict", args.chat_template_kwargs or {})}
    path = TextPath(tokenizer, args.max_completion_length, template_kwargs=template)
    if train is not None and given["rollout_func"] is None:
        path = inspected(path, train)
    real_texts = RealTexts(
        train,
        given["real_dataset"],
        paired=args.discriminator_loss in PAIRED,
        path=path,
        seed=args.seed,
        rank=args.process_index,
        world_size=args.world_size,
        begins_with_prompt=form in ("text", "prompt"),
    )
    return data, real_texts


def check_columns(given: dict[str, Any], processing_class: Any) -> None:
    """Check that datasets hold no images where the generator reads text alone."""
    for name, dataset in named_datasets(given).items():
        images = [column for column in ("image", "images") if column in dataset_columns(dataset)]
        if images and isinstance(processing_class, PreTrainedTokenizerBase):
            raise ValueError(
                f"{name} has the column {images[0]!r}, and this generator reads text alone. Remove it: "
                f"{name}.remove_columns({images}); or take a generator that reads images."
            )


def check_number_of_rows(dataset: Any, args: AdversarialConfig) -> None:
    """Check that a training set fills a generation batch, without which there would be no step at all.

    Of a stream it is known whether it has a row.
    """
    if args.max_steps <= 0 and args.num_train_epochs == 0:  # the discriminator alone is trained
        return
    if isinstance(dataset, IterableDataset) and next(iter(dataset), None) is None:
        raise ValueError("train_dataset is a stream without any row: look at what it reads, and at its filters.")
    prompts = cast(int, args.generation_batch_size) // cast(int, args.num_generations)
    if isinstance(dataset, Dataset) and len(dataset) < prompts:
        raise ValueError(
            f"train_dataset has {len(dataset)} rows, and a generation batch takes {prompts} prompts "
            f"(generation_batch_size={args.generation_batch_size} / num_generations={args.num_generations}), so that "
            "there would be no step. Give more rows, or lower per_device_train_batch_size, "
            "gradient_accumulation_steps (steps_per_generation) or the number of processes."
        )


def datasets_in(data: dict[str, Any]) -> list[Any]:
    """Return the prepared datasets one by one, `None` for one that is not given."""
    evaluated = data["eval_dataset"]
    return [data["train_dataset"], *(evaluated.values() if isinstance(evaluated, dict) else [evaluated])]


def check_chat_template(datasets: "Iterable[Dataset | IterableDataset | None]", processing_class: Any) -> None:
    """Check that the generator's tokenizer can write out the prompts of datasets that hold conversations.

    Args:
        datasets (`Iterable[Dataset or IterableDataset]`): Prepared datasets; `None` among them is passed over.
        processing_class (`PreTrainedTokenizerBase` or `ProcessorMixin`): The generator's.
    """
    if processing_class.chat_template is not None:
        return
    for dataset in datasets:
        row = None if dataset is None else next(iter(dataset), None)
        if row is not None and is_conversational({"prompt": row["prompt"]}):
            raise ValueError(
                "The dataset holds conversations, and the generator's tokenizer has no chat template to write them "
                "out with. Set tokenizer.chat_template, for example to that of the model's instruction-tuned sister, "
                "and give the tokenizer as processing_class=. Or give plain text: `prompt` and `completion` as "
                "strings. (The discriminator's tokenizer needs no chat template.)"
            )
