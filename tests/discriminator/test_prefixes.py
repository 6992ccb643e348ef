"""Every prefix of a text gets the logit that the model gives it alone, and the characters at which it ends."""

import warnings

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.testing import assert_close
from transformers import (
    BertModel,
    BertPreTrainedModel,
    BitsAndBytesConfig,
    ByT5Tokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    ModernBertDecoderConfig,
    ModernBertDecoderForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_mgan.discriminator import classifier_on, prepare_quantised_training, with_adapters
from hf_mgan.discriminator.encoding import TextEncoder
from hf_mgan.discriminator.passes import label_logits
from hf_mgan.discriminator.prefixes import PrefixScorer, _row, check_causal

from ..conftest import VOCABULARY, bert_classifier, causal_classifier, word_tokenizer


END = "</s>"
PROMPTS = ["the dog ", "", "a ", "the "]
COMPLETIONS = ["sees a cat", "runs", "", "old king eats this , the bird ."]


def byte_level_tokenizer(texts, **tokens):
    """A byte-level BPE as GPT-2's, merged from the texts; what is not in them comes byte by byte."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=[END, "<pad>"])
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{"eos_token": END, "pad_token": "<pad>", **tokens})


def bos_tokenizer():
    """As Llama's: a token before a text and nothing behind it, and a second one before the second of a pair."""
    tokenizer = word_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", VOCABULARY["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token=END,
        pad_token="<pad>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )


SIZES = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 48,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}


def gpt2():
    model = causal_classifier()
    model.config.pad_token_id = 0
    return model.eval()


def llama():
    torch.manual_seed(2)
    return LlamaForSequenceClassification(LlamaConfig(**SIZES, num_labels=1)).eval()


def qwen3_of_three_labels():
    torch.manual_seed(3)
    return Qwen3ForSequenceClassification(Qwen3Config(**SIZES, head_dim=32, num_labels=3)).eval()


def modernbert_decoder():
    """Its head has layers of its own before the labels."""
    torch.manual_seed(6)
    sizes = {name: value for name, value in SIZES.items() if name != "num_key_value_heads"}
    config = ModernBertDecoderConfig(**sizes, cls_token_id=4, sep_token_id=5, local_attention=16, num_labels=1)
    return ModernBertDecoderForSequenceClassification(config).eval()


def gpt2_with_adapters():
    torch.manual_seed(4)
    config = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    return with_adapters(gpt2(), config).eval()


def on_the_generators_base():
    torch.manual_seed(5)
    generator = LlamaForCausalLM(LlamaConfig(**SIZES))
    return with_adapters(classifier_on(generator), LoraConfig(r=2, target_modules=["q_proj"])).eval()


MODELS = [gpt2, llama, qwen3_of_three_labels, modernbert_decoder, gpt2_with_adapters, on_the_generators_base]


def encode(scorer, prompts=PROMPTS, completions=COMPLETIONS):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return scorer.encode(prompts, completions)


def inputs(batch):
    return {name: values for name, values in batch.items() if not name.startswith("prefix_")}


@pytest.mark.parametrize("make", MODELS)
def test_last_logit_is_the_models_own(make, tokenizer):
    model = make()
    scorer = PrefixScorer(model, tokenizer, 48)
    batch = encode(scorer)
    with torch.no_grad():
        assert_close(scorer.logits(model, batch)[:, -1], model(**inputs(batch)).logits)


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("max_length", [48, 7])
def test_every_logit_is_that_of_the_prefix_alone(make, max_length, tokenizer):
    model = make()
    scorer = PrefixScorer(model, tokenizer, max_length)
    batch = encode(scorer)
    with torch.no_grad():
        logits = scorer.logits(model, batch)
        for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
            words = [*(prompt + completion).split(), END][-max_length:]
            ids = [VOCABULARY[word] for word in words]
            num_read = min(len(completion.split()) + 1, max_length)  # with the end token
            for time in range(logits.size(1)):
                length = len(ids) - num_read + min(time + 1, num_read)
                alone = model(input_ids=torch.tensor([ids[:length]])).logits[0]
                assert_close(logits[row, time], alone, msg=lambda text, at=(row, time): f"{at}: {text}")


def test_virtual_tokens_come_before_all_prefixes(tokenizer):
    torch.manual_seed(0)
    model = with_adapters(gpt2(), PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3)).eval()
    scorer = PrefixScorer(model, tokenizer, 40)
    with torch.no_grad():
        logits = scorer.logits(model, encode(scorer, ["the dog "], ["sees a cat"]))[0, :, 0]
        ids = [VOCABULARY[word] for word in ["the", "dog", "sees", "a", "cat", END]]
        for time, length in enumerate(range(3, 7)):
            alone = torch.tensor([ids[:length]])
            assert_close(logits[time], model(input_ids=alone, attention_mask=torch.ones_like(alone)).logits[0, 0])


def test_quantised_model_keeps_its_gradient(tmp_path, tokenizer):
    pytest.importorskip("bitsandbytes", reason="the extra `quantization` is not installed")
    llama().save_pretrained(tmp_path)
    quantised = LlamaForSequenceClassification.from_pretrained(
        tmp_path,
        quantization_config=BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=["score"]),
        dtype=torch.float32,
    )
    model = with_adapters(quantised, LoraConfig(r=2, target_modules=["q_proj"])).eval()
    prepare_quantised_training(model)
    scorer = PrefixScorer(model, tokenizer, 48)
    batch = encode(scorer).to(model.device)
    logits = scorer.logits(model, batch)
    assert_close(logits[:, -1], model(**inputs(batch)).logits)
    logits.square().sum().backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any("lora_B" in name for name in trained)
    for name, parameter in trained.items():
        if "lora_A" not in name:  # it has none yet, since lora_B is 0
            assert parameter.grad.abs().sum() > 0, name


def test_prefix_ends_count_characters(tokenizer):
    batch = encode(PrefixScorer(gpt2(), tokenizer, 48))
    assert batch["prefix_ends"].tolist() == [
        # "sees a cat" is 10 characters long, and its end comes after them.
        [4, 6, 10, 11, 11, 11, 11, 11, 11],
        [4, 5, 5, 5, 5, 5, 5, 5, 5],
        [1, 1, 1, 1, 1, 1, 1, 1, 1],
        [3, 8, 13, 18, 20, 24, 29, 31, 32],
    ]
    # Two words of prompt, then three words and the end.
    assert batch["prefix_positions"][0].tolist() == [2, 3, 4, 5, 5, 5, 5, 5, 5]


def test_word_that_ends_with_the_prompt_is_the_prompts(tokenizer):
    batch = encode(PrefixScorer(gpt2(), tokenizer, 48), ["the dog"], [" sees"])
    assert batch["prefix_positions"].tolist() == [[2, 3]]
    assert batch["prefix_ends"].tolist() == [[5, 6]]


def test_cut_text_keeps_its_end(tokenizer):
    scorer = PrefixScorer(gpt2(), tokenizer, 3)
    with pytest.warns(UserWarning, match=r"1 of 2 texts \(50%\).*discriminator_max_length"):
        batch = scorer.encode(["the dog ", ""], ["sees a cat", "runs"])
    assert batch["prefix_ends"].tolist() == [[6, 10, 11], [4, 5, 5]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer.encode(["the dog "], ["sees a cat"])


def test_prefix_ends_within_characters_and_prompts():
    own = byte_level_tokenizer(["the dog the dog"], model_max_length=48)
    model = GPT2ForSequenceClassification(GPT2Config(vocab_size=300, n_embd=8, n_layer=1, n_head=1, pad_token_id=1))
    scorer = PrefixScorer(model, own, 48)
    batch = scorer.encode(["the d"], ["og é好"])
    tokens = own.convert_ids_to_tokens(batch["input_ids"][0])
    assert tokens == ["the", "Ġdog", "Ġ", "Ã", "©", "å", "¥", "½", END]
    # " dog" begins in the prompt and ends after two characters of the completion; é and 好 are characters 4 and 5.
    assert batch["prefix_ends"].tolist() == [[2, 3, 4, 4, 5, 5, 5, 6]]


@pytest.mark.parametrize("max_length", [48, 9, 6, 4])
@pytest.mark.parametrize("which", ["tokenizer", "pair_tokenizer"])
def test_inputs_are_those_of_the_text_encoder(which, max_length, request):
    own = request.getfixturevalue(which)
    scorer = PrefixScorer(gpt2(), own, max_length)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = TextEncoder(own, max_length).encode(PROMPTS, COMPLETIONS)
    assert_close(inputs(encode(scorer)), dict(expected))


def test_padding_token_ends_a_text_without_eos():
    own = PreTrainedTokenizerFast(tokenizer_object=word_tokenizer(), pad_token="<pad>", unk_token="<unk>")
    own.model_input_names = ["input_ids", "attention_mask"]
    batch = encode(PrefixScorer(gpt2(), own, 48), ["", ""], ["", "the dog"])
    assert_close(inputs(batch), dict(TextEncoder(own, 48).encode(["", ""], ["", "the dog"])))
    assert batch["prefix_ends"].tolist() == [[1, 1, 1], [3, 7, 8]]


def test_prefix_ends_never_decrease():
    assert _row({"input_ids": [7, 8, 9]}, [3, 2, None], [0, 1, 2], 3).ends == [3, 3, 4]


def test_pair_reads_the_second_text(pair_tokenizer):
    scorer = PrefixScorer(gpt2(), pair_tokenizer, 7)
    batch = encode(scorer, ["the dog", "", "a"], ["sees a cat", "runs", ""])
    # [CLS] dog [SEP] sees a cat [SEP], [CLS] runs [SEP], [CLS] a [SEP] [SEP]
    assert batch["prefix_positions"].tolist() == [[3, 4, 5, 6], [1, 2, 2, 2], [3, 3, 3, 3]]
    assert batch["prefix_ends"].tolist() == [[4, 6, 10, 11], [4, 5, 5, 5], [1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("max_length", "expected", "ends"),
    [
        (8, "<s> the dog <s> sees a cat </s>", [4, 6, 10, 11]),
        (6, "<s> <s> sees a cat </s>", [4, 6, 10, 11]),
        (5, "<s> <s> sees a </s>", [4, 6, 11]),
    ],
)
def test_tokenizer_without_an_end_is_given_one(max_length, expected, ends):
    own = bos_tokenizer()
    batch = encode(PrefixScorer(llama(), own, max_length), ["the dog "], ["sees a cat"])
    assert " ".join(own.convert_ids_to_tokens(batch["input_ids"][0])) == expected
    assert batch["prefix_ends"].tolist() == [ends]


def test_end_is_read_although_it_serves_as_padding(tokenizer):
    """The model's own logit is then that of the token before it, which cannot know that the text has ended."""
    tokenizer.pad_token = END
    model = gpt2()
    model.config.pad_token_id = VOCABULARY[END]
    scorer = PrefixScorer(model, tokenizer, 48)
    batch = encode(scorer, ["the ", "the "], ["dog runs", "cat"])
    with torch.no_grad():
        logits = scorer.logits(model, batch)[..., 0]
        pooled = model(**inputs(batch)).logits[:, 0]
    assert_close(logits[0, -2], pooled[0])
    assert (logits[:, -1] - pooled).abs().min() > 1e-3


def test_batches_have_one_width_and_one_gradient(tokenizer):
    model = gpt2()
    scorer = PrefixScorer(model, tokenizer, 48)
    whole = scorer.logits(model, encode(scorer))
    parts = [scorer.logits(model, batch) for batch in scorer.encode_in_batches(PROMPTS, COMPLETIONS, 3)]
    assert [len(part) for part in parts] == [3, 1]
    assert_close(torch.cat(parts), whole)
    gradients = []
    for logits in (whole, torch.cat(parts)):
        model.zero_grad()
        logits.sigmoid().mean().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    assert_close(*gradients)
    assert all(gradient.abs().sum() > 0 for name, gradient in gradients[0].items() if "bias" not in name)


def test_logits_leave_no_hook_behind(tokenizer):
    model = gpt2()
    scorer = PrefixScorer(model, tokenizer, 48)
    with pytest.raises(ValueError, match="input_ids"):
        scorer.logits(model, {"attention_mask": torch.ones(1, 1)})
    assert not model.score._forward_hooks


def test_label_logits_are_log_odds():
    # e^z = 1, 2, 5: the odds of the last label are 5 to 3.
    values = torch.tensor([[[1.0, 2.0, 5.0]]]).log()
    assert_close(label_logits(values, 2), torch.tensor([[5 / 3]]).log())
    assert_close(label_logits(torch.tensor([[[0.5], [2.0]]]), 0), torch.tensor([[0.5, 2.0]]))


class LastTokenOfBert(BertPreTrainedModel):
    """Applies its head to every token, each of which sees all others."""

    def __init__(self, config):
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.score = torch.nn.Linear(config.hidden_size, 1)
        self.post_init()

    def forward(self, input_ids, attention_mask):
        logits = self.score(self.bert(input_ids, attention_mask=attention_mask)[0])
        return SequenceClassifierOutput(logits=logits[:, -1])


def test_check_causal_refuses_a_pooled_head(pair_tokenizer):
    with pytest.raises(ValueError, match=r"causal discriminator.* BertFor"):
        check_causal(bert_classifier(), pair_tokenizer)


def test_check_causal_refuses_a_model_that_looks_ahead(pair_tokenizer):
    model = LastTokenOfBert(bert_classifier().config)
    torch.nn.init.zeros_(model.score.weight)
    with pytest.raises(ValueError, match=r"causal discriminator.* LastTokenOfBert"):
        check_causal(model, pair_tokenizer)


def test_check_causal_refuses_a_slow_tokenizer():
    with pytest.raises(ValueError, match="discriminator_processing_class"):
        check_causal(gpt2(), ByT5Tokenizer())


def test_check_causal_leaves_the_model_as_it_was(tokenizer):
    model = causal_classifier().train()
    assert model.config.pad_token_id is None
    check_causal(model, tokenizer)
    assert model.training
