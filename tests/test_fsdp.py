"""FSDP2 on two processes on the CPU: the generator's weights are sharded, and its steps are those of one process.

Accelerate shards on accelerators alone: the processes are told that theirs are GPUs, and stay on the CPU with gloo.
"""

import pytest
import torch
from datasets import Dataset
from torch.testing import assert_close

from hf_mgan import AdversarialConfig, AdversarialTrainer

from .conftest import bert_classifier, causal_generator, generators_tokenizer, texts, tokenizer_of_pairs
from .test_distributed import run_on_two_processes


def trained(folder, batch_size, accumulation=1, checkpoint=None, **settings):
    """A trainer after three steps on real texts of 1 to 6 words alone, whatever is sampled."""
    generator = causal_generator()
    for module in generator.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    rows = [text for row in range(64) for text in texts(1, row, 1 + row % 6)]
    args = AdversarialConfig(
        str(folder / "out"),
        max_steps=3,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        num_generations=4,
        max_completion_length=8,
        real_text_coef=1.0,
        discriminator_weight=0.0,
        discriminator_warmup_steps=0,
        optim="sgd",
        learning_rate=0.1,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        **{"save_strategy": "no", **settings},
    )
    trainer = AdversarialTrainer(
        generator,
        args=args,
        train_dataset=Dataset.from_dict({"text": rows}),
        processing_class=generators_tokenizer(),
        discriminator=bert_classifier(),
        discriminator_processing_class=tokenizer_of_pairs(),
    )
    trainer.train(checkpoint)
    return trainer


def real_nll(trainer):
    return torch.tensor([entry["generator/real_nll"] for entry in trainer.state.log_history if "loss" in entry])


SCRIPT = """
import os, sys
sys.path.insert(0, {root!r})
os.environ.update(
    ACCELERATE_USE_FSDP="true", FSDP_VERSION="2", FSDP_AUTO_WRAP_POLICY="TRANSFORMER_BASED_WRAP",
    FSDP_TRANSFORMER_CLS_TO_WRAP="GPT2Block",
)
from pathlib import Path
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor
from tests.test_fsdp import real_nll, trained

initialise = PartialState.__init__
def as_on_gpus(state, *args, **kwargs):
    initialise(state, *args, **kwargs)
    if state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU
PartialState.__init__ = as_on_gpus

torch.set_num_threads(1)
folder, rank = Path({folder!r}), int(os.environ["RANK"])
for accumulation in (1, 2):
    trainer = trained(folder, 4 // accumulation, accumulation)
    assert trainer.accelerator.is_fsdp2
    parameters = dict(trainer.model.named_parameters())
    assert all(isinstance(parameter, DTensor) for parameter in parameters.values())
    whole = {{name: parameter.full_tensor().detach() for name, parameter in parameters.items()}}
    torch.save([whole, real_nll(trainer)], folder / f"{{accumulation}}_{{rank}}.bin")

# A generation batch serves two steps, and the checkpoint lies between them.
settings = {{"steps_per_generation": 4, "discriminator_replay_fraction": 0.25}}
whole = trained(folder, 2, 2, **settings, save_strategy="steps", save_steps=1)
resumed = trained(folder, 2, 2, str(folder / "out" / "checkpoint-1"), **settings)
pairs = []
for trainer in (whole, resumed):
    weights = [*trainer.model.parameters(), *trainer.discriminator.model.parameters()]
    pairs.append([(one.full_tensor() if isinstance(one, DTensor) else one).detach() for one in weights])
torch.save(pairs, folder / f"resumed_{{rank}}.bin")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("fsdp")
    run_on_two_processes(SCRIPT, path)
    return path


@pytest.mark.slow
def test_run_under_fsdp2_goes_on_within_its_batch(folder):
    for rank in (0, 1):
        whole, resumed = torch.load(folder / f"resumed_{rank}.bin", weights_only=True)
        assert all(torch.equal(one, other) for one, other in zip(whole, resumed, strict=True))


@pytest.mark.slow
def test_real_text_steps_under_fsdp2_are_those_of_one(folder, tmp_path):
    one = trained(tmp_path, 8)
    expected = dict(one.model.named_parameters())
    start = dict(causal_generator().named_parameters())
    assert max((expected[name] - start[name]).abs().max() for name in start) > 1e-2
    for accumulation in (1, 2):
        for rank in (0, 1):
            whole, nll = torch.load(folder / f"{accumulation}_{rank}.bin", weights_only=True)
            assert_close(nll, real_nll(one), atol=1e-5, rtol=0)
            for name, value in expected.items():
                assert_close(whole[name], value.detach(), atol=1e-6, rtol=0)
