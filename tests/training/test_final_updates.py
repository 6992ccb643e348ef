"""The discriminator's final updates: what it learns, what stays as it is, and what it needs."""

import pytest
import torch
from datasets import Dataset

from hf_mgan import AdversarialConfig, Discriminator
from hf_mgan.training import final_updates
from hf_mgan.training.final_updates import Pairs, TextSource, fit_discriminator

from ..conftest import texts


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
