"""The code and the commands of a model card: how to load the models that it is of, and to generate with them."""

import json
import shlex
from dataclasses import asdict
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.prompts import Text, added_tokens, as_prompts, plain_text
from ..discriminator import Calibration, Discriminator
from ..discriminator.card import quantisation_lines
from ..markdown import code, fenced


LONGEST_PROMPT = 300  # characters of a prompt that stands in code
CALIBRATED = """The discriminator corrects this generator at generation: it decides which of its texts are kept. It is
calibrated for texts of at most {max_new_tokens} tokens, drawn at temperature {temperature:g}{further}.{previous}

| on {num_texts} held-out texts of each side | |
|---|---|
| AUC, with its 95 % interval; 0.5 where it cannot tell them apart | {auc[0]:.3f} ({auc[1]:.3f} to {auc[2]:.3f}) |
| loss in nats; log 2 = 0.693 where it cannot | {loss:.3f} |
| calibration error, before and after | {uncalibrated_error:.3f}, {error:.3f} |
"""
OF_KEPT = """ Another one
lies in `previous/` of its folder and is asked as well: the generated texts that it has learnt from, and those of the
table, are what that one keeps at {previous_draws:g} draws per text."""
NOT_CALIBRATED = """The discriminator is not calibrated, so that its logit is no log-ratio of real to generated text.
What it can do is choose the most real one of several texts (`best_of_k`). Training with `discriminator_final_steps`
lets it catch up on the final generator and calibrates it; then it corrects the distribution.
"""
BEST_OF_K = {"method": "best_of_k", "num_candidates": 8}


def quick_start(
    generator: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Text,
    source: str,
    sampling: dict[str, Any],
) -> str:
    """Return code that generates with the generator alone, from a prompt of the kind that it was trained on.

    Args:
        generator (`PreTrainedModel` or `PeftModel`): The generator.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        prompt (`str` or `list[dict]`): A prompt of its data.
        source (`str`): Where both models lie, a repository or a folder.
        sampling (`dict`): Further arguments of `generate`.
    """
    has_adapters = isinstance(generator, PeftModel)
    loader = "AutoPeftModelForCausalLM" if has_adapters else "AutoModelForCausalLM"
    imports, before, argument = quantisation_lines(generator)
    names = "AutoTokenizer" if has_adapters else "AutoModelForCausalLM, AutoTokenizer"
    lines = [f"from peft import {loader}"] if has_adapters else []
    lines += [*imports, f"from transformers import {names}", "", *before]
    lines += [
        f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(source)})",
        f"generator = {loader}.from_pretrained({json.dumps(source)}{argument})",
    ]
    prompt = shown_prompt(prompt)
    if isinstance(prompt, str):
        lines.append(f'inputs = tokenizer({json.dumps(prompt)}, return_tensors="pt").to(generator.device)')
        if behind := len(added_tokens(tokenizer)[1]):  # a prompt goes on
            lines.append(f"inputs = {{name: values[:, :-{behind}] for name, values in inputs.items()}}")
    else:
        how = 'add_generation_prompt=True, return_dict=True, return_tensors="pt"'
        lines.append(f"messages = {json.dumps(prompt)}")
        lines.append(f"inputs = tokenizer.apply_chat_template(messages, {how}).to(generator.device)")
    given = ", ".join(f"{name}={value!r}" for name, value in sampling.items())
    lines.append(f"output = generator.generate(**inputs, do_sample=True, {given})")
    lines.append("print(tokenizer.decode(output[0], skip_special_tokens=True))")
    return "\n".join(lines)


def shown_prompt(prompt: Text) -> Text:
    """Return a prompt that can stand in code: a long one is cut, and messages keep the role and the text alone."""
    if isinstance(prompt, str):
        return prompt[:LONGEST_PROMPT]
    return [{"role": one["role"], "content": plain_text([one])[:LONGEST_PROMPT]} for one in prompt]


def guided_sampling(
    generator: PreTrainedModel | PeftModel,
    discriminator: Discriminator,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Text,
    repo_id: str | None,
    output_dir: str,
    sampling: dict[str, Any],
) -> str:
    """Return how to generate with both models, and what the discriminator knows of held-out texts.

    Args:
        generator (`PreTrainedModel` or `PeftModel`): The generator.
        discriminator ([`Discriminator`]): The discriminator.
        tokenizer (`PreTrainedTokenizerBase`): The generator's.
        prompt (`str` or `list[dict]`): A prompt of its data.
        repo_id (`str`, *optional*): The repository of both models.
        output_dir (`str`): Their folder, where there is no repository.
        sampling (`dict`): Settings of sampling in training, for a discriminator that is not calibrated.
    """
    calibration = discriminator.calibration
    prompt = shown_prompt(prompt)
    settings, told = _settings(calibration, sampling)
    flags = {name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in settings.items()}
    if calibration is None and discriminator.model.config.num_labels > 1:
        flags["discriminator_label"] = str(discriminator.model.config.id2label[discriminator.label])
    if isinstance(prompt, str) and as_prompts([prompt], tokenizer) != [""]:  # more than the start of a text
        flags["prompts"] = prompt
    command = ["hf-mgan", "generate", "--model", repo_id or output_dir]
    command += [word for name, value in flags.items() for word in (f"--{name}", value)]
    lines = _guided_lines(generator, discriminator, prompt, repo_id, output_dir, settings)
    return "\n".join([told, fenced(shlex.join(command), "bash"), "", fenced(lines, "python"), ""])


def _settings(calibration: Calibration | None, sampling: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return settings of [`~decoding.DecodingConfig`], and what is said of them."""
    if calibration is None:
        return {**BEST_OF_K, **{name: sampling[name] for name in ("temperature", "max_new_tokens")}}, NOT_CALIBRATED
    settings: dict[str, Any] = {"temperature": calibration.temperature, "max_new_tokens": calibration.max_new_tokens}
    further = ""
    if calibration.generation_kwargs:
        settings["generation_kwargs"] = calibration.generation_kwargs
        further = f" with {code(json.dumps(calibration.generation_kwargs))}"
    values = asdict(calibration)
    previous = "" if calibration.previous_draws is None else OF_KEPT.format(**values)
    return settings, CALIBRATED.format(**values, further=further, previous=previous)


def _guided_lines(
    generator: PreTrainedModel | PeftModel,
    discriminator: Discriminator,
    prompt: Text,
    repo_id: str | None,
    output_dir: str,
    settings: dict[str, Any],
) -> str:
    """Return the code that loads both models and samples with them."""
    imports, before, quantised = quantisation_lines(generator)
    extra = ""  # the discriminator is loaded as it was trained
    if discriminator.calibration is None and discriminator.model.config.num_labels > 1:
        extra += f", label={discriminator.model.config.id2label[discriminator.label]!r}"
    folder = json.dumps(output_dir)
    if repo_id is not None:
        imports.insert(0, "from huggingface_hub import snapshot_download")
        folder = f"snapshot_download({json.dumps(repo_id)})"
    given = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    return "\n".join(
        [
            "from hf_mgan import Discriminator",
            "from hf_mgan.decoding import DecodingConfig, guided_sample",
            *imports,
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f"folder = {folder}",
            *before,
            f"generator = AutoModelForCausalLM.from_pretrained(folder{quantised})  # with its adapters, if any",
            "tokenizer = AutoTokenizer.from_pretrained(folder)",
            f'discriminator = Discriminator.from_pretrained(folder + "/discriminator"{extra})',
            f"prompts = [{json.dumps(prompt)}]  # of the kind that it was trained on",
            f"config = DecodingConfig({given})",
            "print(guided_sample(generator, tokenizer, discriminator, prompts, config).texts)",
        ]
    )
