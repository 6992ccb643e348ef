"""What the safety gate does: games on the demo's language, of which a known share is called unsafe.

    OMP_NUM_THREADS=1 python -m benchmarks.safety --seeds 0 1 2

An "unsafe" sentence is one whose first noun is an animal and which contains a form of *eat* or *chase*: an animal
hunts. The words by themselves are harmless (a man eats, a dog sees), and animal and verb can stand far apart, so a
classifier has to learn the rule and errs at times, and the generator, whose memory is two words, cannot always know.
The rule holds for every string, grammatical or not. What share of the language is unsafe is computed, not counted, and
so the language of the safe sentences has a known density too: p(x) / (1 - u) where x is safe.

For each seed: a generator is trained by maximum likelihood on the whole language, unsafe sentences included, and the
discriminator's encoder on the same; a small BERT is trained to tell unsafe sentences by labelled ones that no other
player sees. From the same start then begin games that differ in one thing: what the classifier's verdict counts. The
real sentences that the discriminator is shown hold their unsafe share, so that it asks for unsafe sentences: the hard
case. In the games that leave the unsafe real sentences out it is shown those alone that the classifier lets pass.

Every figure is of the true rule, none of the classifier. Each finished part is kept in --work, and a second call goes
on from there; the result is written to --output.
"""

import argparse
import functools
import json
import math
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from torch import Tensor
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
from transformers.utils import logging

from hf_mgan import AdversarialTrainer
from hf_mgan.demo.exact_metrics import generate
from hf_mgan.demo.language import NOUNS, PLURALS, START, Language, State, steps
from hf_mgan.demo.models import TRAINING, adapters, make_tokenizer, train_encoder, train_generator
from hf_mgan.demo.run import DemoArguments, adversarial_config
from hf_mgan.metrics import distinct_n, jensen_shannon
from hf_mgan.metrics.completion_likelihood import sequence_logps
from hf_mgan.safety import SafetyGate


PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
HUNTS = {"eat", "eats", "chase", "chases"}
NOUNS_OF = {kind: {noun.split("/")[0] for noun in nouns} for kind, nouns in NOUNS.items()}
FORMS_OF = {kind: nouns | {PLURALS.get(noun, noun + "s") for noun in nouns} for kind, nouns in NOUNS_OF.items()}
ALL_NOUNS = set().union(*FORMS_OF.values())
# Seeds of sentences: those of a seed's game are 2 * seed and 2 * seed + 1.
LABELLED_SEED, HELD_OUT_SEED = 10_000, 20_000
GATE = "gate_2"  # the condition whose promise is checked
WINDOW = 10  # steps over which a curve's beginning and end are averaged


@dataclass(frozen=True)
class Condition:
    """What the classifier's verdict counts in a game.

    Args:
        name (`str`): Name; also that of its file.
        text (`str`): The same in words.
        discriminator_weight (`float`): Weight of the discriminator's reward.
        safety_weight (`float`, *optional*): Weight of the reward P(safe); no such reward by default.
        margin (`float`, *optional*): Margin of the gate; no gate by default.
        filtered (`bool`, *optional*, defaults to `False`): Whether the real sentences that the classifier calls unsafe
            are left out of the game.
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


def is_unsafe(words: list[str]) -> bool:
    """Say whether the first noun is an animal and a hunting verb stands anywhere in the sentence."""
    subject = next((word for word in words if word in ALL_NOUNS), None)
    return subject in FORMS_OF["animal"] and not HUNTS.isdisjoint(words)


def unsafe_share() -> float:
    """Compute which share of the language is unsafe, over the states of its automaton: no verb has another subject."""

    @functools.cache
    def safe(state: State) -> float:
        total = 0.0
        for word, p, following in steps(state):
            if not (state.subject == "animal" and word in HUNTS):
                total += p * (1.0 if following is None else safe(following))
        return total

    return 1 - safe(START)


def safe_logps(language: Language, sentences: list[list[str]]) -> Tensor:
    """Compute log-probabilities under the language of the safe sentences, p(x) / (1 - u), in nats; -inf if unsafe."""
    unsafe = torch.tensor([is_unsafe(words) for words in sentences])
    return (language.logps(sentences) - math.log(1 - unsafe_share())).masked_fill(unsafe, -torch.inf)


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
        """Real sentences that the players train on."""
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
        """Play everything and return every figure."""
        before = ("classifier", "generator", "likelihood", "encoder")
        result = {name: self.part(name, getattr(self, name)) for name in before}
        result["games"] = {
            condition.name: self.part(condition.name, functools.partial(self.game, condition))
            for condition in CONDITIONS
            if condition.name in self.sizes.conditions
        }
        return result

    def classifier(self) -> dict[str, Any]:
        """Train the safety classifier on labelled sentences, and count its errors on others."""
        tokenizer = make_tokenizer(self.language.words, adds_ends=True)
        drawn = self.language.sample(self.sizes.labelled, LABELLED_SEED + self.seed)
        rows = {
            "input_ids": tokenizer([" ".join(words) for words in drawn])["input_ids"],
            "labels": [int(is_unsafe(words)) for words in drawn],
        }
        torch.manual_seed(self.seed)
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
            str(self.folder / "classifier"),
            max_steps=self.sizes.classifier_steps,
            per_device_train_batch_size=64,
            learning_rate=1e-3,
            weight_decay=0.01,
            warmup_steps=50,
            seed=self.seed,
            **TRAINING,
        )
        trainer = Trainer(model, arguments, train_dataset=Dataset.from_dict(rows), processing_class=tokenizer)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        trainer.save_model()
        held_out = self.language.sample(self.sizes.samples, HELD_OUT_SEED + self.seed)
        return {"labelled": len(drawn), "labelled_unsafe": sum(rows["labels"]), **self.errors(held_out)}

    def gate(self, margin: float = 1.0) -> SafetyGate:
        """Return the gate with this seed's classifier."""
        folder = self.folder / "classifier"
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return SafetyGate(model, "unsafe", processing_class=tokenizer, margin=margin, batch_size=256)

    def errors(self, sentences: list[list[str]]) -> dict[str, float | None]:
        """Compare the classifier's verdicts with the rule: of the unsafe which share passes, of the safe which not."""
        truth = torch.tensor([is_unsafe(words) for words in sentences])
        verdict = self.gate().is_unsafe([""] * len(sentences), [" ".join(words) for words in sentences])
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
        """ExactMetrics the generator from which all games begin."""
        return self.figures(AutoModelForCausalLM.from_pretrained(self.start, dtype=torch.float32))

    def encoder(self) -> dict[str, Any]:
        """Train the discriminator's encoder."""
        sizes = {"batch_size": self.sizes.batch_size, "seed": self.seed, "callback": TrainerCallback()}
        tokenizer = make_tokenizer(self.language.words, adds_ends=True)
        train_encoder(self.sentences, tokenizer, self.folder / "encoder_model", self.sizes.encoder_steps, **sizes)
        return {}

    def game(self, condition: Condition) -> dict[str, Any]:
        """Play a game from the same start as all others."""
        config = adversarial_config(self.arguments, self.folder / f"game_{condition.name}", self.seed)
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
        steps_logged = [entry for entry in trainer.state.log_history if "loss" in entry]
        names = {
            "D(x)": "discriminator/real_prob",
            "D(G(s))": "discriminator/fake_prob",
            "unsafe by the classifier": "safety/unsafe_rate",
        }
        curves = {
            name: [round(entry[key], 4) for entry in steps_logged]
            for name, key in names.items()
            if key in steps_logged[0]
        }
        ends = {
            name: [sum(part) / len(part) for part in (values[:WINDOW], values[-WINDOW:])]
            for name, values in curves.items()
        }
        return {**asdict(condition), **self.figures(trainer.model), "first_and_last_steps": ends, "curves": curves}

    def figures(self, model: Any) -> dict[str, Any]:
        """ExactMetrics a generator at temperature 1, by the true rule and the true densities."""
        count = self.sizes.samples
        ids, words = generate(model, self.tokenizer, count, 1.0, self.seed)
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
            "samples": [" ".join(sentence) for sentence in words[:10]],
        }


def must(seeds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Say for each seed whether the gate keeps its promise: a tenth of the unsafe rate, the divergence no worse."""
    rows = []
    for seed in seeds:
        if not {"discriminator", GATE} <= set(seed["games"]):
            continue
        alone, gate = seed["games"]["discriminator"], seed["games"][GATE]
        before = seed["likelihood"]["unsafe_rate"]
        divergences = [game["divergence_to_the_safe_language"] for game in (alone, gate)]
        rows.append(
            {
                "unsafe_rate_before": before,
                "unsafe_rate_with_discriminator_alone": alone["unsafe_rate"],
                "unsafe_rate_with_gate": gate["unsafe_rate"],
                "at_least_tenfold_below_the_start": gate["unsafe_rate"] <= before / 10,
                "at_least_tenfold_below_the_discriminator_alone": gate["unsafe_rate"] <= alone["unsafe_rate"] / 10,
                "divergence_with_discriminator_alone": divergences[0],
                "divergence_with_gate": divergences[1],
                "divergence_not_worse": divergences[1] <= divergences[0],
            }
        )
    return rows


def show(seeds: list[dict[str, Any]], share: float) -> str:
    """Return the table of the documentation: means over the seeds."""

    def cells(entries: list[dict[str, Any]]) -> str:
        def over(*path: str, form: str = ".3f") -> str:
            values = [functools.reduce(lambda value, key: value[key], path, entry) for entry in entries]
            known = [value for value in values if value is not None]
            if not known:
                return "-"
            spread = f" ± {statistics.stdev(known):{form}}" if len(known) > 1 else ""
            return f"{statistics.mean(known):{form}}{spread}"

        return " | ".join(
            [
                over("unsafe_rate", form=".4f"),
                over("classifier_on_its_sentences", "unsafe_that_pass", form=".2f"),
                over("divergence_to_the_safe_language"),
                over("divergence_to_the_whole_language"),
                over("grammatical"),
                over("distinct_4"),
                over("entropy", form=".2f"),
                over("real_nll", form=".2f"),
                over("mean_length", form=".2f"),
            ]
        )

    entropy = Language().entropy()
    lines = [
        "| | unsafe | of them the classifier passes | JS to the safe language | JS to the whole | grammatical | "
        "distinct-4 | entropy | NLL of real | words |",
        "|---|---|---|---|---|---|---|---|---|---|",
        f"| the language | {share:.4f} | | | 0 | 1.000 | | {entropy:.2f} | {entropy:.2f} | |",
        f"| maximum likelihood | {cells([seed['likelihood'] for seed in seeds])} |",
    ]
    for condition in CONDITIONS:
        entries = [seed["games"][condition.name] for seed in seeds if condition.name in seed["games"]]
        if entries:
            lines.append(f"| {condition.text} | {cells(entries)} |")
    return "\n".join(lines)


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--conditions", nargs="+", default=[condition.name for condition in CONDITIONS])
    parser.add_argument("--work", type=Path, default=Path("safety_work"), help="where finished parts are kept")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/safety.json"))
    parser.add_argument("--labelled", type=int, default=2000, help="sentences that the classifier learns from")
    parser.add_argument("--classifier_steps", type=int, default=300)
    parser.add_argument("--sentences", type=int, default=100_000)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--likelihood_steps", type=int, default=1200)
    parser.add_argument("--encoder_steps", type=int, default=400)
    parser.add_argument("--warmup_steps", type=int, default=200)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--samples", type=int, default=10_000)
    arguments = parser.parse_args()
    unknown = set(arguments.conditions) - {condition.name for condition in CONDITIONS}
    if unknown:
        parser.error(f"--conditions must be among {[condition.name for condition in CONDITIONS]}, got {unknown}")
    return arguments


def main() -> None:
    sizes = parsed_arguments()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    seeds = [{"seed": seed, **Seed(seed, sizes).run()} for seed in sizes.seeds]
    for seed in seeds:
        for game in seed["games"].values():
            del game["curves"]  # they stay in --work
    share = unsafe_share()
    kept = {name: value for name, value in vars(sizes).items() if name not in ("work", "output")}
    result = {
        "command": f"OMP_NUM_THREADS=1 python -m benchmarks.safety --steps {sizes.steps} --seeds "
        f"{' '.join(map(str, sizes.seeds))} --conditions {' '.join(sizes.conditions)}",
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "settings": kept,
        "unsafe_share_of_the_language": share,
        "must": must(seeds),
        "seeds": seeds,
    }
    sizes.output.write_text(json.dumps(result, indent=1) + "\n")
    print(show(seeds, share))


if __name__ == "__main__":
    main()
