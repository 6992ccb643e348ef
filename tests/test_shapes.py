"""Every shape of data, each trained for three steps: map-style and streamed, in one process and in two.

`python -m tests.test_shapes` writes the table.
"""

import itertools
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
from datasets import Dataset, IterableDataset
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from hf_mgan import AdversarialConfig, AdversarialTrainer

from .kinds_of_tokenizers import SENTENCES, qwen


STEPS, ROWS, LIMIT = 3, 24, 8
SYSTEM = {"role": "system", "content": "Be short."}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


# A tool as transformers' templates take it: a column of the rows, which reward functions are given.
TOOL = [{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {}}}]
ANSWERS = ["The dog.", "A small cat", "\u72d7\u3002", "I do \U0001f680"]
ROWS_OF = {
    "text": lambda n: {"text": SENTENCES[n % len(SENTENCES)]},
    "text, beginnings as prompts": lambda n: {"text": SENTENCES[n % len(SENTENCES)]},
    "prompt + completion": lambda n: {"prompt": f"Who is number {n}?", "completion": f" {ANSWERS[n % 4]}"},
    "prompt + completion, messages": lambda n: {
        "prompt": [user(f"Who {n}?")],
        "completion": [assistant(ANSWERS[n % 4])],
    },
    "several references": lambda n: {
        "prompt": f"Who is number {n}?",
        "completion": [f" {text}" for text in ANSWERS[:2]],
    },
    "several references, messages": lambda n: {
        "prompt": [user(f"Who {n}?")],
        "completion": [[assistant(text)] for text in ANSWERS[:2]],
    },
    "messages": lambda n: {"messages": [user(f"Who {n}?"), assistant(ANSWERS[n % 4])]},
    "messages, system and many turns": lambda n: {
        "messages": [SYSTEM, user("Hello"), assistant("Hi"), user(f"Who {n}?"), assistant(ANSWERS[n % 4])]
    },
    "messages with tools": lambda n: {"messages": [user(f"Who {n}?"), assistant(ANSWERS[n % 4])], "tools": TOOL},
    "translation": lambda n: {"translation": {"en": f"{ANSWERS[n % 4]} {n}", "fr": SENTENCES[5]}},
}
UNPAIRED = ("text", "prompt + completion", "messages", "translation")
SETTINGS = {"text, beginnings as prompts": {"min_prompt_tokens": 1, "max_prompt_tokens": 4}}


def made(rows, is_streamed):
    return IterableDataset.from_generator(lambda: iter(rows)) if is_streamed else Dataset.from_list(rows)


def models():
    tokenizer = qwen()
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tokenizer), "n_embd": 16, "n_layer": 1, "n_head": 2, "initializer_range": 0.2}
    special = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    generator = GPT2LMHeadModel(GPT2Config(**sizes, **special, n_positions=160))
    return (
        generator,
        GPT2ForSequenceClassification(GPT2Config(**sizes, **special, n_positions=160, num_labels=1)),
        tokenizer,
    )


def trained(folder, shape, is_streamed, loss, with_real_dataset=False):
    """Train for three steps, and return how many were made and how far both models moved."""
    rows = [ROWS_OF[shape](number) for number in range(ROWS)]
    generator, classifier, tokenizer = models()
    given = {}
    if with_real_dataset:
        given["real_dataset"] = made([{"text": text} for text in SENTENCES], is_streamed)
    before = [[parameter.clone() for parameter in model.parameters()] for model in (generator, classifier)]
    trainer = AdversarialTrainer(
        generator,
        args=AdversarialConfig(
            str(folder),
            max_steps=STEPS,
            per_device_train_batch_size=4,
            num_generations=2,
            max_completion_length=LIMIT,
            learning_rate=1e-2,
            discriminator_learning_rate=1e-2,
            discriminator_warmup_steps=1,
            discriminator_loss=loss,
            eval_strategy="steps",
            eval_steps=STEPS,
            per_device_eval_batch_size=2,
            num_generations_eval=1,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            **({"accelerator_config": {"dispatch_batches": False}} if is_streamed else {}),
            **SETTINGS.get(shape, {}),
        ),
        train_dataset=made(rows, is_streamed),
        eval_dataset=made(rows[:4], is_streamed),
        processing_class=tokenizer,
        discriminator=classifier,
        discriminator_processing_class=tokenizer,
        **given,
    )
    shown = []
    update = trainer.discriminator.update

    def watched(*args, **kwargs):
        shown.extend(args[2])
        return update(*args, **kwargs)

    trainer.discriminator.update = watched
    trainer.train()
    losses = [entry["discriminator/loss"] for entry in trainer.state.log_history if "discriminator/loss" in entry]
    evaluated = [entry for entry in trainer.state.log_history if "eval_discriminator/loss" in entry]
    assert "\ufffd" not in "".join(shown)
    moved = [
        max((old - new.detach()).abs().max().item() for old, new in zip(olds, model.parameters(), strict=True))
        for olds, model in zip(before, (trainer.model, trainer.discriminator.model), strict=True)
    ]
    return {
        "steps": trainer.state.global_step,
        "losses": len(losses),
        "evaluated": len(evaluated),
        "moved": min(moved),
    }


CELLS = [
    *((shape, streamed, "bradley_terry", False) for shape in ROWS_OF for streamed in (False, True)),
    *((shape, streamed, "bce", False) for shape in ROWS_OF for streamed in (False, True)),
    *((shape, streamed, "bce", True) for shape in UNPAIRED for streamed in (False, True)),
]


def check(result):
    assert result["steps"] == STEPS
    assert result["losses"] >= STEPS
    assert result["evaluated"] == 1
    assert result["moved"] > 1e-4


def name(shape, streamed, loss, with_real):
    return f"{shape} | {'streamed' if streamed else 'map-style'} | {loss}{', real_dataset' if with_real else ''}"


# By default each shape once, in turn map-style and streamed, paired and not; all of them where there is time.
FEW = [cell for number, shape in enumerate(ROWS_OF) for cell in CELLS if cell[0] == shape][::3]


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell in FEW], ids=lambda cell: name(*cell))
def test_shape_is_trained(tmp_path, cell):
    check(trained(tmp_path, *cell))


@pytest.mark.slow
@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell not in FEW], ids=lambda cell: name(*cell))
def test_every_shape_is_trained(tmp_path, cell):
    check(trained(tmp_path, *cell))


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from tests.test_shapes import write
write({folder!r})
"""


def write(folder):
    """Train every cell in this process, or as one of two, and write what came of it."""
    warnings.simplefilter("ignore")
    rank = os.environ.get("RANK", "0")
    found = {name(*cell): trained(Path(folder) / "out", *cell) for cell in CELLS}
    (Path(folder) / f"cells_{rank}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_every_shape_is_trained_by_two_processes(tmp_path):
    from .test_distributed import run_on_two_processes

    run_on_two_processes(SCRIPT, tmp_path)
    for rank in (0, 1):
        found = json.loads((tmp_path / f"cells_{rank}.json").read_text())
        assert set(found) == {name(*cell) for cell in CELLS}
        for result in found.values():
            check(result)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write(folder)
        cells = json.loads((Path(folder) / "cells_0.json").read_text())
    for key, result in itertools.chain(cells.items()):
        sys.stdout.write(f"| {key} | {result['steps']} steps, moved by {result['moved']:.3f} |\n")
