"""A matrix of architectures and precisions: every cell is a short training of tiny random models on the CPU.

    python -m benchmarks.hardware.architectures
    python -m benchmarks.hardware.architectures --only llama   # the cells whose name holds "llama"
    python -m benchmarks.hardware.architectures --missing      # the cells that have not passed yet
    python -m benchmarks.hardware.architectures --publish      # write the page from the committed results

Each cell makes one model of a family, saves it as an ordinary folder, trains two steps with a fixed small counterpart
with `AdversarialTrainer`, and checks that what must move moved and what must not did not, that the saved model loads
as a user would load it, and that the loaded one gives the same logits. The results go to
benchmarks/results/architectures.jsonl after every cell, and from there to docs/supported_models.md.
"""

import argparse
import contextlib
import io
import itertools
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification, LoraConfig, PeftModel
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from hf_mgan import AdversarialConfig, AdversarialTrainer
from hf_mgan.discriminator import prepare_quantised_training

from ..sweep import PAGES, RESULTS, read_lines, write_lines
from ..sweep.tables import table, version_list
from ..testbed import versions
from .tiny_models import DISCRIMINATORS, GENERATORS, SEED, rows, save_model, texts


MODULE = "benchmarks.hardware.architectures"
COMMITTED = RESULTS / "architectures.jsonl"
TEMPLATE = Path(__file__).with_name("supported_models.md.in")
PAGE = PAGES / "supported_models.md"
STEPS = 2
PRECISIONS = ("fp32", "bf16", "LoRA", "8-bit + LoRA", "4-bit + LoRA")
LABELS = (1, 2, 3)
# Largest difference between the logits of the trained and the loaded model, as a share of the largest logit. TRL
# trains the adapters of a quantised generator in bfloat16 and PEFT loads them in float32, and for inference
# bitsandbytes has other kernels on some CPUs: either differs by the rounding of bfloat16. With both made alike, the
# first bound holds again. The second is one on the median over tokens or texts, since rounding can send single tokens
# to other experts of a mixture.
TOLERANCE = 1e-5
QUANTISED_AS_LOADED = 5e-2
SMALLEST_CHANGE = 1e-2  # by which training must have changed the logits for the comparison to say anything


def quantization(precision: str, unquantised: list[str] | None = None) -> BitsAndBytesConfig | None:
    if precision == "8-bit + LoRA":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=unquantised)
    if precision == "4-bit + LoRA":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.float32,
            llm_int8_skip_modules=unquantised,
        )
    return None


def make_trainer(
    generator: Path, discriminator: Path, output: Path, dataset: Any, precision: str, **models: Any
) -> AdversarialTrainer:
    args = AdversarialConfig(
        str(output),
        max_steps=STEPS,
        min_prompt_tokens=2,
        max_prompt_tokens=2,
        max_completion_length=8,
        per_device_train_batch_size=8,
        num_generations=8,
        learning_rate=1e-2,
        discriminator_warmup_steps=0,
        discriminator_learning_rate=1e-2,
        model_init_kwargs={"dtype": "bfloat16"} if models.pop("bfloat16_weights", False) else None,
        discriminator_label=models.pop("label", None),
        bf16=precision == "bf16",
        logging_steps=STEPS,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=SEED,
    )
    return AdversarialTrainer(
        str(generator), discriminator=str(discriminator), args=args, train_dataset=dataset, **models
    )


@dataclass
class BeforeAndAfter:
    """What a model was before training, and what it must be after it."""

    model: nn.Module
    inputs: dict[str, Tensor]
    states: dict[str, Tensor] = field(init=False)
    trained: set[str] = field(init=False)

    def __post_init__(self) -> None:
        parameters = dict(self.model.named_parameters())
        self.states = {name: one.detach().clone() for name, one in parameters.items()}
        self.trained = {name for name, one in parameters.items() if one.requires_grad}
        self.base_logits = self._base_logits()
        self.logits = logits(self.model, self.inputs)

    def _base_logits(self) -> Tensor | None:
        if not isinstance(self.model, PeftModel):
            return None
        with self.model.disable_adapter():
            return logits(self.model, self.inputs)

    def check(self) -> Tensor:
        """Check what moved and what did not; return the logits now."""
        if isinstance(self.model, PeftModel):
            expected = {name for name in self.states if "lora_" in name or "modules_to_save" in name}
            require(0 < len(expected) < len(self.states), "no adapters, or nothing but adapters")
            require(self.trained == expected, f"trainable: {sorted(self.trained ^ expected)}")
            change = difference(self._base_logits(), self.base_logits)
            require(change <= TOLERANCE, f"the base under the adapters changed its logits by {change:.1e}")
        else:
            require(self.trained == set(self.states), f"frozen: {sorted(set(self.states) - self.trained)}")
        now = dict(self.model.named_parameters())
        moved = {name for name, value in self.states.items() if not torch.equal(value, now[name])}
        require(self.trained <= moved, f"did not move: {sorted(self.trained - moved)}")
        require(moved <= self.trained, f"moved: {sorted(moved - self.trained)}")
        after = logits(self.model, self.inputs)
        change = difference(after, self.logits)
        require(change > SMALLEST_CHANGE, f"training changed the logits by {change:.1e} only")
        return after


def require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


@torch.no_grad()
def logits(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Return the logits in evaluation mode; of a language model those of tokens that are no padding."""
    training = model.training
    model.eval()
    values = model(**inputs).logits.float()
    model.train(training)
    return values if values.ndim == 2 else values[inputs["attention_mask"].bool()]


def difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference as a share of the largest value."""
    return ((one - other).abs().max() / other.abs().max()).item()


def median_difference(one: Tensor, other: Tensor) -> float:
    """Return the same of the median row, a token or a text."""
    return ((one - other).abs().amax(1).median() / other.abs().max()).item()


def train_generator(name: str, precision: str, counterpart: Path, folder: Path) -> float:
    """Train the generator of a cell; return how far the logits of the loaded model are from the trained one's."""
    family = GENERATORS[name]
    adapters = "LoRA" in precision
    trainer = make_trainer(
        save_model(family, folder / "model", None),
        counterpart,
        folder / "out",
        rows(family.tokenizer),
        precision,
        bfloat16_weights=precision == "bf16",
        quantization_config=quantization(precision, family.unquantised),
        peft_config=LoraConfig(r=2, target_modules=family.targets, task_type="CAUSAL_LM") if adapters else None,
    )
    model, out = trainer.model, folder / "out"
    check_quantised(model, precision)
    encoded = trainer.processing_class(texts(4, 2), return_tensors="pt", return_token_type_ids=False)
    state = BeforeAndAfter(model, dict(encoded))
    trainer.train()
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # ends the autocast of its forward pass
    after = state.check()
    trainer.save_model()
    loader = AutoPeftModelForCausalLM if adapters else AutoModelForCausalLM
    return check_loaded(lambda: loader.from_pretrained(out, **same_quantization(model)), state, after)


def train_discriminator(name: str, precision: str, num_labels: int, counterpart: Path, folder: Path) -> float:
    """Train the discriminator of a cell; return as [`train_generator`] does."""
    family = DISCRIMINATORS[name]
    adapters = "LoRA" in precision
    trainer = make_trainer(
        counterpart,
        save_model(family, folder / "model", num_labels),
        folder / "out",
        rows("plain"),
        precision,
        label="LABEL_1" if num_labels == 2 else 1 if num_labels == 3 else None,
        discriminator_quantization_config=quantization(precision, family.unquantised),
        discriminator_peft_config=LoraConfig(r=2, target_modules=family.targets) if adapters else None,
    )
    model, out = trainer.discriminator.model, folder / "out" / "discriminator"
    check_quantised(model, precision)
    require(model.config.num_labels == num_labels, f"{model.config.num_labels} labels")
    state = BeforeAndAfter(model, dict(trainer.discriminator.encode(["a dog", "the cat", "", "one"], texts(4, 2))))
    check_head(model)
    trainer.train()
    after = state.check()
    trainer.save_model()
    arguments = {}
    if adapters:  # what PEFT, which saves no configuration, has to be told again
        pad_token_id = trainer.discriminator.processing_class.pad_token_id
        arguments = {"num_labels": num_labels, "pad_token_id": pad_token_id, **same_quantization(model)}
    loader = AutoPeftModelForSequenceClassification if adapters else AutoModelForSequenceClassification
    return check_loaded(lambda: loader.from_pretrained(out, **arguments), state, after)


def check_quantised(model: nn.Module, precision: str) -> None:
    kinds = {type(module).__name__ for module in model.modules()} & {"Linear8bitLt", "Linear4bit"}
    expected = {"8-bit + LoRA": {"Linear8bitLt"}, "4-bit + LoRA": {"Linear4bit"}}.get(precision, set())
    require(kinds == expected, f"layers of the kinds {kinds}")


def check_head(model: nn.Module) -> None:
    """Check that a classifier's weights are float32, and those outside its base model neither quantised nor frozen."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    for name, parameter in base.named_parameters():
        if name.startswith(f"{base.base_model_prefix}."):
            require(parameter.dtype in (torch.float32, torch.int8, torch.uint8), f"{name} is {parameter.dtype}")
        else:
            require(parameter.dtype == torch.float32, f"{name} is {parameter.dtype}")
            require(parameter.requires_grad or "original_module" in name, f"{name} is frozen")


def same_quantization(model: nn.Module) -> dict[str, Any]:
    config = getattr(model.config, "quantization_config", None)
    return {} if config is None else {"quantization_config": config}


def check_loaded(load: Callable[[], nn.Module], state: BeforeAndAfter, expected: Tensor) -> float:
    """Check that the loaded model gives the logits of the trained one; return how far they are apart."""
    trained = dict(state.model.named_parameters())
    quantised = any(not one.is_floating_point() for one in trained.values())
    changes = []
    for alike in (False, True) if quantised else (False,):
        loaded = load()
        if alike:
            prepare_quantised_training(loaded)
            for name, parameter in loaded.named_parameters():
                parameter.data = parameter.data.to(trained[name].dtype)
        now = logits(loaded, state.inputs)
        if alike or not quantised:
            change, bound = difference(now, expected), TOLERANCE
        else:
            change, bound = median_difference(now, expected), QUANTISED_AS_LOADED
        require(change <= bound, f"the loaded model's logits differ by {change:.1e}; bound: {bound:.0e}")
        changes.append(change)
    return changes[0]


def save_counterparts(folder: Path) -> tuple[Path, Path]:
    """Save the generator and the discriminator that every cell's model is trained with."""
    return (
        save_model(GENERATORS["GPT-2"], folder / "generator", None),
        save_model(DISCRIMINATORS["BERT"], folder / "discriminator", 1),
    )


def all_cells() -> dict[str, tuple]:
    """Return the names of all cells, and for each its family, its precision and the labels of a discriminator."""
    cells: dict[str, tuple] = {}
    for name, precision in itertools.product(GENERATORS, PRECISIONS):
        cells[f"generator / {name} / {precision}"] = (name, precision)
    for name, precision, labels in itertools.product(DISCRIMINATORS, PRECISIONS, LABELS):
        cells[f"discriminator / {name} / {precision} / {labels}"] = (name, precision, labels)
    return cells


def train_cell(cell: tuple, counterparts: tuple[Path, Path], folder: Path) -> float:
    """Train one of [`all_cells`]; a check that fails raises an `AssertionError`."""
    if len(cell) == 2:
        return train_generator(*cell, counterparts[1], folder)
    return train_discriminator(*cell, counterparts[0], folder)


def result(cell: tuple, counterparts: tuple[Path, Path]) -> dict[str, Any]:
    """Train a cell and return what becomes of it."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            # The table that TRL prints of each metric is not what this benchmark shows.
            with contextlib.redirect_stdout(io.StringIO()):
                outcome = {"ok": True, "reason": None, "difference": train_cell(cell, counterparts, Path(folder))}
        except Exception as error:  # of whatever sort: that is what the cell shows
            outcome = {"ok": False, "reason": f"{type(error).__name__}: {error}".partition("\n")[0]}
    return {**outcome, "seconds": round(time.perf_counter() - began, 2)}


def page(results: list[dict[str, Any]]) -> str:
    """Return the page of the documentation.

    Args:
        results (`list[dict]`): One per cell.
    """
    cells = {one["cell"]: one for one in results}
    reasons = list(dict.fromkeys(cell["reason"] for cell in results if not cell["ok"]))

    def mark(name: str) -> str:
        if name not in cells:
            return "not run"
        return "✓" if cells[name]["ok"] else f"[{reasons.index(cells[name]['reason']) + 1}]"

    def marks(model: str, families: dict, endings: list[str]) -> str:
        lines = [
            [
                family,
                *(
                    " ".join(mark(f"{model} / {family} / {precision}{ending}") for ending in endings)
                    for precision in PRECISIONS
                ),
            ]
            for family in families
        ]
        return table([model, *PRECISIONS], lines)

    return TEMPLATE.read_text().format(
        generators=marks("generator", GENERATORS, [""]),
        discriminators=marks("discriminator", DISCRIMINATORS, [f" / {labels}" for labels in LABELS]),
        reasons="\n".join(f"{number}. {reason}" for number, reason in enumerate(reasons, 1)) or "Every cell passed.",
        passed=sum(cell["ok"] for cell in results),
        total=len(cells),
        seconds=round(sum(cell["seconds"] for cell in results)),
        largest=f"{100 * max(cell['difference'] for cell in results if cell['ok']):.1f}",
        versions=version_list(results),
    )


def publish() -> None:
    """Write the page from the committed results."""
    PAGE.write_text(page(read_lines(COMMITTED)))


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="cells whose name holds this; the others keep their results")
    parser.add_argument("--missing", action="store_true", help="cells without a result, or with a failure")
    parser.add_argument("--publish", action="store_true", help="train nothing, and write the page")
    arguments = parser.parse_args(words)
    if arguments.publish:
        publish()
        return
    warnings.filterwarnings("ignore")
    set_verbosity_error()
    disable_progress_bar()
    datasets.disable_progress_bars()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

    known = {one["cell"]: one for one in read_lines(COMMITTED)} if COMMITTED.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        counterparts = save_counterparts(Path(folder))
        for name, cell in all_cells().items():
            if arguments.only.lower() not in name.lower() or (arguments.missing and known.get(name, {}).get("ok")):
                continue
            known[name] = {"cell": name, **result(cell, counterparts), "versions": versions("bitsandbytes")}
            print(f"{name}: {known[name]['reason'] or 'ok'} ({known[name]['seconds']} s)", flush=True)
            write_lines(COMMITTED, [known[one] for one in all_cells() if one in known])
    publish()


if __name__ == "__main__":
    main()
