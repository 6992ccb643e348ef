"""Simulated logits, whose true log-ratio is known.

Real logits are normal with mean 0.4 and generated ones with mean -1.6, both with deviation 2. The log-ratio of two
such normal densities at z is ((z + 1.6)^2 - (z - 0.4)^2) / 8 = 0.5 z + 0.3: a slope of 0.5 and an intercept of 0.3.
"""

import json

import pytest
import torch
from transformers import AutoTokenizer

from hf_mgan import Discriminator
from hf_mgan.discriminator import Calibration, calibrate
from hf_mgan.discriminator.calibration import CALIBRATION_FILE, calibration_error, saved_calibration

from ..conftest import bert_classifier
from .test_discriminator import COMPLETIONS, PROMPTS, with_optimizer


pytest.importorskip("sklearn", reason="the extra `evaluation` is not installed")

OF_TEXTS = {"label": 0, "with_prompt": True, "temperature": 1.0, "max_new_tokens": 8}


def logits(count, seed=0, fakes=None):
    generator = torch.Generator().manual_seed(seed)
    real, fake = (torch.randn(size, generator=generator) for size in (count, fakes or count))
    return 0.4 + 2 * real, -1.6 + 2 * fake


def calibrated(count=200, **changes):
    return calibrate(*logits(count), **{**OF_TEXTS, **changes})


@pytest.mark.parametrize("fakes", [20_000, 5_000])
def test_calibrate_finds_the_true_log_ratio(fakes):
    """Both sides count alike, however many texts they have."""
    found = calibrate(*logits(20_000, fakes=fakes), **OF_TEXTS)
    assert found.slope == pytest.approx(0.5, abs=0.02)
    assert found.intercept == pytest.approx(0.3, abs=0.04)
    assert found.num_texts == fakes
    assert found.log_ratio(torch.tensor([2.0])).item() == pytest.approx(1.3, abs=0.06)
    # P(real > fake) of a difference that is normal with mean 2 and deviation 2.83.
    expected = torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(2 / 8**0.5)).item()
    assert found.auc[1] < expected < found.auc[2]
    assert found.auc[0] == pytest.approx(expected, abs=0.01)


def test_calibrate_measures_loss_and_error_before_and_after():
    """The logit as it is says too much: the calibrated one has less loss, and next to no calibration error."""
    found = calibrate(*logits(20_000), **OF_TEXTS)
    real, fake = (0.5 * side + 0.3 for side in logits(20_000))
    loss = 0.5 * (torch.nn.functional.softplus(-real).mean() + torch.nn.functional.softplus(fake).mean()).item()
    assert found.loss == pytest.approx(loss, abs=1e-3)
    assert found.uncalibrated_loss > found.loss + 0.05
    assert found.error < 0.01
    assert found.uncalibrated_error > 0.1


def test_calibrate_loss_is_that_of_texts_not_seen():
    """On its own 20 texts of a side, a calibration has less loss than on those of the other half."""
    differences = []
    for seed in range(20):
        found = calibrate(*logits(20, seed), **OF_TEXTS)
        real, fake = (found.log_ratio(side) for side in logits(20, seed))
        own = 0.5 * (torch.nn.functional.softplus(-real).mean() + torch.nn.functional.softplus(fake).mean()).item()
        differences.append(found.loss - own)
    assert sum(differences) / 20 > 0.02


def test_calibrate_of_calibrated_logits_changes_little():
    real, fake = (0.5 * side + 0.3 for side in logits(20_000))
    found = calibrate(real, fake, **OF_TEXTS)
    assert found.slope == pytest.approx(1.0, abs=0.04)
    assert found.intercept == pytest.approx(0.0, abs=0.04)
    assert found.loss == pytest.approx(found.uncalibrated_loss, abs=1e-3)


def test_calibrate_keeps_a_slope_of_parted_logits_finite():
    found = calibrate(torch.linspace(5, 9, 50), torch.linspace(-9, -5, 50), **OF_TEXTS)
    assert 0 < found.slope < 10
    assert found.auc[0] == 1.0


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (torch.randn(19), torch.randn(50), "at least 20 held-out texts .* got 19 real and 50 generated"),
        (torch.randn(50), torch.randn(0), "got 50 real and 0 generated"),
        (torch.randn(50), torch.full((50,), torch.nan), "not finite"),
        (torch.full((50,), torch.inf), torch.randn(50), "not finite"),
    ],
)
def test_calibrate_refuses_logits_without_a_fit(real, fake, message):
    with pytest.raises(ValueError, match=message):
        calibrate(real, fake, **OF_TEXTS)


def test_calibrate_of_reversed_logits_tells_nothing_apart():
    """Generated texts above real ones are a log-ratio of no slope: every text has a log-ratio of 0."""
    with pytest.warns(UserWarning, match=r"generated texts as high as real ones \(AUC 0\.2.*discriminator_label"):
        found = calibrate(*logits(200)[::-1], **OF_TEXTS)
    assert (found.slope, found.intercept) == (0.0, 0.0)
    assert found.log_ratio(torch.tensor([-9.0, 9.0])).tolist() == [0.0, 0.0]


def test_calibrate_needs_scikit_learn(monkeypatch):
    monkeypatch.setattr("hf_mgan.metrics.extras.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"A calibration needs scikit-learn.*hf-mgan\[evaluation\]"):
        calibrated()


def test_calibration_error_of_known_values():
    """Log-ratios of +-2 are probabilities of 0.881 and 0.119.

    Three of four real texts are at +2 and one of four generated ones, so the share of real texts is 0.75 there and
    0.25 at -2: the error is 0.131 in both bins.
    """
    real, fake = torch.tensor([2.0, 2.0, 2.0, -2.0]), torch.tensor([2.0, -2.0, -2.0, -2.0])
    assert calibration_error(real, fake) == pytest.approx(0.1308, abs=1e-4)
    # Each side weighs a half, however many texts it has.
    assert calibration_error(real, fake.repeat(3)) == pytest.approx(0.1308, abs=1e-4)
    assert calibration_error(torch.tensor([40.0]), torch.tensor([-40.0])) == pytest.approx(0.0, abs=1e-6)
    assert calibration_error(torch.tensor([-40.0]), torch.tensor([40.0])) == pytest.approx(1.0, abs=1e-6)


def test_saved_calibration_is_the_same(tmp_path):
    calibration = calibrated(generation_kwargs={"top_p": 0.9}, temperature=0.7, with_prompt=False, label=1)
    calibration.save(tmp_path)
    assert Calibration.load(tmp_path / CALIBRATION_FILE) == calibration
    assert saved_calibration(str(tmp_path)) == calibration
    assert json.loads((tmp_path / CALIBRATION_FILE).read_text())["generation_kwargs"] == {"top_p": 0.9}


@pytest.mark.parametrize("content", ["{", "[]", '{"slope": 1.0}', '{"auc": [1, 1, 1], "slope": 1.0}', '{"auc": 3}'])
def test_calibration_of_another_content_is_refused(tmp_path, content):
    path = tmp_path / CALIBRATION_FILE
    path.write_text(content)
    with pytest.raises(ValueError, match=r"calibration\.json is no calibration of a discriminator"):
        Calibration.load(path)


def test_folder_without_a_calibration(tmp_path):
    assert saved_calibration(str(tmp_path)) is None


def discriminator_of(tokenizer, num_labels=1, **changes):
    return Discriminator(bert_classifier(num_labels), tokenizer, **changes)


def test_log_ratio_is_the_calibrated_logit(pair_tokenizer):
    discriminator = discriminator_of(pair_tokenizer)
    scores = discriminator.score(PROMPTS, COMPLETIONS)
    assert discriminator.log_ratio(PROMPTS, COMPLETIONS).equal(scores)
    discriminator.calibration = calibrated()
    expected = discriminator.calibration.slope * scores + discriminator.calibration.intercept
    assert discriminator.log_ratio(PROMPTS, COMPLETIONS).allclose(expected)


def test_save_pretrained_keeps_the_calibration(pair_tokenizer, tmp_path):
    discriminator = discriminator_of(pair_tokenizer)
    discriminator.calibration = calibrated()
    discriminator.save_pretrained(tmp_path)
    loaded = Discriminator.from_pretrained(tmp_path)
    assert loaded.calibration == discriminator.calibration
    assert loaded.log_ratio(PROMPTS, COMPLETIONS).allclose(discriminator.log_ratio(PROMPTS, COMPLETIONS), atol=1e-6)
    fresh = Discriminator.from_pretrained(tmp_path, fresh_head=True)
    assert fresh.calibration is None


def test_save_pretrained_keeps_the_label_of_the_calibration(pair_tokenizer, tmp_path):
    """Of two labels the second means real: nothing else says so in the folder."""
    discriminator = discriminator_of(pair_tokenizer, num_labels=2, label=1)
    discriminator.calibration = calibrated(label=1)
    discriminator.save_pretrained(tmp_path)
    loaded = Discriminator.from_pretrained(tmp_path)
    assert loaded.label == 1
    assert loaded.score(PROMPTS, COMPLETIONS).allclose(discriminator.score(PROMPTS, COMPLETIONS), atol=1e-6)
    assert Discriminator.from_pretrained(tmp_path, label="LABEL_1").label == 1
    with pytest.raises(ValueError, match="calibrated for its label 1, and label 0 is asked for"):
        Discriminator.from_pretrained(tmp_path, label=0)


def test_save_pretrained_removes_a_calibration_of_before(pair_tokenizer, tmp_path):
    """A discriminator that has learnt since then would be loaded with the calibration of other weights."""
    discriminator = discriminator_of(pair_tokenizer)
    discriminator.calibration = calibrated()
    discriminator.save_pretrained(tmp_path)
    discriminator.calibration = None
    discriminator.save_pretrained(tmp_path)
    assert Discriminator.from_pretrained(tmp_path).calibration is None


def test_update_drops_the_calibration(pair_tokenizer, tmp_path):
    discriminator = with_optimizer(discriminator_of(pair_tokenizer), tmp_path)
    discriminator.calibration = calibrated()
    discriminator.evaluate(PROMPTS, COMPLETIONS, COMPLETIONS[::-1])
    discriminator.score(PROMPTS, COMPLETIONS)
    assert discriminator.calibration is not None
    discriminator.update(PROMPTS, COMPLETIONS, COMPLETIONS[::-1])
    assert discriminator.calibration is None


def test_load_state_brings_the_calibration_of_its_weights(pair_tokenizer, tmp_path):
    saved = with_optimizer(discriminator_of(pair_tokenizer), tmp_path)
    saved.save_state(tmp_path / "state")
    saved.save_pretrained(tmp_path / "without")
    saved.calibration = calibrated()
    saved.save_pretrained(tmp_path / "with")
    other = with_optimizer(discriminator_of(pair_tokenizer), tmp_path)
    other.load_state(tmp_path / "state", tmp_path / "with")
    assert other.calibration == saved.calibration
    other.load_state(tmp_path / "state", tmp_path / "without")
    assert other.calibration is None


def test_saved_folder_is_an_ordinary_one(pair_tokenizer, tmp_path):
    discriminator = discriminator_of(pair_tokenizer)
    discriminator.calibration = calibrated()
    discriminator.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("dog")["input_ids"]
    assert CALIBRATION_FILE in {path.name for path in tmp_path.iterdir()}
