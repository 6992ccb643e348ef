import json

import pytest
import torch
from torch.testing import assert_close

from hf_mgan import Discriminator
from hf_mgan.discriminator import Regularization, Replay
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
    return with_optimizer(one, tmp_path, learning_rate=learning_rate)


def test_replay_keeps_the_newest_texts():
    replay = filled(5, size=3)
    replay.add(["p"], ["new"], ["q"], ["real"])
    assert [text.fake for text in replay.texts] == [("p", "3"), ("p", "4"), ("p", "new")]


def test_replay_keeps_real_texts_for_paired_losses_alone():
    assert filled(1).texts[0] == PastText(("p", "0"), None)
    assert filled(1, paired=True).texts[0] == PastText(("p", "0"), ("q", "real 0"))


def test_draw_is_uniform_without_replacement():
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
def test_draw_beside_gives_the_fraction_of_all_texts(fraction, num_new, expected):
    replay = filled(20)
    replay.fraction = fraction
    assert len(replay.draw_beside(num_new)) == expected


@pytest.mark.parametrize(
    ("fraction", "num_new", "processes", "expected"),
    [(0.5, 4, 2, [4, 4]), (0.1, 4, 2, [0, 1]), (0.3, 1, 8, [0, 0, 1, 0, 0, 1, 0, 1]), (0.25, 6, 4, [2, 2, 2, 2])],
)
def test_replay_gives_each_process_a_share(fraction, num_new, processes, expected):
    """0.1 / 0.9 of 8 new texts is 1 of all processes, where rounding on each would give 0."""
    shares = [filled(20) for _ in range(processes)]
    for rank, replay in enumerate(shares):
        replay.fraction, replay.share = fraction, (rank, processes)
    drawn = [len(replay.draw_beside(num_new)) for replay in shares]
    assert drawn == expected


@pytest.mark.parametrize("paired", [False, True])
def test_saved_replay_is_json_and_its_draws_go_on(tmp_path, paired):
    replay = filled(20, paired=paired)
    replay.draw(3)
    replay.save(tmp_path / "folder", rank=1)
    assert json.loads((tmp_path / "folder" / "replay_1.json").read_text()) == replay.state_dict()
    again = Replay(0.5, 100, paired)
    again.load(tmp_path / "folder", rank=1)
    assert again.texts == replay.texts
    assert [again.draw(5) for _ in range(3)] == [replay.draw(5) for _ in range(3)]


def test_smaller_replay_loads_the_newest_texts():
    replay = Replay(0.5, 2)
    replay.load_state_dict(filled(5).state_dict())
    assert [text.fake[1] for text in replay.texts] == ["3", "4"]


def test_load_without_a_file_starts_empty_with_a_warning(tmp_path):
    filled(3).save(tmp_path, rank=0)
    replay = filled(3)
    with pytest.warns(UserWarning, match=r"replay_1\.json does not exist"):
        replay.load(tmp_path, rank=1)
    assert not replay.texts


@pytest.mark.parametrize("paired", [False, True])
def test_other_processes_share_the_texts_of_all(tmp_path, paired):
    """Two processes kept 0, 1, 2 and 10, 11; three, or one, go on with all of them, the newest last."""
    for rank, (start, count) in enumerate([(0, 3), (10, 2)]):
        one = Replay(0.5, 100, paired)
        names = [str(start + number) for number in range(count)]
        one.add(names, names, names, names)
        one.draw(rank)
        one.draw(rank)
        one.save(tmp_path, rank)
    shares = {}
    for rank, processes in ((0, 1), (0, 3), (1, 3), (2, 3)):
        replay = Replay(0.5, 100, paired)
        replay.share = rank, processes
        replay.load(tmp_path, rank, num_saved=2)
        assert replay.num_draws == 2
        shares[rank, processes] = [text.fake[1] for text in replay.texts]
    assert shares == {(0, 1): ["0", "10", "1", "11", "2"], (0, 3): ["0", "11"], (1, 3): ["10", "2"], (2, 3): ["1"]}


def test_load_refuses_texts_of_another_kind_of_loss():
    with pytest.raises(ValueError, match="without references, and discriminator_loss"):
        Replay(0.5, 10, paired=True).load_state_dict(filled(3).state_dict())
    with pytest.raises(ValueError, match="with references, and discriminator_loss"):
        Replay(0.5, 10).load_state_dict(filled(3, paired=True).state_dict())


@pytest.mark.parametrize("fraction", [1.0, -0.1, float("nan")])
def test_fraction_out_of_range_is_refused(pair_tokenizer, fraction):
    with pytest.raises(ValueError, match=f"replay_fraction must be .* got {fraction}"):
        Discriminator(bert_classifier(), pair_tokenizer, replay_fraction=fraction)


def test_replay_keeps_2048_texts_by_default(pair_tokenizer):
    replay = Discriminator(bert_classifier(), pair_tokenizer, replay_fraction=0.5).replay
    assert (replay.fraction, replay.size, replay.paired) == (0.5, 2048, False)
    assert Discriminator(bert_classifier(), pair_tokenizer, loss="bradley_terry").replay.paired


@pytest.mark.parametrize("batch_size", [None, 3])
def test_replayed_texts_join_the_loss_and_no_other_metric(pair_tokenizer, tmp_path, batch_size):
    one = make(pair_tokenizer, tmp_path, learning_rate=0.0, batch_size=batch_size)  # so that logits stay
    past, references = texts(4, 7), texts(4, 8)
    first = one.update([""] * 4, past, references).metrics()
    assert "replayed_prob" not in first  # there are none yet
    metrics = one.update(PROMPTS, COMPLETIONS, references, [""] * 4).metrics()
    old, new, real = one.score([""] * 4, past), one.score(PROMPTS, COMPLETIONS), one.score([""] * 4, references)
    assert_close(metrics["loss"], bce(real, torch.cat([new, old])))
    assert_close(metrics["replayed_prob"], old.sigmoid().mean())
    expected = one.evaluate(PROMPTS, COMPLETIONS, references, [""] * 4).metrics()
    for name in ("real_prob", "fake_prob", "accuracy", "value", "real_length", "fake_length"):
        assert_close(metrics[name], expected[name])
    assert "replayed_prob" not in expected


@pytest.mark.parametrize("batch_size", [None, 3])
def test_replayed_texts_of_a_paired_loss_bring_references(pair_tokenizer, tmp_path, batch_size):
    one = make(pair_tokenizer, tmp_path, learning_rate=0.0, loss="bradley_terry", batch_size=batch_size)
    past, past_references, references = texts(4, 7), texts(4, 8), texts(4, 9)
    one.update(PROMPTS, past, past_references, ["the", "a", "", "two"])
    output = one.update([""] * 4, COMPLETIONS, references)
    fake = torch.cat([one.score([""] * 4, COMPLETIONS), one.score(PROMPTS, past)])
    real = torch.cat([one.score([""] * 4, references), one.score(["the", "a", "", "two"], past_references)])
    assert_close(output.loss, bradley_terry(real, fake))
    assert_close(output.real_logits, real[:4])
    assert_close(output.fake_logits, fake[:4])


def test_replayed_texts_count_in_the_logit_penalty(pair_tokenizer, tmp_path):
    one = make(pair_tokenizer, tmp_path, learning_rate=0.0, regularization=Regularization(logit_penalty=1.0))
    past, references = texts(4, 7), texts(4, 8)
    one.update(PROMPTS, past, references)
    metrics = one.update(PROMPTS, COMPLETIONS, references).metrics()
    fake = torch.cat([one.score(PROMPTS, COMPLETIONS), one.score(PROMPTS, past)])
    assert_close(metrics["logit_penalty"], (one.score(PROMPTS, references).square().mean() + fake.square().mean()) / 2)


def test_update_keeps_completions_where_asked(pair_tokenizer, tmp_path):
    one = make(pair_tokenizer, tmp_path)
    one.update(PROMPTS, COMPLETIONS, texts(4), remember=False)
    one.score(PROMPTS, COMPLETIONS)
    one.evaluate(PROMPTS, COMPLETIONS, texts(4))
    assert not one.replay.texts
    assert "replayed_prob" not in one.update(PROMPTS, COMPLETIONS, texts(4)).metrics()  # the step was before
    assert [text.fake for text in one.replay.texts] == [*zip(PROMPTS, COMPLETIONS, strict=True)]


def test_loaded_discriminator_replays_the_same_texts(pair_tokenizer, tmp_path):
    one = make(pair_tokenizer, tmp_path, fraction=0.4)
    for seed in range(3):
        one.update(PROMPTS, texts(4, seed), texts(4, seed + 50))
    one.save_pretrained(tmp_path / "model")
    one.save_state(tmp_path / "state")
    one.replay.save(tmp_path / "state", 0)
    other = make(pair_tokenizer, tmp_path, fraction=0.4)
    other.load_state(tmp_path / "state", tmp_path / "model")
    other.replay.load(tmp_path / "state", 0)
    for seed in range(3, 6):
        outputs = [each.update(PROMPTS, texts(4, seed), texts(4, seed + 50)) for each in (one, other)]
        assert torch.equal(outputs[0].loss, outputs[1].loss)
    assert all(torch.equal(a, b) for a, b in zip(parameters(one), parameters(other), strict=True))


def test_no_replay_keeps_and_writes_nothing(pair_tokenizer, tmp_path, recwarn):
    one = make(pair_tokenizer, tmp_path, fraction=0.0)
    assert "replayed_prob" not in one.update(PROMPTS, COMPLETIONS, texts(4)).metrics()
    recwarn.clear()
    one.replay.save(tmp_path / "state", 0)
    one.replay.load(tmp_path / "state", 0)
    assert not one.replay.texts
    assert not (tmp_path / "state").exists()
    assert not recwarn
