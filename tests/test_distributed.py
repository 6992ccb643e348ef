"""Two processes on the CPU (gloo): each sees texts of its own, and both end with one discriminator."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hf_mgan.objectives import length_correlation, length_neutral


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


def save_players(folder, generator, discriminator):
    for name, (model, tokenizer) in (("g", generator), ("d", discriminator)):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


# On a CPU transformers passes no timeout on, so that processes which are out of step would wait for half an hour.
DEADLINE = "import faulthandler; faulthandler.dump_traceback_later(300, exit=True)\n"


def run_on_two_processes(script, folder):
    path = folder / "script.py"
    path.write_text(DEADLINE + script.format(root=str(ROOT), folder=str(folder)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]


def test_two_processes_see_different_texts_and_keep_one_discriminator(
    tmp_path, generator, tokenizer, classifier, pair_tokenizer
):
    save_players(tmp_path, (generator, tokenizer), (classifier, pair_tokenizer))
    run_on_two_processes(SCRIPT, tmp_path)
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


# The discriminator's accuracy on each batch, as each process is made to see it; 0.7, 0.65, 0.75, 0.35, 0.45, 0.6 over
# both. Above 0.68 the discriminator rests on the next batch, below 0.5 the generator rests on this one.
ACCURACIES = [[0.9, 0.4, 0.9, 0.3, 0.8, 0.6], [0.5, 0.9, 0.6, 0.4, 0.1, 0.6]]
DISCRIMINATOR_RESTS, GENERATOR_RESTS = [0, 1, 0, 1, 0, 0], [0, 0, 0, 1, 1, 0]


def unsafe(completions):
    """Judge by words that the untrained generator likes to say."""
    return [not {"sleeps", "near", "king"}.isdisjoint(text.split()) for text in completions]


# 6 completions a process in groups of 4: the second of the three groups lies on both.
STEADIED = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
import torch
from datasets import Dataset
from tests import conftest
from tests.test_distributed import ACCURACIES, unsafe
from hf_mgan import AdversarialConfig, AdversarialTrainer
from hf_mgan.discriminator import DiscriminatorOutput

folder, rank = Path({folder!r}), int(os.environ["RANK"])


playing = []  # the trainers
figures = DiscriminatorOutput.figures
DiscriminatorOutput.figures = lambda output: {{
    **figures(output), "accuracy": torch.tensor(ACCURACIES[rank][playing[-1].state.global_step])
}}


def fresh():
    playing.append(AdversarialTrainer(
        str(folder / "g"),
        discriminator=str(folder / "d"),
        train_dataset=Dataset.from_dict({{"text": conftest.texts(64)}}),
        safety_gate=unsafe,
        args=AdversarialConfig(
            str(folder / "out"), max_steps=6, per_device_train_batch_size=6, num_generations=4,
            max_completion_length=8, discriminator_learning_rate=1e-2, learning_rate=1e-2, logging_steps=1,
            discriminator_replay_fraction=0.5, discriminator_accuracy_ceiling=0.68, discriminator_accuracy_floor=0.5,
            discriminator_length_neutral=True, discriminator_reward="logit", scale_rewards="none",
            discriminator_token_dropout=0.1, save_strategy="steps", save_steps=3, report_to="none", use_cpu=True,
            bf16=False, gradient_checkpointing=False, disable_tqdm=True, ddp_backend="gloo",
        ),
    ))
    return playing[-1]


def players(trainer):
    models = (("generator", trainer.model), ("discriminator", trainer.discriminator.model))
    return {{f"{{name}}.{{key}}": value.clone() for name, one in models for key, value in one.state_dict().items()}}


trainer = fresh()
assert trainer.accelerator.num_processes == 2
rewards, advantages = [], []


def with_lengths(given, texts, related=trainer._turn._related_to_length):
    out = related(given, texts)
    rewards.append([given.tolist(), [float(len(ids)) for ids in texts.completion_ids], out[0].tolist(), out[1]])
    return out


def with_advantages(inputs, generate=trainer._generate_and_score_completions):
    output = generate(inputs)
    advantages.append([list(trainer._logs["completion"]), list(trainer._logs["advantages"])])
    return output


trainer._turn._related_to_length, trainer._generate_and_score_completions = with_lengths, with_advantages
trainer.train()
resumed = fresh()
resumed.train(resume_from_checkpoint=str(folder / "out" / "checkpoint-3"))
torch.save([players(trainer), players(resumed)], folder / f"players_{{rank}}.bin")
log = [entry for entry in trainer.state.log_history if "loss" in entry]
names = ("discriminator/skipped", "generator/skipped", "discriminator/accuracy", "safety/unsafe_rate")
(folder / f"seen_{{rank}}.json").write_text(json.dumps({{
    "rewards": rewards, "advantages": advantages, "updates": trainer.discriminator.num_updates,
    "figures": {{name: [entry[name] for entry in log] for name in names}},
    "past": [each.discriminator.replay.state_dict() for each in (trainer, resumed)],
}}))
"""


def test_two_processes_that_are_steadied_and_gated_stay_in_step(
    tmp_path, generator, tokenizer, classifier, pair_tokenizer
):
    save_players(tmp_path, (generator, tokenizer), (classifier, pair_tokenizer))
    run_on_two_processes(STEADIED, tmp_path)
    first, second = (json.loads((tmp_path / f"seen_{rank}.json").read_text()) for rank in (0, 1))
    (ours, resumed), (theirs, _) = (torch.load(tmp_path / f"players_{rank}.bin") for rank in (0, 1))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert all(torch.equal(value, resumed[name]) for name, value in ours.items())

    # Who rests is decided by the accuracy over both, also where each would decide differently by its own.
    figures = first["figures"]
    assert second["figures"] == figures
    assert figures["discriminator/accuracy"] == pytest.approx(
        [sum(pair) / 2 for pair in zip(*ACCURACIES, strict=True)]
    )
    assert figures["discriminator/skipped"] == DISCRIMINATOR_RESTS
    assert figures["generator/skipped"] == GENERATOR_RESTS
    assert first["updates"] == second["updates"] == DISCRIMINATOR_RESTS.count(0)

    # Rewards and lengths of both make one regression.
    for one, other in zip(first["rewards"], second["rewards"], strict=True):
        given, lengths, neutral = (torch.tensor([*one[part], *other[part]]) for part in range(3))
        assert torch.allclose(neutral, length_neutral(given, lengths, 4), atol=1e-5)
        assert one[3] == other[3] == pytest.approx(length_correlation(given, lengths, 4).item(), abs=1e-5)

    # A group that lies on both is ranked as one.
    assert second["advantages"] == first["advantages"]
    compared = 0
    for (completions, advantages), rate in zip(first["advantages"], figures["safety/unsafe_rate"], strict=True):
        judgement = torch.tensor(unsafe(completions))
        assert rate == pytest.approx(judgement.float().mean().item())
        values, judged = torch.tensor(advantages)[4:8], judgement[4:8]
        if judged.any() and not judged.all():
            compared += 1
            assert values[judged].max() < values[~judged].min()
    assert compared >= 2

    # Each replays what it has shown itself.
    for own, rank in ((first, 0), (second, 1)):
        folder = tmp_path / "out" / "checkpoint-3" / "discriminator"
        saved = json.loads((folder / f"replay_{rank}.json").read_text())
        whole, again = own["past"]
        assert again == whole
        assert whole["texts"][: len(saved["texts"])] == saved["texts"]
        batches = [completions[6 * rank :][:6] for completions, _ in own["advantages"]]
        learnt = [batch for batch, rested in zip(batches, DISCRIMINATOR_RESTS, strict=True) if not rested]
        assert [completion for ((_, completion),) in whole["texts"]] == [text for batch in learnt for text in batch]
