"""Ten modes and a generator that starts on one of them: which losses and which anchors find the others.

    python -m benchmarks.mixture

The smallest training in which modes can be lost: a real text is one of ten words, each as likely as any other; a
completion is one word. The generator is a GPT-2 that begins with nearly all of its mass on one word (`one`) or, to see
whether training holds what it has, equally on all of them (`all`); the discriminator is a BERT with random weights.
Both are trained with `AdversarialTrainer`, so losses, rewards, anchors and replay are those of every other run. What
the generator gives to each word can be read off its softmax, so the Jensen-Shannon divergence is exact. A mode is
covered if the generator gives it at least a fifth of its share. A run takes a few seconds. The results go to
benchmarks/results/mixture.jsonl, one run per line.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
    set_seed,
)
from transformers.utils import logging

from hf_mgan import AdversarialConfig, AdversarialTrainer

from ..sweep import RESULTS, write_lines
from ..testbed import versions
from .tables import ANCHORS, LOSS_NAMES, STARTS


MODES = ["red", "orange", "yellow", "green", "blue", "indigo", "violet", "white", "grey", "black"]
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "[MASK]"]
STEPS, BATCH_SIZE = 120, 64
# The mass of the other modes where the generator starts on one.
REMAINDER = 0.02
MODULE = "benchmarks.mixture"
COMMITTED = RESULTS / "mixture.jsonl"
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "real text": {"real_text_coef": 0.1},
    "KL": {"beta": 0.1},
    "replay": {"discriminator_replay_fraction": 0.5},
}


def make_tokenizer(adds_ends: bool) -> PreTrainedTokenizerFast:
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *MODES])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if adds_ends:
        ends = [(token, vocabulary[token]) for token in ("<s>", "</s>")]
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    names = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "[MASK]",
    }
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=8, **names)


def make_generator(tokenizer: PreTrainedTokenizerFast, start: str) -> GPT2LMHeadModel:
    """Make a GPT-2 and fit its first word: nearly always the first mode (`one`), or all of them equally (`all`)."""
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=16,
            n_layer=1,
            n_head=1,
            n_positions=8,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    goal = torch.full((len(tokenizer),), 1e-5)
    goal[len(SPECIAL) :] = REMAINDER / (len(MODES) - 1) if start == "one" else 1 / len(MODES)
    if start == "one":
        goal[len(SPECIAL)] = 1 - REMAINDER
    goal /= goal.sum()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        logps = model(torch.tensor([[tokenizer.bos_token_id]])).logits[0, -1].log_softmax(-1)
        loss = (goal * (goal.log() - logps)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@torch.no_grad()
def measure(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast) -> dict[str, float]:
    """Return the exact divergence in bits and the number of modes covered."""
    probs = model(torch.tensor([[tokenizer.bos_token_id]])).logits[0, -1].double().softmax(-1)
    real = torch.zeros_like(probs)
    real[len(SPECIAL) :] = 1 / len(MODES)
    mean = (real + probs) / 2
    divergence = sum(torch.xlogy(p, p / mean).nan_to_num().sum() for p in (real, probs)) / (2 * math.log(2))
    covered = (probs[len(SPECIAL) :] >= 0.2 / len(MODES)).sum()
    return {"divergence": round(float(divergence), 4), "modes": int(covered)}


def train(loss: str, anchor: dict[str, Any], start: str, seed: int, steps: int = STEPS) -> dict[str, Any]:
    """Train and measure the generator before and after it."""
    set_seed(seed)
    tokenizer = make_tokenizer(adds_ends=False)
    generator = make_generator(tokenizer, start)
    before = measure(generator, tokenizer)
    discriminator = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=32,
            max_position_embeddings=8,
            num_labels=1,
        )
    )
    paired = loss == "bradley_terry"  # each completion against its own prompt's real text: groups of two
    with tempfile.TemporaryDirectory() as folder:
        # By its folder, from which the start is loaded again where the KL divergence to it is wanted.
        generator.save_pretrained(folder)
        args = AdversarialConfig(
            folder,
            max_steps=steps,
            per_device_train_batch_size=BATCH_SIZE,
            num_generations=2 if paired else BATCH_SIZE,
            max_completion_length=1,
            learning_rate=2e-3,
            scale_rewards="none",
            loss_type="dr_grpo",
            discriminator_loss=loss,
            discriminator_learning_rate=1e-2,
            discriminator_warmup_steps=20,
            model_init_kwargs={"dtype": "float32"},
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            seed=seed,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **anchor,
        )
        trainer = AdversarialTrainer(
            model=folder,
            discriminator=discriminator,
            discriminator_processing_class=make_tokenizer(adds_ends=True),
            processing_class=tokenizer,
            args=args,
            train_dataset=Dataset.from_dict({"text": MODES * 100}),
        )
        trainer.remove_callback(PrinterCallback)
        began = time.perf_counter()
        trainer.train()
    seconds = round(time.perf_counter() - began, 1)
    return {"seed": seed, "before": before, "after": measure(trainer.model.eval(), tokenizer), "seconds": seconds}


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--losses", nargs="+", default=list(LOSS_NAMES), choices=list(LOSS_NAMES))
    parser.add_argument("--anchors", nargs="+", default=list(ANCHORS), choices=list(ANCHORS))
    parser.add_argument("--starts", nargs="+", default=list(STARTS), choices=list(STARTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--output", type=Path, default=COMMITTED)
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    results = []
    for start in arguments.starts:
        for loss in arguments.losses:
            for anchor in arguments.anchors:
                for seed in arguments.seeds:
                    measured = train(loss, SETTINGS[anchor], start, seed, arguments.steps)
                    about = {"start": start, "loss": loss, "anchor": anchor, "steps": arguments.steps}
                    results.append({**about, **measured, "versions": versions()})
                    after = measured["after"]
                    print(
                        f"{start}, {loss}, {anchor}, seed {seed}: {after['divergence']} bits, {after['modes']} modes"
                    )
                    write_lines(arguments.output, results)


if __name__ == "__main__":
    main()
