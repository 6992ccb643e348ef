"""Two processes on the CPU (gloo): each sees texts of its own, and both end with one discriminator."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch


ROOT = Path(__file__).parents[1]
SCRIPT = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
import torch
from datasets import Dataset
from peft import LoraConfig
from tests import conftest
from hf_mgan import AdversarialConfig, AdversarialTrainer

folder, rank = Path({folder!r}), int(os.environ["RANK"])
trainer = AdversarialTrainer(
    str(folder / "g"),
    discriminator=str(folder / "d"),
    peft_config=LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True),
    train_dataset=Dataset.from_dict({{"text": conftest.texts(64)}}),
    args=AdversarialConfig(
        str(folder / "out"), max_steps=3, per_device_train_batch_size=4, num_generations=4, max_completion_length=8,
        discriminator_learning_rate=1e-2, learning_rate=1e-2, discriminator_warmup_steps=1, logging_steps=1,
        save_strategy="no", report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
        disable_tqdm=True, ddp_backend="gloo",
    ),
)
seen = []
update = trainer.discriminator.update
def watched(prompts, completions, references, *args, **kwargs):
    seen.append([completions, references])
    return update(prompts, completions, references, *args, **kwargs)
trainer.discriminator.update = watched
trainer.train()
trainer.save_model()
torch.save(trainer.discriminator.model.state_dict(), folder / f"discriminator_{{rank}}.bin")
figures = [log["discriminator/value"] for log in trainer.state.log_history if "loss" in log]
(folder / f"seen_{{rank}}.json").write_text(json.dumps({{"seen": seen, "figures": figures}}))
"""


def test_two_processes_see_different_texts_and_keep_one_discriminator(
    tmp_path, generator, tokenizer, classifier, pair_tokenizer
):
    for name, model, own in (("g", generator, tokenizer), ("d", classifier, pair_tokenizer)):
        model.save_pretrained(tmp_path / name)
        own.save_pretrained(tmp_path / name)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(ROOT), folder=str(tmp_path)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]

    first, second = (json.loads((tmp_path / f"seen_{rank}.json").read_text()) for rank in (0, 1))
    assert len(first["seen"]) == len(second["seen"]) == 4
    assert all(one != other for one, other in zip(first["seen"], second["seen"], strict=True))
    ours, theirs = (torch.load(tmp_path / f"discriminator_{rank}.bin", weights_only=True) for rank in (0, 1))
    before = classifier.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not any(
        torch.equal(ours[name], before[name]) for name in ours if "weight" in name and "LayerNorm" not in name
    )
    assert first["figures"] == second["figures"]  # means over both
    assert len(first["figures"]) == 3
    assert (tmp_path / "out" / "discriminator" / "model.safetensors").exists()
