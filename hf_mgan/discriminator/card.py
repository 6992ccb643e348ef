"""The card of a discriminator, and the code that loads it again.

In: a discriminator, and where it can be loaded from. Out: Markdown with the metadata that the Hub reads, in place of
the blank one that PEFT writes.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id
from peft import PeftModel
from transformers import PreTrainedModel

from ..markdown import escaped, fenced
from ..models import quantisation_of


if TYPE_CHECKING:
    from .discriminator import Discriminator

CARD = """---
{metadata}
---

# Discriminator{of}

A sequence classifier that tells real text from text of {generator}, made with `hf_mgan` from {base}. It is one half of
a GAN (Goodfellow et al. 2014, [1406.2661](https://huggingface.co/papers/1406.2661)): it learnt while the generator
learnt to deceive it{calibrated}.

| label | what it means |
|---|---|
{labels}
## How to load it

{loading}

To generate with both models, see {beside}.

## Limits

It knows the texts of one generator and the real ones that it was trained on. Of texts from elsewhere it says nothing:
it is no detector of machine-written text.
"""


def is_hub_id(name: str) -> bool:
    """Return whether a name is that of a model or dataset on the Hub, as far as can be told without asking."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return bool(name) and not Path(name).exists()


def source_of(model: PreTrainedModel | PeftModel) -> str:
    """Return in Markdown what a model was made from; of a folder here only its name, which says where nothing lies."""
    name = model.config._name_or_path
    if not name:
        return "a model made in code"
    if is_hub_id(name):
        return f"[{escaped(name)}](https://huggingface.co/{name})"
    return f"a folder called {escaped(Path(name).name)}" if Path(name).exists() else escaped(name)


def quantisation_lines(model: PreTrainedModel | PeftModel) -> tuple[list[str], list[str], str]:
    """Return imports, lines and an argument that quantise the model below the adapters as it was in training."""
    quantisation = quantisation_of(model)
    if quantisation is None:
        return [], [], ""
    return (
        ["from transformers import BitsAndBytesConfig"],
        [f"quantization_config = BitsAndBytesConfig.from_dict({quantisation.to_diff_dict()})"],
        ", quantization_config=quantization_config",
    )


def loading_lines(discriminator: "Discriminator", repo_id: str | None, folder: str) -> str:
    """Return the code that loads a discriminator as a classifier.

    It names the folder rather than a `subfolder`: transformers looks for adapters at the root all the same and would
    find the generator's, and PEFT looks for the base model in a subfolder of that name. PEFT saves no configuration,
    so what this discriminator has in place of its base model's is said again, its quantisation included: with another
    one it would be another function.

    Args:
        discriminator ([`Discriminator`]): The discriminator.
        repo_id (`str`, *optional*): A repository with it in `discriminator/`.
        folder (`str`): Its folder, where there is no repository.
    """
    model, extra = discriminator.model, ""
    imports: list[str] = []
    before: list[str] = []
    if isinstance(model, PeftModel):
        loader = "AutoPeftModelForSequenceClassification"
        imports.append(f"from peft import {loader}")
        names = {label: str(model.config.id2label[label]) for label in range(model.config.num_labels)}
        before += [f"id2label = {names!r}", "label2id = {name: label for label, name in id2label.items()}"]
        pad_token_id = discriminator.processing_class.pad_token_id
        extra = f", num_labels={len(names)}, id2label=id2label, label2id=label2id, pad_token_id={pad_token_id}"
        further, lines, argument = quantisation_lines(model)
        imports, before, extra = imports + further, before + lines, extra + argument
    else:
        loader = "AutoModelForSequenceClassification"
        imports.append(f"from transformers import {loader}")
    if repo_id is None:
        before.insert(0, f"folder = {json.dumps(folder)}")
    else:
        imports.insert(0, "from huggingface_hub import snapshot_download")
        download = f'snapshot_download({json.dumps(repo_id)}, allow_patterns="discriminator/*")'
        before.insert(0, f'folder = {download} + "/discriminator"')
    return "\n".join([*imports, "", *before, f"discriminator = {loader}.from_pretrained(folder{extra})"])


def discriminator_card(discriminator: "Discriminator", repo_id: str | None = None) -> str:
    """Return the card of a discriminator.

    Args:
        discriminator ([`Discriminator`]): The discriminator.
        repo_id (`str`, *optional*): A repository with it in `discriminator/`, and its generator at the root.

    Returns:
        `str`: Markdown with metadata.
    """
    model, calibration = discriminator.model, discriminator.calibration
    is_adapter, base = isinstance(model, PeftModel), str(model.config._name_or_path)
    metadata = ModelCardData(
        base_model=base if is_hub_id(base) else None,
        base_model_relation=("adapter" if is_adapter else "finetune") if is_hub_id(base) else None,
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="text-classification",
        tags=["hf-mgan", "gan", "discriminator", *(["lora"] if is_adapter else [])],
    )
    meanings = {discriminator.label: "real text: the higher its logit, the more real; sigmoid(logit) = P(real)"}
    if model.config.num_labels == 2:
        meanings = {discriminator.label: "real text", 1 - discriminator.label: "text of the generator"}
    names = model.config.id2label
    labels = [f"| {escaped(names[at])} | {meanings.get(at, 'another')} |\n" for at in range(model.config.num_labels)]
    calibrated = "" if calibration is None else ", and is calibrated on held-out texts (`calibration.json`)"
    if calibration is not None and calibration.previous_draws is not None:
        calibrated += ". It has learnt from what another one keeps, which lies in `previous/` and belongs to it"
    of = "" if repo_id is None else f" of {escaped(repo_id)}"
    return CARD.format(
        metadata=metadata.to_yaml(),
        of=of,
        generator="a generator" if repo_id is None else f"the generator of {escaped(repo_id)}",
        base=source_of(model),
        calibrated=calibrated,
        labels="".join(labels),
        loading=fenced(loading_lines(discriminator, repo_id, "."), "python"),
        beside="the card of its generator" if repo_id is None else "[the card of the generator](../README.md)",
    )
