import copy

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, LoraConfig
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification, BertForMaskedLM

from hf_mgan import AdversarialConfig, Discriminator
from hf_mgan.discriminator import Regularization
from hf_mgan.objectives import LOSSES, NEEDS_PENALTY

from ..conftest import bert_classifier, causal_classifier, texts


PROMPTS = ["the dog", "", "a king", "near this"]
COMPLETIONS = ["sees a cat", "runs .", "", "sleeps"]


def parameters(discriminator):
    return [parameter.detach().clone() for parameter in discriminator.model.parameters()]


def with_optimizer(discriminator, tmp_path, learning_rate=1e-2, **optim_kwargs):
    args = AdversarialConfig(
        str(tmp_path),
        report_to="none",
        use_cpu=True,
        bf16=False,
        discriminator_learning_rate=learning_rate,
        discriminator_optim_kwargs={"lr_scheduler_type": "linear", **optim_kwargs},
    )
    discriminator.create_optimizer(args.discriminator_training_args(), 50)
    return discriminator


@pytest.fixture(params=["pairs", "causal"])
def discriminator(request, pair_tokenizer, tokenizer):
    if request.param == "pairs":
        return Discriminator(bert_classifier(), pair_tokenizer)
    return Discriminator(causal_classifier(), tokenizer)


def test_encode_makes_a_pair_of_prompt_and_completion(pair_tokenizer):
    discriminator = Discriminator(bert_classifier(), pair_tokenizer)
    decoded = pair_tokenizer.batch_decode(discriminator.encode(PROMPTS[:2], COMPLETIONS[:2])["input_ids"])
    assert decoded[0] == "[CLS] the dog [SEP] sees a cat [SEP]"
    assert decoded[1].replace(" <pad>", "") == "[CLS] runs . [SEP]"


def test_encode_makes_one_text_without_pairs(tokenizer):
    discriminator = Discriminator(causal_classifier(), tokenizer)
    row = discriminator.encode(["the dog "], ["sees"])["input_ids"][0]
    assert tokenizer.convert_ids_to_tokens(row) == ["the", "dog", "sees", "</s>"]


def test_tokenizer_given_is_not_changed(tokenizer):
    Discriminator(causal_classifier(), tokenizer)
    assert tokenizer.padding_side == "left"


def test_score_does_not_depend_on_the_batch(discriminator):
    together = discriminator.score(PROMPTS, COMPLETIONS)
    alone = torch.cat(
        [discriminator.score([prompt], [completion]) for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)]
    )
    assert together.shape == (4,)
    assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert_close(discriminator.score(PROMPTS[::-1], COMPLETIONS[::-1]).flip(0), together, atol=1e-5, rtol=1e-5)


def test_texts_that_occur_twice_are_run_through_once(discriminator):
    seen = []
    discriminator.model.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    scores = discriminator.score(["a"] * 5, ["dog", "cat", "dog", "dog", "cat"])
    assert seen == [2]
    assert_close(scores[[0, 0, 1]], scores[[2, 3, 4]])


def test_update_alone_changes_parameters(discriminator, tmp_path):
    with_optimizer(discriminator, tmp_path)
    before = parameters(discriminator)
    discriminator.score(PROMPTS, COMPLETIONS)
    discriminator.evaluate(PROMPTS, COMPLETIONS, texts(4))
    assert all(torch.equal(old, new) for old, new in zip(before, parameters(discriminator), strict=True))
    assert discriminator.num_updates == 0
    discriminator.update(PROMPTS, COMPLETIONS, texts(4))
    assert any(not torch.equal(old, new) for old, new in zip(before, parameters(discriminator), strict=True))
    assert discriminator.num_updates == 1


def test_updates_see_their_steps_under_autocast(pair_tokenizer, tmp_path):
    """Autocast keeps weights as it has cast them until its outermost block ends, unless told not to."""
    logits = []
    for kept in (True, False):
        discriminator = with_optimizer(Discriminator(bert_classifier(), pair_tokenizer, bf16=True), tmp_path)
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=kept):
            for _ in range(3):
                output = discriminator.update(PROMPTS, COMPLETIONS, texts(4))
        logits.append(output.fake_logits)
    assert logits[0].equal(logits[1])


def test_update_returns_logits_before_its_step(discriminator, tmp_path):
    with_optimizer(discriminator, tmp_path)
    before = discriminator.score(PROMPTS, COMPLETIONS)
    output = discriminator.update(PROMPTS, COMPLETIONS, texts(4))
    assert_close(output.fake_logits, before, atol=1e-5, rtol=1e-5)
    assert (discriminator.score(PROMPTS, COMPLETIONS) - before).abs().max() > 1e-3


def test_evaluate_and_update_agree(discriminator, tmp_path):
    with_optimizer(discriminator, tmp_path)
    expected = discriminator.evaluate(PROMPTS, COMPLETIONS, texts(4))
    output = discriminator.update(PROMPTS, COMPLETIONS, texts(4))
    assert_close(output.loss, expected.loss)
    assert_close(output.real_logits, expected.real_logits)
    assert_close(output.fake_length, expected.fake_length)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_batch_size_gives_the_same_update(pair_tokenizer, tmp_path, loss):
    model = bert_classifier()
    results = []
    for batch_size in (None, 3):
        one = Discriminator(
            copy.deepcopy(model),
            pair_tokenizer,
            loss=loss,
            batch_size=batch_size,
            regularization=Regularization(logit_penalty=0.1 if loss in NEEDS_PENALTY else 0.0),
        )
        with_optimizer(one, tmp_path, optim="sgd")  # Adam's first step has the size of the rate anyhow
        output = one.update(PROMPTS, COMPLETIONS, texts(4))
        results.append((output, parameters(one)))
    (whole, whole_weights), (parts, part_weights) = results
    assert_close(whole.loss, parts.loss)
    assert_close(whole.grad_norm, parts.grad_norm, atol=1e-5, rtol=1e-4)
    for expected, got in zip(whole_weights, part_weights, strict=True):
        assert_close(got, expected, atol=2e-4, rtol=1e-3)


def test_updates_tell_two_kinds_of_text_apart(discriminator, tmp_path):
    with_optimizer(discriminator, tmp_path, learning_rate=3e-3)
    for seed in range(60):
        fake, real = texts(16, seed), texts(16, seed + 1000)
        discriminator.update([""] * 16, [f"{text} one" for text in fake], [f"{text} two" for text in real])
    fake = discriminator.score([""] * 8, [f"{text} one" for text in texts(8, 7777)])
    real = discriminator.score([""] * 8, [f"{text} two" for text in texts(8, 8888)])
    assert real.mean() > fake.mean() + 1


def test_dropout_is_off_during_an_update(pair_tokenizer, tmp_path):
    model = bert_classifier()
    model.config.hidden_dropout_prob = 0.9
    model.train()
    discriminator = with_optimizer(Discriminator(model, pair_tokenizer), tmp_path)
    assert not any(module.training for module in discriminator.model.modules())
    discriminator.update(PROMPTS, COMPLETIONS, texts(4))
    assert not any(module.training for module in discriminator.model.modules())


def test_schedule_runs_over_the_updates(discriminator, tmp_path):
    with_optimizer(discriminator, tmp_path)
    rates = [discriminator.update(PROMPTS, COMPLETIONS, texts(4)).learning_rate for _ in range(3)]
    assert rates == pytest.approx([1e-2, 1e-2 * 49 / 50, 1e-2 * 48 / 50])


def test_optimizer_by_name(discriminator, tmp_path):
    with_optimizer(discriminator, tmp_path, optim="sgd")
    assert isinstance(discriminator.optimizer, torch.optim.SGD)


def test_score_is_the_log_odds_of_the_label(pair_tokenizer):
    model = bert_classifier(num_labels=3)
    model.config.id2label = {0: "machine", 1: "human", 2: "spam"}
    discriminator = Discriminator(model, pair_tokenizer, label="human")
    encoded = discriminator.encode([""], ["the dog"])
    with torch.no_grad():
        probs = model(**encoded).logits.softmax(1)[0]
    # The logit's sigmoid is the softmax probability of the label.
    assert_close(discriminator.score([""], ["the dog"]).sigmoid(), probs[1:2])
    assert Discriminator(model, pair_tokenizer, label="1").label == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "discriminator_label"),
        ({"label": "human"}, r"discriminator_label is 'human'"),
        ({"label": 2}, "discriminator_label is 2"),
        ({"label": 0, "loss": "hinged"}, "loss must be .* got 'hinged'"),
        ({"label": 0, "max_length": 99}, "discriminator_max_length must .* got 99"),
        ({"label": 0, "batch_size": 0}, "batch_size must be .* got 0"),
    ],
)
def test_values_out_of_range_are_refused(pair_tokenizer, settings, message):
    with pytest.raises(ValueError, match=message):
        Discriminator(bert_classifier(num_labels=2), pair_tokenizer, **settings)


def test_wrong_types_are_refused(pair_tokenizer, generator):
    with pytest.raises(TypeError, match=r"sequence classifier, got GPT2LMHeadModel"):
        Discriminator(generator, pair_tokenizer)
    with pytest.raises(TypeError, match="must be a tokenizer, got str"):
        Discriminator(bert_classifier(), "bert")


def test_long_texts_are_cut(tokenizer, pair_tokenizer):
    causal = Discriminator(causal_classifier(), tokenizer, max_length=3)
    assert tokenizer.convert_ids_to_tokens(causal.encode(["the "], ["dog sees a cat"])["input_ids"][0]) == [
        "a",
        "cat",
        "</s>",
    ]
    pairs = Discriminator(bert_classifier(), pair_tokenizer, max_length=6)
    assert pairs.encode(["the dog sees a"], ["cat runs"])["input_ids"].shape == (1, 6)


def test_saved_folder_is_an_ordinary_one(discriminator, tmp_path):
    discriminator.save_pretrained(tmp_path / "saved")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    encoded = discriminator.encode(PROMPTS, COMPLETIONS)
    with torch.no_grad():
        assert_close(plain(**encoded).logits[:, 0], discriminator.score(PROMPTS, COMPLETIONS), atol=1e-5, rtol=1e-5)
    again = Discriminator.from_pretrained(tmp_path / "saved")
    assert_close(again.score(PROMPTS, COMPLETIONS), discriminator.score(PROMPTS, COMPLETIONS))


def test_encoder_gets_a_fresh_head_in_float32(pair_tokenizer, tmp_path):
    BertForMaskedLM(bert_classifier().config).bfloat16().save_pretrained(tmp_path)
    pair_tokenizer.save_pretrained(tmp_path)
    discriminator = Discriminator.from_pretrained(tmp_path)
    assert discriminator.model.config.num_labels == 1
    assert {parameter.dtype for parameter in discriminator.model.parameters()} == {torch.float32}


def test_adapters_train_with_the_head_and_load_with_peft(pair_tokenizer, tmp_path):
    bert_classifier().save_pretrained(tmp_path / "base")
    pair_tokenizer.save_pretrained(tmp_path / "base")
    config = LoraConfig(r=4, target_modules=["query", "value"])
    discriminator = with_optimizer(
        Discriminator.from_pretrained(tmp_path / "base", peft_config=config), tmp_path / "args"
    )
    assert config.task_type is None  # what was given is left as it was
    frozen = discriminator.model.get_base_model().bert.embeddings.word_embeddings.weight.clone()
    for _ in range(3):
        discriminator.update(PROMPTS, COMPLETIONS, texts(4))
    assert_close(discriminator.model.get_base_model().bert.embeddings.word_embeddings.weight, frozen)
    discriminator.save_pretrained(tmp_path / "adapters")
    loaded = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapters", num_labels=1).eval()
    encoded = discriminator.encode(PROMPTS, COMPLETIONS)
    with torch.no_grad():
        assert_close(loaded(**encoded).logits[:, 0], discriminator.score(PROMPTS, COMPLETIONS), atol=1e-5, rtol=1e-5)
    again = Discriminator.from_pretrained(tmp_path / "adapters")
    assert_close(again.score(PROMPTS, COMPLETIONS), discriminator.score(PROMPTS, COMPLETIONS))
    with pytest.raises(ValueError, match="discriminator_peft_config"):
        Discriminator.from_pretrained(tmp_path / "adapters", peft_config=config)


def test_load_state_makes_the_next_update_identical(discriminator, tmp_path):
    with_optimizer(discriminator, tmp_path)
    discriminator.update(PROMPTS, COMPLETIONS, texts(4))
    discriminator.save_pretrained(tmp_path / "model")
    discriminator.save_state(tmp_path / "state")
    other = Discriminator(
        type(discriminator.model)(discriminator.model.config), discriminator.processing_class
    )  # other weights
    with_optimizer(other, tmp_path).load_state(tmp_path / "state", tmp_path / "model")
    for one in (discriminator, other):
        one.update(PROMPTS, COMPLETIONS, texts(4, 5))
    assert all(torch.equal(a, b) for a, b in zip(parameters(discriminator), parameters(other), strict=True))
    assert other.num_updates == 2


def test_non_finite_loss_stops_before_anything_moves(discriminator, tmp_path):
    with_optimizer(discriminator, tmp_path)
    head = next(module for name, module in discriminator.model.named_modules() if name in ("classifier", "score"))
    with torch.no_grad():
        head.weight.fill_(float("nan"))
    before = parameters(discriminator)
    with pytest.raises(FloatingPointError, match="loss is nan at its update 0"):
        discriminator.update(PROMPTS, COMPLETIONS, texts(4))
    for old, new in zip(before, parameters(discriminator), strict=True):
        assert_close(old, new, equal_nan=True, atol=0, rtol=0)


def test_non_finite_gradient_stops_before_anything_moves(discriminator, tmp_path):
    """A finite loss may have a gradient that is not: one parameter's is enough."""
    with_optimizer(discriminator, tmp_path)
    parameter = next(one for one in discriminator.model.parameters() if one.requires_grad)
    parameter.register_hook(lambda gradient: torch.full_like(gradient, float("nan")))
    before = parameters(discriminator)
    with pytest.raises(FloatingPointError, match="gradient is nan at its update 0"):
        discriminator.update(PROMPTS, COMPLETIONS, texts(4))
    for old, new in zip(before, parameters(discriminator), strict=True):
        assert_close(old, new, atol=0, rtol=0)
    assert discriminator.num_updates == 0
    assert all(one.grad is None for one in discriminator.model.parameters())


def test_update_without_an_optimizer_is_refused(discriminator):
    with pytest.raises(RuntimeError, match="create_optimizer"):
        discriminator.update(PROMPTS, COMPLETIONS, texts(4))


def test_accuracy_is_free_of_shifts_where_the_loss_is(pair_tokenizer):
    """A head whose bias is 50 takes everything for real and is right on half; about the middle nothing changes."""
    fakes, reals = ["dog dog dog", "dog dog", "dog"], ["king", "king king", "king king king"]
    accuracies = {}
    for loss in ("bce", "bradley_terry", "relativistic_average"):
        discriminator = Discriminator(bert_classifier(), pair_tokenizer, loss=loss)
        for shift in (0.0, 50.0):
            torch.nn.init.constant_(discriminator.model.classifier.bias, shift)
            out = discriminator.evaluate(["", "", ""], fakes, reals)
            accuracies[loss, shift] = out.metrics()["accuracy"].item()
        middle = (out.fake_logits.mean() + out.real_logits.mean()) / 2
        expected = torch.cat([out.real_logits > middle, out.fake_logits <= middle]).float().mean().item()
        assert loss == "bce" or accuracies[loss, 50.0] == accuracies[loss, 0.0] == expected
    assert accuracies["bce", 50.0] == 0.5
