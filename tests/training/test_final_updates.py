"""The discriminator's final updates: what it learns, what stays as it is, and what it needs."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset

from hf_mgan import AdversarialConfig, Discriminator
from hf_mgan.training import final_updates
from hf_mgan.training.final_updates import fit_discriminator
from hf_mgan.training.text_source import Pairs, TextSource

from ..conftest import bert_classifier, texts


REAL = ["the dog sees a cat ."] * 3 + ["one two three four"] * 2 + ["a king near the old bird"]


@pytest.fixture
def real():
    return Dataset.from_dict({"text": REAL * 20})


def parameters(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_fit_learns_to_tell_and_leaves_the_generator(
    generator, tokenizer, classifier, pair_tokenizer, real, make_config
):
    discriminator = Discriminator(classifier, pair_tokenizer)
    before, state = parameters(generator), torch.random.get_rng_state()
    seen = []
    args = make_config(per_device_train_batch_size=16, num_generations=16)
    calibration = fit_discriminator(generator, tokenizer, discriminator, real, real, args, 30, on_update=seen.append)
    assert same(before, parameters(generator))
    assert torch.equal(state, torch.random.get_rng_state())
    assert seen == list(range(1, 31))
    # Noise against six sentences.
    assert calibration.auc[1] > 0.9
    assert calibration.loss < 0.5
    assert discriminator.calibration is calibration
    assert (calibration.temperature, calibration.max_new_tokens, calibration.num_texts) == (1.0, 8, 60)
    assert calibration.with_prompt


def test_fit_keeps_the_weights_of_the_lowest_loss(
    generator, tokenizer, classifier, pair_tokenizer, real, make_config, monkeypatch
):
    """Held-out losses 3, 1, 2, 2, 2 at the first five of ten evaluations: it stops, with the weights of the second."""
    discriminator = Discriminator(classifier, pair_tokenizer)
    losses, at_evaluation = iter([3.0, 1.0, 2.0, 2.0, 2.0]), []

    def loss(discriminator, pairs, size):
        at_evaluation.append(parameters(classifier))
        return next(losses)

    monkeypatch.setattr(final_updates, "held_out_loss", loss)
    fit_discriminator(generator, tokenizer, discriminator, real, real, make_config(), 20)
    assert len(at_evaluation) == 5
    assert discriminator.num_updates == 10
    assert same(at_evaluation[1], parameters(classifier))
    assert not same(at_evaluation[1], at_evaluation[2])


def test_fit_draws_fresh_samples_beside_their_references(generator, tokenizer, make_config):
    rows = Dataset.from_dict(
        {"prompt": ["one", "two"] * 16, "completion": [f"{word} dog" for word in ("a", "the")] * 16}
    )
    source = TextSource(generator, tokenizer, rows, make_config())
    batches = list(source.batches(4, 40))
    assert [len(batch.prompts) for batch in batches] == [4] * 40
    references = {"one": "a dog", "two": "the dog"}
    assert all(references[prompt] == real for batch in batches for prompt, _, real in zip(*batch, strict=True))
    first, last = (tuple(batch.completions for batch in part) for part in (batches[:16], batches[16:32]))
    assert first != last  # each is drawn at once


def test_fit_draws_a_sample_for_several_updates(generator, tokenizer, make_config):
    rows = Dataset.from_dict({"prompt": ["one"] * 80, "completion": texts(80, length=12)})
    settings = make_config(discriminator_steps=3)
    batches = list(TextSource(generator, tokenizer, rows, settings).batches(16, 13))
    assert len(batches) == 15  # five of them are drawn: four at once, and one
    assert batches[:4] == batches[4:8] == batches[8:12]
    assert batches[12] == batches[13] == batches[14]
    assert len({tuple(batch.references) for batch in batches}) == 5
    # Real texts of no prompt are others each time.
    real = Dataset.from_dict({"text": texts(64, seed=1, length=12)})
    source = TextSource(generator, tokenizer, rows, settings, real)
    first, second, third = (batch for batch in source.batches(64, 3))
    assert first.completions == second.completions == third.completions
    assert sorted(first.references) == sorted(second.references) != second.references
    assert first.references != second.references != third.references


def test_fit_draws_one_batch_on_all_processes(generator, tokenizer, make_config, monkeypatch):
    """The prompts of two processes are those of one, however many they share a batch with."""
    rows = Dataset.from_dict({"prompt": ["one", "two", "three", "four"] * 8, "completion": ["a dog"] * 32})
    drawn = []
    for rank, processes in ((0, 1), (0, 2), (1, 2)):
        monkeypatch.setattr(AdversarialConfig, "process_index", rank)
        monkeypatch.setattr(AdversarialConfig, "world_size", processes)
        batches = TextSource(generator, tokenizer, rows, make_config()).batches(32 // processes, 2)
        drawn.append([prompt for batch in batches for prompt in batch.prompts])
    assert sorted(drawn[1] + drawn[2]) == sorted(drawn[0])


def test_fit_shows_no_prompts_where_real_texts_have_none(generator, tokenizer, make_config):
    rows = Dataset.from_dict({"prompt": ["one", "two"] * 30})
    real = Dataset.from_dict({"text": ["a cat"] * 60})
    source = TextSource(generator, tokenizer, rows, make_config(), real)
    batch = next(source.batches(4, 1))
    assert batch.prompts == [""] * 4
    assert batch.references == ["a cat"] * 4
    assert not source.real_texts.shows_prompts
    stopping, calibrating = source.held_out(rows.add_column("completion", ["a dog"] * 60))
    assert isinstance(stopping, Pairs)
    assert len(stopping.references) == len(calibrating.references) == 30


def test_fit_samples_as_the_settings_say(generator, tokenizer, make_config, real):
    source = TextSource(generator, tokenizer, real, make_config(top_k=1, temperature=0.7))
    assert source.generation_kwargs == {"top_k": 1}
    assert len(set(next(source.batches(8, 1)).completions)) == 1  # greedy


def test_fit_refuses_what_it_cannot_do(generator, tokenizer, classifier, pair_tokenizer, real, make_config):
    given = generator, tokenizer, Discriminator(classifier, pair_tokenizer)
    with pytest.raises(ValueError, match="num_updates must be at least 1, got 0"):
        fit_discriminator(*given, real, real, make_config(), 0)
    with pytest.raises(ValueError, match=r"at least 40 held-out real texts.* got 39"):
        fit_discriminator(*given, real, real.select(range(39)), make_config(), 1)
    for data in ((real, None), (real, {"a": real}), (real.to_iterable_dataset(), real)):
        with pytest.raises(TypeError, match="one map-style Dataset, got"):
            fit_discriminator(*given, *data, make_config(), 1)
    prompts = Dataset.from_dict({"prompt": ["one"] * 60})
    with pytest.raises(ValueError, match="no real texts"):
        fit_discriminator(*given, prompts, prompts, make_config(), 1)


def test_trainer_makes_final_updates_after_the_last_step(make_trainer, make_config, real):
    trainer = make_trainer(
        make_config(max_steps=2, discriminator_final_steps=5), train_dataset=real, eval_dataset=real
    )
    trainer.train()
    assert trainer.discriminator.num_updates == 2 + 5
    assert trainer.discriminator.calibration.num_texts == 60
    assert "discriminator/held_out_auc" in trainer.state.log_history[-1]


def test_trainer_without_epochs_trains_the_discriminator_alone(make_trainer, make_config, real, generator):
    before = parameters(generator)
    args = make_config(max_steps=-1, num_train_epochs=0, discriminator_final_steps=5)
    trainer = make_trainer(args, train_dataset=real, eval_dataset=real)
    trainer.train()
    assert same(before, parameters(generator))
    assert trainer.discriminator.num_updates == 5
    trainer.save_model()
    saved = Discriminator.from_pretrained(f"{args.output_dir}/discriminator").calibration
    assert saved == trainer.discriminator.calibration


def test_trainer_refuses_final_updates_without_held_out_texts(make_trainer, make_config):
    with pytest.raises(TypeError, match="eval_dataset"):
        make_trainer(make_config(discriminator_final_steps=5))


def given_previous(generator, tokenizer, pair_tokenizer, real, args, num_updates=5):
    """Return a discriminator that is calibrated for the generator."""
    first = Discriminator(bert_classifier(seed=3), pair_tokenizer)
    fit_discriminator(generator, tokenizer, first, real, real, args, num_updates)
    return first


def test_previous_one_chooses_what_is_learnt_from(generator, tokenizer, pair_tokenizer, make_config):
    """Held-out texts are those that its rejection keeps at four draws, and so are those of the updates."""
    args = make_config(max_completion_length=4, per_device_train_batch_size=8, num_generations=8)
    rows = Dataset.from_dict({"text": REAL * 100})
    first = given_previous(generator, tokenizer, pair_tokenizer, rows, args)
    source, plain = (TextSource(generator, tokenizer, rows, args) for _ in range(2))
    source.choose_by(first, rows)
    assert source.choice["previous_draws"] == 4
    threshold = source.choice["previous_threshold"]

    def texts_of(source):
        return [pair for part in source.held_out(rows) for pair in zip(part.prompts, part.completions, strict=True)]

    def learnt(source):
        batches = source.batches(32, 19)
        return [pair for part in batches for pair in zip(part.prompts, part.completions, strict=True)]

    def log_ratios(pairs):
        return first.log_ratio(*zip(*pairs, strict=True)).double()

    for pairs in (texts_of, learnt):
        candidates, kept = log_ratios(pairs(plain)), log_ratios(pairs(source))
        accepted = (candidates - threshold).exp().clamp(max=1)
        assert accepted.mean().item() == pytest.approx(1 / 4, abs=0.04)
        expected = (accepted * candidates).sum() / accepted.sum()
        spread = (accepted * (candidates - expected) ** 2).sum() / accepted.sum()
        error = (spread / len(kept) + spread * 4 / len(candidates)).sqrt()
        assert abs(kept.mean() - expected) < 3 * error
        assert abs(candidates.mean() - expected) > 6 * error


def test_second_discriminator_corrects_what_the_first_one_misses(generator, tokenizer, pair_tokenizer, make_config):
    """The first one has learnt little; both together know which texts are real far better, and say of each how."""
    args = make_config(per_device_train_batch_size=16, num_generations=16)
    rows = Dataset.from_dict({"text": REAL * 20})
    first = given_previous(generator, tokenizer, pair_tokenizer, rows, args, 2)
    second = Discriminator(bert_classifier(seed=4), pair_tokenizer)
    calibration = fit_discriminator(generator, tokenizer, second, rows, rows, args, 40, previous=first)
    assert second.previous is first
    assert calibration.previous_draws == 4
    assert calibration.auc[0] > first.calibration.auc[0] + 0.1
    held_out = TextSource(generator, tokenizer, rows, args).held_out(rows)[1]
    areas = []
    for one in (first, second):
        real, fake = (one.log_ratio(held_out.prompts, side) for side in (held_out.references, held_out.completions))
        areas.append((real[:, None] > fake).double().mean().item())
    assert areas[1] > areas[0] + 0.1


def test_previous_one_has_to_fit(generator, tokenizer, classifier, pair_tokenizer, real, make_config):
    discriminator, args = Discriminator(classifier, pair_tokenizer), make_config()
    first = Discriminator(bert_classifier(seed=3), pair_tokenizer)
    given = generator, tokenizer, discriminator, real, real
    with pytest.raises(TypeError, match="previous must be a Discriminator, or None, got str"):
        fit_discriminator(*given, args, 5, previous="out")
    with pytest.raises(ValueError, match="previous is the discriminator that is to be trained"):
        fit_discriminator(*given, args, 5, previous=discriminator)
    with pytest.raises(ValueError, match=r"previous is not calibrated.*fit_discriminator"):
        fit_discriminator(*given, args, 5, previous=first)
    fit_discriminator(generator, tokenizer, first, real, real, args, 2)
    message = r"calibrated for texts with \{'temperature': 1\.0\}, and these have \{'temperature': 0\.7\}"
    with pytest.raises(ValueError, match=message):
        fit_discriminator(*given, make_config(temperature=0.7), 5, previous=first)


def test_trainer_fits_a_second_discriminator(make_trainer, make_config, generator, tokenizer, pair_tokenizer, real):
    args = make_config()
    first = given_previous(generator, tokenizer, pair_tokenizer, real, args)
    trainer = make_trainer(args, train_dataset=real, eval_dataset=real)
    calibration = trainer.fit_discriminator(5, previous=first)
    trainer.save_model()
    loaded = Discriminator.from_pretrained(f"{args.output_dir}/discriminator")
    assert loaded.calibration == calibration
    assert loaded.previous.calibration == first.calibration
    given = ["", ""], ["the dog", "a cat"]
    torch.testing.assert_close(loaded.log_ratio(*given), trainer.discriminator.log_ratio(*given))
    card = (Path(args.output_dir) / "README.md").read_text()
    assert "are what that one keeps at 4 draws per text" in card
