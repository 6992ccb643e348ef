"""From the command line to a Hub on this machine, and back: training, its push, and texts of both models."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_mgan import Discriminator
from hf_mgan.cli.generate import GenerateArguments, discriminator_source
from hf_mgan.cli.main import run
from hf_mgan.decoding import DecodingConfig, guided_sample
from hf_mgan.training.hub import OURS

from ..conftest import bert_classifier, causal_generator, generators_tokenizer, texts, tokenizer_of_pairs
from ..hub_server import DROPPED, TOKEN, connect, metadata_faults, running_hub


REPO = "someone/out"
GENERATE = ["generate", "--model", REPO, "--num_texts", "3", "--max_new_tokens", "8", "--num_candidates", "6"]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub with a generator and a classifier, and a folder to stand in with texts alone."""
    with running_hub() as hub:
        connect(monkeypatch, hub, tmp_path / "cache")
        api = HfApi(endpoint=hub.url)
        for name, model, tokenizer in (
            ("org/g", causal_generator(), generators_tokenizer()),
            ("org/d", bert_classifier(), tokenizer_of_pairs()),
        ):
            model.save_pretrained(tmp_path / name)
            tokenizer.save_pretrained(tmp_path / name)
            api.create_repo(name)
            api.upload_folder(repo_id=name, folder_path=tmp_path / name)
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts(32))
        (tmp_path / "work" / "texts.jsonl").write_text(rows)
        yield hub


@pytest.fixture(params=[True, False], ids=["adapters", "whole"])
def pushed(hub, request):
    """What `hf-mgan train` has pushed; both models have moved."""
    flags = {
        "model_name_or_path": "org/g",
        "discriminator_name_or_path": "org/d",
        "dataset_name": "texts.jsonl",
        "output_dir": "out",
        "push_to_hub": True,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": 8,
        "learning_rate": 0.05,
        "discriminator_learning_rate": 0.01,
        "discriminator_warmup_steps": 0,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "hub_strategy": "end",
    }
    lora = ["--use_peft", "--lora_r", "2", "--lora_target_modules", "all-linear"] if request.param else []
    run(["train", *[word for name, value in flags.items() for word in (f"--{name}", str(value))], *lora])
    return hub


def lines_of(name):
    return Path(name).read_text().splitlines()


def test_command_pushes_once_with_the_right_card(pushed):
    (commit,) = pushed.commits(REPO)
    assert "train_settings.yaml" not in commit.files  # it names files of this machine
    adapters = "adapter_model.safetensors" in commit.files
    card = ModelCard(commit.files["README.md"].decode())
    assert metadata_faults(str(card)) == []
    assert card.data.base_model == ["org/g", "org/d"]
    assert card.data.library_name == ("peft" if adapters else "transformers")
    assert card.text.startswith("\n# out\n")
    assert "time machine" not in card.text
    of_discriminator = ModelCard(commit.files["discriminator/README.md"].decode())
    assert metadata_faults(str(of_discriminator)) == []
    assert of_discriminator.data.base_model == "org/d"
    assert "Discriminator of someone/out" in of_discriminator.text
    assert json.loads(commit.files["discriminator/config.json"])["id2label"] == {"0": "real"}


def test_both_models_are_loaded_from_the_hub(pushed, capsys):
    adapters = "adapter_model.safetensors" in pushed.files(REPO)
    loader = AutoPeftModelForCausalLM if adapters else AutoModelForCausalLM
    ids = torch.tensor([[1, 8, 9]])
    local, of_hub = loader.from_pretrained("out"), loader.from_pretrained(REPO)
    assert torch.equal(local(ids).logits, of_hub(ids).logits)
    assert not torch.allclose(of_hub(ids).logits, AutoModelForCausalLM.from_pretrained("org/g")(ids).logits)
    card = Path(hf_hub_download(REPO, "README.md")).read_text()
    blocks = [part.split("```")[0] for part in card.split("```python\n")[1:]]
    scopes = [{} for _ in blocks]
    for block, scope in zip(blocks, scopes, strict=True):
        exec(block, scope)
    quick, classifier, both = scopes
    assert torch.equal(quick["generator"](ids).logits, local(ids).logits)
    here = Discriminator.from_pretrained("out/discriminator")
    expected = here.score(["", ""], ["the dog", "a cat"])
    torch.testing.assert_close(both["discriminator"].score(["", ""], ["the dog", "a cat"]), expected)
    encoded = here.encode(["", ""], ["the dog", "a cat"])
    torch.testing.assert_close(classifier["discriminator"].eval()(**encoded).logits[:, 0], expected)


def test_generate_takes_both_models_from_the_hub(pushed, monkeypatch):
    run([*GENERATE, "--output", "texts_out.jsonl"])
    got = [json.loads(line) for line in lines_of("texts_out.jsonl")]
    generator = AutoModelForCausalLM.from_pretrained("out").eval()
    discriminator = Discriminator.from_pretrained("out/discriminator")
    tokenizer = AutoTokenizer.from_pretrained("out")
    config = DecodingConfig(max_new_tokens=8, num_candidates=6)
    expected = guided_sample(generator, tokenizer, discriminator, ["<s>"] * 3, config)
    assert [row["completion"] for row in got] == expected.texts
    assert [row["log_ratio"] for row in got] == pytest.approx(expected.log_ratios, abs=1e-4)
    pushed.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    run([*GENERATE, "--output", "again.jsonl"])
    assert pushed.requests == []
    assert lines_of("again.jsonl") == lines_of("texts_out.jsonl")


def test_repository_without_discriminator_gives_samples(hub, capsys, monkeypatch):
    command = ["generate", "--model", "org/g", "--max_new_tokens", "4", "--output", "plain.jsonl"]
    for offline in (False, True):  # that there is none is known then
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
        run(command)
        assert "There is no discriminator: plain samples." in capsys.readouterr().err


@pytest.mark.parametrize("failure", [DROPPED, 500])
def test_silent_hub_is_no_missing_discriminator(hub, failure):
    hub.fail(0, failure, for_good=True)
    with pytest.raises(ConnectionError, match="Whether org/g has a discriminator in discriminator/ cannot be told"):
        discriminator_source(GenerateArguments(model="org/g"))
    with pytest.raises(ValueError, match=r"model names 'org/g': .* from the Hub it cannot be loaded"):
        run(["generate", "--model", "org/g", "--max_new_tokens", "4"])


@pytest.mark.slow
@pytest.mark.parametrize("failure", [DROPPED, 500])
@pytest.mark.parametrize("for_good", [False, True])
def test_download_cut_at_every_request_is_not_taken_for_whole(pushed, monkeypatch, tmp_path, failure, for_good):
    """Either the same texts come, or an error, and from the same cache the same texts come the next time."""

    def written():
        run([*GENERATE, "--output", "cut.jsonl"])
        return lines_of("cut.jsonl")

    def in_cache(name):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / name))

    in_cache("whole")
    pushed.heal()
    right, taken = written(), []
    for cut in range(len(pushed.requests)):
        in_cache(f"cache-{cut}")
        pushed.fail(cut, failure, for_good=for_good)
        with suppress(Exception):  # of many kinds, by what fails
            taken.append(written() == right)
        pushed.heal()
        assert written() == right
    assert all(taken)


@pytest.mark.slow
def test_processes_of_their_own_push_and_load(hub, tmp_path):
    """As a user has it: the address of the Hub in the environment, and the command that the error names."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": os.pathsep.join(sys.path)}
    places = {"model_name_or_path": "org/g", "discriminator_name_or_path": "org/d", "dataset_name": "texts.jsonl"}
    sizes = {"per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 8, "max_steps": 1}
    others = {
        "output_dir": "out",
        "report_to": "none",
        "use_cpu": True,
        "discriminator_warmup_steps": 0,
        "bf16": False,
    }
    flags = [str(word) for name, value in {**places, **sizes, **others}.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", "hf_mgan.cli"]
    subprocess.run([*command, "train", *flags, "--push_to_hub", "--hub_strategy", "end"], env=environment, check=True)
    (commit,) = hub.commits(REPO)
    subprocess.run([*command, *GENERATE, "--output", "texts_out.jsonl"], env=environment, check=True)
    assert len(lines_of("texts_out.jsonl")) == 3
    hub.repos[REPO].pop()
    assert "train_settings.yaml" not in commit.files
    excluded = [word for pattern in OURS for word in ("--exclude", pattern)]
    upload = ["upload", REPO, "out", ".", *excluded]
    code = "from huggingface_hub.cli.hf import main; main()"
    subprocess.run([sys.executable, "-c", code, *upload], env=environment, check=True)
    assert set(hub.files(REPO)) == set(commit.files)
