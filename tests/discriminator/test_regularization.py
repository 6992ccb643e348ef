import copy
import math

import pytest
import torch
import torch.distributed as dist
from peft import LoraConfig
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close
from transformers import BartConfig, BartForSequenceClassification, BitsAndBytesConfig

from hf_mgan import Discriminator
from hf_mgan.discriminator import Regularization, classifier_on, regularization, with_adapters
from hf_mgan.discriminator.regularization import GradientPenalty
from hf_mgan.objectives import bce

from ..conftest import VOCABULARY, bert_classifier, causal_classifier, texts
from .test_discriminator import COMPLETIONS, PROMPTS, parameters, with_optimizer


EXACT = Regularization(gradient_penalty=0.5, gradient_penalty_type="exact")
NOISE = Regularization(gradient_penalty=0.5, gradient_penalty_type="noise")
KINDS = pytest.mark.parametrize("kind", [EXACT, NOISE], ids=["exact", "noise"])


def noise_of_the_embedding(like):
    """Noise that is the same for the same token, with a mean square of about 1."""
    return math.sqrt(2) * (50 * like).sin()


def step(discriminator, tmp_path):
    """One update with a rate that shows the gradient; returns its figures and how far each parameter moved."""
    discriminator.max_grad_norm = 1e9
    with_optimizer(discriminator, tmp_path, discriminator_optim="sgd", discriminator_learning_rate=1.0)
    before = parameters(discriminator)
    done = discriminator.num_updates
    while discriminator.num_updates == done:  # in float16 the first scales of the gradient can be too large
        figures = discriminator.update(PROMPTS, COMPLETIONS, texts(4)).figures()
    return figures, [old - new for old, new in zip(before, parameters(discriminator), strict=True)]


def counted(exchanges, bucket):
    """A communication hook of DistributedDataParallel for one process."""
    exchanges.append(bucket.index())
    done = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


def gradient_by_hand(model, discriminator, prompts, completions):
    """Squared length of each text's own gradient, one text at a time and so without padding."""
    words = model.bert.embeddings.word_embeddings.weight.detach()
    squares = []
    for prompt, completion in zip(prompts, completions, strict=True):
        encoded = dict(discriminator.encode([prompt], [completion]))
        embeddings = words[encoded.pop("input_ids")].requires_grad_()
        (gradient,) = torch.autograd.grad(model(inputs_embeds=embeddings, **encoded).logits.sum(), embeddings)
        squares.append(gradient.square().sum() * words.square().mean())  # in units of the root mean square
    return torch.stack(squares)


@pytest.mark.parametrize("batch_size", [None, 3])
def test_the_exact_penalty_is_the_mean_squared_gradient_of_each_side(pair_tokenizer, tmp_path, batch_size):
    """Three generated texts, two of them equal, and two real ones: a side counts by itself, and each of its texts."""
    model = bert_classifier()
    one = Discriminator(model, pair_tokenizer, regularization=EXACT, batch_size=batch_size)
    fakes, reals = (["", "the dog", "the dog"], ["a cat runs", "sees", "sees"]), (["", ""], ["the king eats .", "one"])
    expected = gradient_by_hand(model, one, *fakes).mean() / 2 + gradient_by_hand(model, one, *reals).mean() / 2
    with_optimizer(one, tmp_path)
    assert_close(one.update(*fakes, reals[1], reals[0]).figures()["gradient_penalty"], expected)


def test_the_noise_penalty_approaches_the_exact_one(pair_tokenizer):
    """6000 draws of noise on one text: the estimate deviates by about sqrt(2 / 6000) = 1.8 % of itself."""
    torch.manual_seed(0)
    model = bert_classifier().eval()
    one = Discriminator(model, pair_tokenizer)
    batch = one.encode(["the dog"] * 6000, ["sees a cat"] * 6000)
    expected = gradient_by_hand(model, one, ["the dog"], ["sees a cat"])[0] / 2
    penalty = GradientPenalty(model, Regularization(gradient_penalty=1.0, gradient_penalty_noise=0.003), batch)
    with torch.no_grad():
        _, got = penalty(lambda module, batch: module(**batch).logits[:, 0], model, batch, [(torch.arange(6000), 1.0)])
    assert got == pytest.approx(expected.item(), rel=0.06)


@KINDS
@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("checkpointed", [False, True], ids=["", "checkpointed"])
def test_batches_give_the_same_step_as_the_whole(
    pair_tokenizer, tokenizer, tmp_path, monkeypatch, kind, family, checkpointed
):
    monkeypatch.setattr(regularization, "standard_normal", noise_of_the_embedding)
    both = Regularization(logit_penalty=0.3, gradient_penalty=0.05, gradient_penalty_type=kind.gradient_penalty_type)
    model, own = (bert_classifier(), pair_tokenizer) if family == "bert" else (causal_classifier(), tokenizer)
    results = []
    for batch_size in (None, 3):
        one = Discriminator(
            copy.deepcopy(model),
            own,
            batch_size=batch_size,
            regularization=both,
            gradient_checkpointing=checkpointed and batch_size is not None,
        ).to(torch.device("cpu"))
        one.model.double()  # so that only what is meant to differ could
        monkeypatch.setattr(one._passes, "_forward", lambda module, batch: module(**batch).logits[:, 0])
        results.append(step(one, tmp_path))
    (whole, whole_moves), (parts, part_moves) = results
    for name in ("loss", "logit_penalty", "gradient_penalty", "grad_norm"):
        assert_close(parts[name], whole[name], atol=1e-6, rtol=1e-5)
    assert max(move.abs().max() for move in whole_moves) > 0.01
    for expected, got in zip(whole_moves, part_moves, strict=True):
        assert_close(got, expected, atol=1e-6, rtol=1e-5)


@KINDS
def test_the_step_is_that_of_the_loss_and_the_weighted_penalties(pair_tokenizer, tmp_path, monkeypatch, kind):
    """The moves under the sum are the sum of the moves: with SGD at rate 1 a move is a gradient."""
    monkeypatch.setattr(regularization, "standard_normal", noise_of_the_embedding)
    moves, figures = {}, {}
    for name, settings in {
        "none": {},
        "logits": {"logit_penalty": 1.0},
        "slope": {"gradient_penalty": 1.0},
        "both": {"logit_penalty": 0.5, "gradient_penalty": 0.25},
    }.items():
        settings = Regularization(gradient_penalty_type=kind.gradient_penalty_type, **settings)
        one = Discriminator(bert_classifier(), pair_tokenizer, regularization=settings)
        figures[name], moves[name] = step(one, tmp_path)
    for none, logits, slope, both in zip(*moves.values(), strict=True):
        assert_close(both, none + 0.5 * (logits - none) + 0.25 * (slope - none), atol=1e-4, rtol=1e-3)
    assert_close(figures["both"]["loss"], figures["none"]["loss"])  # the loss alone
    assert_close(figures["both"]["gradient_penalty"], figures["slope"]["gradient_penalty"])  # without coefficient
    assert not {"gradient_penalty", "logit_penalty"} & set(figures["none"])
    assert "gradient_penalty" not in figures["logits"]
    one = Discriminator(bert_classifier(), pair_tokenizer)
    real, fake = one.score(PROMPTS, texts(4)), one.score(PROMPTS, COMPLETIONS)
    assert_close(figures["logits"]["logit_penalty"], (real.square().mean() + fake.square().mean()) / 2)


@KINDS
def test_training_with_a_gradient_penalty_ends_with_a_smaller_gradient(pair_tokenizer, tmp_path, kind):
    torch.manual_seed(0)
    squares = []
    for coefficient in (0.0, 10.0):
        settings = Regularization(gradient_penalty=coefficient, gradient_penalty_type=kind.gradient_penalty_type)
        model = bert_classifier()
        one = with_optimizer(Discriminator(model, pair_tokenizer, regularization=settings), tmp_path)
        for seed in range(20):
            one.update(
                [""] * 8, [f"{text} one" for text in texts(8, seed)], [f"{text} two" for text in texts(8, seed)]
            )
        squares.append(gradient_by_hand(model, one, [""] * 8, [f"{text} two" for text in texts(8, 99)]).mean())
    assert squares[1] < squares[0] / 4


def test_training_with_a_logit_penalty_ends_with_smaller_logits(pair_tokenizer, tmp_path):
    sizes = []
    for coefficient in (0.0, 1.0):
        settings = Regularization(logit_penalty=coefficient)
        one = with_optimizer(Discriminator(bert_classifier(), pair_tokenizer, regularization=settings), tmp_path)
        for _ in range(20):
            one.update(PROMPTS, COMPLETIONS, texts(4))
        sizes.append(one.score(PROMPTS, COMPLETIONS).square().mean())
    assert sizes[1] < sizes[0] / 4


def test_the_logit_penalty_leaves_offsets_out(pair_tokenizer, tmp_path):
    one = Discriminator(bert_classifier(), pair_tokenizer, regularization=Regularization(logit_penalty=1.0))
    with_optimizer(one, tmp_path)
    real, fake = one.score(PROMPTS, texts(4)), one.score(PROMPTS, COMPLETIONS)
    offsets = {"completion_offsets": torch.full((4,), 7.0), "reference_offsets": torch.full((4,), -5.0)}
    figures = one.update(PROMPTS, COMPLETIONS, texts(4), **offsets).figures()
    assert_close(figures["logit_penalty"], (real.square().mean() + fake.square().mean()) / 2)


def test_noise_falls_on_tokens_and_not_on_padding_in_units_of_the_embeddings(pair_tokenizer):
    model = bert_classifier().eval()
    one = Discriminator(model, pair_tokenizer)
    # Rows of 3 and of 8 tokens; enough of them that the deviation is known to 1 %: 600 * 3 * 32 numbers.
    batch = one.encode([""] * 600 + [""], ["a"] * 600 + ["a the dog cat bird king"])
    penalty = GradientPenalty(model, Regularization(gradient_penalty=1.0, gradient_penalty_noise=0.5), batch)
    seen = []
    model.bert.embeddings.LayerNorm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    rows = [(torch.arange(601), 1.0)]
    penalty(lambda module, batch: module(**batch).logits[:, 0], model, batch, rows)
    clean, noisy = seen
    difference = (noisy - clean)[:600].detach()
    assert difference[:, 3:].abs().max() == 0
    words = model.bert.embeddings.word_embeddings.weight
    assert difference[:, :3].square().mean().sqrt() == pytest.approx(
        0.5 * words.square().mean().sqrt().item(), rel=0.02
    )


def test_the_exact_penalty_leaves_padding_out(tokenizer):
    """A logit that every place has a part in, padding too."""
    model = causal_classifier().eval()
    one = Discriminator(model, tokenizer)
    batch = one.encode(["", ""], ["a", "a the dog"])
    penalty = GradientPenalty(model, EXACT, batch)
    states = lambda module, batch: module.transformer(**batch).last_hidden_state[..., 0].sum(1)  # noqa: E731
    _, with_padding = penalty(states, model, batch, [(torch.tensor([0]), 1.0)])
    embeddings = model.transformer.wte(batch["input_ids"]).detach().requires_grad_()
    hidden = model.transformer(inputs_embeds=embeddings, attention_mask=batch["attention_mask"]).last_hidden_state
    (gradient,) = torch.autograd.grad(hidden[0, :, 0].sum(), embeddings)
    length = int(batch["attention_mask"][0].sum())
    assert gradient[0, length:].abs().max() > 0
    scale = model.transformer.wte.weight.square().mean()
    assert_close(with_padding, scale * gradient[0, :length].square().sum() / 2)


@KINDS
def test_frozen_embeddings_pass_the_penalty_on_to_adapters(pair_tokenizer, tmp_path, kind):
    model = with_adapters(bert_classifier(), LoraConfig(r=2, target_modules=["query", "value"]))
    kept = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    one = with_optimizer(Discriminator(model, pair_tokenizer, regularization=kind), tmp_path)
    one.loss = lambda real, fake: 0 * bce(real, fake)  # so that only the penalty moves anything
    assert one.update(PROMPTS, COMPLETIONS, texts(4)).figures()["gradient_penalty"] > 0
    now = dict(model.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in kept.items())
    assert any("lora_B" in name and value.abs().max() > 0 for name, value in now.items())


@KINDS
def test_a_generator_with_the_same_embeddings_notices_nothing(generator, tokenizer, tmp_path, kind):
    ids = torch.tensor([[3, 4, 5]])
    generator.eval()
    with torch.no_grad():
        before = generator(ids).logits
    lora = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    model = with_adapters(classifier_on(generator), lora)
    one = with_optimizer(Discriminator(model, tokenizer, regularization=kind), tmp_path)
    for _ in range(2):
        assert one.update(PROMPTS, COMPLETIONS, texts(4)).figures()["gradient_penalty"] > 0
    assert not generator.transformer.wte._forward_hooks
    with torch.no_grad():
        assert torch.equal(generator(ids).logits, before)
    batch = {"input_ids": torch.tensor([[999]]), "attention_mask": torch.ones(1, 1)}
    with pytest.raises(IndexError):  # within a pass that fails, too
        one._passes._gradient_penalty(one._passes._forward, model, batch, [])
    assert not generator.transformer.wte._forward_hooks


@KINDS
@pytest.mark.parametrize("batch_size", [None, 3])
def test_averaging_over_processes_takes_the_penalty_along(pair_tokenizer, tmp_path, monkeypatch, kind, batch_size):
    """One process averages with itself: the step has to be the same as without."""
    monkeypatch.setattr(regularization, "standard_normal", noise_of_the_embedding)
    alone, averaged = (
        Discriminator(bert_classifier(), pair_tokenizer, regularization=kind, batch_size=batch_size) for _ in range(2)
    )
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        averaged._passes.trained = DistributedDataParallel(averaged.model)
        averaged._passes.trained.register_comm_hook(exchanges := [], counted)
        for number in range(1, 3):
            (_, expected), (_, got) = step(alone, tmp_path), step(averaged, tmp_path)
            for one, other in zip(expected, got, strict=True):
                assert_close(other, one, atol=1e-5, rtol=1e-4)
            assert len(exchanges) == number  # one bucket an update, however many batches it has
    finally:
        dist.destroy_process_group()


@KINDS
@pytest.mark.parametrize(("precision", "batch_size"), [("fp16", None), ("fp16", 3), ("bf16", None)])
def test_half_precision_takes_nearly_the_step_of_full_precision(
    pair_tokenizer, tmp_path, monkeypatch, kind, precision, batch_size
):
    monkeypatch.setattr(regularization, "standard_normal", noise_of_the_embedding)
    settings = Regularization(gradient_penalty=1.0, gradient_penalty_type=kind.gradient_penalty_type)
    (full, moves), (half, half_moves) = (
        step(Discriminator(bert_classifier(), pair_tokenizer, regularization=settings, **asked), tmp_path)
        for asked in ({}, {precision: True, "batch_size": batch_size})
    )
    assert half["gradient_penalty"] == pytest.approx(full["gradient_penalty"].item(), rel=0.05)
    moves, half_moves = (torch.cat([move.flatten() for move in one]) for one in (moves, half_moves))
    assert half_moves.norm() == pytest.approx(moves.norm().item(), rel=0.05)
    assert torch.nn.functional.cosine_similarity(moves, half_moves, dim=0) > 0.99


@KINDS
def test_a_base_in_four_bits_passes_the_penalty_on(pair_tokenizer, tmp_path, kind):
    pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")
    model = bert_classifier()
    model.config.hidden_size = 64
    type(model)(model.config).save_pretrained(tmp_path / "d")
    one = Discriminator.from_pretrained(
        tmp_path / "d",
        pair_tokenizer,
        LoraConfig(r=2, target_modules=["query", "value"]),
        BitsAndBytesConfig(load_in_4bit=True),
        regularization=kind,
    )
    one.loss = lambda real, fake: 0 * bce(real, fake)
    with_optimizer(one, tmp_path)
    before = {name: p.detach().clone() for name, p in one.model.named_parameters() if p.requires_grad}
    assert one.update(PROMPTS, COMPLETIONS, texts(4)).figures()["gradient_penalty"] > 0
    now = dict(one.model.named_parameters())
    assert any("lora_B" in name and not torch.equal(now[name], value) for name, value in before.items())


def test_a_penalty_that_is_not_finite_stops_before_anything_moves(pair_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(regularization, "standard_normal", lambda like: like * float("nan"))
    one = with_optimizer(
        Discriminator(bert_classifier(), pair_tokenizer, regularization=NOISE, batch_size=3), tmp_path
    )
    before = parameters(one)
    with pytest.raises(FloatingPointError, match=r"gradient_penalty is nan at its update 0.*'sees a cat'"):
        one.update(PROMPTS, COMPLETIONS, texts(4))
    assert all(torch.equal(old, new) for old, new in zip(before, parameters(one), strict=True))
    assert all(parameter.grad is None for parameter in one.model.parameters())


def test_smoothed_labels_reach_the_loss_in_training_and_evaluation(pair_tokenizer, tmp_path):
    one = Discriminator(bert_classifier(), pair_tokenizer, regularization=Regularization(label_smoothing=0.2))
    with_optimizer(one, tmp_path)
    real, fake = one.score(PROMPTS, texts(4)), one.score(PROMPTS, COMPLETIONS)
    # The target of real text is 0.8: cross-entropy -0.8 log D - 0.2 log(1 - D).
    expected = (-0.8 * real.sigmoid().log() - 0.2 * (-real).sigmoid().log()).mean() - (-fake).sigmoid().log().mean()
    assert_close(one.evaluate(PROMPTS, COMPLETIONS, texts(4)).loss, expected)
    assert_close(one.update(PROMPTS, COMPLETIONS, texts(4)).loss, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_smoothing": 0.5}, r"discriminator_label_smoothing must be at least 0 and less than 0.5, got 0.5"),
        ({"logit_penalty": -1.0}, r"discriminator_logit_penalty must be at least 0.*got -1.0"),
        ({"gradient_penalty": float("nan")}, r"discriminator_gradient_penalty must be.*got nan"),
        (
            {"gradient_penalty_type": "r1"},
            r"discriminator_gradient_penalty_type must be one of.*'exact', 'noise'.*'r1'",
        ),
        ({"gradient_penalty_noise": 0.0}, r"discriminator_gradient_penalty_noise must be greater than 0, got 0.0"),
        ({"token_dropout": 1.0}, r"discriminator_token_dropout must be at least 0 and less than 1.0, got 1.0"),
    ],
)
def test_values_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Regularization(**settings)


@pytest.mark.parametrize(
    ("loss", "settings", "message"),
    [
        ("hinge", {"label_smoothing": 0.1}, r"discriminator_label_smoothing.*'hinge' has no targets.*'bce'"),
        ("wasserstein", {"token_dropout": 0.1}, r"'wasserstein' falls without end.*discriminator_gradient_penalty"),
    ],
)
def test_a_loss_that_does_not_go_with_the_regularisation_is_refused(pair_tokenizer, loss, settings, message):
    with pytest.raises(ValueError, match=message):
        Discriminator(bert_classifier(), pair_tokenizer, loss=loss, regularization=Regularization(**settings))


@pytest.mark.parametrize("settings", [{"gradient_penalty": 1.0}, {"logit_penalty": 1.0}])
def test_the_wasserstein_loss_is_content_with_either_penalty(pair_tokenizer, settings):
    Discriminator(bert_classifier(), pair_tokenizer, loss="wasserstein", regularization=Regularization(**settings))


def test_attention_without_a_second_derivative_is_refused_where_one_is_needed(pair_tokenizer):
    model = bert_classifier()
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(
        ValueError, match=r"'flash_attention_2' can be differentiated once.*attn_implementation='sdpa'"
    ):
        Discriminator(model, pair_tokenizer, regularization=EXACT)


@KINDS
def test_a_model_that_does_not_embed_its_texts_once_is_refused(pair_tokenizer, kind):
    config = BartConfig(
        vocab_size=len(VOCABULARY), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=48, num_labels=1,
        pad_token_id=0, eos_token_id=5, decoder_start_token_id=5,
    )  # fmt: skip
    with pytest.raises(
        ValueError, match=r"BartForSequenceClassification runs its own \d times.*embeds its texts once"
    ):
        Discriminator(BartForSequenceClassification(config), pair_tokenizer, regularization=kind)
