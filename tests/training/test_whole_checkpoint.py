"""Checkpoints that are written aside, listed and renamed: what of a killed run counts, and what does not."""

import json

import pytest
import torch
from safetensors.torch import save_file

from hf_mgan.training.whole_checkpoint import ASIDE, LIST, clear, fault, finish, newest, remove_old


def written(run_dir, step, name=None):
    """Write a small checkpoint aside."""
    folder = run_dir / ASIDE / (name or f"checkpoint-{step}")
    (folder / "discriminator").mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    save_file({"weight": torch.full((2,), float(step))}, folder / "model.safetensors")
    torch.save({"step": step}, folder / "discriminator" / "training_state.pt")
    return folder


def whole(run_dir, step):
    checkpoint = run_dir / f"checkpoint-{step}"
    finish(written(run_dir, step), checkpoint)
    return checkpoint


def test_finished_checkpoint_lists_every_file_with_its_size(tmp_path):
    checkpoint = whole(tmp_path, 3)
    sizes = json.loads((checkpoint / LIST).read_text())
    assert set(sizes) == {"trainer_state.json", "model.safetensors", "discriminator/training_state.pt"}
    assert all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    assert fault(checkpoint) is None
    assert not (tmp_path / ASIDE).exists()


def test_what_lies_aside_is_no_checkpoint(tmp_path):
    kept = whole(tmp_path, 3)
    written(tmp_path, 4)
    assert newest(tmp_path) == str(kept)
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


def test_checkpoint_of_the_same_step_is_replaced(tmp_path):
    checkpoint = whole(tmp_path, 3)
    (checkpoint / "of_the_old_one").touch()
    assert whole(tmp_path, 3) == checkpoint
    assert fault(checkpoint) is None
    assert not (checkpoint / "of_the_old_one").exists()


def test_checkpoint_about_to_be_replaced_is_put_back(tmp_path):
    """A kill between the two renames leaves the old one aside."""
    checkpoint = whole(tmp_path, 3)
    (tmp_path / ASIDE).mkdir()
    checkpoint.rename(tmp_path / ASIDE / "replaced-checkpoint-3")
    clear(tmp_path)
    assert newest(tmp_path) == str(checkpoint)


@pytest.mark.parametrize(
    ("name", "spoil", "told"),
    [
        ("model.safetensors", lambda path: path.unlink(), "does not exist"),
        ("model.safetensors", lambda path: path.write_bytes(b""), "has 0 bytes, and was written with"),
        ("model.safetensors", lambda path: path.write_bytes(b"\xff" * path.stat().st_size), "cannot be read"),
        ("trainer_state.json", lambda path: path.write_bytes(b"x" * path.stat().st_size), "cannot be read"),
        (
            "discriminator/training_state.pt",
            lambda path: path.write_bytes(b"x" * path.stat().st_size),
            "cannot be read",
        ),
        (LIST, lambda path: path.unlink(), "unfinished or of another trainer"),
        (LIST, lambda path: path.write_text("{"), "cannot be read"),
        (LIST, lambda path: path.write_text("{}"), "lists no files"),
    ],
)
def test_damaged_checkpoint_is_passed_over_by_name(tmp_path, name, spoil, told):
    before, damaged = whole(tmp_path, 9), whole(tmp_path, 10)
    spoil(damaged / name)
    assert str(damaged / name) in fault(damaged)
    with pytest.warns(UserWarning, match=f"{name}.*{told}.*passed over, and the run goes on from .*checkpoint-9"):
        assert newest(tmp_path) == str(before)


def test_checkpoint_marked_by_transformers_is_passed_over(tmp_path):
    before = whole(tmp_path, 1)
    (whole(tmp_path, 2) / "checkpoint-is-incomplete.txt").touch()
    with pytest.warns(UserWarning, match="was not finished"):
        assert newest(tmp_path) == str(before)


def test_no_whole_checkpoint_is_an_error_none_at_all_is_not(tmp_path):
    assert newest(tmp_path) is None
    assert newest(tmp_path / "nowhere") is None
    (whole(tmp_path, 1) / "trainer_state.json").unlink()
    with pytest.raises(ValueError, match=r"No checkpoint of this run .*trainer_state\.json does not exist"):
        newest(tmp_path)


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [(None, None, [1, 2, 3, 10]), (2, None, [3, 10]), (1, None, [10]), (1, 2, [2, 10]), (3, 1, [1, 3, 10])],
)
def test_oldest_checkpoints_are_removed(tmp_path, limit, best, left):
    for step in (1, 2, 3, 10):
        whole(tmp_path, step)
    remove_old(tmp_path, limit, None if best is None else str(tmp_path / f"checkpoint-{best}"))
    assert sorted(int(path.name.split("-")[1]) for path in tmp_path.glob("checkpoint-*")) == left
    assert not (tmp_path / ASIDE).exists()
