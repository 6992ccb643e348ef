"""The subcommand `hf-mgan generate`: from flags to both models, prompts, and texts with what they cost.

The discriminator beside the generator is used if there is one; without it the texts are plain samples.
"""

import json
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError
from peft import PeftConfig
from tqdm.auto import tqdm
from transformers import AutoConfig, PreTrainedTokenizerBase
from transformers.utils import find_adapter_config_file

from ..checks import COUNT
from ..data import TRANSLATION_TEMPLATE, prepare_dataset, start_of_sequence
from ..decoding import DecodingConfig, Filter, GuidedSamples, guided_sample
from ..discriminator import Discriminator
from ..evaluation.guided_model import load_guide
from ..evaluation.models import load_generator
from ..safety import SafetyGate
from ..training.checkpoint import FOLDER, MODEL_FOLDER
from .arguments import check_is_there, imported, named_safety_gate
from .data_files import files_of, kind_of, split_of, splits_of
from .output import Writer


STANDARD_INPUT = "-"
NONE = "none"
# Where a discriminator lies in what training saves: beside a generator, and in a checkpoint.
PLACES = (FOLDER, f"{FOLDER}/{MODEL_FOLDER}")
SETTINGS_FILES = ("config.json", "adapter_config.json")


@dataclass
class GenerateArguments(DecodingConfig):
    """Arguments of `hf-mgan generate`: those of [`~decoding.DecodingConfig`], the models and the prompts.

    Args:
        model (`str`): The generator, a Hub id or a folder, with adapters or without.
        discriminator (`str`, *optional*): Hub id or folder of its discriminator, or `none` for plain sampling. By
            default that in `discriminator/` of `model`, if there is one.
        discriminator_label (`str`, *optional*): Its label that means real, if it has several and is not calibrated.
        prompts (`list[str]`, *optional*): Prompts. Without any, texts start from the start of the sequence.
        prompts_file (`str` or `list[str]`, *optional*): A `.txt` file of prompts, one per line; a `.json`, `.jsonl`,
            `.csv`, `.tsv` or `.parquet` file with a column that [`prepare_dataset`] takes, which may be compressed;
            several of them, or a glob; or `-`, the standard input, one per line.
        dataset_name (`str` or `list[str]`, *optional*): Hub id, folder, files or glob of a dataset whose prompts are
            taken.
        dataset_config (`str`, *optional*): Its configuration.
        dataset_split (`str`, *optional*, defaults to `"test"`): Its split.
        min_prompt_tokens, max_prompt_tokens (`int`, *optional*, defaults to 0): For a column `text`, as in training;
            see [`prepare_dataset`].
        source_lang, target_lang, translation_template (`str`, *optional*): For a column `translation`, as in training.
        num_texts (`int`, *optional*, defaults to 1): Texts per prompt.
        keep (`str`, *optional*): Function, as `module.function`, from a list of prompts and one of texts to whether
            each text is kept; see [`~decoding.guided_sample`].
        safety_gate_name_or_path (`str`, *optional*): Classifier of unsafe texts, of which none is returned: Hub id,
            folder, or function as `module.function`.
        safety_gate_label (`str`, *optional*): Name or index of its label that means unsafe.
        safety_gate_threshold (`float`, *optional*, defaults to 0.5): P(unsafe) from which on a text is unsafe.
        safety_gate_with_prompt (`bool`, *optional*, defaults to `False`): Whether the classifier sees the prompt.
        output (`str`, *optional*): File for the texts as JSON lines. By default they go to the standard output, as a
            table on a terminal and else as JSON lines.
        dtype (`str`, *optional*, defaults to `"auto"`): Precision of the generator; by default that of its file, and
            below adapters the quantisation of their training, which any other value leaves out.
    """

    model: str = field(default="", metadata={"help": "Generator: Hub id or folder, with adapters or without."})
    discriminator: str | None = field(
        default=None,
        metadata={"help": "Discriminator: Hub id or folder, or `none`; by default in `discriminator/` of the model."},
    )
    discriminator_label: str | None = field(
        default=None, metadata={"help": "Its label that means real, if it has several and is not calibrated."}
    )
    prompts: list[str] | None = field(default=None, metadata={"help": "Prompts."})
    prompts_file: list[str] | None = field(
        default=None,
        metadata={"help": "Prompts: .txt or `-` (standard input), one per line; .jsonl, .json, .csv, .tsv, .parquet."},
    )
    dataset_name: list[str] | None = field(
        default=None, metadata={"help": "Hub id, folder, files or glob with prompts."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of the dataset."})
    dataset_split: str = field(default="test", metadata={"help": "Split of the dataset."})
    min_prompt_tokens: int = field(default=0, metadata={"help": "For a column `text`: least tokens of a prompt."})
    max_prompt_tokens: int = field(default=0, metadata={"help": "For a column `text`: most tokens of a prompt."})
    source_lang: str | None = field(default=None, metadata={"help": "For a column `translation`: as in training."})
    target_lang: str | None = field(default=None, metadata={"help": "For a column `translation`: as in training."})
    translation_template: str = field(
        default=TRANSLATION_TEMPLATE, metadata={"help": "For a column `translation`: as in training."}
    )
    num_texts: int = field(default=1, metadata={"help": "Texts per prompt."})
    keep: str | None = field(
        default=None,
        metadata={"help": "Function, `module.function`, from prompts and texts to whether each is kept."},
    )
    safety_gate_name_or_path: str | None = field(
        default=None, metadata={"help": "Classifier of unsafe texts: Hub id, folder, or `module.function`."}
    )
    safety_gate_label: str | None = field(default=None, metadata={"help": "Its label that means unsafe."})
    safety_gate_threshold: float = field(default=0.5, metadata={"help": "P(unsafe) from which on a text is unsafe."})
    safety_gate_with_prompt: bool = field(default=False, metadata={"help": "Whether the classifier sees the prompt."})
    output: str | None = field(default=None, metadata={"help": "File for the texts, as JSON lines."})
    dtype: str = field(
        default="auto",
        metadata={"help": "Precision of the generator; `auto`: as it was saved, and quantised as it was trained."},
    )
    generation_kwargs: dict[str, Any] | str | None = field(  # type: ignore[assignment]  # JSON as a flag
        default=None, metadata={"help": "What else shapes the distribution, as JSON, such as '{\"top_p\": 0.9}'."}
    )

    def __post_init__(self) -> None:
        if isinstance(self.generation_kwargs, str):
            with suppress(json.JSONDecodeError):  # `check` says what is wrong with it
                self.generation_kwargs = json.loads(self.generation_kwargs)
        super().__post_init__()


def generate(script: GenerateArguments) -> GuidedSamples:
    """Generate texts as the arguments say, and write them with what they cost.

    Args:
        script ([`GenerateArguments`]): Models, prompts and settings.

    Returns:
        [`~decoding.GuidedSamples`]: The texts, `num_texts` in a row for each prompt.

    Raises:
        ValueError: If the model is missing, prompts come from several places or there are none, the discriminator is
            not trained, or a setting is out of range or has no effect. All but what is in the prompts is said before
            the generator is loaded.
    """
    check_arguments(script)
    check_is_there(script.model, "model")
    check_is_there(None if script.discriminator == NONE else script.discriminator, "discriminator")
    source = discriminator_source(script)
    check_effects(script, source)
    gate, kept = named_safety_gate(script), named_filter(script.keep)
    writer = Writer(script.output)
    sys.stderr.write(f"The discriminator is {source}.\n" if source else "There is no discriminator: plain samples.\n")
    generator, tokenizer = load_generator(script.model, dtype=script.dtype)
    device = next(generator.parameters()).device
    discriminator = None if source is None else load_discriminator(source, script, device)
    prompts = [prompt for prompt in prompts_of(script, tokenizer) for _ in range(script.num_texts)]
    keep = filter_of(None if gate is None else gate.to(device), kept)
    start = time.perf_counter()
    with tqdm(total=len(prompts), unit="text", desc="texts", disable=None) as bar:  # none where nobody looks on
        samples = guided_sample(generator, tokenizer, discriminator, prompts, script, keep, bar.update)
    writer.write(prompts, samples, time.perf_counter() - start, has_ratios=discriminator is not None)
    return samples


def check_arguments(script: GenerateArguments) -> None:
    """Check what can be checked before anything is looked up."""
    if not script.model:
        raise ValueError("There is no model: give --model, the Hub id or the folder of a generator.")
    given = [name for name in ("prompts", "prompts_file", "dataset_name") if getattr(script, name) is not None]
    if len(given) > 1:
        raise ValueError(f"Prompts come from one place, got {' and '.join(given)}: give one of them.")
    COUNT("num_texts", script.num_texts)
    if script.prompts_file is not None and not _is_standard_input(script):
        files_of(script.prompts_file)
    script.check()


def check_effects(script: GenerateArguments, source: str | None) -> None:
    """Check that nothing is set that needs a discriminator, or for candidates a filter, where there is none."""
    if source is not None:
        return
    names = ["method", "threshold", "discriminator_label"]
    if script.safety_gate_name_or_path is None and script.keep is None:
        names.append("num_candidates")
    defaults = {each.name: each.default for each in fields(script)}
    for name in names:
        if (value := getattr(script, name)) != defaults[name]:
            where = "with --discriminator none" if script.discriminator else f"and {script.model} has none beside it"
            raise ValueError(
                f"{name}={value!r} has no effect without a discriminator, {where}: leave it out, or give "
                "--discriminator, a Hub id or folder."
            )


def discriminator_source(script: GenerateArguments) -> str | None:
    """Return the Hub id or folder of the discriminator that is named or lies beside the generator, if there is one.

    Raises:
        ValueError: If it is none that was trained, whose head would be random.
    """
    if script.discriminator == NONE:
        return None
    source = script.discriminator or _beside(script.model)
    if source is None:
        return None
    if find_adapter_config_file(source) is not None:
        kind = PeftConfig.from_pretrained(source).task_type
        is_trained = kind == "SEQ_CLS"
    else:
        kind = ", ".join(AutoConfig.from_pretrained(source).architectures or ["nothing that says what it is"])
        is_trained = "ForSequenceClassification" in kind
    if not is_trained:
        raise ValueError(
            f"{source} is no trained discriminator, but {kind}: its head would be random. Give the folder that "
            f"training saved it to, such as {source}/{FOLDER}, or --discriminator none for plain sampling."
        )
    return source


def _beside(model: str) -> str | None:
    """Return the folder of the discriminator beside a generator, fetched where the generator is on the Hub.

    Raises:
        ConnectionError: If the Hub does not answer and it is not known here whether there is one.
    """
    for place in PLACES:
        if Path(model).is_dir():
            if any((Path(model) / place / name).is_file() for name in SETTINGS_FILES):
                return str(Path(model) / place)
        elif any(_is_on_hub(model, place, name) for name in SETTINGS_FILES):
            return f"{snapshot_download(model, allow_patterns=[f'{place}/*'])}/{place}"
    return None


def _is_on_hub(model: str, place: str, name: str) -> bool:
    try:
        hf_hub_download(model, name, subfolder=place)
    except RemoteEntryNotFoundError:
        return False
    except Exception as error:  # the Hub does not answer or is not to be asked; its HTTP client has errors of its own
        known = try_to_load_from_cache(model, f"{place}/{name}")
        if isinstance(error, LocalEntryNotFoundError) and known is _CACHED_NO_EXIST:
            return False
        raise ConnectionError(
            f"Whether {model} has a discriminator in {place}/ cannot be told: {error} Try again when the Hub answers, "
            f"or say what to take with --discriminator; {NONE} is plain sampling."
        ) from error
    return True


def load_discriminator(source: str, script: GenerateArguments, device: torch.device) -> Discriminator:
    """Load a discriminator onto the generator's device."""
    label = script.discriminator_label
    return load_guide(source, script, label=label, batch_size=script.batch_size).to(device)


def prompts_of(script: GenerateArguments, tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """Return the prompts that the arguments name, or the start of the sequence.

    Args:
        script ([`GenerateArguments`]): The arguments.
        tokenizer (`PreTrainedTokenizerBase`): The generator's tokenizer.

    Returns:
        `list[str or list[dict]]`: Prompts as [`prepare_dataset`] makes them.

    Raises:
        ValueError: If there is none, or the dataset has no such split or column.
    """
    name = script.prompts_file or script.dataset_name
    if script.prompts is not None:
        rows = _lines(script.prompts)
    elif _is_standard_input(script):
        rows = _lines(sys.stdin)
    elif name is not None:
        data = splits_of(name, script.dataset_config, script.dataset_split)
        rows = split_of(data, name, script.dataset_split, "say with --dataset_split which one has the prompts.")
        if script.prompts_file is not None and kind_of(files_of(name)[0]) == ".txt":
            rows = _lines(rows["text"])
    else:
        return [start_of_sequence(tokenizer)]
    if not len(rows):
        raise ValueError("There is no prompt in what was given: leave it out for texts without a prompt.")
    tokens = script.min_prompt_tokens, script.max_prompt_tokens
    languages = script.source_lang, script.target_lang, script.translation_template
    return list(cast(Dataset, prepare_dataset(rows, tokenizer, tokens, *languages))["prompt"])


def _lines(lines: Any) -> Dataset:
    """Return lines as prompts, but for those that are blank."""
    return Dataset.from_dict({"prompt": [text for line in lines if (text := line.strip("\ufeff\r\n")).strip()]})


def _is_standard_input(script: GenerateArguments) -> bool:
    return script.prompts_file in (STANDARD_INPUT, [STANDARD_INPUT])


def named_filter(name: str | None) -> Filter | None:
    """Return the function that is named as a filter, if one is.

    Raises:
        ValueError: If there is no such function.
    """
    if name is None:
        return None
    function = imported(name, "keep")
    if not callable(function):
        raise ValueError(f"keep names {name!r}, and must name a function: module.function, seen from this folder.")
    return function


def filter_of(gate: SafetyGate | None, keep: Filter | None) -> Filter | None:
    """Return what a gate and a filter let pass, as [`guided_sample`] asks for it, or None without either."""
    if gate is None:
        return keep

    def passes(prompts: list[str], texts: list[str]) -> torch.Tensor:
        safe = ~gate.is_unsafe(prompts, texts)
        return safe if keep is None else safe & torch.as_tensor(keep(prompts, texts), device=safe.device)

    return passes
