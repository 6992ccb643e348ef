"""Curves of a healthy run and of runs that fail, each in its own way, on the demo's language at a small size.

    python -m benchmarks.curves                              # all runs, three minutes of one core
    python -m benchmarks.curves --runs healthy --models runs/curves    # one run; initial models are kept
    python -m benchmarks.curves --draw                       # the pictures alone, from the committed results

Every run takes the demo's settings, with one thing changed (`conditions`). The results go to
benchmarks/results/curves.jsonl, one run per line, and from there to docs/_static/curves_NAME.svg.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import transformers
from datasets import Dataset
from transformers.trainer_callback import PrinterCallback

from hf_mgan import AdversarialTrainer, Watchdog
from hf_mgan.demo.language import Language
from hf_mgan.demo.models import adapters, make_tokenizer, train_encoder, train_generator
from hf_mgan.demo.parts import adversarial_config
from hf_mgan.demo.run import DemoArguments

from ..sweep import PAGES, RESULTS, read_lines, rounded, silence, write_lines
from ..testbed import versions
from ..warmup import after_warmup, freeze
from .conditions import CONDITIONS, CURVES
from .drawing import draw


MODULE = "benchmarks.curves"
COMMITTED = RESULTS / "curves.jsonl"
PICTURES = PAGES / "_static"
UNDER_TRAINED = 20  # steps of maximum likelihood
SIZES = {
    "sentences": 20_000,
    "batch_size": 64,
    "likelihood_steps": 400,
    "encoder_steps": 300,
    "warmup_steps": 60,
    "steps": 200,
}
LOGGING_STEPS = 4


def make_models(sizes: DemoArguments, sentences: list[str], folder: Path) -> None:
    """Make the generators and the encoder that the runs start from, those that are not there yet."""
    language, seed, nothing = Language(), sizes.seeds[0], transformers.TrainerCallback()
    tokenizer = make_tokenizer(language.words, adds_ends=False)
    for name, steps in {"supervised": sizes.likelihood_steps, "under_trained": UNDER_TRAINED}.items():
        if not (folder / name / "config.json").exists():
            train_generator(sentences, tokenizer, folder / name, steps, sizes.batch_size, seed, nothing)
    if not (folder / "encoder" / "config.json").exists():
        encoders = make_tokenizer(language.words, adds_ends=True)
        train_encoder(sentences, encoders, folder / "encoder", sizes.encoder_steps, sizes.batch_size, seed, nothing)


def train(name: str, sizes: DemoArguments, sentences: list[str], models: Path) -> dict[str, Any]:
    """Train under a condition and return its curves, and what the watchdog said."""
    condition = CONDITIONS[name]
    with tempfile.TemporaryDirectory() as folder:
        config = adversarial_config(sizes, Path(folder), sizes.seeds[0])
        for key, value in {"logging_steps": LOGGING_STEPS, **condition.settings}.items():
            setattr(config, key, value)
        watchdog = Watchdog(patience=5)
        trainer = AdversarialTrainer(
            model=str(models / condition.generator),
            discriminator=str(models / "encoder"),
            args=config,
            train_dataset=Dataset.from_dict({"text": sentences}),
            peft_config=adapters(),
            callbacks=[watchdog],
        )
        trainer.remove_callback(PrinterCallback)
        if condition.frozen:
            after_warmup(trainer, lambda: freeze(trainer))
        began = time.perf_counter()
        trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    return rounded(
        {
            "name": name,
            "settings": {**SIZES, "seed": sizes.seeds[0], **condition.settings},
            "steps": [entry["step"] for entry in logged],
            "curves": {key: [round(entry[key], 4) for entry in logged] for key in CURVES},
            "alarms": [alarm._asdict() for alarm in watchdog.alarms],
            "seconds": round(time.perf_counter() - began, 1),
            "versions": versions(),
        }
    )


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", nargs="+", default=list(CONDITIONS), choices=list(CONDITIONS))
    parser.add_argument("--models", type=Path, help="where initial models are kept; forgotten by default")
    parser.add_argument("--steps", type=int, default=SIZES["steps"])
    parser.add_argument("--output", type=Path, default=COMMITTED)
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    parser.add_argument("--draw", action="store_true", help="train nothing")
    arguments = parser.parse_args(words)
    silence()
    done = {run["name"]: run for run in read_lines(arguments.output)} if arguments.output.exists() else {}
    if not arguments.draw:
        sizes = DemoArguments(**{**SIZES, "steps": arguments.steps})
        sentences = [" ".join(words) for words in Language().sample(sizes.sentences, 2 * sizes.seeds[0])]
        with tempfile.TemporaryDirectory() as folder:
            models = arguments.models or Path(folder)
            make_models(sizes, sentences, models)
            for name in arguments.runs:
                done[name] = train(name, sizes, sentences, models)
                alarms = ", ".join(f"{alarm['name']} at {alarm['step']}" for alarm in done[name]["alarms"])
                print(f"{name}: {done[name]['seconds']} s, alarms: {alarms or 'none'}", flush=True)
                write_lines(arguments.output, [done[one] for one in CONDITIONS if one in done])
    for name, run in done.items():
        draw(run, arguments.pictures / f"curves_{name}.svg")


if __name__ == "__main__":
    main()
