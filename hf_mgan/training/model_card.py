"""The model card of both models: what they are, how to use them, and how they were made.

In: what a trainer knows of its run. Out: Markdown with the metadata that the Hub reads. TRL's card is written for a
chat model with weights of its own; of it remain the tags and the badges of trackers.
"""

import re
from collections.abc import Sequence
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import ModelCard, ModelCardData
from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel

from ..config import AdversarialConfig
from ..discriminator.card import is_hub_id, loading_lines, source_of
from ..markdown import code, escaped, fenced
from ..models import quantisation_of
from .card_code import guided_sampling, quick_start
from .card_metrics import OF_DISCRIMINATOR, curves, eval_results, evaluation_table, last_metrics
from .run_facts import RunFacts


CARD_FILE = "README.md"
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
CARD = """---
{metadata}
---

# {name}

{what} trained adversarially with `hf_mgan`: against a discriminator, a sequence classifier that learnt at the same
time to tell its texts from real ones, and gave its reward. **Both models are here**: the generator at the root, the
discriminator in `discriminator/`.
{badges}
## Quick start

{quick_start}
{adapters}
## The discriminator

| | |
|---|---|
| discriminator | {discriminator} |
| its loss | `{loss}` |
| the generator's reward | `{reward}` |
{metrics}
{load}

### Sampling with both models

{sampling}
{sections}
## Limits

{limits}

### Framework versions

{versions}

## Citations

```bibtex
{paper}

{trl}
```
"""
TRL = (
    "@software{vonwerra2020trl,\n"
    "    title   = {{TRL: Transformers Reinforcement Learning}},\n"
    "    author  = {von Werra, Leandro and Belkada, Younes and Tunstall, Lewis and Beeching, Edward and Thrush, "
    "Tristan and Lambert, Nathan and Huang, Shengyi and Rasul, Kashif and Gallou\u00e9dec, Quentin},\n"
    "    license = {Apache-2.0},\n"
    "    url     = {https://github.com/huggingface/trl},\n"
    "    year    = {2020}\n"
    "}"
)
LIMITS = [
    "The generator writes what looks like its training data to one discriminator, and knows no more than its base "
    "model and these data; nothing checks what it says.",
    "A discriminator can be deceived: rewards and D(G(s)) of this run are no measure of quality. An evaluation by "
    "something that it was not trained on is (`hf-mgan evaluate`).",
    "The data and the base models hand on their biases and their licences. Name a licence before you share this "
    "repository.",
]
LONGEST_SAMPLE = 1000  # characters
HYPERPARAMETERS = [
    *("learning_rate", "discriminator_learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("num_generations", "num_iterations", "max_completion_length", "temperature", "top_p", "top_k", "beta"),
    *("loss_type", "scale_rewards", "discriminator_weight", "discriminator_steps", "discriminator_warmup_steps"),
    *("discriminator_final_steps", "discriminator_replay_fraction", "discriminator_regularization"),
    *("discriminator_update_gating", "real_text_coef", "min_prompt_tokens", "max_prompt_tokens", "optim"),
    *("lr_scheduler_type", "seed", "bf16", "fp16"),
]
PACKAGES = ("hf_mgan", "trl", "transformers", "torch", "datasets", "tokenizers", "peft", "bitsandbytes")


def may_be_replaced(path: Path) -> bool:
    """Return whether a card is none of the user's: one of ours, the blank one of PEFT, or none at all."""
    if not path.exists():
        return True
    card = ModelCard.load(path, ignore_metadata_errors=True)
    return "hf-mgan" in (card.data.tags or []) or "[More Information Needed]" in card.text


def model_card(
    run: RunFacts,
    name: str | None = None,
    datasets: str | Sequence[str] | None = None,
    tags: Sequence[str] = (),
    of_trl: str = "",
) -> str:
    """Return the card.

    Args:
        run ([`RunFacts`]): What it tells.
        name (`str`, *optional*): What the model is called; by default as its repository or folder.
        datasets (`str` or `Sequence[str]`, *optional*): What the data are called; ids of the Hub become metadata.
        tags (`Sequence[str]`, *optional*): Further tags.
        of_trl (`str`, *optional*): The text of TRL's card, for the badges of trackers.

    Returns:
        `str`: Markdown with metadata.
    """
    name = name or run.name
    datasets = [datasets] if isinstance(datasets, str) else list(datasets or [])
    source, sampling = run.repo_id or run.args.output_dir, sampling_of(run.args)
    metrics = last_metrics(run.log)
    rows = "".join(f"| {OF_DISCRIMINATOR[key]} | {value:.3f} |\n" for key, value in metrics.items())
    badges = "".join(f"\n{line}\n" for line in re.findall(r"\[<img .*?\]\(.*?\)", of_trl))
    sampler = guided_sampling(
        run.generator, run.discriminator, run.tokenizer, run.prompt, run.repo_id, run.args.output_dir, sampling
    )
    return CARD.format(
        metadata=metadata_of(run, name, datasets, tags).to_yaml(),
        name=escaped(name),
        what=_what(run.generator, datasets),
        badges=badges,
        quick_start=fenced(quick_start(run.generator, run.tokenizer, run.prompt, source, sampling), "python"),
        adapters=_on_a_folder(run.generator),
        discriminator=_described(run.discriminator.model),
        loss=run.args.discriminator_loss,
        reward=run.args.discriminator_reward,
        metrics=rows,
        load=fenced(loading_lines(run.discriminator, run.repo_id, f"{run.args.output_dir}/discriminator"), "python"),
        sampling=sampler,
        sections="".join(f"\n## {title}\n\n{text}" for title, text in _sections(run, datasets).items() if text),
        limits="".join(f"- {limit}\n" for limit in LIMITS).rstrip(),
        versions=_versions(),
        paper=PAPER["citation"],
        trl=TRL,
    )


def metadata_of(run: RunFacts, name: str, datasets: Sequence[str], tags: Sequence[str]) -> ModelCardData:
    """Return what the Hub reads of a card; only ids of the Hub are among it.

    The base model of the discriminator stands beside that of the generator, and the relation is that of the generator,
    since the Hub would take a model with several bases for a merge.
    """
    bases = [str(model.config._name_or_path) for model in (run.generator, run.discriminator.model)]
    bases = list(dict.fromkeys(base for base in bases if is_hub_id(base)))
    has_adapters = isinstance(run.generator, PeftModel)
    on_hub = [dataset for dataset in datasets if is_hub_id(dataset)]
    results = eval_results(run.log, on_hub)
    relation = "adapter" if has_adapters else "finetune"
    return ModelCardData(
        base_model=bases[0] if len(bases) == 1 else bases or None,
        base_model_relation=relation if bases else None,
        datasets=on_hub or None,
        library_name="peft" if has_adapters else "transformers",
        pipeline_tag="text-generation",
        tags=list(dict.fromkeys(["generated_from_trainer", *TAG_NAMES, *(["lora"] if has_adapters else []), *tags])),
        model_name=name if results else None,
        eval_results=results,
    )


def sampling_of(args: AdversarialConfig) -> dict[str, Any]:
    """Return the arguments of `generate` with which the generator was sampled in training."""
    given = {"temperature": args.temperature, "top_p": args.top_p, "top_k": args.top_k or 0}
    return {"max_new_tokens": args.max_completion_length, **given}


def _what(generator: PreTrainedModel | PeftModel, datasets: Sequence[str]) -> str:
    kind = "Adapters for" if isinstance(generator, PeftModel) else "A fine-tuned version of"
    on = f" on {_linked(datasets)}," if datasets else ","
    return f"{kind} {_described(generator)}{on}"


def _described(model: PreTrainedModel | PeftModel) -> str:
    """Return what a model was made from, and in which form it was trained."""
    forms = [_adapters(model)] if isinstance(model, PeftModel) else []
    if (quantisation := quantisation_of(model)) is not None:
        forms.append("its base in 4 bits" if quantisation.load_in_4bit else "its base in 8 bits")
    return source_of(model) + (f" ({', '.join(forms)})" if forms else "")


def _adapters(model: PeftModel) -> str:
    config = model.active_peft_config
    if not isinstance(config, LoraConfig):
        return "adapters"
    return f"LoRA, r = {config.r}, alpha = {config.lora_alpha}"


def _linked(datasets: Sequence[str]) -> str:
    links = [
        f"[{escaped(one)}](https://huggingface.co/datasets/{quote(one)})" if is_hub_id(one) else escaped(one)
        for one in datasets
    ]
    return ", ".join(links)


def _on_a_folder(generator: PreTrainedModel | PeftModel) -> str:
    """Return a warning where adapters need a model that nobody else has."""
    base = str(generator.config._name_or_path)
    if not isinstance(generator, PeftModel) or is_hub_id(base):
        return ""
    return (
        "\n> The adapters belong to a model that was loaded from a folder, and it is not in this repository. Whoever "
        "loads them needs it in the same place; push that model too, and name it in `adapter_config.json`.\n"
    )


def _sections(run: RunFacts, datasets: Sequence[str]) -> dict[str, str]:
    """Return the sections between use and limits, "" for one that has nothing to say."""
    return {
        "Samples": _samples(run),
        "Evaluation": evaluation_table(run.log),
        "Training procedure": _training(run, datasets),
        "Safety": run.safety,
    }


def _samples(run: RunFacts) -> str:
    if not run.samples:
        return ""
    shown = []
    for prompt, completion in run.samples:
        before = f"Prompt:\n\n{fenced(prompt[:LONGEST_SAMPLE], 'text')}\n\nCompletion:\n\n" if prompt else ""
        shown.append(f"{before}{fenced(completion[:LONGEST_SAMPLE] or '(nothing)', 'text')}\n")
    return (
        f"The first {len(shown)} of the last batch that the generator wrote in this run, as they came, at most "
        f"{LONGEST_SAMPLE} characters of each.\n\n" + "\n".join(shown)
    )


def _training(run: RunFacts, datasets: Sequence[str]) -> str:
    args = run.args
    data = _linked(datasets) if datasets else "not named"
    rows = "a stream" if run.num_rows is None else f"{run.num_rows:,} rows"
    prompts = "prompts and answers in a chat template" if not isinstance(run.prompt, str) else "plain text"
    objective = (
        "The objective is min over G and max over D of V(D, G) = E[log D(x)] + E[log(1 - D(G(s)))], where x is real "
        "text and s is what G starts from ([1406.2661](https://huggingface.co/papers/1406.2661)). The discriminator "
        f"descends by the gradient of its loss `{args.discriminator_loss}`, the generator by policy gradient (TRL's "
        f"GRPO), with the reward `{args.discriminator_reward}` of the discriminator's logit, weight "
        f"{args.discriminator_weight:g}"
    )
    further = "".join(f", and {code(name)}, weight {weight:g}" for name, weight in run.rewards.items())
    table = curves(run.log)
    values = [getattr(args, name) for name in HYPERPARAMETERS]
    settings = zip(
        HYPERPARAMETERS, [value.value if isinstance(value, Enum) else value for value in values], strict=True
    )
    told = [f"| {name} | {code(str(value))} |\n" for name, value in settings if value not in (None, "", {})]
    head = f"| steps of the generator | {run.steps:,} |\n| processes | {run.processes} |\n"
    return (
        f"{objective}{further}.\n\n### Data\n\n{data}: {rows}, {prompts}.\n\n"
        f"### Hyperparameters\n\n| | |\n|---|---|\n{head}{''.join(told)}"
        + (f"\n### Curves\n\n{table}" if table else "")
    )


def _versions() -> str:
    lines = []
    for package in PACKAGES:
        try:
            lines.append(f"- {package}: {version(package)}")
        except PackageNotFoundError:  # an extra
            continue
    return "\n".join(lines)
