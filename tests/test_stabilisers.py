"""Each setting that stabilises training, in a small run: it does what it says, and moves what it must."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from peft import LoraConfig, get_peft_model

from hf_mgan.discriminator import Replay

from .conftest import texts
from .test_trainer import moved, states, weights


DOGS = Dataset.from_dict({"text": ["dog dog dog dog dog dog"] * 32})  # a discriminator soon tells them apart


def updates(trainer):
    """Return a list that fills with what the discriminator was shown in each update, and what came of it."""
    seen = []
    update = trainer.discriminator.update

    def watched(*args, **kwargs):
        seen.append((args, update(*args, **kwargs)))
        return seen[-1][1]

    trainer.discriminator.update = watched
    return seen


def logged(trainer, name):
    """Return a metric of each step, `None` where a step has none."""
    return [entry.get(name) for entry in trainer.state.log_history if "loss" in entry]


def train_both(trainer):
    """Train, and see that all of both models moves."""
    before = weights(trainer.model), weights(trainer.discriminator.model)
    trainer.train()
    assert len(moved(before[0], trainer.model)) == len(before[0])
    assert len(moved(before[1], trainer.discriminator.model)) == len(before[1])


# What keeps the discriminator smooth


def test_label_smoothing_in_training_and_evaluation(make_trainer, make_config, dataset):
    args = make_config(
        discriminator_regularization={"label_smoothing": 0.2}, per_device_eval_batch_size=4, max_steps=2
    )
    trainer = make_trainer(args, eval_dataset=dataset.select(range(4)))
    seen = updates(trainer)
    train_both(trainer)

    def expected(output):
        """The target of a real text is 0.8, so it costs -0.8 log D - 0.2 log(1 - D)."""
        real, fake = output.real_logits, output.fake_logits
        smoothed = -0.8 * F.logsigmoid(real) - 0.2 * F.logsigmoid(-real)
        return (smoothed.mean() - F.logsigmoid(-fake).mean()).item()

    losses, values = logged(trainer, "discriminator/loss"), logged(trainer, "discriminator/value")
    for loss, value, (_, output) in zip(losses, values, seen, strict=True):
        assert loss == pytest.approx(expected(output), abs=1e-5)
        assert abs(loss + value) > 0.01  # V(D, G) is that of the labels as they are
    outputs = []
    evaluate = trainer.discriminator.evaluate
    trainer.discriminator.evaluate = lambda *args, **kwargs: outputs.append(evaluate(*args, **kwargs)) or outputs[-1]
    metrics = trainer.evaluate()
    mean = sum(map(expected, outputs)) / len(outputs)
    assert metrics["eval_discriminator/loss"] == pytest.approx(mean, abs=1e-5)


def test_logit_penalty_keeps_logits_small(make_trainer, make_config, generator, classifier):
    ends = []
    for coefficient in (0.0, 3.0):
        trainer = make_trainer(
            make_config(
                discriminator_regularization={"logit_penalty": coefficient},
                per_device_train_batch_size=8,
                max_steps=6,
            ),
            model=copy.deepcopy(generator),
            discriminator=copy.deepcopy(classifier),
            train_dataset=DOGS,
        )
        seen = updates(trainer)
        train_both(trainer)
        squares = [(out.real_logits.square().mean() + out.fake_logits.square().mean()).item() / 2 for _, out in seen]
        penalties = logged(trainer, "discriminator/logit_penalty")
        assert penalties == ([pytest.approx(square, abs=1e-4) for square in squares] if coefficient else [None] * 6)
        ends.append(squares[-1])
    assert ends[1] < ends[0] / 4


def test_logit_penalty_bounds_the_wasserstein_loss(make_trainer, make_config, generator, classifier):
    """The best logit with a penalty of c is that of least_squares over c, within [-1 / c, 1 / c]."""
    ends = []
    for coefficient in (1e-3, 4.0):
        trainer = make_trainer(
            make_config(
                discriminator_loss="wasserstein",
                discriminator_regularization={"logit_penalty": coefficient},
                max_steps=10,
                per_device_train_batch_size=8,
                learning_rate=0.0,
            ),
            model=copy.deepcopy(generator),
            discriminator=copy.deepcopy(classifier),
            train_dataset=DOGS,
        )
        trainer.train()
        ends.append(abs(trainer.discriminator.score([""], DOGS["text"][:1]).item()))
    assert ends[0] > 1
    assert ends[1] < 1 / 4 + 0.1


@pytest.mark.slow  # that updates see noise and evaluations do not is in tests/discriminator/test_token_dropout.py
def test_token_dropout_keeps_accuracy_down(make_trainer, make_config, generator, classifier):
    """Real texts hold "dog" alone, six times. With 90 % of the words drawn anew, 0.9^6 = 53 % of them keep none, so
    even the best discriminator is wrong on a quarter of all texts."""
    trained = []
    for probability in (0.0, 0.9):
        args = make_config(
            discriminator_regularization={"token_dropout": probability},
            learning_rate=0.0,
            max_steps=8,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=16,
        )
        trainer = make_trainer(
            args,
            model=copy.deepcopy(generator),
            discriminator=copy.deepcopy(classifier),
            train_dataset=DOGS,
            eval_dataset=DOGS.select(range(4)),
        )
        before = weights(trainer.discriminator.model)
        trainer.train()
        assert moved(before, trainer.discriminator.model)
        trained.append(sum(logged(trainer, "discriminator/accuracy")[-4:]) / 4)
        real = trainer.discriminator.score([""], DOGS["text"][:1]).sigmoid().item()
        assert trainer.evaluate()["eval_discriminator/real_prob"] == pytest.approx(real, abs=1e-5)
    assert trained[0] > 0.95
    assert trained[1] < 0.9


# Replay


def past_texts(trainer):
    return [text.fake[1] for text in trainer.discriminator.replay.texts]


def test_replay_keeps_and_shows_the_newest_completions(make_trainer, make_config, dataset):
    """Batches of 4 completions, shown in 2 updates each; 10 are kept of the 4 batches' 16."""
    args = make_config(
        discriminator_replay_fraction=0.5,
        discriminator_steps=2,
        max_steps=4,
        eval_strategy="steps",
        eval_steps=3,
        per_device_eval_batch_size=4,
    )
    trainer = make_trainer(args, eval_dataset=dataset.select(range(4)))
    trainer.discriminator.replay = Replay(0.5, 10)
    seen = updates(trainer)
    kept, drawn = [], []
    draw = trainer.discriminator.replay.draw_beside

    def watched(count):
        kept.append(past_texts(trainer))
        drawn.append(draw(count))
        return drawn[-1]

    trainer.discriminator.replay.draw_beside = watched
    train_both(trainer)
    batches = [args[1] for args, _ in seen[::2]]
    assert len(seen) == len(kept) == 8
    for number in range(4):
        before = [text for batch in batches[:number] for text in batch][-10:]
        assert kept[2 * number] == kept[2 * number + 1] == before
    assert past_texts(trainer) == [text for batch in batches for text in batch][-10:]
    # Half of the generated side are past completions: as many as there are new ones, once there are any.
    assert [len(again) for again in drawn] == [0, 0, 4, 4, 4, 4, 4, 4]
    for again, before in zip(drawn, kept, strict=True):
        assert {text.fake[1] for text in again} <= set(before)
    replayed = logged(trainer, "discriminator/replayed_prob")
    assert replayed[0] is None
    assert all(0 < value < 1 for value in replayed[1:])


def test_checkpoint_holds_past_completions(make_trainer, make_config, generator, classifier, tmp_path):
    args = {"discriminator_replay_fraction": 0.5, "save_strategy": "steps", "save_steps": 2, "max_steps": 4}

    def fresh():
        return make_trainer(
            make_config(**args), model=copy.deepcopy(generator), discriminator=copy.deepcopy(classifier)
        )

    whole = fresh()
    seen = updates(whole)
    whole.train()
    folder = tmp_path / "out" / "checkpoint-2" / "discriminator"
    saved = json.loads((folder / "replay_0.json").read_text())
    assert [completion for ((_, completion),) in saved["texts"]] == [text for args, _ in seen[:2] for text in args[1]]
    assert saved["num_draws"] == 2
    whole.save_model(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "discriminator" / "config.json").exists()
    assert not list((tmp_path / "saved").rglob("replay*"))  # what is published holds no texts
    resumed = fresh()
    resumed.train(resume_from_checkpoint=str(folder.parent))
    assert all(torch.equal(value, states(resumed)[name]) for name, value in states(whole).items())
    (folder / "replay_0.json").unlink()
    with pytest.raises(ValueError, match=r"replay_0\.json does not exist"):
        fresh().train(resume_from_checkpoint=str(folder.parent))


# Anchors


def anchored(kind, generator, tokenizer, folder):
    """Return the arguments for a generator that is trained whole, with new adapters, or with adapters it has."""
    lora = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    if kind == "whole":
        generator.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return {"model": str(folder), "processing_class": None}
    if kind == "new adapters":
        return {"model": generator, "peft_config": lora}
    torch.manual_seed(5)
    model = get_peft_model(generator, lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return {"model": model}


@pytest.mark.parametrize(
    "kind",
    [
        "new adapters",
        pytest.param("whole", marks=pytest.mark.slow),
        pytest.param("trained adapters", marks=pytest.mark.slow),
    ],
)
def test_beta_holds_the_generator_near_its_start(
    make_trainer, make_config, generator, classifier, tokenizer, kind, tmp_path
):
    ends = []
    for beta in (1e-6, 10.0):  # with the first, the divergence is measured and does nothing
        args = make_config(beta=beta, disable_dropout=True, per_device_train_batch_size=16, max_steps=8)
        start = anchored(kind, copy.deepcopy(generator), tokenizer, tmp_path / "start")
        trainer = make_trainer(args, discriminator=copy.deepcopy(classifier), **start)
        before = weights(trainer.model)
        reference = weights(trainer.ref_model) if kind == "whole" else {}
        trainer.train()
        moving = {name for name in before if kind == "whole" or ("lora_" in name and ".ref." not in name)}
        assert moved(before, trainer.model) == moving
        if kind == "whole":
            assert not moved(reference, trainer.ref_model)
        divergence = logged(trainer, "kl")
        assert divergence[0] == pytest.approx(0, abs=1e-6)
        assert divergence[-1] > 1e-4
        ends.append(divergence[-1])
    assert ends[1] < ends[0] / 3


# All of them together


EVERYTHING = {
    "discriminator_regularization": {"label_smoothing": 0.1, "logit_penalty": 0.01, "token_dropout": 0.2},
    "discriminator_optim_kwargs": {"lr_scheduler_type": "linear", "weight_decay": 0.01},
    "discriminator_replay_fraction": 0.4,
    "discriminator_update_gating": {"ceiling": 0.8, "floor": 0.45},
    "discriminator_warmup_steps": 3,
    "discriminator_steps": 2,
    "discriminator_batch_size": 3,
    "real_text_coef": 0.1,
    "beta": 0.1,
}


def test_resumed_run_with_everything_on_is_bitwise_identical(
    make_trainer, make_config, generator, classifier, tmp_path
):
    """Two steps a generation batch, two epochs of six texts; the checkpoint lies in the second."""
    settings = {
        "max_steps": 12,
        "save_strategy": "steps",
        "save_steps": 8,
        "num_generations": 2,
        "steps_per_generation": 2,
        "gradient_accumulation_steps": 2,
        "num_iterations": 2,
    }

    def fresh():
        trainer = make_trainer(
            make_config(**settings, **EVERYTHING),
            model=copy.deepcopy(generator),
            discriminator=copy.deepcopy(classifier),
            train_dataset=Dataset.from_dict({"text": texts(6)}),
            peft_config=LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True),
            safety_gate=lambda completions: ["king" in text.split() for text in completions],
        )
        trainer.discriminator.replay = Replay(0.4, 9)
        return trainer

    whole = fresh()
    whole.train()
    resumed = fresh()
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-8"))
    assert resumed.discriminator.num_updates == whole.discriminator.num_updates
    assert resumed.discriminator.replay.state_dict() == whole.discriminator.replay.state_dict()
    assert len(past_texts(whole)) == 9
    for name, value in states(whole).items():
        assert torch.equal(value, states(resumed)[name]), name
    for name in ("skipped", "logit_penalty", "replayed_prob"):
        assert any(value is not None for value in logged(whole, f"discriminator/{name}")), name
    history = [entry for entry in whole.state.log_history if "loss" in entry][8:]
    again = [entry for entry in resumed.state.log_history if "loss" in entry][8:]
    for one, other in zip(history, again, strict=True):
        timeless = {name for name in one if name != "step_time"}
        assert {name: one[name] for name in timeless} == {name: other.get(name) for name in timeless}
