"""The discriminator's optimizer: by name, on losses in float32, and with scaled gradients in float16."""

import copy

import pytest
import torch
from peft import LoraConfig
from transformers import SchedulerType
from transformers.training_args import OptimizerNames

from hf_mgan import Discriminator
from hf_mgan.discriminator import Regularization, trainable_parameters, with_adapters
from hf_mgan.objectives import LOSSES, NEEDS_PENALTY

from ..conftest import bert_classifier, texts
from .test_discriminator import COMPLETIONS, PROMPTS, parameters, with_optimizer


NEEDS = {
    "reduce_lr_on_plateau": "follows a metric",
    "greedy": "follows a metric",
    "cosine_with_min_lr": "min_lr or min_lr_rate should be set.*lr_scheduler_kwargs",
    "cosine_warmup_with_min_lr": "min_lr or min_lr_rate should be set.*lr_scheduler_kwargs",
    "warmup_stable_decay": "num_decay_steps'.*lr_scheduler_kwargs",
}
GIVEN = {
    "cosine_with_min_lr": {"min_lr": 1e-4},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 2},
}


def moved(before, discriminator):
    return [not torch.equal(old, new) for old, new in zip(before, parameters(discriminator), strict=True)]


@pytest.mark.parametrize(
    "name", ["adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "lion_8bit", "adafactor"]
)
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_optimizers_by_name_learn_and_resume(pair_tokenizer, tmp_path, name):
    if name != "adafactor":
        pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")
    runs = []
    for _ in range(2):
        discriminator = Discriminator(bert_classifier(), pair_tokenizer)
        runs.append(with_optimizer(discriminator, tmp_path, optim=name))
    first, second = runs
    before = parameters(first)
    losses = [first.update(PROMPTS, COMPLETIONS, texts(4)).loss.item() for _ in range(8)]
    assert any(moved(before, first))
    assert losses[-1] < 0.9 * losses[0]
    first.save_pretrained(tmp_path / "model")
    first.save_state(tmp_path / "state")
    second.load_state(tmp_path / "state", tmp_path / "model")
    for one in runs:
        one.update(PROMPTS, COMPLETIONS, texts(4, 5))
    assert all(torch.equal(a, b) for a, b in zip(parameters(first), parameters(second), strict=True))


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("precision", ["bf16", "fp16", "bf16 weights"])
def test_logits_and_losses_are_float32(pair_tokenizer, tmp_path, precision, loss):
    model = bert_classifier(num_labels=2)
    if precision == "bf16 weights":
        model = model.bfloat16()
    settings = {} if precision == "bf16 weights" else {precision: True}
    settings["regularization"] = Regularization(logit_penalty=0.1 if loss in NEEDS_PENALTY else 0.0)
    discriminator = with_optimizer(Discriminator(model, pair_tokenizer, label=1, loss=loss, **settings), tmp_path)
    seen = []
    inner = discriminator.loss
    discriminator.loss = lambda *logits: seen.extend(side.dtype for side in logits) or inner(*logits)
    output = discriminator.update(PROMPTS, COMPLETIONS, texts(4))
    assert seen == [torch.float32, torch.float32]
    assert {output.loss.dtype, output.fake_logits.dtype, output.grad_norm.dtype} <= {torch.float32, torch.bfloat16}
    assert output.loss.dtype == output.fake_logits.dtype == torch.float32


@pytest.mark.parametrize("batch_size", [None, 3])
def test_update_in_float16_is_nearly_that_in_float32(pair_tokenizer, tmp_path, batch_size):
    """The clipped gradient must be that of the loss, not 65536 times as large: SGD shows it, Adam would not."""
    model = bert_classifier()
    results = []
    for fp16 in (False, True):
        one = Discriminator(copy.deepcopy(model), pair_tokenizer, batch_size=batch_size, fp16=fp16, max_grad_norm=0.5)
        with_optimizer(one, tmp_path, optim="sgd", learning_rate=0.1)
        before = parameters(one)
        output = one.update(PROMPTS, COMPLETIONS, texts(4))
        step = torch.cat([(new - old).flatten() for old, new in zip(before, parameters(one), strict=True)])
        results.append((output.grad_norm, step))
    (norm, step), (norm16, step16) = results
    assert norm > 0.5  # or clipping would not be tested
    assert norm16 == pytest.approx(norm.item(), rel=0.02)
    assert step16.norm() == pytest.approx(0.1 * 0.5, rel=1e-3)
    assert torch.nn.functional.cosine_similarity(step, step16, dim=0) > 0.99


def test_small_gradients_survive_float16(pair_tokenizer, tmp_path, monkeypatch):
    """A logit's gradient of 1e-9 is below the least float16, 6e-8; times 65536 it is well above."""
    discriminator = Discriminator(bert_classifier(), pair_tokenizer, fp16=True)
    discriminator.loss = lambda real, fake: 1e-9 * (fake.sum() - real.sum())
    with_optimizer(discriminator, tmp_path)
    assert discriminator.update(PROMPTS, COMPLETIONS, texts(4)).grad_norm > 0


def test_overflow_skips_the_update(pair_tokenizer, tmp_path):
    discriminator = with_optimizer(Discriminator(bert_classifier(), pair_tokenizer, fp16=True), tmp_path)
    inner = discriminator.loss
    discriminator.loss = lambda real, fake: 1e6 * inner(real, fake)  # times 65536 it is beyond float16's 65504
    before = parameters(discriminator)
    output = discriminator.update(PROMPTS, COMPLETIONS, texts(4))
    assert not any(moved(before, discriminator))
    assert not output.grad_norm.isfinite()
    assert discriminator.num_updates == 0
    discriminator.loss = inner
    output = discriminator.update(PROMPTS, COMPLETIONS, texts(4))
    assert output.learning_rate == pytest.approx(1e-2)  # still the first of the schedule
    assert discriminator.num_updates == 1
    assert any(moved(before, discriminator))


def test_overflow_at_every_scale_stops(pair_tokenizer, tmp_path):
    discriminator = with_optimizer(Discriminator(bert_classifier(), pair_tokenizer, fp16=True), tmp_path)
    inner = discriminator.loss
    discriminator.loss = lambda real, fake: 1e20 * inner(real, fake)
    with pytest.raises(FloatingPointError, match="bf16=True"):  # noqa: PT012
        for _ in range(40):
            discriminator.update(PROMPTS, COMPLETIONS, texts(4))
    assert discriminator.num_updates == 0


def test_gradient_scale_is_part_of_the_state(pair_tokenizer, tmp_path):
    one, other = (
        with_optimizer(Discriminator(bert_classifier(), pair_tokenizer, fp16=True), tmp_path) for _ in range(2)
    )
    inner = one.loss
    one.loss = lambda real, fake: 1e6 * inner(real, fake)
    one.update(PROMPTS, COMPLETIONS, texts(4))
    one.save_pretrained(tmp_path / "model")
    one.save_state(tmp_path / "state")
    other.load_state(tmp_path / "state", tmp_path / "model")
    assert other._scaler.get_scale() == one._scaler.get_scale() == 65536 / 2


def test_two_precisions_are_refused(pair_tokenizer):
    with pytest.raises(ValueError, match="either bf16 or fp16"):
        Discriminator(bert_classifier(), pair_tokenizer, bf16=True, fp16=True)


def test_frozen_parameters_are_refused(pair_tokenizer, tmp_path):
    frozen = bert_classifier().requires_grad_(False)
    with pytest.raises(ValueError, match=r"requires_grad_\(\)"):
        with_optimizer(Discriminator(frozen, pair_tokenizer), tmp_path)
    for_inference = with_adapters(bert_classifier(), LoraConfig(target_modules=["query"], inference_mode=True))
    with pytest.raises(ValueError, match="is_trainable=True"):
        trainable_parameters(for_inference)


@pytest.mark.parametrize("name", [schedule.value for schedule in SchedulerType])
def test_schedule_runs_or_is_refused(make_config, pair_tokenizer, name):
    """Every schedule that transformers knows: those that need nothing, and those that need what they are given."""
    if name in NEEDS:
        with pytest.raises(ValueError, match=f"lr_scheduler_type='{name}'.*{NEEDS[name]}"):
            make_config(discriminator_optim_kwargs={"lr_scheduler_type": name})
    if name in NEEDS and name not in GIVEN:
        return
    settings = {"lr_scheduler_type": name, "lr_scheduler_kwargs": GIVEN.get(name), "warmup_steps": 1}
    config = make_config(discriminator_optim_kwargs=settings)
    one = Discriminator(bert_classifier(), pair_tokenizer)
    one.create_optimizer(config.discriminator_training_args(), 4)
    for _ in range(4):
        one.update(PROMPTS, COMPLETIONS, texts(4))
    assert one.num_updates == 4


@pytest.mark.parametrize("name", [optimizer.value for optimizer in OptimizerNames])
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_optimizer_moves_or_is_refused(make_config, pair_tokenizer, name):
    """Every optimizer that transformers knows, as far as its library is installed."""
    message = ""
    try:
        config = make_config(discriminator_optim_kwargs={"optim": name})
    except (ImportError, ValueError) as error:
        message = str(error)
    if message:
        assert f"optim='{name}'" in message
        assert "discriminator_optim_kwargs" in message
        assert name not in ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop")
        return
    one = Discriminator(bert_classifier(), pair_tokenizer)
    before = parameters(one)
    one.create_optimizer(config.discriminator_training_args(), 4)
    for _ in range(2):
        one.update(PROMPTS, COMPLETIONS, texts(4))
    assert any(moved(before, one))


@pytest.mark.parametrize("name", ["galore_adamw", "apollo_adamw", "lomo", "adalomo", "schedule_free_adamw"])
def test_optimizer_that_needs_a_trainer_is_refused(make_config, name):
    with pytest.raises(ValueError, match=f"optim='{name}'.*training loop"):
        make_config(discriminator_optim_kwargs={"optim": name})


def test_arguments_that_make_no_optimizer_are_refused(make_config):
    with pytest.raises(ValueError, match="optim_args in discriminator_optim_kwargs must be pairs"):
        make_config(discriminator_optim_kwargs={"optim": "sgd", "optim_args": "momentum"})


def test_check_draws_no_random_number(make_config):
    state = torch.get_rng_state()
    make_config()
    assert torch.equal(torch.get_rng_state(), state)
