import json

import pytest
import torch
from torch.testing import assert_close

from hf_mgan import Discriminator
from hf_mgan.discriminator import Regularization, Replay, check_replay
from hf_mgan.discriminator.replay import PastText
from hf_mgan.objectives import bce, bradley_terry

from ..conftest import bert_classifier, texts
from .test_discriminator import COMPLETIONS, PROMPTS, parameters, with_optimizer


def filled(count, size=100, **settings):
    replay = Replay(0.5, size, **settings)
    numbers = [str(number) for number in range(count)]
    replay.add(["p"] * count, numbers, ["q"] * count, [f"real {number}" for number in numbers])
    return replay


def make(pair_tokenizer, tmp_path, fraction=0.5, **settings):
    learning_rate = settings.pop("learning_rate", 1e-2)
    one = Discriminator(bert_classifier(), pair_tokenizer, replay_fraction=fraction, **settings)
    return with_optimizer(one, tmp_path, discriminator_learning_rate=learning_rate)


def test_the_newest_texts_are_kept_and_the_oldest_go_first():
    replay = filled(5, size=3)
    replay.add(["p"], ["new"], ["q"], ["real"])
    assert [text.fake for text in replay.texts] == [("p", "3"), ("p", "4"), ("p", "new")]


def test_real_texts_are_kept_for_a_paired_loss_alone():
    assert filled(1).texts[0] == PastText(("p", "0"), None)
    assert filled(1, paired=True).texts[0] == PastText(("p", "0"), ("q", "real 0"))


def test_draws_are_uniform_never_twice_the_same_text_and_leave_torchs_generator_alone():
    """4000 draws of 2 of 8: each text is drawn with probability 1/4, deviation 0.7 %."""
    replay = filled(8)
    state = torch.get_rng_state()
    counts = dict.fromkeys([text.fake[1] for text in replay.texts], 0)
    for _ in range(4000):
        first, second = replay.draw(2)
        assert first != second
        counts[first.fake[1]] += 1
        counts[second.fake[1]] += 1
    assert min(counts.values()) > 900
    assert max(counts.values()) < 1100
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("fraction", "num_new", "expected"),
    [(0.5, 4, 4), (0.25, 6, 2), (0.75, 4, 12), (0.1, 4, 0), (0.9, 4, 20)],  # of 20 stored, so not 36
)
def test_the_fraction_is_that_of_the_whole_side(fraction, num_new, expected):
    replay = filled(20)
    replay.fraction = fraction
    assert len(replay.draw_beside(num_new)) == expected


@pytest.mark.parametrize("paired", [False, True])
def test_a_saved_state_is_json_and_its_draws_go_on(tmp_path, paired):
    replay = filled(20, paired=paired)
    replay.draw(3)
    replay.save(tmp_path / "folder", rank=1)
    assert json.loads((tmp_path / "folder" / "replay_1.json").read_text()) == replay.state_dict()
    again = Replay(0.5, 100, paired)
    again.load(tmp_path / "folder", rank=1)
    assert again.texts == replay.texts
    assert [again.draw(5) for _ in range(3)] == [replay.draw(5) for _ in range(3)]


def test_a_smaller_replay_takes_the_newest_of_what_was_saved():
    replay = Replay(0.5, 2)
    replay.load_state_dict(filled(5).state_dict())
    assert [text.fake[1] for text in replay.texts] == ["3", "4"]


def test_a_process_without_a_file_starts_empty_and_says_so(tmp_path):
    filled(3).save(tmp_path, rank=0)
    replay = filled(3)
    with pytest.warns(UserWarning, match=r"replay_1.json does not exist, so process 1 starts without past"):
        replay.load(tmp_path, rank=1)
    assert not replay.texts


def test_texts_with_and_without_references_are_not_taken_for_each_other():
    with pytest.raises(ValueError, match=r"saved without references, and discriminator_loss takes them with"):
        Replay(0.5, 10, paired=True).load_state_dict(filled(3).state_dict())
    with pytest.raises(ValueError, match=r"saved with references, and discriminator_loss takes them without"):
        Replay(0.5, 10).load_state_dict(filled(3, paired=True).state_dict())


@pytest.mark.parametrize(
    ("fraction", "size", "message"),
    [
        (1.0, 10, "discriminator_replay_fraction must be at least 0 and less than 1, got 1.0"),
        (-0.1, 10, "discriminator_replay_fraction must be at least 0"),
        (0.5, 0, "discriminator_replay_size must be at least 1, got 0"),
    ],
)
def test_values_out_of_range_are_refused(pair_tokenizer, fraction, size, message):
    with pytest.raises(ValueError, match=message):
        Discriminator(bert_classifier(), pair_tokenizer, replay_fraction=fraction, replay_size=size)


def test_replay_and_offsets_exclude_each_other(pair_tokenizer, tmp_path):
    message = "leave out either it or discriminator_density_offset"
    with pytest.raises(ValueError, match=message):
        check_replay(0.5, 10, uses_offsets=True)
    check_replay(0.0, 10, uses_offsets=True)
    for offsets in ({"completion_offsets": torch.zeros(4)}, {"reference_offsets": torch.zeros(4)}):
        with pytest.raises(ValueError, match=message):
            make(pair_tokenizer, tmp_path).update(PROMPTS, COMPLETIONS, texts(4), **offsets)
        make(pair_tokenizer, tmp_path, fraction=0.0).update(PROMPTS, COMPLETIONS, texts(4), **offsets)


@pytest.mark.parametrize("batch_size", [None, 3])
def test_replayed_texts_join_the_generated_side_of_the_loss_and_no_other_figure(pair_tokenizer, tmp_path, batch_size):
    one = make(pair_tokenizer, tmp_path, learning_rate=0.0, batch_size=batch_size)  # so that logits stay
    past, references = texts(4, 7), texts(4, 8)
    first = one.update([""] * 4, past, references).figures()
    assert first["replayed_prob"].isnan()
    figures = one.update(PROMPTS, COMPLETIONS, references, [""] * 4).figures()
    old, new, real = one.score([""] * 4, past), one.score(PROMPTS, COMPLETIONS), one.score([""] * 4, references)
    assert_close(figures["loss"], bce(real, torch.cat([new, old])))
    assert_close(figures["replayed_prob"], old.sigmoid().mean())
    expected = one.evaluate(PROMPTS, COMPLETIONS, references, [""] * 4).figures()
    for name in ("real_prob", "fake_prob", "accuracy", "value", "real_length", "fake_length"):
        assert_close(figures[name], expected[name])
    assert "replayed_prob" not in expected


@pytest.mark.parametrize("batch_size", [None, 3])
def test_for_a_paired_loss_each_replayed_text_brings_its_own_reference(pair_tokenizer, tmp_path, batch_size):
    one = make(pair_tokenizer, tmp_path, learning_rate=0.0, loss="bradley_terry", batch_size=batch_size)
    past, past_references, references = texts(4, 7), texts(4, 8), texts(4, 9)
    one.update(PROMPTS, past, past_references, ["the", "a", "", "two"])
    output = one.update([""] * 4, COMPLETIONS, references)
    fake = torch.cat([one.score([""] * 4, COMPLETIONS), one.score(PROMPTS, past)])
    real = torch.cat([one.score([""] * 4, references), one.score(["the", "a", "", "two"], past_references)])
    assert_close(output.loss, bradley_terry(real, fake))
    assert_close(output.real_logits, real[:4])
    assert_close(output.fake_logits, fake[:4])


def test_replayed_texts_count_in_the_penalties(pair_tokenizer, tmp_path):
    one = make(pair_tokenizer, tmp_path, learning_rate=0.0, regularization=Regularization(logit_penalty=1.0))
    past, references = texts(4, 7), texts(4, 8)
    one.update(PROMPTS, past, references)
    figures = one.update(PROMPTS, COMPLETIONS, references).figures()
    fake = torch.cat([one.score(PROMPTS, COMPLETIONS), one.score(PROMPTS, past)])
    assert_close(figures["logit_penalty"], (one.score(PROMPTS, references).square().mean() + fake.square().mean()) / 2)


def test_completions_are_kept_after_the_step_and_only_where_asked(pair_tokenizer, tmp_path):
    one = make(pair_tokenizer, tmp_path)
    one.update(PROMPTS, COMPLETIONS, texts(4), remember=False)
    one.score(PROMPTS, COMPLETIONS)
    one.evaluate(PROMPTS, COMPLETIONS, texts(4))
    assert not one.replay.texts
    assert one.update(PROMPTS, COMPLETIONS, texts(4)).figures()["replayed_prob"].isnan()  # the step was before
    assert [text.fake for text in one.replay.texts] == [*zip(PROMPTS, COMPLETIONS, strict=True)]


def test_a_restored_discriminator_replays_what_the_other_does(pair_tokenizer, tmp_path):
    one = make(pair_tokenizer, tmp_path, fraction=0.4)
    for seed in range(3):
        one.update(PROMPTS, texts(4, seed), texts(4, seed + 50))
    one.save_pretrained(tmp_path / "model")
    one.save_state(tmp_path / "state")
    one.save_replay(tmp_path / "state", 0)
    other = make(pair_tokenizer, tmp_path, fraction=0.4)
    other.load_state(tmp_path / "state", tmp_path / "model")
    other.load_replay(tmp_path / "state", 0)
    for seed in range(3, 6):
        outputs = [each.update(PROMPTS, texts(4, seed), texts(4, seed + 50)) for each in (one, other)]
        assert torch.equal(outputs[0].loss, outputs[1].loss)
    assert all(torch.equal(a, b) for a, b in zip(parameters(one), parameters(other), strict=True))


def test_without_replay_nothing_is_kept_written_or_missed(pair_tokenizer, tmp_path, recwarn):
    one = make(pair_tokenizer, tmp_path, fraction=0.0)
    assert "replayed_prob" not in one.update(PROMPTS, COMPLETIONS, texts(4)).figures()
    recwarn.clear()
    one.save_replay(tmp_path / "state", 0)
    one.load_replay(tmp_path / "state", 0)
    assert not one.replay.texts
    assert not (tmp_path / "state").exists()
    assert not recwarn
