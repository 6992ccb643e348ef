"""Limits of length: as many tokens run as a limit says, and where positions are a table one more does not."""

import pytest
import torch
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from hf_mgan import Discriminator
from hf_mgan.metrics.features import encoder_features
from hf_mgan.metrics.fine_tuning import load_with_new_head
from hf_mgan.models import check_vocabulary, checked_max_length, max_tokens
from hf_mgan.safety import SafetyGate

from ..conftest import SPECIAL, VOCABULARY, causal_generator, texts, tokenizer_of_pairs, word_tokenizer


POSITIONS = 24
SIZES = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "pad_token_id": 0,
    "eos_token_id": 2,
}
TABLE = {**SIZES, "max_position_embeddings": POSITIONS}
XLNET = {"vocab_size": len(VOCABULARY), "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16, "pad_token_id": 0}
GPT = {"vocab_size": len(VOCABULARY), "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": POSITIONS}
BART = {
    **SIZES, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "decoder_start_token_id": 2,
    "max_position_embeddings": POSITIONS,
}  # fmt: skip
# RoBERTa and its kin count from behind the padding's position.
AFTER_PADDING = [
    "roberta", "xlm-roberta", "camembert", "longformer", "mpnet", "esm", "data2vec-text", "xlm-roberta-xl",
    "roberta-prelayernorm", "ibert",
]  # fmt: skip
WHOLE = ["bert", "electra", "albert", "nystromformer", "yoso"]


def classifier(family, **settings):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, num_labels=1, **settings)
    return AutoModelForSequenceClassification.from_config(config).eval()


def run(model, length):
    ids = torch.full((1, length), len(SPECIAL))
    ids[:, -1] = 2
    with torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))


@pytest.mark.parametrize(
    ("family", "settings", "expected"),
    [
        *((family, {**TABLE, "pad_token_id": 1}, POSITIONS - 2) for family in AFTER_PADDING),
        *((family, TABLE, POSITIONS) for family in WHOLE),
        ("gpt2", {**GPT, "pad_token_id": 0}, POSITIONS),
        ("roberta", TABLE, POSITIONS - 1),
        ("bart", BART, POSITIONS),
        ("roberta", {**TABLE, "pad_token_id": 3}, POSITIONS - 4),
    ],
)
def test_tables_take_as_many_tokens_as_said(family, settings, expected):
    model = classifier(family, **settings)
    assert max_tokens(model) == expected
    run(model, expected)
    with pytest.raises((IndexError, RuntimeError)):
        run(model, expected + 1)


@pytest.mark.parametrize(("family", "settings"), [("xlnet", XLNET), ("bloom", SIZES)])
def test_families_without_a_limit_have_none(family, settings, pair_tokenizer):
    model = classifier(family, **settings)
    assert max_tokens(model) is None
    run(model, 2 * POSITIONS)
    assert checked_max_length(model, without_limit(), None, "max_length") == 512
    assert checked_max_length(model, pair_tokenizer, None, "max_length") == 48  # its tokenizer's


@pytest.mark.parametrize(
    "virtual",
    [
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
    ],
    ids=["prompt tuning", "prefix tuning"],
)
def test_virtual_tokens_take_positions(virtual):
    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt2", **GPT)
    model = get_peft_model(AutoModelForCausalLM.from_config(config), virtual).eval()
    assert max_tokens(model) == POSITIONS - 5
    run(model, POSITIONS - 5)
    with pytest.raises((IndexError, RuntimeError)):
        run(model, POSITIONS - 4)


def test_limit_is_known_without_weights():
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("roberta", **TABLE))
    assert max_tokens(model) == POSITIONS - 1


def test_more_than_the_limit_is_refused():
    with pytest.raises(ValueError, match=r"discriminator_max_length must lie between 1 and .* 23, got 24"):
        checked_max_length(classifier("roberta", **TABLE), without_limit(), 24, "discriminator_max_length")


def without_limit():
    tokenizer = tokenizer_of_pairs()
    tokenizer.model_max_length = 10**30
    return tokenizer


LONG = texts(3, length=40)


def save(family, folder, **settings):
    """Save a model whose tokenizer states no limit."""
    classifier(family, **settings).save_pretrained(folder)
    without_limit().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def roberta(tmp_path):
    return save("roberta", tmp_path, **TABLE)


@pytest.mark.parametrize(
    ("family", "settings", "read"),
    [("roberta", TABLE, 23), ("longformer", TABLE, 23), ("mpnet", {**TABLE, "pad_token_id": 1}, 22)],
)
def test_discriminator_cuts_to_what_it_can_read(tmp_path, family, settings, read):
    one = Discriminator.from_pretrained(save(family, tmp_path, **settings))
    with pytest.warns(UserWarning, match=f"{read} tokens"):
        assert one.score([""] * 3, LONG).isfinite().all()


def test_discriminator_without_a_limit_reads_whole_texts(tmp_path):
    one = Discriminator.from_pretrained(save("xlnet", tmp_path, **XLNET))
    assert one.encode([""] * 3, LONG)["input_ids"].size(1) == 42


def test_safety_gate_reads_roberta_in_windows(roberta):
    assert SafetyGate(roberta).unsafe_probs([""] * 3, LONG).isfinite().all()


def test_encoder_features_cut_to_what_roberta_reads(roberta):
    features = encoder_features(roberta)
    short = [" ".join(text.split()[:21]) for text in LONG]  # and two special tokens
    torch.testing.assert_close(features(LONG), features(short))
    with pytest.raises(ValueError, match=r"max_length .* 23, got 24"):
        encoder_features(roberta, max_length=24)


def test_encoder_without_a_limit_reads_whole_texts(tmp_path):
    folder = save("xlnet", tmp_path, **XLNET)
    last = [LONG[0], LONG[0].rsplit(" ", 1)[0] + " one two"]
    one, other = encoder_features(folder)(last)
    assert not torch.equal(one, other)


def test_fine_tuning_cuts_to_what_roberta_reads(roberta):
    assert load_with_new_head(roberta, 0).max_length == POSITIONS - 1


def test_token_without_an_embedding_is_refused(tokenizer):
    check_vocabulary(causal_generator(), tokenizer, "generator", "processing_class")
    tokenizer.add_tokens(["new"])
    with pytest.raises(ValueError, match=r"'new' has the index 26, and there are 26 .*resize_token_embeddings"):
        check_vocabulary(causal_generator(), tokenizer, "generator", "processing_class")


def test_indices_count_and_not_their_number():
    """A tokenizer with holes has few tokens, and one that lies beyond the embeddings."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=word_tokenizer({"<unk>": 0, "a": 40}), unk_token="<unk>")
    with pytest.raises(ValueError, match="'a' has the index 40"):
        check_vocabulary(causal_generator(), tokenizer, "generator", "processing_class")


def test_placeholders_of_images_need_no_embedding():
    """As in Gemma 3, whose tokenizer knows images and whose text models do not."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(), unk_token="<unk>", extra_special_tokens={"image_token": "<image>"}
    )
    assert tokenizer.convert_tokens_to_ids("<image>") == len(VOCABULARY)
    check_vocabulary(causal_generator(), tokenizer, "generator", "processing_class")
