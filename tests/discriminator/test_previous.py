"""A discriminator that has learnt from what another one keeps: its log-ratio, its files, and who may not be one."""

import math

import pytest
import torch
from huggingface_hub import HfApi
from peft import LoraConfig

from hf_mgan import Discriminator
from hf_mgan.discriminator import Calibration, with_adapters

from ..conftest import bert_classifier
from ..decoding.conftest import calibration
from ..hub_server import connect, running_hub
from .test_discriminator import COMPLETIONS, PROMPTS, with_optimizer


THRESHOLD, DRAWS = 0.8, 4.0


def discriminator_of(tokenizer, seed, **changes):
    made = Discriminator(bert_classifier(seed=seed), tokenizer)
    made.calibration = calibration(**changes)
    return made


@pytest.fixture
def both(pair_tokenizer):
    """A second discriminator, which has learnt from what the first one keeps."""
    second = discriminator_of(pair_tokenizer, 2, slope=0.5, previous_threshold=THRESHOLD, previous_draws=DRAWS)
    second.previous = discriminator_of(pair_tokenizer, 1)
    return second


def ratios(discriminator):
    return discriminator.log_ratio(PROMPTS, COMPLETIONS)


def test_two_exact_discriminators_make_the_log_ratio():
    """Of four texts: r'' = log p - log(q min(1, exp(r' - c)) / Z) after any r', Z = 1 / 4 by the choice of c."""
    real, generator = (torch.tensor(one, dtype=torch.float64) for one in ([0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]))
    first = torch.tensor([0.5, -1.0, 4.0, 0.0], dtype=torch.float64)  # the third is above c
    low, high = -9.0, 9.0
    for _ in range(60):
        threshold = (low + high) / 2
        kept = generator * (first - threshold).exp().clamp(max=1)
        low, high = (threshold, high) if kept.sum() > 1 / 4 else (low, threshold)
    exact = calibration(slope=1.0, intercept=0.0, previous_threshold=threshold, previous_draws=4.0)
    found = exact.log_ratio((real / (kept * 4)).log(), first)
    assert found.tolist() == pytest.approx((real / generator).log().tolist())


def test_log_ratio_asks_both(both):
    first = 3 * both.previous.score(PROMPTS, COMPLETIONS) + 2.5
    expected = 0.5 * both.score(PROMPTS, COMPLETIONS) + 2.5 + (first - THRESHOLD).clamp(max=0) + math.log(DRAWS)
    torch.testing.assert_close(ratios(both), expected)
    assert (first < THRESHOLD).any()
    assert (first > THRESHOLD).any()


@pytest.mark.parametrize("alone", ["previous_threshold", "previous_draws"])
def test_what_a_previous_one_keeps_is_said_whole(alone):
    with pytest.raises(ValueError, match="belong together: give both, or neither"):
        calibration(**{alone: 2.0})


def test_calibration_of_before_has_no_previous_one(tmp_path):
    """A file without the two fields, as it was written before there were any, is read."""
    path = tmp_path / "calibration.json"
    calibration().save(tmp_path)
    lines = [line for line in path.read_text().splitlines() if "previous" not in line]
    path.write_text("\n".join(lines).replace(",\n}", "\n}"))
    assert Calibration.load(path) == calibration()


@pytest.mark.parametrize("adapters", [False, True])
def test_both_are_saved_and_loaded(both, pair_tokenizer, tmp_path, adapters):
    if adapters:
        bert_classifier(seed=3).save_pretrained(tmp_path / "base")
        base = type(both.model).from_pretrained(tmp_path / "base")
        lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
        first = Discriminator(with_adapters(base, lora), pair_tokenizer)
        first.calibration, both.previous = both.previous.calibration, first
    both.save_pretrained(tmp_path / "saved")
    loaded = Discriminator.from_pretrained(tmp_path / "saved", batch_size=2)
    torch.testing.assert_close(ratios(loaded), ratios(both))
    assert loaded.previous.calibration == both.previous.calibration
    assert loaded.previous.batch_size == 2
    assert "`previous/`" in (tmp_path / "saved" / "README.md").read_text()
    # A third one, in a row.
    third = discriminator_of(pair_tokenizer, 5, previous_threshold=0.0, previous_draws=2.0)
    third.previous = loaded
    third.save_pretrained(tmp_path / "saved")  # where the one before it was loaded from
    torch.testing.assert_close(ratios(loaded), ratios(both))
    torch.testing.assert_close(ratios(Discriminator.from_pretrained(tmp_path / "saved")), ratios(third))


def test_fresh_head_has_no_previous_one(both, tmp_path):
    both.save_pretrained(tmp_path)
    assert Discriminator.from_pretrained(tmp_path, fresh_head=True).previous is None


def test_both_are_loaded_from_the_hub(both, tmp_path, monkeypatch):
    both.save_pretrained(tmp_path / "both")
    with running_hub() as hub:
        connect(monkeypatch, hub, tmp_path / "cache")
        api = HfApi(endpoint=hub.url)
        api.create_repo("org/both")
        api.upload_folder(repo_id="org/both", folder_path=tmp_path / "both")
        loaded = Discriminator.from_pretrained("org/both")
    torch.testing.assert_close(ratios(loaded), ratios(both))


@pytest.mark.parametrize(("gone", "message"), [("", "previous is missing"), ("/calibration.json", "no calibration")])
def test_missing_part_is_refused(both, tmp_path, gone, message):
    both.save_pretrained(tmp_path)
    (tmp_path / "previous").rename(tmp_path / "elsewhere")
    if gone:
        (tmp_path / "elsewhere").rename(tmp_path / "previous")
        (tmp_path / "previous" / "calibration.json").unlink()
    with pytest.raises(ValueError, match=rf"{message}.*calibrate it anew"):
        Discriminator.from_pretrained(tmp_path)


def test_update_drops_the_previous_one(both, tmp_path):
    """The calibration goes, which says what that one keeps; a folder that it was saved in does not keep it."""
    both.save_pretrained(tmp_path / "saved")
    with_optimizer(both, tmp_path).update(PROMPTS, COMPLETIONS, COMPLETIONS[::-1])
    assert both.previous is None
    assert ratios(both).equal(both.score(PROMPTS, COMPLETIONS))
    both.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "previous").exists()
    assert Discriminator.from_pretrained(tmp_path / "saved").previous is None


def test_previous_one_is_not_saved_without_a_calibration(both, tmp_path):
    both.calibration = None
    both.save_pretrained(tmp_path)
    assert not (tmp_path / "previous").exists()


def test_load_weights_brings_the_previous_one(both, pair_tokenizer, tmp_path):
    expected = ratios(both)
    both.save_pretrained(tmp_path / "both")
    other = discriminator_of(pair_tokenizer, 7)
    other.save_pretrained(tmp_path / "one")
    other.load_weights(tmp_path / "both")
    torch.testing.assert_close(ratios(other), expected)
    other.load_weights(tmp_path / "one")
    assert other.previous is None


def test_both_are_moved(both, monkeypatch):
    places = []
    for one in (both, both.previous):
        monkeypatch.setattr(one.model, "to", lambda device, one=one: places.append((one, device)))
    both.to(torch.device("meta"))
    assert {(one, str(device)) for one, device in places} == {(both, "meta"), (both.previous, "meta")}
