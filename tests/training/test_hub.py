"""Pushes to a Hub on this machine, whole and cut; what is loaded from it is tested in `tests/cli/test_hub.py`."""

import copy
import logging
import shutil
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load

from hf_mgan.training import build as build_module
from hf_mgan.training.hub import client, left_over, make_repository, push_checkpoint, push_run
from hf_mgan.training.whole_checkpoint import fault

from ..conftest import bert_classifier, causal_generator
from ..decoding.conftest import calibration
from ..hub_server import ANSWER_LOST, DROPPED, TOKEN, connect, running_hub


pytestmark = pytest.mark.commands
REPO = "someone/out"
SAVING = {"save_strategy": "steps", "save_steps": 1}
PUSHING = {"push_to_hub": True, "hub_model_id": REPO, "hub_always_push": True}
FAILURES = [DROPPED, ANSWER_LOST, 401, 429, 500]
ASKED_AGAIN = {"tree", "preupload", "batch", "upload", "verify"}  # by huggingface_hub itself


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with running_hub() as hub:
        connect(monkeypatch, hub, tmp_path / "cache")
        yield hub


@pytest.fixture
def fresh(make_trainer, make_config):
    """Make trainers that start alike, with adapters or without."""

    def make(adapters=False, **settings):
        lora = [LoraConfig(r=2, target_modules=names) if adapters else None for names in (["c_attn"], ["query"])]
        models = {"model": causal_generator(), "discriminator": bert_classifier()}
        return make_trainer(make_config(**settings), **models, peft_config=lora[0], discriminator_peft_config=lora[1])

    return make


def states(trainer):
    return [copy.deepcopy(model.state_dict()) for model in (trainer.model, trainer.discriminator.model)]


def assert_holds(files, at, folder="", discriminator="discriminator"):
    """Check that files of a repository have the weights of both models."""
    for place, state in zip((folder, f"{folder}{discriminator}/"), at, strict=True):
        saved = load(files[f"{place}model.safetensors"])
        assert all(torch.equal(value, state[name]) for name, value in saved.items())


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "all_checkpoints"])
def test_every_save_is_one_commit_of_both_models(hub, fresh, strategy, tmp_path):
    trainer = fresh(max_steps=2, hub_strategy=strategy, **PUSHING, **SAVING)
    seen = []
    save = trainer._save_checkpoint
    trainer._save_checkpoint = lambda *args: (seen.append(states(trainer)), save(*args))
    trainer.train()
    commits = hub.commits(REPO)
    assert [commit.message for commit in commits] == [f"Training in progress, step {step}" for step in (1, 2)]
    for step, (commit, at) in enumerate(zip(commits, seen, strict=True), start=1):
        assert_holds(commit.files, at)
        holds = {"config.json", "tokenizer.json", "README.md"}
        assert holds | {f"discriminator/{name}" for name in holds} <= set(commit.files)
        assert not {path for path in commit.files if path.startswith(("optimizer", "discriminator/model/", "_"))}
        if strategy != "every_save":
            place = "last-checkpoint/" if strategy == "checkpoint" else f"checkpoint-{step}/"
            assert_holds(commit.files, at, place, "discriminator/model")
    assert not list((tmp_path / "out" / "_pushed").iterdir())


def test_end_is_one_commit_of_both_models(hub, fresh):
    trainer = fresh(max_steps=1, hub_strategy="end", **PUSHING, **SAVING)
    trainer.train()
    assert hub.commits(REPO) == []
    told = trainer.push_to_hub()
    (commit,) = hub.commits(REPO)
    assert (told.oid, commit.message) == (commit.oid, "End of training")
    assert_holds(commit.files, states(trainer))
    assert not {path for path in commit.files if path.startswith(("checkpoint-", "_"))}


def test_save_model_pushes_once(hub, fresh, tmp_path):
    trainer = fresh(max_steps=1, **PUSHING)
    trainer.train()
    trainer.save_model(str(tmp_path / "elsewhere"))
    (commit,) = hub.commits(REPO)
    assert commit.message == "Model save"
    assert (tmp_path / "elsewhere" / "discriminator" / "model.safetensors").exists()


def test_push_in_the_background_is_one_commit(hub, fresh):
    trainer = fresh(max_steps=1, **PUSHING)
    trainer.train()
    job = trainer.push_to_hub("Later", blocking=False)
    trainer.save_model(_internal_call=True)  # waits, for it writes what is being read
    assert job.done()
    assert [commit.message for commit in hub.commits(REPO)] == ["Later"]


def test_run_goes_on_from_the_last_checkpoint_of_the_hub(hub, fresh, tmp_path):
    whole = fresh(max_steps=3, lr_scheduler_type="constant")
    whole.train()
    fresh(max_steps=2, lr_scheduler_type="constant", hub_strategy="checkpoint", **PUSHING, **SAVING).train()
    for path, content in hub.files(REPO).items():
        if path.startswith("last-checkpoint/"):
            file = tmp_path / "again" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    checkpoint = tmp_path / "again" / "last-checkpoint"
    assert fault(checkpoint) is None
    resumed = fresh(max_steps=3, lr_scheduler_type="constant")
    resumed.train(resume_from_checkpoint=str(checkpoint))
    for ours, theirs in zip(states(whole), states(resumed), strict=True):
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("always", [False, True])
def test_push_holds_what_was_saved(hub, fresh, always, monkeypatch):
    """A checkpoint that is replaced or removed while it waits is pushed as it was, or left out."""
    trainer = fresh(max_steps=3, save_total_limit=1, **{**PUSHING, "hub_always_push": always}, **SAVING)
    trainer.args.hub_strategy = "checkpoint"
    seen, gate = [], threading.Event()
    trainer._hub.run_as_future(gate.wait)
    save = trainer._save_checkpoint
    trainer._save_checkpoint = lambda *args: (seen.append(states(trainer)), save(*args))
    finish = trainer._finish_current_push
    trainer._finish_current_push = lambda: (gate.set(), finish())
    trainer.train()
    assert len(hub.commits(REPO)) == (3 if always else 1)
    for commit, at in zip(hub.commits(REPO), seen, strict=False):
        assert_holds(commit.files, at)
        assert_holds(commit.files, at, "last-checkpoint/", "discriminator/model")


def test_push_removes_what_earlier_models_left(hub, fresh):
    first = fresh(adapters=True, max_steps=1, **PUSHING)
    first.train()
    first.discriminator.calibration = calibration()
    first.push_to_hub()
    assert {"adapter_config.json", "discriminator/adapter_config.json", "discriminator/calibration.json"} <= set(
        hub.files(REPO)
    )
    hub.files(REPO)["LICENSE"] = b"of the user's"
    second = fresh(max_steps=1, **PUSHING)
    second.train()
    shutil.rmtree(second.args.output_dir)  # as on another machine
    second.push_to_hub()
    files = hub.files(REPO)
    assert_holds(files, states(second))
    assert not [path for path in files if "adapter" in path or "calibration" in path]
    assert files["LICENSE"] == b"of the user's"


@pytest.mark.parametrize(
    ("path", "goes"),
    [
        ("adapter_config.json", True),
        ("model-00001-of-00003.safetensors", True),
        ("discriminator/calibration.json", True),
        ("last-checkpoint/optimizer.pt", True),
        ("model.safetensors", False),
        ("my_model.safetensors", False),
        ("images/curve.png", False),
        ("checkpoint-1/optimizer.pt", False),
    ],
)
def test_what_is_left_over(path, goes):
    pushed = ["model.safetensors", "discriminator/model.safetensors"]
    assert left_over([path, *pushed], pushed, ["discriminator", "last-checkpoint"]) == ([path] if goes else [])


@pytest.mark.parametrize("lacks", ["generator", "discriminator"])
def test_half_of_the_models_is_not_pushed(hub, fresh, lacks):
    trainer = fresh(max_steps=1, **PUSHING)
    save = trainer.discriminator.save_pretrained if lacks == "discriminator" else trainer._save
    if lacks == "discriminator":
        trainer.discriminator.save_pretrained = lambda folder, *_: save_without_weights(save, folder)
    else:
        trainer._save = lambda folder, *_: save_without_weights(save, folder)
    with pytest.raises(ConnectionError, match=f"no weights of the {lacks} to push"):
        trainer.push_to_hub()
    assert hub.commits(REPO) == []


def save_without_weights(save, folder):
    save(folder)
    (Path(folder) / "model.safetensors").unlink()


def test_token_is_not_pushed(hub, fresh, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    trainer = fresh(max_steps=1, hub_token=TOKEN, hub_strategy="checkpoint", **PUSHING, **SAVING)
    trainer.train()
    trainer.push_to_hub()
    assert len(hub.commits(REPO)) == 2
    assert not [path for path, content in hub.files(REPO).items() if TOKEN.encode() in content]
    assert trainer.args.hub_token == TOKEN


def files_below(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def args(hub, tmp_path):
    """A run that has been pushed once, and its checkpoint; both models have changed since."""
    args = SimpleNamespace(output_dir=str(tmp_path / "out"), hub_model_id=REPO, hub_strategy="checkpoint")
    args.hub_revision = args.hub_token = args.hub_private_repo = None
    make_repository(args)
    write_run(Path(args.output_dir), b"first")
    push_run(client(), REPO, args, "first", None, None)
    write_run(Path(args.output_dir), b"second")
    hub.requests.clear()
    return args


def write_run(folder, content):
    for place in ("", "checkpoint-1/"):
        own = "discriminator/model/" if place else "discriminator/"
        for path in ("model.safetensors", "config.json", f"{own}model.safetensors", f"{own}config.json"):
            (folder / place / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / place / path).write_bytes(content + path.encode())
        (folder / place / "README.md").write_text("---\nlibrary_name: peft\n---\n# A model\n")
    (folder / "checkpoint-1" / "optimizer.pt").write_bytes(content + b"state")


def is_pushed(hub, content):
    files = hub.files(REPO)
    return all(files[f"{place}model.safetensors"].startswith(content) for place in ("", "discriminator/"))


UPLOADS = ["PUT upload", "POST verify"] * 2


def test_requests_of_a_push(hub, args):
    push_run(client(), REPO, args, "second", None, None)
    expected = ["GET tree", "POST validate", "POST preupload", "POST batch", *UPLOADS, "POST commit"]
    assert sorted(hub.requests) == sorted(expected)
    assert is_pushed(hub, b"second")


@pytest.mark.parametrize("failure", FAILURES)
def test_push_cut_at_every_request_loses_nothing(hub, args, failure):
    for cut in range(9):
        content = f"push {cut} ".encode()
        write_run(Path(args.output_dir), content)
        here, there = files_below(Path(args.output_dir)), hub.repos[REPO][-1]
        hub.fail(cut, failure, for_good=True)
        with pytest.raises(ConnectionError) as caught:
            push_run(client(), REPO, args, "cut", None, None)
        told = str(caught.value)
        assert told.startswith(f"Pushing {args.output_dir} to {REPO} failed.")
        assert {401: "hf auth login", 429: "in some minutes"}.get(failure, "network and the Hub answer") in told
        assert f"Both models and their card are in {args.output_dir}" in told
        assert f"hf upload {REPO} {args.output_dir} ." in told
        if hub.failed in ("PUT upload", "POST verify"):
            assert "model.safetensors" in told
        if isinstance(failure, int):
            assert str(failure) in told
        if (hub.failed, failure) == ("POST commit", ANSWER_LOST):
            assert is_pushed(hub, content)  # a whole push, of which only the answer is missing
        else:
            assert hub.repos[REPO][-1] is there
        assert files_below(Path(args.output_dir)) == here
        hub.heal()
        push_run(client(), REPO, args, "whole", None, None)
        assert is_pushed(hub, content)


@pytest.mark.parametrize("failure", [DROPPED, 500])
def test_request_that_fails_once_is_asked_again(hub, args, failure):
    """By huggingface_hub, but for those that it asks once alone."""
    for cut in range(9):
        content = f"push {cut} ".encode()
        write_run(Path(args.output_dir), content)
        hub.fail(cut, failure)
        with nullcontext() if cut not in (1, 8) else pytest.raises(ConnectionError):
            push_run(client(), REPO, args, "once", None, None)
        assert (hub.failed.split()[1] in ASKED_AGAIN) == (cut not in (1, 8)) == is_pushed(hub, content)


@pytest.mark.parametrize("failure", [DROPPED, *[pytest.param(one, marks=pytest.mark.slow) for one in FAILURES[1:]]])
def test_checkpoint_cut_at_every_request_is_left_out(hub, args, failure, caplog):
    checkpoint = str(Path(args.output_dir) / "checkpoint-1")
    for cut in range(15):
        content = f"push {cut} ".encode()
        write_run(Path(args.output_dir), content)
        here, there = files_below(Path(args.output_dir)), hub.repos[REPO][-1]
        hub.fail(cut, failure, for_good=True)
        caplog.clear()
        with caplog.at_level(logging.ERROR):
            error = push_checkpoint(client(), REPO, args, checkpoint, "cut").exception()
        assert isinstance(error, ConnectionError)
        (record,) = caplog.records
        assert record.getMessage() == str(error)
        assert f"Pushing {checkpoint} to {REPO} failed." in str(error)
        assert "what is saved next is pushed again" in str(error)
        if (hub.failed, failure) != ("POST commit", ANSWER_LOST):
            assert hub.repos[REPO][-1] is there
        assert files_below(Path(args.output_dir)) == here
        hub.heal()
        push_checkpoint(client(), REPO, args, checkpoint, "whole").result()
        assert is_pushed(hub, content)
        assert hub.files(REPO)["last-checkpoint/optimizer.pt"] == content + b"state"


@pytest.mark.parametrize("failure", FAILURES)
def test_repository_that_cannot_be_made_is_named_first(hub, fresh, failure, monkeypatch):
    monkeypatch.setattr(build_module, "load_given_discriminator", lambda *_: pytest.fail("it was loaded first"))
    hub.fail(0, failure, for_good=True)
    with pytest.raises(ConnectionError, match=f"Making the repository {REPO} on the Hub failed") as caught:
        fresh(**PUSHING)
    assert "Nothing has been trained." in str(caught.value)


def test_no_network_is_said_first(hub, fresh, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"Unset HF_HUB_OFFLINE, or leave out push_to_hub\. Nothing has been"):
        fresh(**PUSHING)


def test_models_are_saved_where_no_repository_is_made(hub, fresh, tmp_path):
    """Of a trainer that was not told to push when it was made."""
    trainer = fresh(max_steps=1, hub_model_id=REPO)
    trainer.train()
    hub.fail(0, 401, for_good=True)
    with pytest.raises(ConnectionError, match="Both models and their card are in"):
        trainer.push_to_hub()
    saved = files_below(tmp_path / "out")
    assert_holds(saved, states(trainer))
    assert "README.md" in saved
    hub.heal()
    trainer.push_to_hub()
    assert_holds(hub.files(REPO), states(trainer))


def test_training_goes_on_where_a_push_is_cut(hub, fresh, caplog, tmp_path):
    trainer = fresh(max_steps=2, hub_strategy="checkpoint", **PUSHING, **SAVING)
    hub.fail(1, 500, for_good=True)
    with caplog.at_level(logging.ERROR):
        trainer.train()
    assert "Training goes on" in caplog.text
    assert trainer.state.global_step == 2
    assert hub.commits(REPO) == []
    hub.heal()
    trainer.push_to_hub()
    assert_holds(hub.files(REPO), states(trainer))
    assert not list((tmp_path / "out" / "_pushed").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("failure", FAILURES)
def test_trainer_cut_at_every_request_loses_nothing(hub, fresh, failure, tmp_path):
    trainer = fresh(max_steps=1, hub_strategy="end", **PUSHING)
    trainer.train()
    trainer.push_to_hub()
    for cut in range(9):
        with torch.no_grad():
            for model in (trainer.model, trainer.discriminator.model):
                next(model.parameters()).add_(1)
        hub.fail(cut, failure, for_good=True)
        with pytest.raises(ConnectionError):
            trainer.push_to_hub()
        assert_holds(files_below(tmp_path / "out"), states(trainer))
        hub.heal()
        trainer.push_to_hub()
        assert_holds(hub.files(REPO), states(trainer))
