import copy
import dataclasses

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from hf_mgan import Discriminator
from hf_mgan.discriminator import Regularization
from hf_mgan.objectives import bce

from ..conftest import bert_classifier, causal_classifier, texts
from .test_discriminator import COMPLETIONS, PROMPTS, parameters, with_optimizer


def step(discriminator, tmp_path):
    """One update with a rate that shows the gradient; returns its metrics and how far each parameter moved."""
    discriminator.max_grad_norm = 1e9
    with_optimizer(discriminator, tmp_path, optim="sgd", learning_rate=1.0)
    before = parameters(discriminator)
    done = discriminator.num_updates
    while discriminator.num_updates == done:  # in float16 the first scales of the gradient can be too large
        metrics = discriminator.update(PROMPTS, COMPLETIONS, texts(4)).metrics()
    return metrics, [old - new for old, new in zip(before, parameters(discriminator), strict=True)]


def counted(exchanges, bucket):
    """A communication hook of DistributedDataParallel for one process."""
    exchanges.append(bucket.index())
    done = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("checkpointed", [False, True], ids=["", "checkpointed"])
def test_penalised_batches_give_the_same_update(
    pair_tokenizer, tokenizer, tmp_path, monkeypatch, family, checkpointed
):
    model, own = (bert_classifier(), pair_tokenizer) if family == "bert" else (causal_classifier(), tokenizer)
    results = []
    for batch_size in (None, 3):
        one = Discriminator(
            copy.deepcopy(model),
            own,
            batch_size=batch_size,
            regularization=Regularization(logit_penalty=0.3),
            gradient_checkpointing=checkpointed and batch_size is not None,
        ).to(torch.device("cpu"))
        one.model.double()  # so that only what is meant to differ could
        monkeypatch.setattr(one._passes, "_forward", lambda module, batch: module(**batch).logits[:, 0])
        results.append(step(one, tmp_path))
    (whole, whole_moves), (parts, part_moves) = results
    for name in ("loss", "logit_penalty", "grad_norm"):
        assert_close(parts[name], whole[name], atol=1e-6, rtol=1e-5)
    assert max(move.abs().max() for move in whole_moves) > 0.01
    for expected, got in zip(whole_moves, part_moves, strict=True):
        assert_close(got, expected, atol=1e-6, rtol=1e-5)


def test_update_descends_loss_and_weighted_penalty(pair_tokenizer, tmp_path):
    """The moves under the sum are the sum of the moves: with SGD at rate 1 a move is a gradient."""
    moves, metrics = {}, {}
    for coefficient in (0.0, 1.0, 0.5):
        settings = Regularization(logit_penalty=coefficient)
        one = Discriminator(bert_classifier(), pair_tokenizer, regularization=settings)
        metrics[coefficient], moves[coefficient] = step(one, tmp_path)
    for none, whole, half in zip(*moves.values(), strict=True):
        assert_close(half, none + 0.5 * (whole - none), atol=1e-4, rtol=1e-3)
    assert_close(metrics[0.5]["loss"], metrics[0.0]["loss"])  # the loss alone
    assert_close(metrics[0.5]["logit_penalty"], metrics[1.0]["logit_penalty"])  # without coefficient
    assert "logit_penalty" not in metrics[0.0]
    one = Discriminator(bert_classifier(), pair_tokenizer)
    real, fake = one.score(PROMPTS, texts(4)), one.score(PROMPTS, COMPLETIONS)
    assert_close(metrics[1.0]["logit_penalty"], (real.square().mean() + fake.square().mean()) / 2)


def test_logit_penalty_ends_with_smaller_logits(pair_tokenizer, tmp_path):
    sizes = []
    for coefficient in (0.0, 1.0):
        settings = Regularization(logit_penalty=coefficient)
        one = with_optimizer(Discriminator(bert_classifier(), pair_tokenizer, regularization=settings), tmp_path)
        for _ in range(20):
            one.update(PROMPTS, COMPLETIONS, texts(4))
        sizes.append(one.score(PROMPTS, COMPLETIONS).square().mean())
    assert sizes[1] < sizes[0] / 4


@pytest.mark.parametrize("batch_size", [None, 3])
def test_averaging_over_one_process_keeps_the_update(pair_tokenizer, tmp_path, batch_size):
    """One process averages with itself: the step has to be the same as without."""
    settings = Regularization(logit_penalty=0.5)
    alone, averaged = (
        Discriminator(bert_classifier(), pair_tokenizer, regularization=settings, batch_size=batch_size)
        for _ in range(2)
    )
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        averaged._passes.trained = DistributedDataParallel(averaged.model)
        averaged._passes.trained.register_comm_hook(exchanges := [], counted)
        for number in range(1, 3):
            (_, expected), (_, got) = step(alone, tmp_path), step(averaged, tmp_path)
            for one, other in zip(expected, got, strict=True):
                assert_close(other, one, atol=1e-5, rtol=1e-4)
            assert len(exchanges) == number  # one bucket per update, however many batches it has
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(("precision", "batch_size"), [("fp16", None), ("fp16", 3), ("bf16", None)])
def test_half_precision_takes_nearly_the_same_update(pair_tokenizer, tmp_path, precision, batch_size):
    settings = Regularization(logit_penalty=1.0)
    (full, moves), (half, half_moves) = (
        step(Discriminator(bert_classifier(), pair_tokenizer, regularization=settings, **asked), tmp_path)
        for asked in ({}, {precision: True, "batch_size": batch_size})
    )
    assert half["logit_penalty"] == pytest.approx(full["logit_penalty"].item(), rel=0.05)
    moves, half_moves = (torch.cat([move.flatten() for move in one]) for one in (moves, half_moves))
    assert half_moves.norm() == pytest.approx(moves.norm().item(), rel=0.05)
    assert torch.nn.functional.cosine_similarity(moves, half_moves, dim=0) > 0.99


def test_non_finite_penalty_stops_before_anything_moves(pair_tokenizer, tmp_path):
    """Logits of 1e25 have a finite loss, and a square that is not."""
    model = bert_classifier()
    settings = Regularization(logit_penalty=1.0)
    one = with_optimizer(Discriminator(model, pair_tokenizer, regularization=settings, batch_size=3), tmp_path)
    with torch.no_grad():
        model.classifier.bias.fill_(1e25)
    before = parameters(one)
    with pytest.raises(FloatingPointError, match="logit_penalty is inf at its update 0"):
        one.update(PROMPTS, COMPLETIONS, texts(4))
    assert all(torch.equal(old, new) for old, new in zip(before, parameters(one), strict=True))
    assert all(parameter.grad is None for parameter in one.model.parameters())


def test_label_smoothing_in_update_and_evaluate(pair_tokenizer, tmp_path):
    one = Discriminator(bert_classifier(), pair_tokenizer, regularization=Regularization(label_smoothing=0.2))
    with_optimizer(one, tmp_path)
    real, fake = one.score(PROMPTS, texts(4)), one.score(PROMPTS, COMPLETIONS)
    # The target of real text is 0.8: cross-entropy -0.8 log D - 0.2 log(1 - D).
    expected = (-0.8 * real.sigmoid().log() - 0.2 * (-real).sigmoid().log()).mean() - (-fake).sigmoid().log().mean()
    assert_close(one.evaluate(PROMPTS, COMPLETIONS, texts(4)).loss, expected)
    assert_close(one.update(PROMPTS, COMPLETIONS, texts(4)).loss, expected)
    assert_close(bce(real, fake, label_smoothing=0.2), expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [("label_smoothing", 0.5), ("logit_penalty", -1.0), ("logit_penalty", float("nan")), ("token_dropout", 1.0)],
)
def test_regularization_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} in discriminator_regularization must be .* got {value}"):
        Regularization(**{name: value})


def test_regularization_is_frozen_and_off_by_default():
    settings = Regularization()
    assert dataclasses.astuple(settings) == (0.0, 0.0, 0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.logit_penalty = 1.0


@pytest.mark.parametrize(
    ("loss", "settings", "message"),
    [
        ("hinge", {"label_smoothing": 0.1}, "label_smoothing .* discriminator_loss='hinge'"),
        ("wasserstein", {"token_dropout": 0.1}, "discriminator_loss='wasserstein' .*'logit_penalty'"),
    ],
)
def test_loss_that_does_not_go_with_it_is_refused(pair_tokenizer, loss, settings, message):
    with pytest.raises(ValueError, match=message):
        Discriminator(bert_classifier(), pair_tokenizer, loss=loss, regularization=Regularization(**settings))


def test_wasserstein_is_content_with_a_logit_penalty(pair_tokenizer):
    Discriminator(
        bert_classifier(), pair_tokenizer, loss="wasserstein", regularization=Regularization(logit_penalty=1)
    )
