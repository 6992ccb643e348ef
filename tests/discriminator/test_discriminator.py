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


def with_optimizer(discriminator, tmp_path, **settings):
    settings = {"discriminator_learning_rate": 1e-2, "discriminator_lr_scheduler_type": "linear", **settings}
    args = AdversarialConfig(str(tmp_path), report_to="none", use_cpu=True, bf16=False, **settings)
    discriminator.create_optimizer(args.discriminator_arguments(), 50)
    return discriminator


@pytest.fixture(params=["pairs", "causal"])
def discriminator(request, pair_tokenizer, tokenizer):
    if request.param == "pairs":
        return Discriminator(bert_classifier(), pair_tokenizer)
    return Discriminator(causal_classifier(), tokenizer)


def test_prompt_and_completion_are_a_pair_where_the_tokenizer_has_pairs(pair_tokenizer):
    discriminator = Discriminator(bert_classifier(), pair_tokenizer)
    decoded = pair_tokenizer.batch_decode(discriminator.encode(PROMPTS[:2], COMPLETIONS[:2])["input_ids"])
    assert decoded[0] == "[CLS] the dog [SEP] sees a cat [SEP]"
    assert decoded[1].replace(" <pad>", "") == "[CLS] runs . [SEP]"


def test_prompt_and_completion_are_one_text_with_an_end_where_it_has_none(tokenizer):
    discriminator = Discriminator(causal_classifier(), tokenizer)
    row = discriminator.encode(["the dog "], ["sees"])["input_ids"][0]
    assert tokenizer.convert_ids_to_tokens(row) == ["the", "dog", "sees", "</s>"]


def test_the_tokenizer_given_is_not_changed(tokenizer):
    Discriminator(causal_classifier(), tokenizer)
    assert tokenizer.padding_side == "left"


def test_a_score_does_not_depend_on_its_neighbours_or_their_order(discriminator):
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


def test_score_and_evaluate_change_nothing_and_update_does(discriminator, tmp_path):
    with_optimizer(discriminator, tmp_path)
    before = parameters(discriminator)
    discriminator.score(PROMPTS, COMPLETIONS)
    discriminator.evaluate(PROMPTS, COMPLETIONS, texts(4))
    assert all(torch.equal(old, new) for old, new in zip(before, parameters(discriminator), strict=True))
    assert discriminator.num_updates == 0
    discriminator.update(PROMPTS, COMPLETIONS, texts(4))
    assert any(not torch.equal(old, new) for old, new in zip(before, parameters(discriminator), strict=True))
    assert discriminator.num_updates == 1


def test_the_logits_of_an_update_are_those_before_its_step(discriminator, tmp_path):
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
def test_batches_give_the_same_step_as_the_whole(pair_tokenizer, tmp_path, loss):
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
        with_optimizer(one, tmp_path, discriminator_optim="sgd")  # Adam's first step has the size of the rate anyhow
        output = one.update(PROMPTS, COMPLETIONS, texts(4))
        results.append((output, parameters(one)))
    (whole, whole_weights), (parts, part_weights) = results
    assert_close(whole.loss, parts.loss)
    assert_close(whole.grad_norm, parts.grad_norm, atol=1e-5, rtol=1e-4)
    for expected, got in zip(whole_weights, part_weights, strict=True):
        assert_close(got, expected, atol=2e-4, rtol=1e-3)


def test_updates_teach_it_to_tell_two_kinds_of_text_apart(discriminator, tmp_path):
    with_optimizer(discriminator, tmp_path, discriminator_learning_rate=3e-3)
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


def test_the_schedule_runs_over_the_updates(discriminator, tmp_path):
    with_optimizer(discriminator, tmp_path)
    rates = [discriminator.update(PROMPTS, COMPLETIONS, texts(4)).learning_rate for _ in range(3)]
    assert rates == pytest.approx([1e-2, 1e-2 * 49 / 50, 1e-2 * 48 / 50])


def test_any_optimizer_of_transformers_can_be_named(discriminator, tmp_path):
    with_optimizer(discriminator, tmp_path, discriminator_optim="sgd")
    assert isinstance(discriminator.optimizer, torch.optim.SGD)


def test_log_odds_of_the_label_that_means_real(pair_tokenizer):
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
        ({}, r"labels \['LABEL_0', 'LABEL_1'\].*discriminator_label"),
        ({"label": "human"}, r"'human'.*labels \['LABEL_0', 'LABEL_1'\]"),
        ({"label": 2}, r"is 2.*Give a name or an index"),
        ({"label": 0, "loss": "hinged"}, r"one of \['bce'.*got 'hinged'"),
        ({"label": 0, "max_length": 99}, r"between 1 and the model's limit of 48, got 99"),
        ({"label": 0, "batch_size": 0}, r"at least 1, got 0"),
    ],
)
def test_bad_values_are_refused_at_construction(pair_tokenizer, settings, message):
    with pytest.raises(ValueError, match=message):
        Discriminator(bert_classifier(num_labels=2), pair_tokenizer, **settings)


def test_wrong_types_are_refused(pair_tokenizer, generator):
    with pytest.raises(
        TypeError, match=r"sequence classifier, got GPT2LMHeadModel.*AutoModelForSequenceClassification"
    ):
        Discriminator(generator, pair_tokenizer)
    with pytest.raises(TypeError, match="must be a tokenizer, got str"):
        Discriminator(bert_classifier(), "bert")


def test_long_texts_are_cut_and_a_causal_model_keeps_the_end(tokenizer, pair_tokenizer):
    causal = Discriminator(causal_classifier(), tokenizer, max_length=3)
    assert tokenizer.convert_ids_to_tokens(causal.encode(["the "], ["dog sees a cat"])["input_ids"][0]) == [
        "a",
        "cat",
        "</s>",
    ]
    pairs = Discriminator(bert_classifier(), pair_tokenizer, max_length=6)
    assert pairs.encode(["the dog sees a"], ["cat runs"])["input_ids"].shape == (1, 6)


def test_a_saved_folder_is_an_ordinary_one_and_is_continued(discriminator, tmp_path):
    discriminator.save_pretrained(tmp_path / "saved")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    encoded = discriminator.encode(PROMPTS, COMPLETIONS)
    with torch.no_grad():
        assert_close(plain(**encoded).logits[:, 0], discriminator.score(PROMPTS, COMPLETIONS), atol=1e-5, rtol=1e-5)
    again = Discriminator.from_pretrained(tmp_path / "saved")
    assert_close(again.score(PROMPTS, COMPLETIONS), discriminator.score(PROMPTS, COMPLETIONS))


def test_an_encoder_gets_a_fresh_head_with_one_label_in_float32(pair_tokenizer, tmp_path):
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
    with pytest.raises(ValueError, match="holds adapters already"):
        Discriminator.from_pretrained(tmp_path / "adapters", peft_config=config)


def test_state_and_weights_restore_the_next_update_bit_for_bit(discriminator, tmp_path):
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


def test_a_loss_that_is_not_finite_stops_before_anything_moves(discriminator, tmp_path):
    with_optimizer(discriminator, tmp_path)
    head = next(module for name, module in discriminator.model.named_modules() if name in ("classifier", "score"))
    with torch.no_grad():
        head.weight.fill_(float("nan"))
    before = parameters(discriminator)
    with pytest.raises(FloatingPointError, match=r"nan at its update 0.*'sees a cat'.*discriminator_learning_rate"):
        discriminator.update(PROMPTS, COMPLETIONS, texts(4))
    for old, new in zip(before, parameters(discriminator), strict=True):
        assert_close(old, new, equal_nan=True, atol=0, rtol=0)


def test_an_update_without_an_optimizer_says_what_to_call(discriminator):
    with pytest.raises(RuntimeError, match="create_optimizer"):
        discriminator.update(PROMPTS, COMPLETIONS, texts(4))


def test_accuracy_does_not_hang_on_a_shift_where_the_loss_does_not(pair_tokenizer):
    """A head whose bias is 50 takes everything for real and is right on half; about the middle nothing changes."""
    fakes, reals = ["dog dog dog", "dog dog", "dog"], ["king", "king king", "king king king"]
    accuracies = {}
    for loss in ("bce", "bradley_terry", "relativistic_average"):
        discriminator = Discriminator(bert_classifier(), pair_tokenizer, loss=loss)
        for shift in (0.0, 50.0):
            torch.nn.init.constant_(discriminator.model.classifier.bias, shift)
            out = discriminator.evaluate(["", "", ""], fakes, reals)
            accuracies[loss, shift] = out.figures()["accuracy"].item()
        middle = (out.fake_logits.mean() + out.real_logits.mean()) / 2
        expected = torch.cat([out.real_logits > middle, out.fake_logits <= middle]).float().mean().item()
        assert loss == "bce" or accuracies[loss, 50.0] == accuracies[loss, 0.0] == expected
    assert accuracies["bce", 50.0] == 0.5
