"""One run of `benchmarks.real_text`: a corpus, a generator and a seed, through all stages, each in its folder.

In: the command line. Out: folders with models, and a JSON file per stage.
"""

import argparse
import copy
import json
import platform
import shutil
import time
from collections.abc import Callable
from typing import Any, cast

import datasets
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, set_seed
from transformers.trainer_callback import PrinterCallback, TrainerCallback, TrainerControl, TrainerState
from trl import SFTConfig

from hf_mgan import AdversarialConfig, AdversarialTrainer, Watchdog, prepare_dataset
from hf_mgan.evaluation import EvaluationConfig, Report, evaluate_generator
from hf_mgan.evaluation.report import REAL, part_name

from ..sources import load_texts, short_name
from ..supervised import EvenSFTTrainer
from ..testbed import versions
from ..warmup import after_warmup, freeze
from .small_generator import MOST_TOKENS, small_generator, small_tokenizer


SMALL = "small"  # the generator that is made in code
STAGES = ("supervised", "longer", "frozen", "adversarial", "evaluation")
CURVE = "curve"  # a stage that is done where it is asked for: hours
SAVE_STEPS = 10  # of the curve, whose training is the longest
SHARES = (1 / 8, 1 / 4, 1 / 2, 1)  # of the steps, after which the generator is measured
TRAINING: dict[str, Any] = {"report_to": "none", "gradient_checkpointing": False, "disable_tqdm": True}


class Run:
    """A corpus, a generator and a seed: all stages, each in its folder, done once.

    Args:
        source (`str`): The corpus: id on the Hub, folder or beginning of the names of its files.
        seed (`int`): Seed of everything.
        arguments (`argparse.Namespace`): The command line.
    """

    def __init__(self, source: str, seed: int, arguments: argparse.Namespace) -> None:
        self.seed, self.arguments = seed, arguments
        self.is_small = arguments.generator == SMALL
        self.folder = arguments.output / short_name(source) / folder_name(arguments) / f"seed_{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        data = load_texts(source, arguments.max_texts)
        cut = len(data["train"]) - arguments.further_held_out
        self.train = data["train"].select(range(cut))
        self.validation = data["validation"]
        rest = data["train"].select(range(cut, len(data["train"])))
        self.held_out = datasets.concatenate_datasets([self.validation, rest])

    def do(self, stages: list[str]) -> None:
        """Do the stages that are not done."""
        for stage in (*STAGES, CURVE):
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
        """Supervised fine-tuning: of the small generator until it no longer improves, of another for some steps."""
        arguments = self.arguments
        if not self.is_small:
            name = arguments.generator
            tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left")
            base = AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16)
            model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
            return self._supervise(model, tokenizer, "supervised", arguments.supervised_steps, 2e-4)
        tokenizer = small_tokenizer(self.train["text"], arguments.vocabulary)
        return self._supervise(small_generator(tokenizer, arguments), tokenizer, "supervised", None, 1e-3)

    def longer(self) -> dict[str, Any]:
        """Go on with supervised training for as many texts as adversarial training generates."""
        model, tokenizer = self._start()
        steps = self.arguments.steps * self.arguments.batch_size // 32
        return self._supervise(model, tokenizer, "longer", steps, 2e-4)

    def frozen(self) -> dict[str, Any]:
        """Train against a discriminator that is frozen after its warm-up."""
        return self._train("frozen")

    def adversarial(self) -> dict[str, Any]:
        """Train adversarially."""
        return self._train("adversarial")

    def evaluation(self) -> dict[str, Any]:
        """Measure all models at all temperatures."""
        names = [stage for stage in STAGES[:-1] if (self.folder / f"{stage}.json").exists()]
        report = self._evaluated(names, "evaluation")
        verdicts = {
            model: {quality: verdict.sentence(model, report.baseline) for quality, verdict in found.items()}
            for model, found in report.verdicts().items()
        }
        return {"models": names, "verdicts": verdicts}

    def _evaluated(self, names: list[str], folder: str) -> Report:
        """Measure models at all temperatures, with the supervised one as the baseline."""
        arguments = self.arguments
        return evaluate_generator(
            {name: str(self.folder / name) for name in names},
            self.held_out,
            EvaluationConfig(
                output_dir=str(self.folder / folder),
                num_samples=arguments.num_samples,
                temperatures=arguments.temperatures,
                max_completion_length=arguments.max_completion_length,
                batch_size=arguments.evaluation_batch_size,
                encoder=arguments.encoder,
                fine_tuned_test=arguments.fine_tuned_test,
                reverse_perplexity=arguments.reverse_perplexity,
                baseline="supervised",
                seed=self.seed,
            ),
            training=self.train,
        )

    def curve(self) -> dict[str, Any]:
        """Train adversarially, in several calls where one is stopped, and measure the generator on the way."""
        arguments, work = self.arguments, self.folder / f"{CURVE}_training"
        saving = {"save_strategy": "steps", "save_steps": SAVE_STEPS, "save_total_limit": 1}
        trainer, _, settings = self._trainer(CURVE, **saving)
        steps = sorted({max(1, round(share * arguments.steps)) for share in SHARES})
        names = {step * arguments.batch_size: f"{step * arguments.batch_size}_texts" for step in steps}
        if not all((self.folder / name).exists() for name in names.values()):
            by_step = dict(zip(steps, names.values(), strict=True))
            trainer.add_callback(OnSteps(by_step, lambda name: self._save(trainer, name)))
            trainer.train(resume_from_checkpoint=any(work.glob("checkpoint-*")))
        shutil.rmtree(work, ignore_errors=True)
        report = self._evaluated(["supervised", *names.values()], "curve_evaluation")
        parts = {(0, t): part_name("supervised", t) for t in report.temperatures}
        parts |= {(texts, t): part_name(name, t) for texts, name in names.items() for t in report.temperatures}
        rows = [
            {"texts": texts, "temperature": t, "metrics": report.parts[part]["metrics"]}
            for (texts, t), part in parts.items()
        ]
        return {
            "batch_size": arguments.batch_size,
            "settings": settings,
            "texts_each": report.settings["samples_each"],
            "rows": rows,
            "real": report.parts[REAL]["metrics"],
        }

    def _start(self) -> tuple[Any, PreTrainedTokenizerBase]:
        """Load the generator after supervised training: adapters to go on with, or the small model with new ones."""
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
        trainer = EvenSFTTrainer(
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

    def _train(self, name: str) -> dict[str, Any]:
        arguments = self.arguments
        trainer, watchdog, settings = self._trainer(name)
        if name == "frozen":
            after_warmup(trainer, lambda: freeze(trainer))
        trainer.train()
        self._save(trainer, name)
        shutil.rmtree(self.folder / f"{name}_training", ignore_errors=True)
        return {
            "steps": trainer.state.global_step,
            "steps_asked": arguments.steps,
            "batch_size": arguments.batch_size,
            "settings": settings,
            "alarms": sorted({alarm.name for alarm in watchdog.alarms}),
        }

    def _trainer(self, name: str, **saving: Any) -> tuple[AdversarialTrainer, Watchdog, dict[str, Any]]:
        """Make the adversarial trainer, its watchdog, and the settings that are said with the results."""
        arguments = self.arguments
        model, tokenizer = self._start()
        watchdog = Watchdog()
        settings: dict[str, Any] = {
            "learning_rate": arguments.learning_rate,
            "scale_rewards": "none",
            "loss_type": "dr_grpo",
            "discriminator_warmup_steps": arguments.warmup_steps,
            "real_text_coef": arguments.real_text_coef,
            "discriminator_replay_fraction": 0.25,
            "bf16": arguments.bf16,
        }
        trainer = AdversarialTrainer(
            model=model,
            args=AdversarialConfig(
                str(self.folder / f"{name}_training"),
                max_steps=arguments.steps,
                per_device_train_batch_size=arguments.batch_size,
                num_generations=arguments.batch_size,
                max_completion_length=arguments.max_completion_length,
                top_k=0,
                use_cpu=not torch.cuda.is_available(),
                logging_steps=1,
                seed=self.seed,
                **(saving or {"save_strategy": "no"}),
                **settings,
                **TRAINING,
            ),
            train_dataset=self.train,
            processing_class=tokenizer,
            discriminator=arguments.discriminator,
            callbacks=[watchdog],
        )
        trainer.remove_callback(PrinterCallback)
        return trainer, watchdog, settings

    def _save(self, trainer: AdversarialTrainer, name: str) -> None:
        if not self.is_small:
            trainer.save_model(str(self.folder / name))
            return
        # Whole, so that it stands alone: adapters would name this run's folder as their base.
        whole = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        copy.deepcopy(whole).merge_and_unload().save_pretrained(self.folder / name)
        cast("PreTrainedTokenizerBase", trainer.processing_class).save_pretrained(self.folder / name)


class OnSteps(TrainerCallback):
    """Calls a function with a name after some steps.

    Args:
        names (`dict[int, str]`): By step.
        act (`Callable`): Is given the name.
    """

    def __init__(self, names: dict[int, str], act: Callable[[str], None]) -> None:
        self._names, self._act = names, act

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Call it if this is one of the steps."""
        if state.global_step in self._names:
            self._act(self._names[state.global_step])


def folder_name(arguments: argparse.Namespace) -> str:
    """Return the generator's name, with the learning rate and the anchor of adversarial training."""
    name = short_name(arguments.generator)
    return f"{name}_rate_{arguments.learning_rate:g}_anchor_{arguments.real_text_coef:g}"


def about() -> dict[str, Any]:
    """Return what made a result."""
    return {
        "versions": versions(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {platform.machine()}",
        "threads": torch.get_num_threads(),
    }
