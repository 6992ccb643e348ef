"""Families whose classifiers are unlike BERT's: what a text scores does not depend on the texts beside it."""

import copy

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig
from tokenizers import processors
from torch.testing import assert_close
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedTokenizerFast,
)

from hf_mgan import Discriminator
from hf_mgan.discriminator import classifier_on, with_adapters

from ..conftest import VOCABULARY, bert_classifier, causal_classifier, causal_generator, texts, word_tokenizer
from ..models.test_padding import SIZES, XLNET
from .test_discriminator import COMPLETIONS, PROMPTS, parameters, with_optimizer


ENDS = {"eos_token_id": 2, "bos_token_id": 1, "decoder_start_token_id": 2, "pad_token_id": 0}
BART = {
    "vocab_size": len(VOCABULARY), "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "max_position_embeddings": 48,
    "init_std": 0.3, "classifier_dropout": 0.0, **ENDS,
}  # fmt: skip
T5 = {
    "vocab_size": len(VOCABULARY), "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2,
    "initializer_factor": 3.0, **ENDS,
}  # fmt: skip
POOLS_AT_THE_END = {"bart": BART, "t5": T5, "mbart": BART, "mt5": T5}
WIDE = {**SIZES, "initializer_range": 0.3}
CHANGED_BY_PADDING = {"fnet": WIDE, "convbert": WIDE, "yoso": WIDE, "xlnet": XLNET}
FAMILIES = {**POOLS_AT_THE_END, **CHANGED_BY_PADDING}


def tokenizer_with_ends():
    """As T5's and BART's: an end token behind every text, and a pair of two has more of them than one text."""
    tokenizer = word_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", VOCABULARY["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", padding_side="left",
        model_input_names=["input_ids", "attention_mask"], model_max_length=48,
    )  # fmt: skip


def classifier(family, **changes):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{"num_labels": 1, **FAMILIES[family], **changes})
    return AutoModelForSequenceClassification.from_config(config)


def alone(discriminator, prompts, completions):
    """Score texts one by one, by the model itself."""
    scores = []
    for prompt, completion in zip(prompts, completions, strict=True):
        with torch.no_grad():
            logits = discriminator.model(**discriminator.encode([prompt], [completion])).logits
        scores.append(logits[0, 0])
    return torch.stack(scores)


TEXTS = [*COMPLETIONS, "the dog </s> runs", "one two three four a cat"]
OF = [*PROMPTS, "", "a"]


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_score_is_that_of_the_text_alone(family, batch_size):
    """Some texts have a prompt and some have none; one has an end token in its midst."""
    one = Discriminator(classifier(family), tokenizer_with_ends(), batch_size=batch_size)
    expected = alone(one, OF, TEXTS)
    assert expected.std() > 0
    assert_close(one.score(OF, TEXTS), expected, rtol=1e-4, atol=1e-5)
    assert_close(one.logits(one.encode(OF, TEXTS)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_update_shows_texts_as_they_are_alone(family, tmp_path):
    """The step is that of the loss of texts that were run through one by one."""
    one = with_optimizer(Discriminator(classifier(family), tokenizer_with_ends()), tmp_path, optim="sgd")
    other = copy.deepcopy(one.model)
    expected = alone(one, OF, TEXTS)
    output = one.update(OF, TEXTS, texts(6))
    assert_close(output.fake_logits, expected, rtol=1e-4, atol=1e-5)
    logits = [
        other(**one.encode([prompt], [text])).logits[0, 0]
        for prompt, text in [*zip(OF, TEXTS, strict=True), *zip(OF, texts(6), strict=True)]
    ]
    fake, real = torch.stack(logits).split(6)
    loss = torch.nn.functional.softplus(fake).mean() + torch.nn.functional.softplus(-real).mean()
    loss.backward()
    gradients = [parameter.grad for parameter in other.parameters() if parameter.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    assert_close(output.grad_norm, norm, rtol=1e-3, atol=1e-5)


def test_causal_discriminator_behind_virtual_tokens(tokenizer):
    torch.manual_seed(0)
    model = with_adapters(causal_classifier(), PromptTuningConfig(num_virtual_tokens=3))
    one = Discriminator(model, tokenizer)
    prompts = [prompt and prompt + " " for prompt in PROMPTS]
    assert_close(one.score(prompts, COMPLETIONS), alone(one, prompts, COMPLETIONS), rtol=1e-4, atol=1e-5)


def test_saved_tokenizer_pads_on_its_own_side(tmp_path):
    one = Discriminator(classifier("xlnet"), tokenizer_with_ends())
    one.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.padding_side == "left"
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        logits = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits[:, 0]
    assert_close(one.score([""] * 6, TEXTS), logits, rtol=1e-4, atol=1e-5)


def test_logit_of_a_multi_label_classifier_is_its_labels(pair_tokenizer):
    model = bert_classifier(num_labels=3)
    model.config.problem_type = "multi_label_classification"
    one = Discriminator(model, pair_tokenizer, label=1)
    with torch.no_grad():
        logits = model(**one.encode(PROMPTS, COMPLETIONS)).logits
    assert_close(one.score(PROMPTS, COMPLETIONS), logits[:, 1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_object_learns_in_float32(pair_tokenizer, tmp_path, dtype):
    """At a learning rate of 5e-5 nearly every step is less than what bfloat16 tells apart."""
    one = with_optimizer(Discriminator(bert_classifier().to(dtype), pair_tokenizer), tmp_path, learning_rate=5e-5)
    assert {parameter.dtype for parameter in one.model.parameters()} == {torch.float32}
    before = parameters(one)
    rounded = [parameter.to(dtype).float() for parameter in bert_classifier().parameters()]
    assert all(torch.equal(one, other) for one, other in zip(before, rounded, strict=True))
    one.update(PROMPTS, COMPLETIONS, texts(4))
    read = [place for place, name in enumerate(dict(one.model.named_parameters())) if "encoder" in name]
    moved = [(parameters(one)[place] != before[place]).float().mean() for place in read]
    assert torch.stack(moved).mean() > 0.9


def test_frozen_half_precision_below_adapters_stays(tokenizer):
    """The base is the generator's as well."""
    generator = causal_generator().to(torch.bfloat16)
    model = with_adapters(classifier_on(generator), LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    one = Discriminator(model, tokenizer)
    assert one.model.get_base_model().transformer.wte.weight is generator.transformer.wte.weight
    assert generator.transformer.wte.weight.dtype == torch.bfloat16


def test_quantised_with_a_head_in_half_precision_is_refused(pair_tokenizer, tmp_path):
    pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")
    bert_classifier().save_pretrained(tmp_path)
    quantised = AutoModelForSequenceClassification.from_pretrained(
        tmp_path,
        quantization_config=BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["classifier", "pooler"]),
        dtype=torch.bfloat16,
    )
    model = with_adapters(quantised, LoraConfig(r=2, target_modules=["query"]))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"rounded away.*dtype=torch.float32"):
        Discriminator(model, pair_tokenizer)
