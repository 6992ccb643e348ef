"""Real text: is adversarial training better than supervised training at its best temperature?

    python ../shared/tools/real_models.py MODELS
    python -m benchmarks.real_text --models MODELS --data ../shared/data --output OUT --generator small --seeds 0 1 2
    python -m benchmarks.real_text --models MODELS --data ../shared/data --output OUT --generator SmolLM2 --seeds 0
    python -m benchmarks.real_text --output OUT --publish

A generator is trained by supervision on a corpus, and from there go on, each from the same weights:

- `longer`: supervision, for as many texts as the others generate;
- `frozen`: GRPO against a discriminator that stops learning after its warm-up;
- `adversarial`: the game, with the anchors of docs/stability.md.

All four are then drawn from at every temperature and measured against held-out texts by `evaluate_generator`, with the
supervised one as the baseline. The `small` generator is a GPT-2 of 5.8 million weights with a vocabulary of its own,
trained from nothing until its loss on held-out texts no longer falls, so that `longer` has nothing to add and is left
out; `SmolLM2` is SmolLM2-135M-Instruct with adapters. The discriminator is all-MiniLM-L6-v2, trained whole. The
figures that need an encoder see through SmolLM2-135M-Instruct as it was published, never through the discriminator's
all-MiniLM-L6-v2, which the games have learnt to please. Held-out are the validation file and the last rows of the
training file, which nothing is trained on.

Each stage leaves its folder in --output, and a second call goes on where the first one stopped; `--stages` does some
of them only, so that several processes can share a run. `--publish` writes benchmarks/results/real_text.json and
docs/real_text.md from all runs in --output.
"""

import argparse
import json
import platform
import shutil
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import load_dataset
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

from hf_mgan import AdversarialConfig, AdversarialTrainer, Watchdog, prepare_dataset
from hf_mgan.evaluation import EvaluationConfig, evaluate_generator

from .real_text_tables import publish
from .recipe_game import freeze


PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
CORPORA = ("wordnet_examples", "austen_sentences")
STAGES = ("supervised", "longer", "frozen", "adversarial", "evaluation")
NAMES = {"SmolLM2": "SmolLM2-135M-Instruct", "discriminator": "all-MiniLM-L6-v2"}
MOST_TOKENS = 128  # of a text in supervision
FURTHER_HELD_OUT = 1000  # last rows of the training file
LEARNING_RATES = {"small": 1e-3, "SmolLM2": 5e-5}  # of the games
REAL_TEXT_COEFS = {"small": 0.01, "SmolLM2": 0.1}  # with 0.1 the small generator stays where it is
TRAINING: dict[str, Any] = {"report_to": "none", "gradient_checkpointing": False, "disable_tqdm": True}
CURVES = {
    "real_prob": "discriminator/real_prob",
    "fake_prob": "discriminator/fake_prob",
    "value": "discriminator/value",
    "accuracy": "discriminator/accuracy",
    "entropy": "entropy",
    "length_ratio": "completions/length_ratio",
    "self_bleu": "completions/self_bleu",
    "real_nll": "generator/real_nll",
}


def small_tokenizer(texts: list[str], size: int) -> PreTrainedTokenizerFast:
    """Learn a byte-level vocabulary of the corpus."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="left"
    )


def small_generator(tokenizer: PreTrainedTokenizerBase, arguments: argparse.Namespace) -> GPT2LMHeadModel:
    """Make a GPT-2 of 5.8 million weights, where the sizes are the default ones."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=MOST_TOKENS,
            n_embd=arguments.width,
            n_layer=arguments.layers,
            n_head=4,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


class Run:
    """A corpus, a generator and a seed: all stages, each in its folder, done once.

    Args:
        corpus (`str`): Stem of the corpus' files.
        seed (`int`): Seed of everything.
        arguments (`argparse.Namespace`): The command line.
    """

    def __init__(self, corpus: str, seed: int, arguments: argparse.Namespace) -> None:
        self.corpus, self.seed, self.arguments = corpus, seed, arguments
        self.is_small = arguments.generator == "small"
        self.folder = arguments.output / corpus / folder_name(arguments) / f"seed_{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        files = {split: str(next(arguments.data.glob(f"{corpus}*{split}*"))) for split in ("train", "validation")}
        data = load_dataset("json", data_files=files)
        cut = len(data["train"]) - arguments.further_held_out
        self.train = data["train"].select(range(cut))
        self.validation = data["validation"]
        rest = data["train"].select(range(cut, len(data["train"])))
        self.held_out = datasets.concatenate_datasets([self.validation, rest])

    def do(self, stages: list[str]) -> None:
        """Do the stages that are not done."""
        for stage in STAGES:
            if stage not in stages or (stage == "longer" and self.is_small):
                continue
            done = self.folder / f"{stage}.json"
            if done.exists():
                print(f"{self.folder}: {stage} is there already", flush=True)
                continue
            set_seed(self.seed)
            began = time.perf_counter()
            result = getattr(self, stage)()
            result.update(seconds=round(time.perf_counter() - began, 1), **about())
            done.write_text(json.dumps(result, indent=1) + "\n")
            print(f"{self.folder}: {stage}, {result['seconds']} s", flush=True)

    def supervised(self) -> dict[str, Any]:
        """Train the generator by supervision: the small one until it no longer improves, SmolLM2 for some steps."""
        arguments = self.arguments
        if not self.is_small:
            name = arguments.models / NAMES["SmolLM2"]
            tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left")
            base = AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16)
            model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
            return self._supervise(model, tokenizer, "supervised", arguments.supervised_steps, 2e-4)
        tokenizer = small_tokenizer(self.train["text"], arguments.vocabulary)
        return self._supervise(small_generator(tokenizer, arguments), tokenizer, "supervised", None, 1e-3)

    def longer(self) -> dict[str, Any]:
        """Go on with supervision for as many texts as the game generates."""
        model, tokenizer = self._start()
        steps = self.arguments.steps * self.arguments.batch_size // 32
        return self._supervise(model, tokenizer, "longer", steps, 2e-4)

    def frozen(self) -> dict[str, Any]:
        """Play against a discriminator that stops learning after its warm-up."""
        return self._game("frozen", Frozen)

    def adversarial(self) -> dict[str, Any]:
        """Play the game."""
        return self._game("adversarial", AdversarialTrainer)

    def evaluation(self) -> dict[str, Any]:
        """ExactMetrics all models at all temperatures."""
        arguments = self.arguments
        names = [stage for stage in STAGES[:-1] if (self.folder / f"{stage}.json").exists()]
        report = evaluate_generator(
            {name: str(self.folder / name) for name in names},
            self.held_out,
            EvaluationConfig(
                output_dir=str(self.folder / "evaluation"),
                num_samples=arguments.num_samples,
                temperatures=arguments.temperatures,
                max_completion_length=arguments.max_completion_length,
                batch_size=arguments.evaluation_batch_size,
                encoder=str(arguments.models / NAMES["SmolLM2"]) if arguments.encoder else None,
                reverse_perplexity=arguments.reverse_perplexity,
                baseline="supervised",
                seed=self.seed,
            ),
            training=self.train,
        )
        verdicts = {
            model: {quality: verdict.sentence(model, report.baseline) for quality, verdict in found.items()}
            for model, found in report.verdicts().items()
        }
        return {"models": names, "verdicts": verdicts}

    def _start(self) -> tuple[Any, PreTrainedTokenizerBase]:
        """Load the generator after supervision: adapters to go on with, or the small model with new ones."""
        folder = self.folder / "supervised"
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        if self.is_small:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            # A small model has little room beside its weights, so its adapters are wide.
            targets = ["c_attn", "c_proj", "c_fc"]
            return get_peft_model(model, LoraConfig(r=32, lora_alpha=64, target_modules=targets)), tokenizer
        return AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, is_trainable=True), tokenizer

    def _supervise(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, name: str, steps: int | None, learning_rate: float
    ) -> dict[str, Any]:
        """Train for some steps; None takes the best of some epochs by the held-out loss."""
        work = self.folder / f"{name}_training"
        until_best: dict[str, Any] = {
            "num_train_epochs": self.arguments.epochs,
            "train_sampling_strategy": "group_by_length",  # half the time: less padding
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
            "save_total_limit": 1,
            "save_only_model": True,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
        }
        for_steps: dict[str, Any] = {"max_steps": steps, "save_strategy": "no", "eval_strategy": "no"}
        trainer = SFTTrainer(
            model,
            args=SFTConfig(
                str(work),
                per_device_train_batch_size=32,
                per_device_eval_batch_size=64,
                learning_rate=learning_rate,
                lr_scheduler_type="cosine",
                warmup_steps=10,
                use_cpu=not torch.cuda.is_available(),
                bf16=False,
                max_length=MOST_TOKENS,
                logging_steps=50,
                seed=self.seed,
                **(until_best if steps is None else for_steps),
                **TRAINING,
            ),
            train_dataset=prepare_dataset(self.train, tokenizer),
            eval_dataset=prepare_dataset(self.validation, tokenizer),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        trainer.save_model(str(self.folder / name))
        loss = trainer.evaluate()["eval_loss"]
        shutil.rmtree(work, ignore_errors=True)
        history = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
        return {"steps": trainer.state.global_step, "held_out_loss": loss, "held_out_losses": history}

    def _game(self, name: str, trainer_class: type[AdversarialTrainer]) -> dict[str, Any]:
        arguments = self.arguments
        model, tokenizer = self._start()
        watchdog = Watchdog()
        settings: dict[str, Any] = {
            "learning_rate": arguments.learning_rate,
            "scale_rewards": "none",
            "loss_type": "dr_grpo",
            "discriminator_warmup_steps": arguments.warmup_steps,
            "real_text_coef": arguments.real_text_coef,
            "ema_decay": 0.98,
            "discriminator_replay_fraction": 0.25,
        }
        trainer = trainer_class(
            model=model,
            args=AdversarialConfig(
                str(self.folder / f"{name}_training"),
                max_steps=arguments.steps,
                per_device_train_batch_size=arguments.batch_size,
                num_generations=arguments.batch_size,
                max_completion_length=arguments.max_completion_length,
                top_k=0,
                use_cpu=not torch.cuda.is_available(),
                bf16=False,
                logging_steps=1,
                save_strategy="no",
                seed=self.seed,
                **settings,
                **TRAINING,
            ),
            train_dataset=self.train,
            processing_class=tokenizer,
            discriminator=str(arguments.models / NAMES["discriminator"]),
            callbacks=[watchdog, *arguments.callbacks],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        trainer.save_model(str(self.folder / name))
        if self.is_small:  # whole, so that it stands alone: adapters would name this run's folder as their base
            whole = trainer.accelerator.unwrap_model(trainer.model)
            whole.load_adapter(str(self.folder / name), "average")
            whole.set_adapter("average")
            shutil.rmtree(self.folder / name)
            whole.merge_and_unload(adapter_names=["average"]).save_pretrained(self.folder / name)
            tokenizer.save_pretrained(self.folder / name)
        shutil.rmtree(self.folder / f"{name}_training", ignore_errors=True)
        steps = [entry for entry in trainer.state.log_history if "discriminator/value" in entry and "loss" in entry]
        return {
            "steps": trainer.state.global_step,
            "steps_asked": arguments.steps,
            "batch_size": arguments.batch_size,
            "settings": settings,
            "alarms": [alarm._asdict() for alarm in watchdog.alarms],
            "curves": {
                curve: [round(entry[key], 4) for entry in steps if key in entry] for curve, key in CURVES.items()
            },
        }


class Frozen(AdversarialTrainer):
    """The trainer whose discriminator stops learning after its warm-up: GRPO with a fixed reward."""

    def _warm_up(self, *args: Any, **kwargs: Any) -> None:
        super()._warm_up(*args, **kwargs)
        freeze(self)


def folder_name(arguments: argparse.Namespace) -> str:
    """Return the generator's name, with the games' learning rate and anchor where they are others than its own."""
    name, rate, anchor = arguments.generator, arguments.learning_rate, arguments.real_text_coef
    return (
        name
        + (f"_rate_{rate:g}" if rate != LEARNING_RATES[name] else "")
        + (f"_anchor_{anchor:g}" if anchor != REAL_TEXT_COEFS[name] else "")
    )


def about() -> dict[str, Any]:
    """Return what made a result."""
    return {
        "versions": {name: version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {platform.machine()}",
        "threads": torch.get_num_threads(),
    }


def parsed_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="folder with the real models")
    parser.add_argument("--data", type=Path, help="folder with the corpora's .jsonl files")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--generator", choices=["small", "SmolLM2"], default="small")
    parser.add_argument("--corpora", nargs="+", default=list(CORPORA), choices=CORPORA)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--steps", type=int, default=150, help="of the generator, in both games")
    parser.add_argument("--learning_rate", type=float, help=f"of the games; by default {LEARNING_RATES}")
    parser.add_argument("--real_text_coef", type=float, help=f"of the games; by default {REAL_TEXT_COEFS}")
    parser.add_argument("--batch_size", type=int, default=32, help="completions a step")
    parser.add_argument("--warmup_steps", type=int, default=30, help="of the discriminator, before both games")
    parser.add_argument("--supervised_steps", type=int, default=200, help="of SmolLM2, of 32 texts each")
    parser.add_argument("--epochs", type=int, default=8, help="of the small generator, at most")
    parser.add_argument("--width", type=int, default=256, help="of the small generator")
    parser.add_argument("--layers", type=int, default=6, help="of the small generator")
    parser.add_argument("--vocabulary", type=int, default=4096, help="of the small generator")
    parser.add_argument("--max_completion_length", type=int, default=40)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.7, 0.8, 0.9, 1.0, 1.1])
    parser.add_argument("--num_samples", type=int, default=1000)
    parser.add_argument("--evaluation_batch_size", type=int, default=100)
    parser.add_argument("--further_held_out", type=int, default=FURTHER_HELD_OUT)
    parser.add_argument("--encoder", action=argparse.BooleanOptionalAction, default=True, help="MAUVE and Frechet")
    parser.add_argument("--reverse_perplexity", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--publish", action="store_true", help="write the result and the page from what is in --output"
    )
    arguments = parser.parse_args(argv)
    arguments.callbacks = []
    if arguments.learning_rate is None:
        arguments.learning_rate = LEARNING_RATES[arguments.generator]
    if arguments.learning_rate <= 0:
        parser.error(f"--learning_rate must be greater than 0, got {arguments.learning_rate}")
    if arguments.real_text_coef is None:
        arguments.real_text_coef = REAL_TEXT_COEFS[arguments.generator]
    if arguments.real_text_coef < 0:
        parser.error(f"--real_text_coef must be at least 0, got {arguments.real_text_coef}")
    if not arguments.publish and (arguments.models is None or arguments.data is None):
        parser.error("--models and --data are needed, or --publish alone")
    return arguments


def main(argv: list[str] | None = None, on_arguments: Callable[[argparse.Namespace], None] | None = None) -> None:
    arguments = parsed_arguments(argv)
    if on_arguments is not None:
        on_arguments(arguments)
    if arguments.publish:
        publish(arguments.output)
        return
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for corpus in arguments.corpora:
        for seed in arguments.seeds:
            Run(corpus, seed, arguments).do(arguments.stages)


if __name__ == "__main__":
    main()
