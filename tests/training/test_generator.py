"""What may be a generator: families, saved adapters, frozen models, tokenizers and positions."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    BertModel,
    GPT2ForSequenceClassification,
    RobertaConfig,
    RobertaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    XLMConfig,
    XLMWithLMHeadModel,
    XLNetConfig,
    XLNetLMHeadModel,
)

from ..conftest import VOCABULARY, causal_generator, texts


LORA = LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM", init_lora_weights=False)
TOKENS = {"vocab_size": len(VOCABULARY), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, **TOKENS}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_layers": 1, "decoder_layers": 1}


def bert(is_decoder=False):
    return BertConfig(**SIZES, max_position_embeddings=64, is_decoder=is_decoder)


def encoder_decoders():
    yield T5ForConditionalGeneration(T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, **TOKENS))
    yield BartForConditionalGeneration(
        BartConfig(d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, **HEADS, **TOKENS)
    )


def without_a_head_that_writes():
    yield BertModel(bert())
    yield BertForMaskedLM(bert())
    yield causal_generator().transformer
    yield GPT2ForSequenceClassification(causal_generator().config)


def looking_ahead():
    yield BertLMHeadModel(bert())
    yield RobertaForCausalLM(RobertaConfig(**SIZES, max_position_embeddings=66))
    yield XLNetLMHeadModel(XLNetConfig(d_model=16, n_layer=1, n_head=2, d_inner=16, **TOKENS))
    yield XLMWithLMHeadModel(XLMConfig(n_words=len(VOCABULARY), emb_dim=16, n_layers=1, n_heads=2))


WRONG = [
    *((make, "has an encoder of its own") for make in encoder_decoders()),
    *((make, "has no head that writes") for make in without_a_head_that_writes()),
    *((make, "sees the tokens behind") for make in looking_ahead()),
]


@pytest.mark.parametrize(("model", "message"), WRONG, ids=lambda value: type(value).__name__)
def test_generator_that_is_not_causal_is_refused(make_trainer, tokenizer, tmp_path, model, message):
    name = type(model).__name__
    with pytest.raises(TypeError, match=f"{name}, which {message}.*Give a causal language model"):
        make_trainer(model=model)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path.name}' is {name}, which {message}"):
        make_trainer(model=str(tmp_path), processing_class=None)


def test_bert_as_a_decoder_is_a_generator(make_trainer):
    make_trainer(model=BertLMHeadModel(bert(is_decoder=True))).train()


@pytest.mark.parametrize("given", [7, torch.nn.Linear(2, 2), None])
def test_generator_of_a_wrong_type_is_refused(make_trainer, given):
    with pytest.raises(TypeError, match=f"model must be a Hub id.* got {type(given).__name__}"):
        make_trainer(model=given)


@pytest.fixture
def base(generator, tokenizer, tmp_path):
    generator.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapters(base, tmp_path):
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), LORA).save_pretrained(tmp_path / "adapters")
    return tmp_path / "adapters"


def test_path_is_a_folder(make_trainer, base):
    trainer = make_trainer(model=base, processing_class=None)
    assert trainer.processing_class.get_vocab() == VOCABULARY
    trainer.train()


@pytest.mark.parametrize("as_path", [True, False])
def test_saved_adapters_are_trained_on(make_trainer, base, adapters, tmp_path, as_path):
    before = load_file(adapters / "adapter_model.safetensors")
    trainer = make_trainer(model=adapters if as_path else str(adapters), processing_class=None)
    assert isinstance(trainer.model, PeftModel)
    assert trainer.processing_class.get_vocab() == VOCABULARY  # of the model below, since there is none beside them
    below = {name: value.clone() for name, value in trainer.model.named_parameters() if "lora_" not in name}
    trained = {name: value for name, value in trainer.model.named_parameters() if "lora_" in name}
    for name, value in trained.items():
        assert torch.equal(value, before[name.replace(".default", "")])
    trainer.train()
    now = dict(trainer.model.named_parameters())
    assert all(torch.equal(value, now[name]) for name, value in below.items())
    assert not any(torch.equal(now[name], before[name.replace(".default", "")]) for name in trained)
    trainer.save_model(str(tmp_path / "saved"))
    make_trainer(model=str(tmp_path / "saved"), processing_class=None).train()


def test_dtype_reaches_the_model_below_saved_adapters(make_trainer, make_config, adapters):
    config = make_config(model_init_kwargs={"dtype": "bfloat16"})
    model = make_trainer(config, model=str(adapters)).model
    assert model.get_base_model().transformer.wte.weight.dtype == torch.bfloat16
    assert config.model_init_kwargs == {"dtype": "bfloat16"}


def test_adapters_on_top_of_saved_ones_are_refused(make_trainer, adapters):
    with pytest.raises(ValueError, match=r"holds adapters already.*peft_config"):
        make_trainer(model=str(adapters), peft_config=LORA)


def test_adapters_of_a_classifier_are_refused(make_trainer, base, tmp_path):
    model = GPT2ForSequenceClassification.from_pretrained(base, num_labels=1)
    lora = LoraConfig(r=2, target_modules=["c_attn"], task_type="SEQ_CLS")
    get_peft_model(model, lora).save_pretrained(tmp_path / "classifier")
    with pytest.raises(ValueError, match="task type 'SEQ_CLS'"):
        make_trainer(model=str(tmp_path / "classifier"))


@pytest.mark.parametrize("loaded_by", ["peft", "transformers"])
def test_adapters_for_inference_are_refused(make_trainer, base, adapters, loaded_by):
    if loaded_by == "peft":
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapters)
    else:
        model = AutoModelForCausalLM.from_pretrained(adapters)
    with pytest.raises(ValueError, match=r"frozen.*PeftModel.from_pretrained\(.*is_trainable=True"):
        make_trainer(model=model)


def test_frozen_generator_is_refused(make_trainer, generator):
    generator.requires_grad_(False)
    with pytest.raises(ValueError, match=r"frozen.*requires_grad_\(\), or give peft_config="):
        make_trainer(model=generator)
    make_trainer(model=generator, peft_config=LORA).train()


def test_generator_that_is_never_trained_may_be_frozen(make_trainer, make_config, generator):
    config = make_config(max_steps=-1, num_train_epochs=0)
    make_trainer(config, model=generator.requires_grad_(False))


def test_generator_from_a_config_needs_its_tokenizer(make_trainer):
    with pytest.raises(ValueError, match=r"generator was made from a configuration.*give processing_class="):
        make_trainer(processing_class=None)


def test_folder_without_a_tokenizer_is_refused(make_trainer, generator, tmp_path):
    generator.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no tokenizer in .*for the generator.*give processing_class="):
        make_trainer(model=str(tmp_path), processing_class=None)


@pytest.mark.parametrize("as_folder", [True, False])
def test_tokens_without_an_embedding_are_refused(make_trainer, generator, tokenizer, tmp_path, as_folder):
    tokenizer.add_tokens(["new"])
    generator.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"generator's tokenizer has tokens.*'new'.*resize_token_embeddings"):
        make_trainer(model=str(tmp_path) if as_folder else generator, processing_class=tokenizer)
    generator.resize_token_embeddings(len(tokenizer))
    make_trainer(model=generator, processing_class=tokenizer)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_completion_length": 64}, "64 tokens in all, the start of the sequence being 1 of them.*to 63"),
        ({"max_completion_length": 60, "max_prompt_tokens": 5}, "that max_prompt_tokens allows being 6 .*to 58"),
    ],
)
@pytest.mark.parametrize("as_folder", [True, False])
def test_completions_need_positions(make_trainer, make_config, generator, base, settings, message, as_folder):
    with pytest.raises(ValueError, match=message):
        make_trainer(make_config(**settings), model=str(base) if as_folder else generator)


def test_as_many_positions_as_tokens_are_enough(make_trainer, make_config):
    make_trainer(make_config(max_completion_length=63, max_steps=1)).train()


@pytest.mark.parametrize("split", ["train_dataset", "eval_dataset"])
def test_longest_prompt_needs_positions(make_trainer, split):
    """Of 64 positions 8 are those of the completions."""
    rows = {"prompt": ["the"] * 70 + ["the " * 56], "completion": texts(71)}
    make_trainer(**{split: Dataset.from_dict(rows)})
    rows["prompt"][3] = "a " * 57  # fewer characters and more tokens
    with pytest.raises(ValueError, match=r"the longest prompt of the data being 57 of them.*to 7"):
        make_trainer(**{split: Dataset.from_dict(rows)})


def test_virtual_tokens_of_a_generator_take_positions(make_trainer, make_config):
    virtual = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    with pytest.raises(ValueError, match=r"60 tokens in all.*to 59"):
        make_trainer(make_config(max_completion_length=60), peft_config=virtual)
    make_trainer(make_config(max_completion_length=59, max_steps=1, real_text_coef=0.1), peft_config=virtual).train()


def test_virtual_tokens_stand_before_every_completion(make_trainer, make_config, generator):
    """At a low temperature all completions are the likeliest one, token after token in forward passes."""
    written = []
    for module in generator.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0

    def keep(completion_ids, **_):
        written.extend(completion_ids)
        return [0.0] * len(completion_ids)

    trainer = make_trainer(
        make_config(max_steps=1, temperature=1e-4, learning_rate=0.0),
        reward_funcs=keep,
        peft_config=PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    )
    trainer.train()
    expected = [1]
    with torch.no_grad():
        while len(expected) < 9 and expected[-1] != 2:
            ids = torch.tensor([expected])
            expected.append(
                trainer.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1].argmax().item()
            )
    assert len(written) == 4
    assert written == [expected[1:]] * 4
