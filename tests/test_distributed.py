"""Two processes on the CPU (gloo): each sees texts of its own, and both end with one discriminator."""

import faulthandler
import json
import multiprocessing
import os
import random
import runpy
import socket
import traceback
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from datasets import Dataset

from hf_mgan import AdversarialConfig, AdversarialTrainer
from hf_mgan.metrics import duplicates, self_bleu, split_into_units
from hf_mgan.training.batch_metrics import length_correlation

from .conftest import bert_classifier, causal_generator, generators_tokenizer, texts, tokenizer_of_pairs


ROOT = Path(__file__).parents[1]
IMPORTS = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
import torch
from datasets import Dataset
from peft import LoraConfig
from tests import conftest
from tests.test_distributed import ACCURACIES, unsafe
from hf_mgan import AdversarialConfig, AdversarialTrainer
from hf_mgan.discriminator import DiscriminatorOutput

folder, rank = Path({folder!r}), int(os.environ["RANK"])
"""
PLAIN = """
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
seen, own = [], []
update = trainer.discriminator.update
def watched(prompts, completions, references, *args, **kwargs):
    seen.append([completions, references])
    output = update(prompts, completions, references, *args, **kwargs)
    own.append(output.metrics()["value"].item())
    return output
trainer.discriminator.update = watched
trainer.train()
trainer.save_model()
torch.save(trainer.discriminator.model.state_dict(), folder / f"discriminator_{{rank}}.bin")
values = [log["discriminator/value"] for log in trainer.state.log_history if "loss" in log]
(folder / f"plain_{{rank}}.json").write_text(json.dumps({{"seen": seen, "values": values, "own": own}}))
"""


IDLE = """
from transformers import BigBirdConfig, BigBirdForSequenceClassification
from hf_mgan import Discriminator

torch.manual_seed(0)
model = BigBirdForSequenceClassification(BigBirdConfig(
    vocab_size=len(conftest.VOCABULARY), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=16, max_position_embeddings=48, num_labels=1, attention_type="original_full",
))
one = Discriminator(model, conftest.tokenizer_of_pairs()).to(torch.device("cpu"))
args = AdversarialConfig(str(folder / "out"), use_cpu=True, bf16=False, report_to="none")
one.create_optimizer(args.discriminator_training_args(), 10)
for step in range(3):
    one.update([""] * 4, conftest.texts(4, seed=10 * step + rank), conftest.texts(4, seed=100 + 10 * step + rank))
torch.save(one.model.state_dict(), folder / f"idle_{{rank}}.bin")
"""


# A discriminator is fitted, and another one on what the first one keeps.
SECOND = """
def data(seed):
    return Dataset.from_dict({{"text": conftest.texts(64, seed=seed)}})

def fitted(out, previous=None):
    trainer = AdversarialTrainer(
        str(folder / "g"),
        discriminator=str(folder / "d"),
        train_dataset=data(0),
        eval_dataset=data(1),
        args=AdversarialConfig(
            str(folder / out), per_device_train_batch_size=4, num_generations=4, max_completion_length=8,
            discriminator_learning_rate=1e-2, report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
            disable_tqdm=True, ddp_backend="gloo",
        ),
    )
    trainer.fit_discriminator(4, previous=previous)
    return trainer.discriminator

second = fitted("second", fitted("first"))
given = ["", ""], ["the dog", "a cat sees"]
known = {{
    "threshold": second.calibration.previous_threshold,
    "log_ratios": [one.log_ratio(*given).tolist() for one in (second.previous, second)],
}}
(folder / f"second_{{rank}}.json").write_text(json.dumps(known))
"""


def save_models(folder, generator, discriminator):
    for name, (model, tokenizer) in (("g", generator), ("d", discriminator)):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


# On a CPU transformers passes no timeout on, so that processes which are out of step would wait for half an hour.
DEADLINE = 300


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def run_on_two_processes(script, folder):
    """Run a script on two processes forked from this one, which need not import everything again.

    What a launcher does for them is done here; `test_accelerate.py` starts processes with a real one.
    """
    path = folder / "script.py"
    path.write_text(script.format(root=str(ROOT), folder=str(folder)))
    port = free_port()
    logs = [folder / f"process_{rank}.log" for rank in (0, 1)]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=run_as, args=(rank, port, path, log)) for rank, log in enumerate(logs)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0], [log.read_text()[-3000:] for log in logs]


def run_as(rank, port, path, log):
    """Run a script as one of two processes that a launcher has started."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1)
    os.dup2(out, 2)
    faulthandler.dump_traceback_later(DEADLINE, exit=True, file=out)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port), CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    torch.manual_seed(0)
    random.seed(0)
    try:
        runpy.run_path(str(path), run_name="__main__")
    except BaseException:
        os.write(out, traceback.format_exc().encode())
        raise
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What all runs leave, one after the other in the same two processes."""
    path = tmp_path_factory.mktemp("two_processes")
    save_models(path, (causal_generator(), generators_tokenizer()), (bert_classifier(), tokenizer_of_pairs()))
    run_on_two_processes(IMPORTS + PLAIN + GATED + IDLE + SECOND, path)
    return path


def test_parameters_that_no_pass_uses_are_no_obstacle(folder):
    """BigBird's pooler has no part in its classifier, so its gradient never comes."""
    ours, theirs = (torch.load(folder / f"idle_{rank}.bin", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_two_processes_keep_one_discriminator(folder):
    first, second = (json.loads((folder / f"plain_{rank}.json").read_text()) for rank in (0, 1))
    assert len(first["seen"]) == len(second["seen"]) == 4
    assert all(one != other for one, other in zip(first["seen"], second["seen"], strict=True))
    ours, theirs = (torch.load(folder / f"discriminator_{rank}.bin", weights_only=True) for rank in (0, 1))
    before = bert_classifier().state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not any(
        torch.equal(ours[name], before[name]) for name in ours if "weight" in name and "LayerNorm" not in name
    )
    assert first["values"] == second["values"]
    means = [(one + other) / 2 for one, other in zip(first["own"], second["own"], strict=True)]
    assert first["values"] == pytest.approx(means[1:], abs=1e-5)  # the first is that of the warm-up
    assert all(one != other for one, other in zip(first["own"], second["own"], strict=True))
    assert (folder / "out" / "discriminator" / "model.safetensors").exists()


def test_two_processes_fit_one_second_discriminator(folder):
    first, second = (json.loads((folder / f"second_{rank}.json").read_text()) for rank in (0, 1))
    assert first["threshold"] == pytest.approx(second["threshold"], abs=1e-6)
    for ours, theirs in zip(first["log_ratios"], second["log_ratios"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert first["log_ratios"][0] != first["log_ratios"][1]


# The discriminator's accuracy on each batch, as each process is made to see it; 0.7, 0.65, 0.75, 0.35, 0.45, 0.6 over
# both. Above 0.68 the discriminator skips its update on the next batch, below 0.5 the generator skips its own on this
# one.
ACCURACIES = [[0.9, 0.4, 0.9, 0.3, 0.8, 0.6], [0.5, 0.9, 0.6, 0.4, 0.1, 0.6]]
DISCRIMINATOR_SKIPS, GENERATOR_SKIPS = [0, 1, 0, 1, 0, 0], [0, 0, 0, 1, 1, 0]


def unsafe(completions):
    """Find words that the untrained generator likes to say."""
    return [not {"sleeps", "near", "king"}.isdisjoint(text.split()) for text in completions]


# 6 completions per process in groups of 4: the second of the three groups lies on both.
GATED = """
trainers = []
DiscriminatorOutput.accuracy = lambda output: torch.tensor(ACCURACIES[rank][trainers[-1].state.global_step])


def fresh():
    trainers.append(AdversarialTrainer(
        str(folder / "g"),
        discriminator=str(folder / "d"),
        train_dataset=Dataset.from_dict({{"text": conftest.texts(64)}}),
        safety_gate=unsafe,
        args=AdversarialConfig(
            str(folder / "gated"), max_steps=6, per_device_train_batch_size=6, num_generations=4,
            max_completion_length=8, discriminator_learning_rate=1e-2, learning_rate=1e-2, logging_steps=1,
            discriminator_replay_fraction=0.5, discriminator_update_gating={{"ceiling": 0.68, "floor": 0.5}},
            discriminator_regularization={{"token_dropout": 0.1}}, discriminator_warmup_steps=0,
            discriminator_reward="logit", scale_rewards="none", save_strategy="steps", save_steps=3, report_to="none",
            use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True, ddp_backend="gloo",
        ),
    ))
    return trainers[-1]


def states(trainer):
    models = (("generator", trainer.model), ("discriminator", trainer.discriminator.model))
    return {{f"{{name}}.{{key}}": value.clone() for name, one in models for key, value in one.state_dict().items()}}


trainer = fresh()
assert trainer.accelerator.num_processes == 2
rewards, advantages = [], []


class Watched(type(trainer._reward)):
    def __call__(self, prompts, completions, completion_ids, log_metric, log_extra, **columns):
        out = super().__call__(prompts, completions, completion_ids, log_metric, log_extra, **columns)
        rewards.append([out, [float(len(ids)) for ids in completion_ids]])
        return out


def with_advantages(inputs, generate=trainer._generate_and_score_completions):
    output = generate(inputs)
    advantages.append([list(trainer._logs["completion"]), list(trainer._logs["advantages"])])
    return output


trainer._reward.__class__, trainer._generate_and_score_completions = Watched, with_advantages
trainer.train()
resumed = fresh()
resumed.train(resume_from_checkpoint=str(folder / "gated" / "checkpoint-3"))
torch.save([states(trainer), states(resumed)], folder / f"models_{{rank}}.bin")
log = [entry for entry in trainer.state.log_history if "loss" in entry]
names = (
    "discriminator/skipped", "generator/skipped", "discriminator/accuracy", "safety/unsafe_rate",
    "rewards/discriminator/length_correlation", "completions/duplicates", "completions/self_bleu",
)
(folder / f"gated_{{rank}}.json").write_text(json.dumps({{
    "rewards": rewards, "advantages": advantages, "updates": trainer.discriminator.num_updates,
    "metrics": {{name: [entry[name] for entry in log] for name in names}},
    "past": [each.discriminator.replay.state_dict() for each in (trainer, resumed)],
}}))
"""


def test_two_processes_stay_in_step_when_gated(folder):
    first, second = (json.loads((folder / f"gated_{rank}.json").read_text()) for rank in (0, 1))
    (ours, resumed), (theirs, _) = (torch.load(folder / f"models_{rank}.bin") for rank in (0, 1))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert all(torch.equal(value, resumed[name]) for name, value in ours.items())

    # Which update is skipped follows from the accuracy over both, also where each would decide otherwise by its own.
    metrics = first["metrics"]
    assert second["metrics"] == metrics
    assert metrics["discriminator/accuracy"] == pytest.approx(
        [sum(pair) / 2 for pair in zip(*ACCURACIES, strict=True)]
    )
    assert metrics["discriminator/skipped"] == DISCRIMINATOR_SKIPS
    assert metrics["generator/skipped"] == GENERATOR_SKIPS
    assert first["updates"] == second["updates"] == DISCRIMINATOR_SKIPS.count(0)

    # Rewards and lengths of both make one correlation.
    for batch, pair in enumerate(zip(first["rewards"], second["rewards"], strict=True)):
        rewards, lengths = (torch.tensor([*pair[0][part], *pair[1][part]]) for part in range(2))
        correlation = length_correlation(rewards, lengths, 4).item()  # a group lies on both
        assert metrics["rewards/discriminator/length_correlation"][batch] == pytest.approx(correlation, abs=1e-4)

    # Texts of both are compared with one another.
    for (completions, _), *values in zip(
        first["advantages"], *(metrics[f"completions/{name}"] for name in ("duplicates", "self_bleu")), strict=True
    ):
        assert values == pytest.approx([duplicates(completions), self_bleu(split_into_units(completions, "auto"))])

    # A group that lies on both is ranked as one.
    assert second["advantages"] == first["advantages"]
    compared = 0
    for (completions, advantages), rate in zip(first["advantages"], metrics["safety/unsafe_rate"], strict=True):
        is_unsafe = torch.tensor(unsafe(completions))
        assert rate == pytest.approx(is_unsafe.float().mean().item())
        values, bad = torch.tensor(advantages)[4:8], is_unsafe[4:8]
        if bad.any() and not bad.all():
            compared += 1
            assert values[bad].max() < values[~bad].min()
    assert compared >= 2

    # Each replays what it has shown itself.
    for own, rank in ((first, 0), (second, 1)):
        kept = folder / "gated" / "checkpoint-3" / "discriminator"
        saved = json.loads((kept / f"replay_{rank}.json").read_text())
        whole, again = own["past"]
        assert again == whole
        assert whole["texts"][: len(saved["texts"])] == saved["texts"]
        batches = [completions[6 * rank :][:6] for completions, _ in own["advantages"]]
        learnt = [batch for batch, skipped in zip(batches, DISCRIMINATOR_SKIPS, strict=True) if not skipped]
        assert [completion for ((_, completion),) in whole["texts"]] == [text for batch in learnt for text in batch]


def test_one_process_goes_on_from_a_checkpoint_of_two(folder):
    checkpoint = folder / "gated" / "checkpoint-3"
    trainer = AdversarialTrainer(
        str(folder / "g"),
        discriminator=str(folder / "d"),
        train_dataset=Dataset.from_dict({"text": texts(64)}),
        safety_gate=unsafe,
        args=AdversarialConfig(
            str(folder / "one"),
            max_steps=4,
            per_device_train_batch_size=12,
            num_generations=4,
            max_completion_length=8,
            discriminator_replay_fraction=0.5,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
        ),
    )
    kept = [json.loads((checkpoint / "discriminator" / f"replay_{rank}.json").read_text())["texts"] for rank in (0, 1)]
    with pytest.warns(
        UserWarning, match=r"saved by 2 processes and goes on with 1(.|\n)*what is left of the last one is"
    ):
        trainer.train(resume_from_checkpoint=str(checkpoint))
    assert trainer.state.global_step == 4
    dealt = [text for pair in zip(*kept, strict=True) for text in pair]
    assert trainer.discriminator.replay.state_dict()["texts"][: len(dealt)] == dealt
