"""One run of `benchmarks.guided_text`: a seed of discriminator and samples, through all stages, each done once.

In: the command line. Out: folders with models, a file of samples and one of test results.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig

from hf_mgan import AdversarialConfig, Discriminator, prepare_dataset
from hf_mgan.data import TextPath, start_of_sequence
from hf_mgan.decoding import sample
from hf_mgan.decoding.selection import best_of_k, is_accepted, resampling
from hf_mgan.metrics import c2st, encoder_features, fine_tuned_c2st, self_bleu
from hf_mgan.training.final_updates import fit_discriminator

from ..sources import load_texts, short_name
from ..supervised import EvenSFTTrainer
from ..sweep import do_stage


STAGES = ("generator", "discriminator", "samples", "tests", "fine_tuned_tests")
BATCH_SIZE = 32
TEMPERATURE, COLDER = 1.0, 0.9
THRESHOLDS = (0.0, 0.5, 1.0)
CHOSEN = 0.5  # that of the fine-tuned test
GROUP = 3  # candidates of resampling and of the best of k
DRAWS = 2.4  # candidates in the pool for a text of the fine-tuned test
ALONE, GUIDED, REAL = "T = 1", f"rejection, c = {CHOSEN:g}", "real text"


class Run:
    """A seed: all stages, each done once. The generator is that of all seeds.

    Args:
        seed (`int`): Seed of the discriminator and the samples.
        arguments (`argparse.Namespace`): The command line.
    """

    def __init__(self, seed: int, arguments: argparse.Namespace) -> None:
        self.seed, self.arguments = seed, arguments
        name = f"{short_name(arguments.generator)}_{short_name(arguments.data)}"
        self.root = arguments.output / name
        self.folder = self.root / f"seed_{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        data = load_texts(arguments.data, arguments.max_texts)
        rows, size = data["train"], min(arguments.supervised_steps * BATCH_SIZE, len(data["train"]) // 3)
        self.validation = data["validation"]
        self.supervised, self.of_discriminator, self.tested = (
            rows.select(range(*ends)) for ends in ((0, size), (size, 2 * size), (2 * size, len(rows)))
        )

    def do(self, stages: Sequence[str]) -> None:
        """Do the stages that are not done."""
        for stage in (one for one in STAGES if one in stages):
            folder = self.root if stage == "generator" else self.folder
            do_stage(folder / f"{stage}.json", self.seed, getattr(self, stage))

    def generator(self) -> dict[str, Any]:
        """Fine-tune the generator on the first rows of the corpus, once, with adapters."""
        name = self.arguments.generator
        tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
        adapters = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        trainer = EvenSFTTrainer(
            get_peft_model(model, adapters),  # type: ignore[arg-type]
            args=SFTConfig(
                str(self.root / "generator"),
                max_steps=self.arguments.supervised_steps,
                per_device_train_batch_size=BATCH_SIZE,
                learning_rate=2e-4,
                lr_scheduler_type="cosine",
                warmup_steps=10,
                use_cpu=not torch.cuda.is_available(),
                bf16=False,
                max_length=64,
                train_sampling_strategy="group_by_length",  # less padding
                gradient_checkpointing=False,
                save_strategy="no",
                report_to="none",
                seed=0,
            ),
            train_dataset=prepare_dataset(self.supervised, tokenizer),
            processing_class=tokenizer,
        )
        trainer.train()
        trainer.save_model()
        return {"steps": trainer.state.global_step, "texts": len(self.supervised)}

    def discriminator(self) -> dict[str, Any]:
        """Train the discriminator against the generator, on as many other rows, and calibrate it."""
        limit = self.arguments.max_completion_length
        folder = self.folder / "discriminator"
        discriminator = Discriminator.from_pretrained(self.arguments.discriminator, max_length=2 * limit)
        discriminator.to(next(self._generator.parameters()).device)
        calibration = fit_discriminator(
            self._generator,
            self._tokenizer,
            discriminator,
            self.of_discriminator,
            self.validation,
            AdversarialConfig(
                str(folder),
                per_device_train_batch_size=BATCH_SIZE,
                num_generations=BATCH_SIZE,
                max_completion_length=limit,
                temperature=TEMPERATURE,
                use_cpu=not torch.cuda.is_available(),
                bf16=False,
                report_to="none",
                seed=self.seed,
            ),
            self.arguments.updates,
        )
        discriminator.save_pretrained(folder)
        return {
            "calibration": vars(calibration),
            "updates": discriminator.num_updates,
            "texts": len(self.of_discriminator),
        }

    def samples(self) -> dict[str, Any]:
        """Draw the pool of candidates, and some texts at a lower temperature; the discriminator scores them."""
        few, texts = self.arguments.few_texts, min(self.arguments.texts, len(self.tested))
        count = math.ceil(max(DRAWS * texts, GROUP * few))
        discriminator = Discriminator.from_pretrained(
            self.folder / "discriminator", max_length=2 * self.arguments.max_completion_length
        ).to(next(self._generator.parameters()).device)
        made = {}
        for temperature, number in ((TEMPERATURE, count), (COLDER, few)):
            prompts = [start_of_sequence(self._tokenizer)] * number
            began = time.perf_counter()
            drawn = sample(
                self._generator,
                self._tokenizer,
                prompts,
                self.arguments.max_completion_length,
                temperature,
                self.seed,
                self.arguments.batch_size,
            )
            sampled = time.perf_counter()
            ratios: list[float] = []
            for start in range(0, number, self.arguments.batch_size):
                part = drawn.texts[start : start + self.arguments.batch_size]
                ratios += discriminator.log_ratio([""] * len(part), part).tolist()
            made[f"{temperature:g}"] = {
                "texts": drawn.texts,
                "tokens": [len(row) for row in drawn.completion_ids],
                "log_ratios": ratios,
                "sampling_seconds": sampled - began,
                "discriminator_seconds": time.perf_counter() - sampled,
            }
        return made

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return texts of every row, and what they cost."""
        made = json.loads((self.folder / "samples.json").read_text())
        pool, colder = made[f"{TEMPERATURE:g}"], made[f"{COLDER:g}"]
        texts, tokens = pool["texts"], torch.tensor(pool["tokens"], dtype=torch.float64)
        ratios = torch.tensor(pool["log_ratios"], dtype=torch.float64)
        uniforms = torch.rand(len(ratios), generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)
        rows = {
            ALONE: {"texts": texts, "draws": 1.0, "tokens": tokens.mean().item()},
            f"T = {COLDER:g}": {
                "texts": colder["texts"],
                "draws": 1.0,
                "tokens": sum(colder["tokens"]) / len(colder["tokens"]),
            },
        }
        for threshold in THRESHOLDS:
            places = is_accepted(ratios, uniforms, threshold).nonzero()[:, 0]
            rows[f"rejection, c = {threshold:g}"] = self._row(texts, places, len(texts), tokens.sum().item())
        groups = len(ratios) // GROUP
        grouped, noise = (one[: groups * GROUP].view(groups, GROUP) for one in (ratios, uniforms))
        for name, rule in ((f"resampling of {GROUP}", resampling), (f"best of {GROUP}", best_of_k)):
            places = rule(grouped, noise).kept + GROUP * torch.arange(groups)
            rows[name] = self._row(texts, places, groups * GROUP, tokens[: groups * GROUP].sum().item())
        return rows

    @staticmethod
    def _row(texts: list[str], places: Tensor, drawn: int, tokens: float) -> dict[str, Any]:
        kept = [texts[place] for place in places.tolist()]
        return {"texts": kept, "draws": drawn / len(kept), "tokens": tokens / len(kept)}

    def tests(self) -> dict[str, Any]:
        """Compare each row with unseen real texts by the fast two-sample tests."""
        few, real = self.arguments.few_texts, self._real
        features = encoder_features(self.arguments.generator, device="cuda" if torch.cuda.is_available() else "cpu")
        rows = {**self.rows(), REAL: {"texts": real[few:], "draws": 0.0, "tokens": 0.0}}
        results = {}
        for name, row in rows.items():
            texts = row["texts"][:few]
            reference = real[: len(texts)]
            results[name] = {
                "draws": row["draws"],
                "tokens": row["tokens"],
                "texts": len(texts),
                "c2st_auc": list(c2st(reference, texts, seed=self.seed).auc),
                "encoder_c2st_auc": list(c2st(reference, texts, seed=self.seed, encoder=features).auc),
                "self_bleu": self_bleu([text.split() for text in texts], 4),
                "words": sum(len(text.split()) for text in texts) / len(texts),
            }
            print(f"{name}: {results[name]}", flush=True)
        words = [len(text.split()) for text in real]
        return {"rows": results, "real_words": sum(words) / len(words)}

    def fine_tuned_tests(self) -> dict[str, Any]:
        """Compare the generator alone, the guided one and real text with real texts by a fine-tuned encoder."""
        real, rows, results = self._real, self.rows(), {}
        half = len(real) // 2
        sides = {name: (real, rows[name]["texts"]) for name in (ALONE, GUIDED)} | {REAL: (real[:half], real[half:])}
        for name, (reference, texts) in sides.items():
            count = min(len(reference), len(texts), self.arguments.texts)
            test = fine_tuned_c2st(reference[:count], texts[:count], self.arguments.discriminator, seed=self.seed)
            results[name] = {"texts": count, "fine_tuned_c2st_auc": list(test.auc)}
            print(f"{name}: {results[name]}", flush=True)
        return {"rows": results}

    @cached_property
    def _real(self) -> list[str]:
        texts: list[Any] = list(self.tested["text"])
        path = TextPath(self._tokenizer, self.arguments.max_completion_length)
        return path.as_completions([""] * len(texts), texts)

    @cached_property
    def _tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self.root / "generator", padding_side="left")

    @cached_property
    def _generator(self) -> Any:
        model = AutoPeftModelForCausalLM.from_pretrained(self.root / "generator", dtype=torch.float32)
        return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
