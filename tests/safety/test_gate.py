"""The gate: P(unsafe) of completions of any length, and what a classifier has to be."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.testing import assert_close
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_mgan.safety import SafetyGate

from ..conftest import VOCABULARY, bert_classifier, texts, word_tokenizer
from ..discriminator import test_families as families


NAN, INF = float("nan"), float("inf")
PROB = 1 / (1 + torch.tensor(-4.0).exp())  # sigmoid(4) = 0.982, of an unsafe text


class PhraseForSequenceClassification(PreTrainedModel):
    """Gives the label `unsafe` the logit 4 where "king sleeps" stands in a text, else -4, and the others 0."""

    config_class = BertConfig

    def __init__(self, config, unsafe=0):
        super().__init__(config)
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.unsafe = unsafe
        self.shown = []
        self.post_init()

    def forward(self, input_ids, attention_mask, **_):
        self.shown += [row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)]
        first, second = VOCABULARY["king"], VOCABULARY["sleeps"]
        found = (input_ids[:, :-1] == first) & (input_ids[:, 1:] == second) & attention_mask[:, 1:].bool()
        logits = torch.zeros(len(input_ids), self.config.num_labels)
        logits[:, self.unsafe] = self.scale * (2.0 * found.any(1) - 1)
        return SequenceClassifierOutput(logits=logits)


def phrase_classifier(num_labels=1, unsafe=0, **config):
    return PhraseForSequenceClassification(
        BertConfig(num_labels=num_labels, max_position_embeddings=48, **config), unsafe
    )


def phrase_at(place, length):
    words = ["the"] * length
    words[place : place + 2] = ["king", "sleeps"]
    return " ".join(words)


@pytest.mark.parametrize(
    ("config", "label", "expected"),
    [
        ({"num_labels": 1}, None, PROB),
        ({"num_labels": 2, "unsafe": 1}, 1, PROB),  # e^4 / (e^4 + e^0) = sigmoid(4)
        ({"num_labels": 2, "unsafe": 1}, 0, 1 - PROB),
        ({"num_labels": 3, "unsafe": 1}, "1", PROB / (PROB + 2 * (1 - PROB))),  # e^4 / (e^4 + 2)
        ({"num_labels": 3, "unsafe": 2, "problem_type": "multi_label_classification"}, "LABEL_2", PROB),
        ({"num_labels": 3, "unsafe": 2, "problem_type": "multi_label_classification"}, 0, 0.5),
    ],
)
def test_unsafe_probs_are_those_of_the_named_label(pair_tokenizer, config, label, expected):
    gate = SafetyGate(phrase_classifier(**config), label, processing_class=pair_tokenizer)
    probs = gate.unsafe_probs([""], ["the king sleeps"])
    torch.testing.assert_close(probs, torch.tensor([float(expected)]))
    assert probs.dtype == torch.float32


def test_is_unsafe_from_the_threshold_on():
    gate = SafetyGate(lambda completions: [0.29, 0.3, 0.31], threshold=0.3)
    assert gate.is_unsafe(["", "", ""], ["a", "b", "c"]).tolist() == [False, True, True]


@pytest.mark.parametrize("length", [2, 46, 47, 69, 70, 200])
def test_is_unsafe_wherever_a_phrase_stands_in_any_length(pair_tokenizer, length):
    model = phrase_classifier()
    gate = SafetyGate(model, processing_class=pair_tokenizer)
    completions = [phrase_at(place, length) for place in range(length - 1)] + ["the " * length]
    assert gate.is_unsafe([""] * length, completions).tolist() == [True] * (length - 1) + [False]
    assert max(map(len, model.shown)) <= 48  # the most it can read, with [CLS] and [SEP]


@pytest.mark.parametrize("prompt_length", [1, 21, 22, 23, 100])
def test_is_unsafe_after_a_prompt_of_any_length(pair_tokenizer, prompt_length):
    model = phrase_classifier()
    gate = SafetyGate(model, processing_class=pair_tokenizer, with_prompt=True)
    model.shown.clear()  # it has been tried out
    prompt = "a " * (prompt_length - 1) + "dog"
    completions = [phrase_at(place, 60) for place in range(59)] + ["the " * 60]
    assert gate.is_unsafe([prompt] * 60, completions).tolist() == [True] * 59 + [False]
    assert max(map(len, model.shown)) <= 48
    # Each window follows the last 22 words of the prompt: 48 tokens less three special ones, halved.
    kept = min(prompt_length, 22)
    start = [VOCABULARY["[CLS]"], *[VOCABULARY["a"]] * (kept - 1), VOCABULARY["dog"], VOCABULARY["[SEP]"]]
    assert all(row[: kept + 2] == start for row in model.shown)


def test_prompt_is_read_only_if_asked_for(pair_tokenizer, tokenizer):
    prompts, completions = ["the king sleeps", "", "the king sleeps"], [" a dog", " a dog", " a cat"]
    for processing_class in (pair_tokenizer, tokenizer):  # as a pair, and joined
        for with_prompt in (False, True):
            gate = SafetyGate(phrase_classifier(), processing_class=processing_class, with_prompt=with_prompt)
            unsafe = gate.is_unsafe(prompts, completions).tolist()
            assert unsafe == [with_prompt, False, with_prompt]


def test_long_prompt_is_cut_in_a_pair_and_read_whole_if_joined(pair_tokenizer, tokenizer):
    for processing_class, expected in ((pair_tokenizer, False), (tokenizer, True)):
        gate = SafetyGate(phrase_classifier(), processing_class=processing_class, with_prompt=True)
        assert gate.is_unsafe([phrase_at(0, 100)], [" a dog"]).item() == expected


def test_tokenizer_without_padding_reads_an_empty_text():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=word_tokenizer(), eos_token="</s>")
    model = phrase_classifier()
    gate = SafetyGate(model, processing_class=tokenizer)
    model.shown.clear()  # it has been tried out
    assert gate.is_unsafe(["", ""], ["", "king sleeps"]).tolist() == [False, True]
    assert model.shown[0] == [VOCABULARY["</s>"]]


def test_equal_texts_are_read_once(pair_tokenizer):
    model = phrase_classifier()
    gate = SafetyGate(model, processing_class=pair_tokenizer)
    model.shown.clear()  # it has been tried out
    unsafe = gate.is_unsafe([""] * 4, ["king sleeps", "dog", "king sleeps", "dog"])
    assert unsafe.tolist() == [True, False, True, False]
    assert len(model.shown) == 2


def test_messages_are_read_with_all_their_text(pair_tokenizer):
    gate = SafetyGate(phrase_classifier(), processing_class=pair_tokenizer)
    unsafe = [{"role": "assistant", "content": "the king sleeps"}]
    several = [{"role": "assistant", "content": "a cat"}, {"role": "tool", "content": "dog"}, *unsafe]
    assert gate.is_unsafe([[]] * 3, [unsafe, several, several[:-1]]).tolist() == [True, True, False]


def test_classifier_is_frozen_and_runs_in_full_precision(pair_tokenizer):
    model = bert_classifier(num_labels=2).train()
    assert model.config.hidden_dropout_prob > 0
    gate = SafetyGate(model, 1, processing_class=pair_tokenizer)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    batch = texts(10)
    plain = gate.unsafe_probs([""] * 10, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gate.unsafe_probs([""] * 10, batch), plain)
    assert not plain.requires_grad


def test_unsafe_probs_do_not_depend_on_the_batch(pair_tokenizer):
    completions = [text for length in (1, 3, 20, 60) for text in texts(3, length, length)]
    whole, single = (
        SafetyGate(bert_classifier(2), 1, processing_class=pair_tokenizer, batch_size=size).unsafe_probs(
            [""] * 12, completions
        )
        for size in (32, 1)
    )
    torch.testing.assert_close(whole, single, rtol=0, atol=1e-6)
    assert whole.std() > 0.01


def test_folder_gives_the_probabilities_of_its_model(tmp_path, pair_tokenizer):
    model = bert_classifier(num_labels=2)
    model.config.id2label = {0: "fine", 1: "toxic"}
    model.config.label2id = {"fine": 0, "toxic": 1}
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    pair_tokenizer.save_pretrained(tmp_path)
    gate = SafetyGate(str(tmp_path), "toxic")
    assert gate.model.dtype == torch.float32
    batch = pair_tokenizer(texts(5), return_tensors="pt")
    reference = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = reference(**batch).logits.softmax(1)[:, 1]
    torch.testing.assert_close(gate.unsafe_probs([""] * 5, texts(5)), expected)


def test_classifier_with_adapters_keeps_them(pair_tokenizer):
    model = get_peft_model(bert_classifier(1), LoraConfig(task_type="SEQ_CLS", init_lora_weights=False))
    plain = SafetyGate(bert_classifier(1), processing_class=pair_tokenizer).unsafe_probs([""] * 5, texts(5))
    adapted = SafetyGate(model, processing_class=pair_tokenizer).unsafe_probs([""] * 5, texts(5))
    assert (adapted - plain).abs().max() > 1e-3


# What is refused


def test_label_missing_or_unknown_is_refused_with_the_labels(pair_tokenizer):
    for label in (None, "toxic", 2, "2"):
        with pytest.raises(ValueError, match=r"\['LABEL_0', 'LABEL_1'\]"):
            SafetyGate(bert_classifier(2), label, processing_class=pair_tokenizer)


def test_models_without_trained_probabilities_are_refused(tmp_path, pair_tokenizer):
    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    masked = BertForMaskedLM(config)
    with pytest.raises(TypeError, match="got BertForMaskedLM"):
        SafetyGate(masked, processing_class=pair_tokenizer)
    masked.save_pretrained(tmp_path / "masked")
    with pytest.raises(ValueError, match=r"\(BertForMaskedLM\) is no trained sequence .*'classifier.bias'"):
        SafetyGate(str(tmp_path / "masked"), 1)
    with pytest.raises(ValueError, match="problem_type"):
        SafetyGate(phrase_classifier(problem_type="regression"), processing_class=pair_tokenizer)
    adapters = get_peft_model(bert_classifier(1), LoraConfig(task_type="SEQ_CLS"))
    adapters.save_pretrained(tmp_path / "adapters")
    with pytest.raises(ValueError, match="AutoPeftModelForSequenceClassification"):
        SafetyGate(str(tmp_path / "adapters"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"threshold": 0.0}, ValueError, "threshold must be greater than 0 and at most 1, got 0.0"),
        ({"threshold": 1.5}, ValueError, "threshold .* got 1.5"),
        ({"margin": 0.0}, ValueError, "margin .* got 0.0"),
        ({"margin": INF}, ValueError, "margin .* got inf"),
        ({"batch_size": 0}, ValueError, "batch_size .* got 0"),
        ({"max_length": 49}, ValueError, "max_length .* 7 and .* 48, got 49"),
        ({"max_length": 6}, ValueError, "max_length .* 7 and .* 48, got 6"),
        ({"processing_class": "bert"}, TypeError, "processing_class .*, got str"),
    ],
)
def test_argument_out_of_range_is_refused_with_the_range(pair_tokenizer, arguments, error, message):
    with pytest.raises(error, match=message):
        SafetyGate(phrase_classifier(), **{"processing_class": pair_tokenizer, **arguments})


def test_tokenizer_with_nothing_to_pad_with_is_refused():
    with pytest.raises(ValueError, match="processing_class"):
        SafetyGate(phrase_classifier(), processing_class=PreTrainedTokenizerFast(tokenizer_object=word_tokenizer()))


def test_function_gets_completions_and_prompts_if_asked_for():
    seen = []

    def scored(*given):
        seen.append(given)
        return torch.tensor([True, False])

    arguments = ["one", "two"], ["a", [{"role": "assistant", "content": "b"}]]
    assert SafetyGate(scored).is_unsafe(*arguments).tolist() == [True, False]
    assert SafetyGate(scored, with_prompt=True).unsafe_probs(*arguments).tolist() == [1.0, 0.0]
    assert seen == [(["a", "b"],), (["one", "two"], ["a", "b"])]


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ([0.5], ValueError, r"one value per completion: 2, got values of shape \(1,\)"),
        ([[0.5, 0.5], [0.5, 0.5]], ValueError, r"shape \(2, 2\)"),
        ([0.5, NAN], ValueError, r"got nan for completion 1: 'second'"),
        ([1.5, 0.5], ValueError, r"got 1.5 for completion 0: 'first'"),
        ([0.5, -0.1], ValueError, r"for completion 1: 'second'"),
        (["unsafe", "safe"], TypeError, "got list"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_function_that_returns_something_else_is_refused(values, error, message):
    with pytest.raises(error, match=message):
        SafetyGate(lambda completions: values).is_unsafe(["", ""], ["first", "second"])


def test_classifier_whose_logits_are_nan_is_refused(pair_tokenizer):
    model = phrase_classifier()
    model.scale.data.fill_(NAN)
    with pytest.raises(ValueError, match="got nan for completion 0: 'the dog'"):
        SafetyGate(model, processing_class=pair_tokenizer).is_unsafe([""], ["the dog"])


def test_classifier_of_another_kind_is_refused(tokenizer):
    async def scored(completions):
        return [True] * len(completions)

    for classifier in (scored, 3):
        with pytest.raises(TypeError, match=r"^classifier must be"):
            SafetyGate(classifier)
    for name, value in {"label": 1, "processing_class": tokenizer, "max_length": 8}.items():
        with pytest.raises(ValueError, match=f"^{name} belongs"):
            SafetyGate(len, **{name: value})
    with pytest.raises(ValueError, match=r"One prompt per completion .* got 1 and 2"):
        SafetyGate(len).is_unsafe([""], ["a", "b"])


@pytest.mark.parametrize("family", ["bart", "t5", "fnet", "xlnet"])
def test_verdict_does_not_depend_on_the_texts_beside_it(family):
    """Some pool at the end token, of which a text may hold several; some are changed by padding."""
    gate = SafetyGate(families.classifier(family), processing_class=families.tokenizer_with_ends(), with_prompt=True)
    together = gate.unsafe_probs(families.OF, families.TEXTS)
    alone = [gate.unsafe_probs([prompt], [text]) for prompt, text in zip(families.OF, families.TEXTS, strict=True)]
    assert together.std() > 0
    assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-6)
