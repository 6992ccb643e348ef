"""The files of `accelerate launch`: what they ask for, and two processes started with them on the CPU."""

import json
import os
import subprocess
import sys

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType

from .conftest import bert_classifier, causal_generator, generators_tokenizer, tokenizer_of_pairs
from .test_distributed import DEADLINE, ROOT, free_port, save_models


FOLDER = ROOT / "examples" / "accelerate"
FILES = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
MACHINES = "--num_machines 2 --machine_rank 1 --main_process_ip 10.0.0.1 --num_processes 16"


def launched(name, *options):
    """What `accelerate launch` makes of a file and options."""
    words = ["--config_file", str(FOLDER / f"{name}.yaml"), *options, "script.py"]
    return _validate_launch_command(launch_command_parser().parse_args(words))[0]


def test_every_file_is_known_here():
    assert {path.stem for path in FOLDER.iterdir()} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_file_loads_and_leaves_precision_to_arguments(name):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert config.distributed_type == DistributedType(FILES[name])
    assert (config.num_machines, config.num_processes, config.use_cpu) == (1, 8, False)
    assert config.mixed_precision == "no"  # "bf16" would hold where the training arguments say bf16=False


@pytest.mark.parametrize("name", FILES)
def test_options_name_several_machines(name):
    arguments = launched(name, *MACHINES.split())
    assert (arguments.num_machines, arguments.machine_rank, arguments.num_processes) == (2, 1, 16)
    assert arguments.main_process_ip == "10.0.0.1"
    assert (arguments.multi_gpu, arguments.use_fsdp, arguments.use_deepspeed) == (
        name == "ddp",
        name == "fsdp2",
        name.startswith("zero"),
    )


def test_fsdp2_wraps_the_layers_and_loads_all_models():
    arguments = launched("fsdp2")
    assert int(arguments.fsdp_version) == 2
    assert arguments.fsdp_auto_wrap_policy == "TRANSFORMER_BASED_WRAP"
    assert arguments.fsdp_transformer_layer_cls_to_wrap is None
    assert arguments.fsdp_reshard_after_forward is True
    assert arguments.fsdp_cpu_ram_efficient_loading is False
    assert arguments.fsdp_state_dict_type == "FULL_STATE_DICT"


@pytest.mark.parametrize("stage", [2, 3])
def test_zero_shards_at_its_stage(stage):
    arguments = launched(f"zero{stage}")
    assert arguments.zero_stage == stage
    assert arguments.zero3_init_flag is (stage == 3)
    assert arguments.deepspeed_multinode_launcher == "standard"


GIVE_UP = f"import faulthandler; faulthandler.dump_traceback_later({DEADLINE}, exit=True)\n"


def launch(name, script, folder, machines=1):
    """Run a script in two processes on the CPU. (Not by `--cpu`, with which accelerate starts a single one.)

    Several machines are as many launchers on this one.
    """
    path = folder / "script.py"
    path.write_text(GIVE_UP + script.format(root=str(ROOT), folder=str(folder)))
    options = ["--config_file", str(FOLDER / f"{name}.yaml"), "--main_process_port", str(free_port())]
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, "--num_processes", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    launchers, logs = [], [folder / f"launcher_{rank}.log" for rank in range(machines)]
    for rank, log in enumerate(logs):
        options = ["--num_machines", str(machines), "--machine_rank", str(rank), "--main_process_ip", "127.0.0.1"]
        with log.open("w") as file:
            started = subprocess.Popen([*command, *options, str(path)], env=environment, stdout=file, stderr=file)
        launchers.append(started)
    assert [one.wait(timeout=600) for one in launchers] == [0] * machines, [log.read_text()[-2000:] for log in logs]


TRAINING = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
import torch
from datasets import Dataset
from peft import LoraConfig
from tests import conftest
from hf_mgan import AdversarialConfig, AdversarialTrainer

torch.set_num_threads(1)
folder, rank = Path({folder!r}), int(os.environ["RANK"])


def trained(**kwargs):
    trainer = AdversarialTrainer(
        str(folder / "g"),
        discriminator=str(folder / "d"),
        train_dataset=Dataset.from_dict({{"text": conftest.texts(64)}}),
        args=AdversarialConfig(
            str(folder / "out"), max_steps=2, per_device_train_batch_size=4, num_generations=4,
            max_completion_length=8, discriminator_learning_rate=1e-2, learning_rate=1e-2,
            discriminator_warmup_steps=1, logging_steps=1, save_strategy="no", report_to="none", use_cpu=True,
            bf16=False, gradient_checkpointing=False, disable_tqdm=True,
        ),
        **kwargs,
    )
    trainer.train()
    return trainer


LORA = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
"""

DDP = """
trainer = trained(peft_config=LORA)
torch.save(trainer.discriminator.model.state_dict(), folder / f"discriminator_{{rank}}.bin")
(folder / f"{{rank}}.json").write_text(json.dumps({{
    "processes": trainer.accelerator.num_processes, "type": trainer.accelerator.distributed_type,
    "precision": trainer.accelerator.mixed_precision, "local_rank": int(os.environ["LOCAL_RANK"]),
}}))
"""

FSDP2 = """
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

initialise = PartialState.__init__
def as_on_gpus(state, *args, **kwargs):
    initialise(state, *args, **kwargs)
    if state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU
PartialState.__init__ = as_on_gpus

for name, kwargs in {{"lora": {{"peft_config": LORA}}, "full": {{}}}}.items():
    trainer = trained(**kwargs)
    assert trainer.accelerator.is_fsdp2 and trainer.accelerator.num_processes == 2
    assert not any(isinstance(one, DTensor) for one in trainer.discriminator.model.parameters())
    assert all(isinstance(one, DTensor) for one in trainer.model.parameters())
    sharded = {{type(module).__name__ for module in trainer.model.modules() if isinstance(module, FSDPModule)}}
    whole = {{key: one.full_tensor().detach() for key, one in trainer.model.named_parameters() if one.requires_grad}}
    torch.save(
        [trainer.discriminator.model.state_dict(), whole, sorted(sharded)], folder / f"{{name}}_{{rank}}.bin"
    )
"""


@pytest.fixture
def folder(tmp_path):
    save_models(tmp_path, (causal_generator(), generators_tokenizer()), (bert_classifier(), tokenizer_of_pairs()))
    return tmp_path


def moved(before, after):
    return {name for name in after if not torch.equal(before[name], after[name])}


@pytest.mark.slow
@pytest.mark.parametrize("machines", [1, 2])
def test_ddp_file_starts_two_processes_on_the_cpu(folder, machines):
    launch("ddp", TRAINING + DDP, folder, machines)
    for rank in (0, 1):
        said = json.loads((folder / f"{rank}.json").read_text())
        local_rank = rank if machines == 1 else 0
        assert said == {"processes": 2, "type": "MULTI_CPU", "precision": "no", "local_rank": local_rank}
    ours, theirs = (torch.load(folder / f"discriminator_{rank}.bin", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert moved(bert_classifier().state_dict(), ours)


@pytest.mark.slow
def test_fsdp2_file_shards_the_generator_alone(folder):
    """Adapters and full, from a folder's name: the layers are wrapped, and both processes keep one discriminator."""
    launch("fsdp2", TRAINING + FSDP2, folder)
    for name in ("lora", "full"):
        (d, g, sharded), (other_d, other_g, _) = (
            torch.load(folder / f"{name}_{rank}.bin", weights_only=True) for rank in (0, 1)
        )
        assert any("Block" in kind for kind in sharded), sharded
        assert all(torch.equal(d[key], other_d[key]) for key in d)
        assert all(torch.equal(g[key], other_g[key]) for key in g)
        assert moved(bert_classifier().state_dict(), d)
        if name == "full":
            start = dict(causal_generator().named_parameters())
            assert moved({key: start[key].detach() for key in g}, g)
        else:
            assert g
            assert all("lora_" in key for key in g)
            assert any(value.abs().max() > 0 for key, value in g.items() if "lora_B" in key)
