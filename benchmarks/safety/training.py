"""One seed of `benchmarks.safety`: the models that all runs begin with, and a run under each condition.

In: sizes and a seed. Out: plain values, each part kept in a folder when it is done.
"""

import argparse
import functools
import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from hf_mgan import AdversarialTrainer, SafetyGate
from hf_mgan.demo.exact_metrics import sample_sentences
from hf_mgan.demo.language import Language
from hf_mgan.demo.models import TRAINING, adapters, make_tokenizer, train_encoder, train_generator
from hf_mgan.demo.parts import adversarial_config
from hf_mgan.demo.run import DemoArguments
from hf_mgan.metrics import distinct_n, jensen_shannon, sequence_logps

from .unsafe_language import is_unsafe, safe_logps


# Seeds of sentences: those of a seed's training are 2 * seed and 2 * seed + 1.
LABELLED_SEED, HELD_OUT_SEED = 10_000, 20_000


@dataclass(frozen=True)
class Condition:
    """What the classifier's verdict counts in training.

    Args:
        name (`str`): Name; also that of its file.
        text (`str`): The same in words.
        discriminator_weight (`float`): Weight of the discriminator's reward.
        safety_weight (`float`, *optional*): Weight of the reward P(safe); no such reward by default.
        margin (`float`, *optional*): Margin of the gate; no gate by default.
        filtered (`bool`, *optional*, defaults to `False`): Whether the real sentences that the classifier calls unsafe
            are left out of training.
    """

    name: str
    text: str
    discriminator_weight: float = 1.0
    safety_weight: float | None = None
    margin: float | None = None
    filtered: bool = False


CONDITIONS = (
    Condition("discriminator", "discriminator alone"),
    Condition("gate_1", "discriminator and gate, margin 1", margin=1.0),
    Condition("gate_2", "discriminator and gate, margin 2", margin=2.0),
    Condition("gate_4", "discriminator and gate, margin 4", margin=4.0),
    Condition("filtered", "discriminator alone, unsafe real sentences left out", filtered=True),
    Condition("gate_1_filtered", "gate, margin 1, unsafe real sentences left out", margin=1.0, filtered=True),
    Condition("gate_2_filtered", "gate, margin 2, unsafe real sentences left out", margin=2.0, filtered=True),
    Condition("weight_1", "discriminator and reward P(safe), weight 1", safety_weight=1.0),
    Condition("weight_4", "discriminator and reward P(safe), weight 4", safety_weight=4.0),
    Condition("gate_alone", "gate, margin 2, discriminator's weight 0", discriminator_weight=0.0, margin=2.0),
)


class Seed:
    """All parts of one seed; each is kept when it is done.

    Args:
        seed (`int`): Seed of sentences, weights and samples.
        sizes (`argparse.Namespace`): The command line.
    """

    def __init__(self, seed: int, sizes: argparse.Namespace) -> None:
        self.seed = seed
        self.sizes = sizes
        self.folder = sizes.work / f"seed_{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start = self.folder / "generator"
        self.language = Language()
        self.tokenizer = make_tokenizer(self.language.words, adds_ends=False)
        self.arguments = DemoArguments(
            str(self.folder),
            [seed],
            sizes.sentences,
            sizes.batch_size,
            sizes.likelihood_steps,
            sizes.encoder_steps,
            sizes.warmup_steps,
            sizes.steps,
            sizes.samples,
        )

    @functools.cached_property
    def sentences(self) -> list[str]:
        """Real sentences that the models train on."""
        return [" ".join(words) for words in self.language.sample(self.sizes.sentences, 2 * self.seed)]

    @functools.cached_property
    def safe_sentences(self) -> list[str]:
        """Those of them that the classifier lets pass."""
        verdict = self.gate().is_unsafe([""] * len(self.sentences), self.sentences).tolist()
        return [sentence for sentence, unsafe in zip(self.sentences, verdict, strict=True) if not unsafe]

    def part(self, name: str, make: Any) -> Any:
        """Return what `make` returned in this call or an earlier one."""
        path = self.folder / f"{name}.json"
        if path.exists():
            print(f"seed {self.seed}, {name}: there already", flush=True)
        else:
            began = time.perf_counter()
            value = {**make(), "seconds": round(time.perf_counter() - began, 1)}
            path.write_text(json.dumps(value, indent=1) + "\n")
            print(f"seed {self.seed}, {name}: {value['seconds']} s", flush=True)
        return json.loads(path.read_text())

    def run(self) -> dict[str, Any]:
        """Train everything and return every metric."""
        before = ("classifier", "generator", "likelihood", "encoder")
        result = {name: self.part(name, getattr(self, name)) for name in before}
        result["runs"] = {
            condition.name: self.part(condition.name, functools.partial(self.train, condition))
            for condition in CONDITIONS
            if condition.name in self.sizes.conditions
        }
        return result

    def classifier(self) -> dict[str, Any]:
        """Train the safety classifier on labelled sentences, and count its errors on others."""
        return self.train_classifier("classifier", LABELLED_SEED + self.seed, self.seed)

    def train_classifier(self, name: str, sentences_seed: int, seed: int) -> dict[str, Any]:
        """Train a classifier of unsafe sentences into the folder `name`, and count its errors on others."""
        tokenizer = make_tokenizer(self.language.words, adds_ends=True)
        drawn = self.language.sample(self.sizes.labelled, sentences_seed)
        rows = {
            "input_ids": tokenizer([" ".join(words) for words in drawn])["input_ids"],
            "labels": [int(is_unsafe(words)) for words in drawn],
        }
        torch.manual_seed(seed)
        model = BertForSequenceClassification(
            BertConfig(
                vocab_size=len(tokenizer),
                max_position_embeddings=32,
                hidden_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=256,
                pad_token_id=tokenizer.pad_token_id,
                id2label={0: "safe", 1: "unsafe"},
                label2id={"safe": 0, "unsafe": 1},
            )
        )
        arguments = TrainingArguments(
            str(self.folder / name),
            max_steps=self.sizes.classifier_steps,
            per_device_train_batch_size=64,
            learning_rate=1e-3,
            weight_decay=0.01,
            warmup_steps=50,
            seed=seed,
            **TRAINING,
        )
        trainer = Trainer(model, arguments, train_dataset=Dataset.from_dict(rows), processing_class=tokenizer)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        trainer.save_model()
        held_out = self.language.sample(self.sizes.samples, HELD_OUT_SEED + self.seed)
        return {"labelled": len(drawn), "labelled_unsafe": sum(rows["labels"]), **self.errors(held_out, name)}

    def gate(self, margin: float = 1.0, name: str = "classifier") -> SafetyGate:
        """Return the gate with this seed's classifier, or another one of its."""
        folder = self.folder / name
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return SafetyGate(model, "unsafe", processing_class=tokenizer, margin=margin, batch_size=256)

    def errors(self, sentences: list[list[str]], name: str = "classifier") -> dict[str, float | None]:
        """Compare a classifier's verdicts with the rule: of the unsafe which share passes, of the safe which not."""
        truth = torch.tensor([is_unsafe(words) for words in sentences])
        verdict = self.gate(name=name).is_unsafe([""] * len(sentences), [" ".join(words) for words in sentences])
        missed, blamed = ~verdict[truth], verdict[~truth]
        return {
            "unsafe_that_pass": missed.float().mean().item() if len(missed) else None,
            "safe_that_do_not": blamed.float().mean().item() if len(blamed) else None,
        }

    def generator(self) -> dict[str, Any]:
        """Train the generator by maximum likelihood on the whole language."""
        sizes = {"batch_size": self.sizes.batch_size, "seed": self.seed, "callback": TrainerCallback()}
        train_generator(self.sentences, self.tokenizer, self.start, self.sizes.likelihood_steps, **sizes)
        return {}

    def likelihood(self) -> dict[str, Any]:
        """Measure the generator from which all runs begin."""
        return self.metrics(AutoModelForCausalLM.from_pretrained(self.start, dtype=torch.float32))

    def encoder(self) -> dict[str, Any]:
        """Train the discriminator's encoder."""
        sizes = {"batch_size": self.sizes.batch_size, "seed": self.seed, "callback": TrainerCallback()}
        tokenizer = make_tokenizer(self.language.words, adds_ends=True)
        train_encoder(self.sentences, tokenizer, self.folder / "encoder_model", self.sizes.encoder_steps, **sizes)
        return {}

    def train(self, condition: Condition) -> dict[str, Any]:
        """Train from the same start as all others."""
        config = adversarial_config(self.arguments, self.folder / f"training_{condition.name}", self.seed)
        config.discriminator_weight = condition.discriminator_weight
        more: dict[str, Any] = {}
        if condition.margin is not None:
            more["safety_gate"] = self.gate(condition.margin)
        if condition.safety_weight is not None:
            gate = self.gate()

            def safe(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
                return (1 - gate.unsafe_probs(prompts, completions)).tolist()

            more["reward_funcs"] = safe
            config.reward_weights = [condition.safety_weight]
        trainer = AdversarialTrainer(
            model=str(self.start),
            discriminator=str(self.folder / "encoder_model"),
            args=config,
            train_dataset=Dataset.from_dict({"text": self.safe_sentences if condition.filtered else self.sentences}),
            peft_config=adapters(),
            **more,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        trainer.save_model()
        return {**asdict(condition), **self.metrics(trainer.model)}

    def metrics(self, model: Any) -> dict[str, Any]:
        """Measure a generator at temperature 1, by the true rule and the true densities."""
        count = self.sizes.samples
        ids, words = sample_sentences(model, self.tokenizer, count, 1.0, self.seed)
        real = self.language.sample(count, 2 * self.seed + 1)
        is_safe = torch.tensor([not is_unsafe(sentence) for sentence in real])
        real_ids = self.tokenizer([" ".join(sentence) for sentence in real], add_special_tokens=False)["input_ids"]
        real_ids = [[*row, self.tokenizer.eos_token_id] for row in real_ids]
        start = [[self.tokenizer.bos_token_id]] * count
        of_real, of_own = (sequence_logps(model, start, rows, batch_size=500) for rows in (real_ids, ids))
        truth = self.language.logps(words)
        whole = jensen_shannon(self.language.logps(real), of_real, truth, of_own)
        # The safe ones among sentences of the language are sentences of the safe language.
        safe = jensen_shannon(
            safe_logps(self.language, real)[is_safe], of_real[is_safe], safe_logps(self.language, words), of_own
        )
        rate = sum(map(is_unsafe, words)) / count
        return {
            "unsafe_rate": rate,
            "unsafe_rate_standard_error": (rate * (1 - rate) / count) ** 0.5,
            "divergence_to_the_safe_language": safe[0],
            "divergence_to_the_whole_language": whole[0],
            "standard_errors_of_the_divergences": [safe[1], whole[1]],
            "grammatical": truth.isfinite().double().mean().item(),
            "distinct_4": distinct_n(words, 4),
            "entropy": -of_own.double().mean().item(),
            "real_nll": -of_real.double().mean().item(),
            "mean_length": sum(map(len, words)) / count,
            "classifier_on_its_sentences": self.errors(words),
        }
