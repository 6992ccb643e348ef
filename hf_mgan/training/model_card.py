"""The model card: TRL's own, with the tags and the paper of the game and a section on its second player."""

import json
from pathlib import Path

from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import BitsAndBytesConfig

from ..discriminator import Discriminator


TAG_NAMES = ["trl", "hf-mgan", "gan"]
PAPER = {
    "title": "Generative Adversarial Networks",
    "id": "1406.2661",
    "citation": (
        "@inproceedings{goodfellow2014generative,\n"
        "    title     = {{Generative Adversarial Nets}},\n"
        "    author    = {Goodfellow, Ian and Pouget-Abadie, Jean and Mirza, Mehdi and Xu, Bing and "
        "Warde-Farley, David and Ozair, Sherjil and Courville, Aaron and Bengio, Yoshua},\n"
        "    booktitle = {Advances in Neural Information Processing Systems},\n"
        "    year      = {2014}\n"
        "}"
    ),
}
SECTION = """## The discriminator

This generator was trained adversarially with `hf_mgan` against a discriminator, a sequence
classifier that learnt at the same time to tell its completions from real text and paid its reward. The discriminator
is saved beside it, in `discriminator/`.

| | |
|---|---|
| discriminator | {discriminator} |
| its loss | `{loss}` |
| the generator's reward | `{reward}` |
{figures}
```python
{load}
```

"""
FIGURES = {
    "discriminator/real_prob": "D(x), mean probability it gives real text",
    "discriminator/fake_prob": "D(G(s)), mean probability it gives generated text",
    "discriminator/accuracy": "its accuracy on text it was not yet trained on",
    "discriminator/value": "V(D, G) in nats; -log 4 = -1.386 where it cannot tell",
}
ANCHOR = "## Training procedure"


def extend_model_card(
    path: Path,
    discriminator: Discriminator,
    loss: str,
    reward: str,
    metrics: dict[str, float],
    hub_model_id: str | None,
    output_dir: str,
) -> None:
    """Add the section on the discriminator to a card that TRL wrote.

    Args:
        path (`Path`): The card, `README.md`.
        discriminator ([`Discriminator`]): The discriminator.
        loss (`str`): Name of its loss.
        reward (`str`): Name of the reward shape.
        metrics (`dict[str, float]`): Last logged metrics; those of the game are shown.
        hub_model_id (`str`, *optional*): Where the players are pushed to.
        output_dir (`str`): Where they are saved if they are not pushed.
    """
    card = ModelCard.load(path)
    rows = "".join(f"| {meaning} | {metrics[name]:.3f} |\n" for name, meaning in FIGURES.items() if name in metrics)
    section = SECTION.format(
        discriminator=discriminator.model.config._name_or_path or "a model made in code",
        loss=loss,
        reward=reward,
        figures=rows,
        load=_loading_lines(discriminator, hub_model_id, output_dir),
    )
    card.text = card.text.replace(ANCHOR, section + ANCHOR, 1)
    card.save(path)


def _loading_lines(discriminator: Discriminator, hub_model_id: str | None, output_dir: str) -> str:
    """Return the code that loads the discriminator.

    It names the folder rather than a `subfolder`: transformers looks for adapters at the root all the same and would
    find the generator's, and PEFT looks for the base model in a subfolder of that name. PEFT saves no configuration,
    so what this discriminator has in place of its base model's is said again, its quantisation included: with another
    one it would be another function.
    """
    model, imports, before, extra = discriminator.model, [], [], ""
    if isinstance(model, PeftModel):
        loader = "AutoPeftModelForSequenceClassification"
        imports.append(f"from peft import {loader}")
        extra = f", num_labels={model.config.num_labels}, pad_token_id={discriminator.processing_class.pad_token_id}"
        quantisation = getattr(model.config, "quantization_config", None)
        if isinstance(quantisation, BitsAndBytesConfig):
            imports.append("from transformers import BitsAndBytesConfig")
            before.append(f"quantization_config = BitsAndBytesConfig.from_dict({quantisation.to_diff_dict()})")
            extra += ", quantization_config=quantization_config"
    else:
        loader = "AutoModelForSequenceClassification"
        imports.append(f"from transformers import {loader}")
    if hub_model_id is None:
        before.append(f"folder = {json.dumps(output_dir)}")
    else:
        imports.insert(0, "from huggingface_hub import snapshot_download")
        before.append(f'folder = snapshot_download({json.dumps(hub_model_id)}, allow_patterns="discriminator/*")')
    last = f'discriminator = {loader}.from_pretrained(folder + "/discriminator"{extra})'
    return "\n".join([*imports, "", *before, last])
