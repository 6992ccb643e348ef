"""A real pair on real text: SmolLM2-135M-Instruct with adapters against all-MiniLM-L6-v2, on sentences of WordNet.

The models come from the folder that HF_MGAN_REAL_MODELS names, or are made once, in about a minute, by the tool that
lies beside the repository; the texts lie beside it too. What cannot be had skips the test and says why.
"""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset, load_dataset
from peft import AutoPeftModelForCausalLM, LoraConfig
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from hf_mgan import AdversarialConfig, AdversarialTrainer, Discriminator, prepare_dataset
from hf_mgan.data import TextPath, inspected, plain_text, start_of_sequence
from hf_mgan.evaluation.text_metrics import text_metrics
from hf_mgan.metrics import encoder_features, fine_tuned_c2st, fine_tuning


pytestmark = pytest.mark.real

SHARED = Path(__file__).parents[2] / "shared"
CACHE = Path.home() / ".cache" / "hf_mgan" / "real_models"
GENERATOR, DISCRIMINATOR = "SmolLM2-135M-Instruct", "all-MiniLM-L6-v2"


def complete(folder):
    """Whether a folder holds both models: the configuration is there before the weights are."""
    return all((folder / name / "model.safetensors").exists() for name in (GENERATOR, DISCRIMINATOR))


def make_models(tool, target):
    """Make the models beside their place and move them there when they are complete."""
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    made = subprocess.run([sys.executable, str(tool), str(unfinished)], capture_output=True, text=True, check=False)
    if made.returncode == 0 and complete(unfinished):
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
    shutil.rmtree(unfinished, ignore_errors=True)
    return made.stderr


@pytest.fixture(scope="module")
def real_models():
    if "HF_MGAN_REAL_MODELS" in os.environ:
        return Path(os.environ["HF_MGAN_REAL_MODELS"])
    tool = SHARED / "tools" / "real_models.py"
    if not complete(CACHE):
        if not tool.exists():
            pytest.skip(f"HF_MGAN_REAL_MODELS is not set, and there is no {tool} to make the models with")
        said = make_models(tool, CACHE)
        if not complete(CACHE):
            pytest.skip(f"{tool} could not make the models: {said[-500:]}")
    return CACHE


@pytest.fixture(scope="module")
def sentences():
    path = SHARED / "data" / "wordnet_examples.train.jsonl"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    with path.open() as file:
        return Dataset.from_list([json.loads(line) for line, _ in zip(file, range(256), strict=False)])


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def moved(before, model):
    return {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}


def test_warm_start_and_training_move_both_models(real_models, sentences, tmp_path):
    settings = {
        "max_steps": 2,
        "per_device_train_batch_size": 8,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": True,
        "gradient_checkpointing": False,
    }
    tokenizer = AutoTokenizer.from_pretrained(real_models / GENERATOR, padding_side="left")
    warm_start = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(real_models / GENERATOR, dtype=torch.bfloat16),
        args=SFTConfig(str(tmp_path / "warm_start"), learning_rate=2e-4, **settings),
        train_dataset=prepare_dataset(sentences, tokenizer),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=8, target_modules="all-linear"),
    )
    fresh = weights(warm_start.model)
    warm_start.train()
    adapters = {name for name in fresh if "lora_" in name}
    assert {name for name in moved(fresh, warm_start.model) if "lora_B" in name} == {
        name for name in adapters if "lora_B" in name
    }

    trainer = AdversarialTrainer(
        warm_start.model,
        args=AdversarialConfig(
            str(tmp_path / "adversarial"),
            max_completion_length=16,
            learning_rate=1e-4,
            discriminator_warmup_steps=0,
            **settings,
        ),
        train_dataset=sentences,
        processing_class=tokenizer,
        discriminator=str(real_models / DISCRIMINATOR),
    )
    generator, discriminator = weights(trainer.model), weights(trainer.discriminator.model)
    trainer.train()

    assert moved(generator, trainer.model) == adapters
    assert moved(discriminator, trainer.discriminator.model) == set(discriminator)
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(steps) == 2
    for entry in steps:
        assert all(math.isfinite(value) for value in entry.values() if isinstance(value, float))
        # A fresh head has seen nothing: D is near 1/2 on both sides, V near -2 log 2.
        assert abs(entry["discriminator/value"] + 2 * math.log(2)) < 0.5
        assert entry["discriminator/grad_norm"] > 0
        assert entry["reward_std"] > 0

    trainer.save_model()
    texts = sentences[:4]["text"]
    folder = tmp_path / "adversarial" / "discriminator"
    saved = Discriminator(
        AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), bf16=True
    )
    scores = trainer.discriminator.score([""] * 4, texts)
    assert scores.unique().numel() == 4
    assert_close(saved.score([""] * 4, texts), scores, rtol=0, atol=0)

    # Without accelerate's autocast, which a model that is loaded again does not have.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
    reloaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adversarial", dtype=torch.bfloat16).eval()
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**encoded).logits
        assert_close(reloaded(**encoded).logits, logits, rtol=0, atol=0)
        with reloaded.disable_adapter():
            assert not torch.equal(reloaded(**encoded).logits, logits)


CORPORA = (
    "wordnet_examples",
    "tang_quatrains",
    "austen_sentences",
    "chatterbot_english",
    "bible_en_es",
    "devils_dictionary",
)


@pytest.mark.filterwarnings("ignore:.*references of train_dataset")
@pytest.mark.parametrize("corpus", CORPORA)
def test_real_rows_are_cut_and_read_without_loss(real_models, tmp_path, corpus):
    """300 rows: the references are shown as they are; of texts, cut at every k, the tokens are those of the text."""
    path = SHARED / "data" / f"{corpus}.train.jsonl"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    tokenizer = AutoTokenizer.from_pretrained(real_models / GENERATOR, padding_side="left")
    rows = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path)).select(range(300))
    start = start_of_sequence(tokenizer)
    for count in (1, 2, 3, 5, 8) if "text" in rows.column_names else (0,):
        prepared = prepare_dataset(rows, tokenizer, prompt_tokens=(count, count))
        prompts, references = list(prepared["prompt"]), list(prepared["completion"])
        text_path = inspected(TextPath(tokenizer), prepared)
        assert text_path.as_completions(prompts, references) == [plain_text(reference) for reference in references]
        if count:
            both = zip(text_path.encode_prompts(prompts), text_path.encode(prompts, references), strict=True)
            wholes = [[*tokenizer(start + text)["input_ids"], tokenizer.eos_token_id] for text in rows["text"]]
            assert [prompt + ids for prompt, ids in both] == wholes


def test_c2st_with_an_encoder_tells_spliced_sentences(real_models):
    """Half of one sentence and half of the next: real n-grams, and no sense."""
    path = SHARED / "data" / "wordnet_examples.train.jsonl"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    with path.open() as file:
        texts = [json.loads(line)["text"] for line, _ in zip(file, range(800), strict=False)]
    real, words = texts[::2], [text.split() for text in texts[1::2]]
    spliced = [
        " ".join(row[: len(row) // 2] + other[len(other) // 2 :])
        for row, other in zip(words, [*words[1:], words[0]], strict=True)
    ]
    features = encoder_features(str(real_models / GENERATOR))
    metrics = text_metrics(spliced, real, features=features, reverse=False).metrics
    assert metrics["c2st_auc"].low < 0.5
    assert metrics["encoder_c2st_auc"].low > 0.6


def test_fine_tuned_c2st_tells_sentences_in_disorder(real_models, sentences, monkeypatch):
    """The words of each sentence from last to first: the same words, and hardly an n-gram that no sentence has."""
    monkeypatch.setattr(fine_tuning, "MIN_STEPS", 40)
    real, others = sentences[:128]["text"], sentences[128:]["text"]
    backwards = [" ".join(text.split()[::-1]) for text in others]
    encoder = str(real_models / DISCRIMINATOR)
    result = fine_tuned_c2st(real, backwards, encoder, epochs=5, batch_size=8)
    assert result.auc.low > 0.6
    assert result.real_scores.mean() > 0 > result.generated_scores.mean()
