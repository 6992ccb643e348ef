"""Datasets in, prompts and references out.

In: a dataset with one of the columns `text`, `prompt` (with or without `completion`), `messages` or `translation`.
Out: the same rows with the columns `prompt` (what the generator is given) and `completion` (the reference: the real
text that stands where the generator's completion stands), and every other column, for the reward functions.
"""

import random
from typing import TYPE_CHECKING, Any

from datasets import Dataset, IterableDataset


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMS = ("prompt", "text", "messages", "translation")
TRANSLATION_TEMPLATE = "Translate from {source_lang} to {target_lang}.\n{source}\n"


def start_of_sequence(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return the prompt that stands for "no prompt": what makes the tokenizer give the start token, once.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): The generator's tokenizer.

    Returns:
        `str`: "" where the tokenizer adds a start token by itself, or else its BOS token, or else its EOS token
        (GPT-2).

    Raises:
        ValueError: If the tokenizer has none of them.
    """
    if tokenizer("")["input_ids"]:
        return ""
    start = tokenizer.bos_token or tokenizer.eos_token
    if start is None:
        raise ValueError(
            "Text without a prompt starts from the tokenizer's BOS or EOS token, and this tokenizer has neither. Set "
            "tokenizer.bos_token, or give a dataset with a `prompt` column."
        )
    return start


def dataset_columns(dataset: Dataset | IterableDataset) -> list[str]:
    """Return the column names; a streaming dataset that does not know them is asked for its first row."""
    return list(dataset.column_names or next(iter(dataset)))


def prepare_dataset(
    dataset: Dataset | IterableDataset,
    processing_class: "PreTrainedTokenizerBase",
    prompt_tokens: tuple[int, int] = (0, 0),
    source_lang: str | None = None,
    target_lang: str | None = None,
    translation_template: str = TRANSLATION_TEMPLATE,
    seed: int = 42,
) -> Dataset | IterableDataset:
    """Give a dataset the columns `prompt` and `completion`.

    Args:
        dataset (`Dataset` or `IterableDataset`): Rows with one of
            - `prompt`, with the reference in `completion` where there is one: returned as it is;
            - `text`: its first k tokens become the prompt, the rest the completion;
            - `messages`: the last message, the assistant's, becomes the completion, those before it the prompt;
            - `translation`, a dict of two or more languages.
        processing_class (`PreTrainedTokenizerBase`): The generator's tokenizer, which counts the tokens of a prompt.
        prompt_tokens (`tuple[int, int]`, *optional*, defaults to `(0, 0)`): For `text`: the least and the greatest k,
            drawn uniformly for each row. The prompt is the start of the sequence followed by k tokens; with k = 0
            nothing follows, and the generator writes the whole text. At least one token is left to the completion.
        source_lang (`str`, *optional*): For `translation`: the language of the prompt; the first key by default.
        target_lang (`str`, *optional*): For `translation`: the language of the completion; the second key by default.
        translation_template (`str`, *optional*): For `translation`: the prompt, with the fields `source_lang`,
            `target_lang` and `source`.
        seed (`int`, *optional*, defaults to 42): Seed of the draws of k. A row's draw depends on the seed and its
            index.

    Returns:
        `Dataset` or `IterableDataset`: The rows in the same order. The column that was split is gone, the others are
        kept.

    Raises:
        ValueError: If the dataset has none of the columns above, the range is no range, a text is empty, or a
            conversation does not end in an answer.
    """
    columns = dataset_columns(dataset)
    form = next((form for form in FORMS if form in columns), None)
    if form is None:
        raise ValueError(
            f"The dataset has the columns {columns}, and needs one of: `text`; `prompt` and `completion`; `messages`; "
            "`translation`. Rename a column, for example dataset.rename_column('story', 'text')."
        )
    if form == "prompt":
        return dataset
    if form == "text":
        low, high = prompt_tokens
        if not 0 <= low <= high:
            raise ValueError(
                f"prompt_tokens must be a range (least, greatest) with 0 <= least <= greatest, got {prompt_tokens}."
            )
        arguments = {"tokenizer": processing_class, "low": low, "high": high, "seed": seed}
        split: Any = _split_text
        arguments["start"] = start_of_sequence(processing_class)
    elif form == "messages":
        arguments, split = {}, _split_messages
    else:
        arguments, split = (
            {"source": source_lang, "target": target_lang, "template": translation_template},
            _split_translation,
        )
    return dataset.map(split, with_indices=True, fn_kwargs=arguments, remove_columns=[form])


def _split_text(
    row: dict[str, Any], index: int, tokenizer: "PreTrainedTokenizerBase", start: str, low: int, high: int, seed: int
) -> dict[str, str]:
    if not row["text"]:
        raise ValueError(f"Row {index} has an empty text. Drop such rows: dataset.filter(lambda row: row['text']).")
    if high == 0:
        return {"prompt": start, "completion": row["text"]}
    ids = tokenizer(row["text"], add_special_tokens=False)["input_ids"]
    count = min(random.Random(f"{seed}-{index}").randint(low, high), len(ids) - 1)
    prompt, completion = tokenizer.batch_decode([ids[:count], ids[count:]])
    return {"prompt": start + prompt, "completion": completion}


def _split_messages(row: dict[str, Any], index: int) -> dict[str, list[dict[str, Any]]]:
    *prompt, answer = row["messages"]
    if not prompt or answer["role"] != "assistant":
        raise ValueError(
            f"Row {index} must be a conversation that ends in the assistant's answer, but its roles are "
            f"{[message['role'] for message in row['messages']]}. Drop such rows, or cut them after an answer."
        )
    return {"prompt": prompt, "completion": [answer]}


def _split_translation(
    row: dict[str, Any], index: int, source: str | None, target: str | None, template: str
) -> dict[str, str]:
    pair = row["translation"]
    first, second = [*pair, None, None][:2]
    source, target = source or first, target or second
    if source not in pair or target not in pair or source == target:
        raise ValueError(
            f"Row {index} has the languages {list(pair)}, so it cannot be translated from {source!r} to {target!r}. "
            "Set source_lang and target_lang to two of them."
        )
    prompt = template.format(source_lang=source, target_lang=target, source=pair[source])
    return {"prompt": prompt, "completion": pair[target]}


def prepare_datasets(given: Any, processing_class: "PreTrainedTokenizerBase", **arguments: Any) -> Any:
    """Prepare what a trainer takes as `train_dataset` or `eval_dataset`: one dataset, a dict of several, or none.

    Args:
        given (`Dataset`, `IterableDataset`, `dict` or `None`): The datasets.
        processing_class (`PreTrainedTokenizerBase`): The generator's tokenizer.
        **arguments: Those of [`prepare_dataset`].

    Returns:
        The same form, with [`prepare_dataset`] applied to each dataset.
    """
    if given is None:
        return None
    if isinstance(given, dict):
        return type(given)({key: prepare_dataset(one, processing_class, **arguments) for key, one in given.items()})
    return prepare_dataset(given, processing_class, **arguments)
