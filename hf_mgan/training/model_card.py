"""The model card: TRL's own, with tags and paper of adversarial training, and a section on the discriminator."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import BitsAndBytesConfig

from ..config import AdversarialConfig
from ..discriminator import Calibration, Discriminator
from ..markdown import code, escaped, fenced


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
{load}

{sampling}
"""
CALIBRATED = """### Sampling with both models

The discriminator corrects this generator at generation: it decides which of its texts are kept. It is calibrated for
texts of at most {max_new_tokens} tokens, drawn at temperature {temperature:g}{further}.

| on {num_texts} held-out texts of each side | |
|---|---|
| AUC, with its 95 % interval; 0.5 where it cannot tell them apart | {auc[0]:.3f} ({auc[1]:.3f} to {auc[2]:.3f}) |
| loss in nats; log 2 = 0.693 where it cannot | {loss:.3f} |
| calibration error, before and after | {uncalibrated_error:.3f}, {error:.3f} |

{command}

{sample}
"""
NOT_CALIBRATED = """### Sampling with both models

The discriminator is not calibrated, so that its logit is no log-ratio of real to generated text. Training with
`discriminator_final_steps` lets it catch up on the final generator and calibrates it; then `hf-mgan generate` samples
with both models.
"""
SHOWN = {
    "discriminator/real_prob": "D(x), mean probability it gives real text",
    "discriminator/fake_prob": "D(G(s)), mean probability it gives generated text",
    "discriminator/accuracy": "its accuracy on text it was not yet trained on",
    "discriminator/value": "V(D, G) in nats; -log 4 = -1.386 where it cannot tell",
}
ANCHOR = "## Training procedure\n"


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
    card.text = _with_names_escaped(card, hub_model_id)
    rows = "".join(f"| {meaning} | {metrics[name]:.3f} |\n" for name, meaning in SHOWN.items() if name in metrics)
    section = SECTION.format(
        discriminator=escaped(discriminator.model.config._name_or_path or "a model made in code"),
        loss=args.discriminator_loss,
        reward=args.discriminator_reward,
        metrics=rows,
        load=fenced(_loading_lines(discriminator, hub_model_id, args.output_dir), "python"),
        sampling=_sampling_section(discriminator, hub_model_id, args.output_dir),
    )
    card.text = card.text.replace(f"\n{ANCHOR}", f"\n{section}{ANCHOR}", 1)
    card.save(path)


def _with_names_escaped(card: ModelCard, hub_model_id: str | None) -> str:
    """Return the text of TRL's card, whose template puts the names of models and dataset in as they are."""
    data, text = card.data.to_dict(), card.text
    name, base, dataset = (data.get(key) for key in ("model_name", "base_model", "datasets"))
    changes = {f"# Model Card for {name}": f"# Model Card for {escaped(str(name))}"}
    for linked, folder in ((base, ""), (dataset, "datasets/")):
        link = f"https://huggingface.co/{folder}"
        changes[f"[{linked}]({link}{linked})"] = f"[{escaped(str(linked))}]({link}{quote(str(linked))})"
    changes[f'model="{hub_model_id}"'] = f"model={json.dumps(str(hub_model_id))}"
    for written, right in changes.items():
        text = text.replace(written, right, 1)
    return text


def _sampling_section(discriminator: Discriminator, hub_model_id: str | None, output_dir: str) -> str:
    """Return how to sample with both models, and what the discriminator knows of held-out texts."""
    calibration = discriminator.calibration
    if calibration is None:
        return NOT_CALIBRATED
    further, flag = "", ""
    if calibration.generation_kwargs:
        given = json.dumps(calibration.generation_kwargs)
        further, flag = f" with {code(given)}", f" --generation_kwargs {shlex.quote(given)}"
    command = (
        f"hf-mgan generate --model {shlex.quote(hub_model_id or output_dir)} "
        f"--temperature {calibration.temperature:g} --max_new_tokens {calibration.max_new_tokens}{flag}"
    )
    sample = _sampling_lines(discriminator, calibration, hub_model_id, output_dir)
    blocks = {"command": fenced(command, "bash"), "sample": fenced(sample, "python")}
    return CALIBRATED.format(**asdict(calibration), further=further, **blocks)


def _sampling_lines(
    discriminator: Discriminator, calibration: Calibration, hub_model_id: str | None, output_dir: str
) -> str:
    """Return the code that loads both models and samples with them."""
    imports, before, extra = _quantisation_lines(discriminator)
    folder = json.dumps(output_dir)
    if hub_model_id is not None:
        imports.insert(0, "from huggingface_hub import snapshot_download")
        folder = f"snapshot_download({json.dumps(hub_model_id)})"
    settings = f"temperature={calibration.temperature:g}, max_new_tokens={calibration.max_new_tokens}"
    if calibration.generation_kwargs:
        settings += f", generation_kwargs={calibration.generation_kwargs!r}"
    return "\n".join(
        [
            "from hf_mgan import Discriminator",
            "from hf_mgan.decoding import DecodingConfig, guided_sample",
            *imports,
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f"folder = {folder}",
            *before,
            "generator = AutoModelForCausalLM.from_pretrained(folder)  # with its adapters, if it has some",
            "tokenizer = AutoTokenizer.from_pretrained(folder)",
            f'discriminator = Discriminator.from_pretrained(folder + "/discriminator"{extra})',
            'prompts = ["Once upon a time"]  # of the kind that it was trained on',
            f"config = DecodingConfig({settings})",
            "print(guided_sample(generator, tokenizer, discriminator, prompts, config).texts)",
        ]
    )


def _quantisation_lines(discriminator: Discriminator) -> tuple[list[str], list[str], str]:
    """Return imports, lines and an argument that quantise the model below the adapters as it was in training."""
    quantisation = getattr(discriminator.model.config, "quantization_config", None)
    if not isinstance(discriminator.model, PeftModel) or not isinstance(quantisation, BitsAndBytesConfig):
        return [], [], ""
    return (
        ["from transformers import BitsAndBytesConfig"],
        [f"quantization_config = BitsAndBytesConfig.from_dict({quantisation.to_diff_dict()})"],
        ", quantization_config=quantization_config",
    )


def _loading_lines(discriminator: Discriminator, hub_model_id: str | None, output_dir: str) -> str:
    """Return the code that loads the discriminator.

    It names the folder rather than a `subfolder`: transformers looks for adapters at the root all the same and would
    find the generator's, and PEFT looks for the base model in a subfolder of that name. PEFT saves no configuration,
    so what this discriminator has in place of its base model's is said again, its quantisation included: with another
    one it would be another function.
    """
    model, extra = discriminator.model, ""
    imports: list[str] = []
    before: list[str] = []
    if isinstance(model, PeftModel):
        loader = "AutoPeftModelForSequenceClassification"
        imports.append(f"from peft import {loader}")
        extra = f", num_labels={model.config.num_labels}, pad_token_id={discriminator.processing_class.pad_token_id}"
        further, before, argument = _quantisation_lines(discriminator)
        imports += further
        extra += argument
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
