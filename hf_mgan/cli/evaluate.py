"""The subcommand `hf-mgan evaluate`: from flags to models, held-out text and the report."""

from dataclasses import dataclass, field
from typing import cast

import torch

from ..decoding import DecodingConfig
from ..decoding.settings import Method
from ..evaluation import EvaluationConfig, GuidedModel, Report, evaluate_generator
from ..evaluation.models import Alone, Model, named_models
from .arguments import check_alone, named_safety_gate
from .data_files import split_of, splits_of


WHICH_SPLIT = (
    "say with --dataset_test_split which one no model was trained on, and with --dataset_train_split which one they "
    "were."
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
        dataset_name (`str` or `list[str]`): Held-out texts: Hub id or folder of the dataset; or a `.json`, `.jsonl`,
            `.csv`, `.tsv`, `.parquet` or `.txt` file, which may be compressed, several of them, or a glob.
        dataset_config (`str`, *optional*): Its configuration.
        dataset_test_split (`str`, *optional*, defaults to `"test"`): The split that no model was trained on.
        training_name (`str` or `list[str]`, *optional*): Where the training texts are: an id, a folder or files. By
            default `dataset_name`, if it has the split.
        dataset_train_split (`str`, *optional*, defaults to `"train"`): The split that they were trained on, in which
            copies are looked for.
        prompt_tokens (`list[int]`, *optional*, defaults to `[0, 0]`): As in training; see [`prepare_dataset`].
        source_lang (`str`, *optional*): As in training.
        target_lang (`str`, *optional*): As in training.
        safety_gate_name_or_path (`str`, *optional*): Classifier behind the unsafe rate: Hub id, folder, or function as
            `module.function`.
        safety_gate_label (`str`, *optional*): Name or index of its label that means unsafe.
        safety_gate_threshold (`float`, *optional*, defaults to 0.5): P(unsafe) from which on a text is unsafe.
    """

    models: list[str] = field(default_factory=list, metadata={"help": "Generators: ids or folders, or NAME=ID."})
    discriminators: list[str] | None = field(
        default=None, metadata={"help": "Discriminators that guide models, each as NAME=ID, NAME that of a model."}
    )
    method: Method = field(default="rejection", metadata={"help": "How they guide: see `hf-mgan generate --help`."})
    threshold: float = field(default=0.0, metadata={"help": "c of rejection in nats."})
    num_candidates: int = field(default=16, metadata={"help": "Candidates per prompt; with rejection the most."})
    dataset_name: list[str] | None = field(
        default=None, metadata={"help": "Hub id, folder, files or glob of held-out texts."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of the dataset."})
    dataset_test_split: str = field(default="test", metadata={"help": "Split that no model was trained on."})
    training_name: list[str] | None = field(
        default=None, metadata={"help": "Hub id, folder, files or glob of training texts."}
    )
    dataset_train_split: str = field(default="train", metadata={"help": "Split that copies are looked for in."})
    prompt_tokens: list[int] = field(default_factory=lambda: [0, 0], metadata={"help": "As in training."})
    source_lang: str | None = field(default=None, metadata={"help": "As in training."})
    target_lang: str | None = field(default=None, metadata={"help": "As in training."})
    safety_gate_name_or_path: str | None = field(default=None, metadata={"help": "Classifier of the unsafe rate."})
    safety_gate_label: str | None = field(default=None, metadata={"help": "Its label that means unsafe."})
    safety_gate_threshold: float = field(default=0.5, metadata={"help": "P(unsafe) from which on a text is unsafe."})


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
    if arguments.dataset_name is None:
        raise ValueError("There is no held-out text: give --dataset_name, a Hub id, a folder or a file.")
    if len(arguments.prompt_tokens) != 2:
        raise ValueError(f"prompt_tokens are the least and the greatest number, got {arguments.prompt_tokens}.")
    arguments.check()
    guided_models(arguments)  # what is wrong with them is said before any data are loaded
    name, split = arguments.dataset_name, arguments.dataset_train_split
    data = splits_of(name, arguments.dataset_config, arguments.dataset_test_split)
    held_out = split_of(data, name, arguments.dataset_test_split, WHICH_SPLIT)
    training = None
    if arguments.training_name is not None:
        training = split_of(
            splits_of(arguments.training_name, None, split), arguments.training_name, split, WHICH_SPLIT
        )
    elif split != arguments.dataset_test_split and (
        split in data or split != EvaluateArguments.dataset_train_split  # one that is asked for has to be there
    ):
        training = split_of(data, name, split, WHICH_SPLIT)
    prepare = {
        "prompt_tokens": tuple(arguments.prompt_tokens),
        "source_lang": arguments.source_lang,
        "target_lang": arguments.target_lang,
    }
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
