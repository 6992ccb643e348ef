"""Which head a classifier gets, which label means real, and adapters of every kind that train and load again."""

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, LoraConfig, PeftModel, get_peft_model
from torch.testing import assert_close
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from hf_mgan import Discriminator
from hf_mgan.discriminator import with_adapters

from ..conftest import VOCABULARY, bert_classifier, texts
from .test_discriminator import COMPLETIONS, PROMPTS, with_optimizer


@pytest.fixture
def sentiment(pair_tokenizer, tmp_path):
    """A folder with a classifier that was trained for something else: two labels, and a head of two layers."""
    config = DistilBertConfig(
        vocab_size=len(VOCABULARY), dim=16, n_layers=1, n_heads=2, hidden_dim=16, max_position_embeddings=48,
        pad_token_id=0, id2label={0: "NEGATIVE", 1: "POSITIVE"},
    )  # fmt: skip
    torch.manual_seed(0)
    DistilBertForSequenceClassification(config).save_pretrained(tmp_path / "sentiment")
    pair_tokenizer.save_pretrained(tmp_path / "sentiment")
    return tmp_path / "sentiment"


def state(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_classifier_of_two_labels_needs_a_label(sentiment):
    with pytest.raises(
        ValueError,
        match=r"\['NEGATIVE', 'POSITIVE'\].*discriminator_label.*fresh_head",
    ):
        Discriminator.from_pretrained(sentiment)


def test_named_label_keeps_the_head(sentiment):
    saved = state(AutoModelForSequenceClassification.from_pretrained(sentiment))
    discriminator = Discriminator.from_pretrained(sentiment, label="POSITIVE")
    assert all(torch.equal(value, saved[name]) for name, value in state(discriminator.model).items())
    with torch.no_grad():
        logits = discriminator.model(**discriminator.encode([""], ["the dog"])).logits
    # Of two labels log p(real) - log p(not real) is the difference of the logits.
    assert_close(discriminator.score([""], ["the dog"]), logits[:, 1] - logits[:, 0])


def test_fresh_head_is_new_in_all_its_layers(sentiment):
    saved = state(AutoModelForSequenceClassification.from_pretrained(sentiment))
    fresh = Discriminator.from_pretrained(sentiment, fresh_head=True).model
    assert fresh.config.num_labels == 1
    changed = {name for name, value in state(fresh).items() if not torch.equal(value, saved[name])}
    # The bias of the first layer was 0 in both; that of the last has one entry where there were two.
    assert changed == {"pre_classifier.weight", "classifier.weight", "classifier.bias"}


def test_fresh_head_replaces_a_head_of_one_label(pair_tokenizer, tmp_path):
    bert_classifier().save_pretrained(tmp_path)
    pair_tokenizer.save_pretrained(tmp_path)
    kept = Discriminator.from_pretrained(tmp_path)
    fresh = Discriminator.from_pretrained(tmp_path, fresh_head=True)
    assert torch.equal(kept.model.classifier.weight, bert_classifier().classifier.weight)
    assert not torch.equal(kept.model.classifier.weight, fresh.model.classifier.weight)


def test_adapters_beside_a_fresh_head_are_continued(sentiment, tmp_path):
    lora = LoraConfig(r=2, target_modules=["q_lin"])
    one = with_optimizer(Discriminator.from_pretrained(sentiment, peft_config=lora, fresh_head=True), tmp_path)
    one.update(PROMPTS, COMPLETIONS, texts(4))
    one.save_pretrained(tmp_path / "saved")
    again = Discriminator.from_pretrained(tmp_path / "saved", fresh_head=True)
    assert_close(again.score(PROMPTS, COMPLETIONS), one.score(PROMPTS, COMPLETIONS))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("human", r"discriminator_label is 'human'.*\['LABEL_0', 'LABEL_1', 'LABEL_2'\]"),
        (3, r"discriminator_label is 3.*\['LABEL_0', 'LABEL_1', 'LABEL_2'\]"),
        ("3", r"discriminator_label is '3'"),
        (-1, r"label must be at least 0, got -1"),
        (None, "discriminator_label"),
    ],
)
def test_label_missing_or_unknown_is_refused(pair_tokenizer, label, message):
    with pytest.raises(ValueError, match=message):
        Discriminator(bert_classifier(num_labels=3), pair_tokenizer, label=label)


ADAPTERS = {
    "lora": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True, "lora_alpha": 4},
    "modules_to_save": {"modules_to_save": ["pooler"]},
    "all-linear": {"target_modules": "all-linear"},
}


@pytest.mark.parametrize("kind", list(ADAPTERS))
@pytest.mark.parametrize("encoder", [False, True], ids=["classifier", "encoder"])
def test_adapters_train_save_and_load(pair_tokenizer, tmp_path, kind, encoder):
    model = bert_classifier()
    (BertModel(model.config) if encoder else model).save_pretrained(tmp_path / "base")
    pair_tokenizer.save_pretrained(tmp_path / "base")
    lora = LoraConfig(r=4, **{"target_modules": ["query", "value"], **ADAPTERS[kind]})
    one = Discriminator.from_pretrained(tmp_path / "base", peft_config=lora)
    before = state(one.model)
    with_optimizer(one, tmp_path / "args")
    for _ in range(3):
        one.update(PROMPTS, COMPLETIONS, texts(4))
    changed = {name for name, value in state(one.model).items() if not torch.equal(value, before[name])}
    trained = {name for name, parameter in one.model.named_parameters() if parameter.requires_grad}
    assert changed == trained
    assert any("lora_B" in name for name in changed)
    assert any("classifier.modules_to_save" in name for name in changed)
    assert any("magnitude" in name for name in changed) == (kind == "dora")
    if kind == "modules_to_save":
        assert any("pooler.modules_to_save" in name for name in changed)

    one.save_pretrained(tmp_path / "saved")
    expected = one.score(PROMPTS, COMPLETIONS)
    again = Discriminator.from_pretrained(tmp_path / "saved")
    assert_close(again.score(PROMPTS, COMPLETIONS), expected, atol=1e-6, rtol=1e-5)
    by_peft = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "saved", num_labels=1).eval()
    with torch.no_grad():
        logits = by_peft(**one.encode(PROMPTS, COMPLETIONS)).logits[:, 0]
    assert_close(logits, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("given", ["instance", "folder"])
def test_existing_peft_classifier_is_trained_on(pair_tokenizer, tmp_path, given):
    model = bert_classifier()
    model.save_pretrained(tmp_path / "base")
    lora = LoraConfig(r=4, target_modules=["query"], init_lora_weights=False)  # adapters that have learnt something
    existing = with_adapters(AutoModelForSequenceClassification.from_pretrained(tmp_path / "base"), lora).eval()
    existing.save_pretrained(tmp_path / "adapters")
    pair_tokenizer.save_pretrained(tmp_path / "adapters")
    if given == "instance":
        one = Discriminator(existing, pair_tokenizer)
        assert one.model is existing
    else:
        one = Discriminator.from_pretrained(tmp_path / "adapters")
    encoded = one.encode(PROMPTS, COMPLETIONS)
    with torch.no_grad():
        assert_close(one.score(PROMPTS, COMPLETIONS), existing(**encoded).logits[:, 0])
    before = state(one.model)
    with_optimizer(one, tmp_path / "args").update(PROMPTS, COMPLETIONS, texts(4))
    changed = {name for name, value in state(one.model).items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if "lora_" in name or "modules_to_save" in name}
    assert isinstance(one.model, PeftModel)


def test_adapters_on_top_of_saved_adapters_are_refused(pair_tokenizer, tmp_path):
    bert_classifier().save_pretrained(tmp_path / "base")
    lora = LoraConfig(r=4, target_modules=["query"])
    model = with_adapters(AutoModelForSequenceClassification.from_pretrained(tmp_path / "base"), lora)
    model.save_pretrained(tmp_path / "adapters")
    with pytest.raises(ValueError, match="discriminator_peft_config"):
        Discriminator.from_pretrained(tmp_path / "adapters", pair_tokenizer, peft_config=lora)


def test_adapters_of_another_task_are_refused():
    with pytest.raises(ValueError, match="task_type='SEQ_CLS'"):
        with_adapters(bert_classifier(), LoraConfig(task_type="CAUSAL_LM", target_modules=["query"]))


@pytest.fixture
def saved_adapters(pair_tokenizer, tmp_path):
    """Return a function that saves adapters on an encoder, or on a classifier, whose head has so many labels."""

    def save(num_labels, of_base=None):
        model = bert_classifier(num_labels=of_base or 1)
        (model if of_base else BertModel(model.config)).save_pretrained(tmp_path / "base")
        pair_tokenizer.save_pretrained(tmp_path / "base")
        # As people have it by PEFT alone, without a tokenizer beside it.
        loaded = AutoModelForSequenceClassification.from_pretrained(
            tmp_path / "base", num_labels=num_labels, ignore_mismatched_sizes=True
        )
        lora = LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS", init_lora_weights=False)
        adapted = get_peft_model(loaded, lora).eval()
        adapted.save_pretrained(tmp_path / "adapters")
        return adapted, tmp_path / "adapters"

    return save


@pytest.mark.parametrize("of_base", [None, 2, 3], ids=["encoder", "two labels below", "three labels below"])
@pytest.mark.parametrize("num_labels", [1, 2, 3])
def test_saved_adapters_have_the_labels_they_had(saved_adapters, num_labels, of_base):
    adapted, folder = saved_adapters(num_labels, of_base)
    one = Discriminator.from_pretrained(folder, label=None if num_labels == 1 else num_labels - 1)
    assert one.model.config.num_labels == num_labels
    with torch.no_grad():
        logits = adapted(**one.encode(PROMPTS, COMPLETIONS)).logits
        assert_close(one.model(**one.encode(PROMPTS, COMPLETIONS)).logits, logits)
    if num_labels > 1:
        with pytest.raises(ValueError, match="discriminator_label"):
            Discriminator.from_pretrained(folder)


@pytest.mark.parametrize("of_base", [None, 2], ids=["encoder", "classifier"])
@pytest.mark.parametrize("num_labels", [2, 3])
def test_saved_adapters_of_several_labels_get_a_fresh_head(saved_adapters, tmp_path, num_labels, of_base):
    adapted, folder = saved_adapters(num_labels, of_base)
    one = Discriminator.from_pretrained(folder, fresh_head=True)
    assert one.model.config.num_labels == 1
    before, saved = state(one.model), state(adapted)
    adapters = [name for name in before if "lora_" in name]
    assert adapters
    assert all(torch.equal(before[name], saved[name]) for name in adapters)
    with_optimizer(one, tmp_path / "args").update(PROMPTS, COMPLETIONS, texts(4))
    changed = {name for name, value in state(one.model).items() if not torch.equal(value, before[name])}
    assert changed == {*adapters, *(name for name in before if "modules_to_save" in name)}


def test_names_of_labels_are_those_of_the_base(sentiment, tmp_path):
    base = AutoModelForSequenceClassification.from_pretrained(sentiment)
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_lin"], task_type="SEQ_CLS")).save_pretrained(tmp_path)
    assert Discriminator.from_pretrained(tmp_path, label="POSITIVE").label == 1


def test_adapters_of_a_language_model_are_refused(generator, tokenizer, tmp_path):
    generator.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    lora = LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), lora)
    adapted.save_pretrained(tmp_path / "adapters")
    with pytest.raises(ValueError, match=r"task type 'CAUSAL_LM'.*merge_and_unload"):
        Discriminator.from_pretrained(tmp_path / "adapters")


def test_folder_without_a_tokenizer_is_refused(tmp_path):
    bert_classifier().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no tokenizer in .*discriminator_processing_class="):
        Discriminator.from_pretrained(tmp_path)


def test_tokens_without_an_embedding_are_refused(pair_tokenizer):
    pair_tokenizer.add_tokens(["new"])
    with pytest.raises(ValueError, match=r"discriminator's tokenizer.*'new'.*resize_token_embeddings"):
        Discriminator(bert_classifier(), pair_tokenizer)


@pytest.mark.parametrize(
    ("num_labels", "label", "names"),
    [
        (1, None, ["real"]),
        (2, 1, ["generated", "real"]),
        (2, "LABEL_0", ["real", "generated"]),
        (3, 2, ["LABEL_0", "LABEL_1", "real"]),
    ],
)
def test_labels_say_what_they_mean(pair_tokenizer, tmp_path, num_labels, label, names):
    discriminator = Discriminator(bert_classifier(num_labels=num_labels), pair_tokenizer, label=label)
    discriminator.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert [loaded.config.id2label[at] for at in range(num_labels)] == names
    again = Discriminator.from_pretrained(tmp_path, label=label)  # as a script names it that is run again
    assert again.label == discriminator.label
    assert again.model.config.label2id["real"] == again.label


def test_labels_that_have_names_keep_them(pair_tokenizer):
    model = bert_classifier(num_labels=2)
    model.config.id2label = {0: "machine", 1: "human"}
    Discriminator(model, pair_tokenizer, label="human")
    assert model.config.id2label == {0: "machine", 1: "human"}


def test_adapters_of_an_earlier_save_are_not_loaded(pair_tokenizer, tmp_path):
    config = LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS")
    bert_classifier().save_pretrained(tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    Discriminator(get_peft_model(model, config), pair_tokenizer).save_pretrained(tmp_path / "saved")
    Discriminator(bert_classifier(seed=2), pair_tokenizer).save_pretrained(tmp_path / "saved")
    assert type(Discriminator.from_pretrained(tmp_path / "saved").model).__name__ == "BertForSequenceClassification"
