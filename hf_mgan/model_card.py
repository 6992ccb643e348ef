"""The model card: TRL's own, with a section on the game and on its second player."""

import json
from pathlib import Path

from huggingface_hub import ModelCard


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
    path: Path, model_name: str, discriminator: str, loss: str, reward: str, adapters: bool, metrics: dict[str, float]
) -> None:
    """Add the section on the discriminator to a card that TRL wrote.

    Args:
        path (`Path`): The card, `README.md`.
        model_name (`str`): Hub id or folder that the lines of code name.
        discriminator (`str`): Id or folder the discriminator started from.
        loss (`str`): Name of the discriminator's loss.
        reward (`str`): Name of the reward shape.
        adapters (`bool`): Whether the discriminator is saved as adapters, which PEFT loads.
        metrics (`dict[str, float]`): Last logged metrics; those of the game are shown.
    """
    card = ModelCard.load(path)
    rows = [f"| {meaning} | {metrics[name]:.3f} |" for name, meaning in FIGURES.items() if name in metrics]
    loader = "AutoPeftModelForSequenceClassification" if adapters else "AutoModelForSequenceClassification"
    source = "peft" if adapters else "transformers"
    extra = ", num_labels=1" if adapters else ""
    load = (
        f"from {source} import {loader}\n\n"
        f'discriminator = {loader}.from_pretrained({json.dumps(model_name)}, subfolder="discriminator"{extra})'
    )
    section = SECTION.format(
        discriminator=discriminator, loss=loss, reward=reward, figures="\n".join(rows) + "\n" * bool(rows), load=load
    )
    card.text = card.text.replace(ANCHOR, section + ANCHOR, 1)
    card.save(path)
