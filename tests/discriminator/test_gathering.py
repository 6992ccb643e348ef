"""Two processes, each with texts of its own, take the step that one process takes on all of them."""

import pytest
import torch
from torch.testing import assert_close

from hf_mgan import AdversarialConfig, Discriminator
from hf_mgan.discriminator import Regularization
from hf_mgan.objectives import LOSSES, SMOOTHABLE

from ..conftest import bert_classifier, causal_classifier, generators_tokenizer, texts, tokenizer_of_pairs
from ..test_distributed import run_on_two_processes


STEPS = 3
EVEN, UNEVEN = ((4, 4), (4, 4)), ((3, 5), (6, 2))  # numbers of generated and of real texts, on each process
PAIRS = ((3, 3), (5, 5))
# Loss, texts per forward pass, numbers of texts, share of replay (0.9 replays all there are), prefixes.
CASES = {
    **{f"{loss} {size}": (loss, size, EVEN, 0.9, False) for loss in LOSSES for size in (None, 3)},
    **{f"{loss} uneven": (loss, 3, PAIRS if loss == "bradley_terry" else UNEVEN, 0.0, False) for loss in LOSSES},
    **{f"{loss} prefixes": (loss, None, EVEN, 0.9, True) for loss in ("bce", "relativistic_average")},
}


def batch(step, process, counts):
    """The texts of a process: those of the second one are longer, so that its prefixes are more."""
    numbers = dict(zip(("fake", "real"), counts[process], strict=True))
    shift = 100 * step + 10 * process
    fakes, reals = (
        texts(count, seed=shift + place, length=4 + 3 * process + place)
        for place, count in enumerate(numbers.values())
    )
    prompts = [f"the {text.split()[0]}" for text in fakes]
    return prompts, fakes, reals, prompts if len(fakes) == len(reals) else [""] * len(reals)


def trained(case, folder, device=None, process=None):
    """A discriminator after its updates on the texts of one process, or of both, and what it reported."""
    loss, size, counts, fraction, prefixes = case
    model, tokenizer = (
        (causal_classifier(), generators_tokenizer()) if prefixes else (bert_classifier(), tokenizer_of_pairs())
    )
    regularization = Regularization(label_smoothing=0.1 if loss in SMOOTHABLE else 0.0, logit_penalty=0.1)
    settings = {"regularization": regularization, "replay_fraction": fraction, "prefixes": prefixes}
    one = Discriminator(model, tokenizer, loss=loss, batch_size=size, **settings)
    if device is not None:
        one.to(device)
    optim = {"optim": "sgd", "lr_scheduler_type": "constant"}
    common = {"use_cpu": True, "bf16": False, "report_to": "none", "discriminator_learning_rate": 0.05}
    args = AdversarialConfig(str(folder), discriminator_optim_kwargs=optim, **common)
    one.create_optimizer(args.discriminator_training_args(), STEPS)
    reported = []
    for step in range(STEPS):
        shares = [batch(step, at, counts) for at in ([0, 1] if process is None else [process])]
        output = one.update(*([text for share in shares for text in share[part]] for part in range(4)))
        reported.append([output.loss, output.threshold, output.extra_metrics.get("replayed_prob", torch.zeros(()))])
    weights = torch.cat([parameter.detach().flatten() for parameter in one.model.parameters()])
    return {"weights": weights, "reported": torch.tensor(reported)}


SCRIPT = """
import os, sys
sys.path.insert(0, {root!r})
from pathlib import Path
import torch
import torch.distributed as dist
from tests.discriminator.test_gathering import CASES, trained

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, folder = dist.get_rank(), Path({folder!r})
assert dist.get_world_size() == 2
results = {{name: trained(case, folder, torch.device("cpu"), rank) for name, case in CASES.items()}}
torch.save(results, folder / f"results_{{rank}}.bin")
"""


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gathering")
    run_on_two_processes(SCRIPT, folder)
    return [torch.load(folder / f"results_{rank}.bin", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_take_the_step_of_one(of_two_processes, tmp_path, name):
    expected = trained(CASES[name], tmp_path)
    first, second = (results[name] for results in of_two_processes)
    assert torch.equal(first["weights"], second["weights"])
    start = causal_classifier() if "prefixes" in name else bert_classifier()
    before = torch.cat([parameter.detach().flatten() for parameter in start.parameters()])
    assert (expected["weights"] - before).abs().max() > 1e-3
    assert_close(first["weights"], expected["weights"], atol=1e-6, rtol=0)
    for share in (first, second):
        assert_close(share["reported"], expected["reported"], atol=1e-5, rtol=1e-5, equal_nan=True)
