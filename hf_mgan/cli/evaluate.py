"""The subcommand `hf-mgan evaluate`: from flags to models, held-out text and the report."""

from dataclasses import dataclass, field
from typing import Any, cast

import torch

from ..data import TRANSLATION_TEMPLATE
from ..decoding import DecodingConfig
from ..decoding.settings import Method
from ..evaluation import EvaluationConfig, GuidedModel, Report, evaluate_generator
from ..evaluation.models import Alone, Model, named_models
from .arguments import check_alone, check_is_there, named_safety_gate
from .data_files import split_of, splits_of


WHICH_SPLIT = (
    "say with --dataset_test_split which one no model was trained on, and with --dataset_train_split which one they "
    "were, or give held-out texts that are elsewhere with --eval_dataset_name."
)


@dataclass
class EvaluateArguments(EvaluationConfig):
    """Arguments of `hf-mgan evaluate`: those of [`~evaluation.EvaluationConfig`], the models and the data.

    Args:
        models (`list[str]`): Generators, each a Hub id or a folder, with adapters or without; `NAME=ID` gives it a
            name.
        discriminators (`list[str]`, *optional*): Models that their discriminators guide, each as `NAME=ID`, the id or
            folder of the discriminator; NAME is that of a model. A model that stands twice in `models`, under two
            names, is compared alone and guided.
        method (`str`, *optional*, defaults to `"rejection"`): How they are guided; see [`~decoding.DecodingConfig`].
        threshold (`float`, *optional*, defaults to 0.0): See there.
        num_candidates (`int`, *optional*, defaults to 16): See there.
        dataset_name (`str` or `list[str]`, *optional*): As in training: Hub id or folder of the dataset; or a `.json`,
            `.jsonl`, `.csv`, `.tsv`, `.parquet` or `.txt` file, which may be compressed, several of them, or a glob.
            Files are all of `dataset_train_split`.
        dataset_config (`str`, *optional*): Its configuration.
        dataset_train_split (`str`, *optional*, defaults to `"train"`): The split that the models were trained on, in
            which copies are looked for.
        dataset_test_split (`str`, *optional*, defaults to `"test"`): The split that no model was trained on.
        eval_dataset_name (`str` or `list[str]`, *optional*): Held-out texts that are not in `dataset_name`, as in
            training. Files are all of `dataset_test_split`.
        min_prompt_tokens, max_prompt_tokens (`int`, *optional*, defaults to 0): As in training; see
            [`prepare_dataset`].
        max_text_tokens (`int`, *optional*): As in training.
        source_lang, target_lang, translation_template (`str`, *optional*): As in training.
        safety_gate_name_or_path (`str`, *optional*): Classifier behind the unsafe rate: Hub id, folder, or function as
            `module.function`.
        safety_gate_label (`str`, *optional*): Name or index of its label that means unsafe.
        safety_gate_threshold (`float`, *optional*, defaults to 0.5): P(unsafe) from which on a text is unsafe.
        safety_gate_with_prompt (`bool`, *optional*, defaults to `False`): Whether the classifier sees the prompt.
    """

    models: list[str] = field(default_factory=list, metadata={"help": "Generators: ids or folders, or NAME=ID."})
    discriminators: list[str] | None = field(
        default=None, metadata={"help": "Discriminators that guide models, each as NAME=ID, NAME that of a model."}
    )
    method: Method = field(default="rejection", metadata={"help": "How they guide: see `hf-mgan generate --help`."})
    threshold: float = field(default=0.0, metadata={"help": "c of rejection in nats."})
    num_candidates: int = field(default=16, metadata={"help": "Candidates per prompt; with rejection the most."})
    dataset_name: list[str] | None = field(
        default=None, metadata={"help": "Hub id, folder, files or glob of the dataset that was trained on."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of the dataset."})
    dataset_train_split: str = field(default="train", metadata={"help": "Split that copies are looked for in."})
    dataset_test_split: str = field(default="test", metadata={"help": "Split that no model was trained on."})
    eval_dataset_name: list[str] | None = field(
        default=None, metadata={"help": "Hub id, folder, files or glob of held-out texts, if they are elsewhere."}
    )
    min_prompt_tokens: int = field(default=0, metadata={"help": "As in training."})
    max_prompt_tokens: int = field(default=0, metadata={"help": "As in training."})
    max_text_tokens: int | None = field(default=None, metadata={"help": "As in training."})
    source_lang: str | None = field(default=None, metadata={"help": "As in training."})
    target_lang: str | None = field(default=None, metadata={"help": "As in training."})
    translation_template: str = field(default=TRANSLATION_TEMPLATE, metadata={"help": "As in training."})
    safety_gate_name_or_path: str | None = field(default=None, metadata={"help": "Classifier of the unsafe rate."})
    safety_gate_label: str | None = field(default=None, metadata={"help": "Its label that means unsafe."})
    safety_gate_threshold: float = field(default=0.5, metadata={"help": "P(unsafe) from which on a text is unsafe."})
    safety_gate_with_prompt: bool = field(default=False, metadata={"help": "Whether the classifier sees the prompt."})


def evaluate(arguments: EvaluateArguments, command: str | None = None) -> Report:
    """Evaluate the models that the arguments name, and write the report to `output_dir`.

    Args:
        arguments ([`EvaluateArguments`]): Models, data and settings.
        command (`str`, *optional*): What was called, for the report.

    Returns:
        [`~evaluation.Report`]: All metrics with their intervals.

    Raises:
        ValueError: If models or data are missing, a split is not there, or a setting is out of range.
    """
    if not arguments.models:
        raise ValueError("There is no model: give --models with Hub ids or folders, such as before=ID after=FOLDER.")
    if arguments.dataset_name is None and arguments.eval_dataset_name is None:
        raise ValueError(
            "There is no held-out text: give --eval_dataset_name or --dataset_name, a Hub id, a folder or a file."
        )
    arguments.check()
    for name, model in guided_models(arguments).items():  # what is wrong with them is said before any data are loaded
        if isinstance(model, GuidedModel):
            check_is_there(cast(str, model.discriminator), f"discriminators ({name})")
            model = model.generator
        check_is_there(cast(str, model), f"models ({name})")
    check_is_there(arguments.encoder, "encoder")
    held_out, training = evaluated_data(arguments)
    prepare: dict[str, Any] = {
        "prompt_tokens": (arguments.min_prompt_tokens, arguments.max_prompt_tokens),
        "source_lang": arguments.source_lang,
        "target_lang": arguments.target_lang,
    }
    if arguments.max_text_tokens is not None:
        prepare["max_text_tokens"] = arguments.max_text_tokens
    if arguments.translation_template != TRANSLATION_TEMPLATE:
        prepare["translation_template"] = arguments.translation_template
    safety = named_safety_gate(arguments)
    return evaluate_generator(
        guided_models(arguments),
        held_out,
        arguments,
        training=training,
        safety=safety and safety.to("cuda" if torch.cuda.is_available() else "cpu"),
        prepare=prepare,
        command=command,
    )


def evaluated_data(arguments: EvaluateArguments) -> tuple[Any, Any]:
    """Return the held-out texts, and those that were trained on where they are known."""
    train, test = arguments.dataset_train_split, arguments.dataset_test_split
    name, elsewhere = arguments.dataset_name, arguments.eval_dataset_name
    if elsewhere is not None:
        held_out = split_of(splits_of(elsewhere, None, test), elsewhere, test, WHICH_SPLIT)
        if name is None:
            return held_out, None
        return held_out, split_of(splits_of(name, arguments.dataset_config, train), name, train, WHICH_SPLIT)
    assert name is not None
    data = splits_of(name, arguments.dataset_config, train)
    held_out = split_of(data, name, test, WHICH_SPLIT)
    is_asked_for = train != EvaluateArguments.dataset_train_split  # and has to be there
    if train == test or not (train in data or is_asked_for):  # what is held out was not trained on
        return held_out, None
    return held_out, split_of(data, name, train, WHICH_SPLIT)


def guided_models(arguments: EvaluateArguments) -> dict[str, Model]:
    """Return the models by name, those that have a discriminator with it.

    Raises:
        ValueError: If a discriminator names no model, or settings of guidance have nothing to guide.
    """
    models = named_models(arguments.models)
    check_alone(arguments, "discriminators", ["method", "threshold", "num_candidates"])
    config = DecodingConfig(arguments.method, arguments.threshold, arguments.num_candidates)
    config.check()
    for given in arguments.discriminators or []:
        name, sign, discriminator = given.partition("=")
        if not sign or name not in models:
            raise ValueError(
                f"discriminators has {given!r}: give NAME=ID, with NAME one of the models {', '.join(models)} and ID "
                "the Hub id or folder of its discriminator."
            )
        models[name] = GuidedModel(cast(Alone, models[name]), discriminator, config)
    return models
