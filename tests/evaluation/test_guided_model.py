"""A generator with its discriminator as one of the models of an evaluation."""

import json

import pytest
import torch
from datasets import Dataset

from hf_mgan import Discriminator
from hf_mgan.decoding import DecodingConfig
from hf_mgan.discriminator import calibrate
from hf_mgan.evaluation import EvaluationConfig, GuidedModel, evaluate_generator, run
from hf_mgan.evaluation.models import fingerprint

from ..conftest import bert_classifier, texts, tokenizer_of_pairs


HELD_OUT = Dataset.from_dict({"text": texts(24, seed=1)})


@pytest.fixture
def discriminator(tmp_path):
    """Saved, calibrated for temperature 0.7."""
    made = Discriminator(bert_classifier(), tokenizer_of_pairs())
    spread = torch.randn(50, generator=torch.Generator().manual_seed(0))
    made.calibration = calibrate(spread + 1, spread, label=0, with_prompt=True, temperature=0.7, max_new_tokens=8)
    made.save_pretrained(tmp_path / "d")
    return str(tmp_path / "d")


def settings(folder, **changes):
    values = {"num_samples": 12, "temperatures": [0.9, 1.3], "max_completion_length": 8, "reverse_perplexity": False}
    return EvaluationConfig(str(folder), **{**values, **changes})


@pytest.fixture(autouse=True)
def nothing_is_drawn(monkeypatch):
    monkeypatch.setattr(run, "draw", lambda *_: None)


def test_evaluation_states_what_guidance_costs(folders, discriminator, tmp_path):
    """The filter refuses every text with a king, so it is drawn anew; the generator alone draws each text once."""
    guided = GuidedModel(
        folders["start"],
        discriminator,
        DecodingConfig(threshold=1.0, num_candidates=50),
        keep=lambda prompts, completions: ["king" not in text for text in completions],
    )
    report = evaluate_generator({"alone": folders["start"], "guided": guided}, HELD_OUT, settings(tmp_path / "out"))
    assert report.temperatures_of("alone") == [0.9, 1.3]
    assert report.temperatures_of("guided") == [0.7]  # the one that the discriminator is calibrated for
    part = report.parts["guided_T0.7"]
    assert not any("king" in text for text in part["texts"])
    assert report.metric("guided_T0.7", "draws").value > 1.5
    assert report.metric("alone_T0.9", "draws").value == 1
    tokens = {name: report.metric(name, "tokens_per_text").value for name in ("alone_T0.9", "guided_T0.7")}
    assert tokens["alone_T0.9"] == pytest.approx(report.parts["alone_T0.9"]["tokens"] / 12)
    assert tokens["guided_T0.7"] > 8  # more than a text can have
    assert report.metric("guided_T0.7", "real_nll") is None
    assert report.metric("alone_T0.9", "real_nll") is not None
    lines = (tmp_path / "out" / "report.md").read_text().splitlines()
    assert sum(line.startswith("| guided | 0.7 |") for line in lines) == 1
    assert "| draws |" in next(line for line in lines if line.startswith("| | T |"))


def test_evaluation_of_a_loaded_discriminator_equals_a_saved_one(folders, discriminator, tmp_path):
    loaded = Discriminator.from_pretrained(discriminator)
    reports = [
        evaluate_generator({"g": GuidedModel(folders["start"], given)}, HELD_OUT, settings(tmp_path / name))
        for name, given in (("saved", discriminator), ("loaded", loaded))
    ]
    assert reports[0].parts["g_T0.7"]["texts"] == reports[1].parts["g_T0.7"]["texts"]


def test_fingerprint_of_a_guided_model_knows_its_settings(folders, discriminator):
    one = GuidedModel(folders["start"], discriminator)
    assert fingerprint(one) == fingerprint(GuidedModel(folders["start"], discriminator))
    for other in (
        GuidedModel(folders["tuned"], discriminator),
        GuidedModel(folders["start"], folders["start"]),
        GuidedModel(folders["start"], discriminator, DecodingConfig(threshold=0.5)),
        folders["start"],
    ):
        assert fingerprint(one) != fingerprint(other)
    same = DecodingConfig(seed=5, batch_size=3, max_new_tokens=7)  # the evaluation's own take their place
    assert fingerprint(one) == fingerprint(GuidedModel(folders["start"], discriminator, same))


def test_evaluation_goes_on_with_the_same_guidance_alone(folders, discriminator, tmp_path):
    config = settings(tmp_path / "out")
    evaluate_generator({"g": GuidedModel(folders["start"], discriminator)}, HELD_OUT, config)
    samples = json.loads((tmp_path / "out" / "samples" / "g_T0.7.json").read_text())
    assert len(samples["texts"]) == 12
    other = GuidedModel(folders["start"], discriminator, DecodingConfig(threshold=0.5))
    with pytest.raises(ValueError, match="model g"):
        evaluate_generator({"g": other}, HELD_OUT, config)


def test_evaluation_refuses_the_weights_of_the_guide_as_encoder(folders, discriminator, tmp_path):
    config = settings(tmp_path / "out", encoder=discriminator)
    with pytest.raises(ValueError, match="has the weights of the discriminator"):
        evaluate_generator({"g": GuidedModel(folders["start"], discriminator)}, HELD_OUT, config)
