"""The model card: TRL's own, with tags and paper of adversarial training, and a section on the discriminator."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import BitsAndBytesConfig

from ..config import AdversarialConfig
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
classifier that learnt at the same time to tell its completions from real text, and gave its reward. The discriminator
is saved beside it, in `discriminator/`.

| | |
|---|---|
| discriminator | {discriminator} |
| its loss | `{loss}` |
| the generator's reward | `{reward}` |
{metrics}
```python
{load}
```

"""
SHOWN = {
    "discriminator/real_prob": "D(x), mean probability it gives real text",
    "discriminator/fake_prob": "D(G(s)), mean probability it gives generated text",
    "discriminator/accuracy": "its accuracy on text it was not yet trained on",
    "discriminator/value": "V(D, G) in nats; -log 4 = -1.386 where it cannot tell",
}
ANCHOR = "## Training procedure"


def extend_model_card(
    args: AdversarialConfig, discriminator: Discriminator, log_history: list[dict[str, Any]], hub_model_id: str | None
) -> None:
    """Add the section on the discriminator to the card that TRL wrote to `output_dir`.

    Args:
        args ([`AdversarialConfig`]): The trainer's settings.
        discriminator ([`Discriminator`]): The discriminator.
        log_history (`list[dict]`): The trainer's log; the last metrics of the discriminator are shown.
        hub_model_id (`str`, *optional*): Where both models are pushed to.
    """
    path = Path(args.output_dir) / "README.md"
    logged = [entry for entry in log_history if "discriminator/value" in entry]
    metrics = logged[-1] if logged else {}
    card = ModelCard.load(path)
    rows = "".join(f"| {meaning} | {metrics[name]:.3f} |\n" for name, meaning in SHOWN.items() if name in metrics)
    section = SECTION.format(
        discriminator=discriminator.model.config._name_or_path or "a model made in code",
        loss=args.discriminator_loss,
        reward=args.discriminator_reward,
        metrics=rows,
        load=_loading_lines(discriminator, hub_model_id, args.output_dir),
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
