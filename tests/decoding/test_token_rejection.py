"""Token rejection: texts have the density that is derived for them, and the discriminator reads as in training."""

import warnings
from collections import Counter

import pytest
import torch
from peft import PromptTuningConfig
from tokenizers import Regex, decoders, pre_tokenizers, processors
from torch.testing import assert_close
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForSequenceClassification,
    PreTrainedTokenizerFast,
)

from hf_mgan.decoding import DecodingConfig, guided_sample, sample
from hf_mgan.decoding.prefix_reading import PrefixReader
from hf_mgan.decoding.token_rejection import TokenRejection
from hf_mgan.discriminator import Discriminator, with_adapters
from hf_mgan.discriminator.calibration import Calibration

from ..conftest import SPECIAL, VOCABULARY, causal_classifier, word_tokenizer


PAD, START, END, A, B, C = range(6)
FEW = {"<pad>": PAD, "<s>": START, "</s>": END, "a": A, "b": B, "c": C}
LIMIT = 3
PROMPTS = ["<s>fghi", "<s>", "<s>a", "<s>", "<s>kkab"]
SLOPE = 0.7

pytestmark = pytest.mark.filterwarnings("ignore:The discriminator is not calibrated", "ignore:.*have no accepted text")


def tokenizer_of_few():
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "padding_side": "left"}
    tokenizer = word_tokenizer({**FEW, "<unk>": 6})
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **names)


def tiny(model_class, seed, vocab_size=7, **changes):
    torch.manual_seed(seed)
    sizes = {"vocab_size": vocab_size, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 48}
    config = GPT2Config(**sizes, initializer_range=0.3, bos_token_id=1, eos_token_id=2, pad_token_id=0, **changes)
    return model_class(config).eval()


def calibration(slope=SLOPE, intercept=5.0, limit=LIMIT, temperature=1.0, with_prompt=True):
    rest = {"auc": (0.5, 0.5, 0.5), "loss": 0.0, "uncalibrated_loss": 0.0, "error": 0.0, "uncalibrated_error": 0.0}
    return Calibration(slope, intercept, 0, with_prompt, temperature, limit, 20, **rest)


def models_of_few(seed):
    tokenizer = tokenizer_of_few()
    classifier = tiny(GPT2ForSequenceClassification, seed, num_labels=1)
    with torch.no_grad():
        classifier.score.weight *= 2  # differences of a few nats
    return tiny(GPT2LMHeadModel, 0), tokenizer, Discriminator(classifier, tokenizer, prefixes=True)


@pytest.fixture
def few():
    """A generator, its tokenizer of a few words, and a discriminator."""
    return models_of_few(1)


@pytest.fixture
def letters():
    return letters_tokenizer()


@pytest.fixture
def critic(letters):
    return Discriminator(causal_classifier(), letters, prefixes=True)


@torch.no_grad()
def logit_of(classifier, ids, is_whole):
    """The discriminator's logit of a text that is read at once, without a cache; it starts from nothing."""
    read = [token for token in ids if token in (A, B, C)] + [END] * is_whole
    if not read:
        return 0.0
    return classifier.score(classifier.transformer(torch.tensor([read])).last_hidden_state)[0, -1, 0].item()


@torch.no_grad()
def densities(few, num_candidates, threshold=0.0, temperature=1.0, slope=1.0, limit=LIMIT):
    """For every text: its density if texts are abandoned, not normalised, and if they are not.

    A token is accepted at the j-th draw with probability q a R^(j-1), a = min(1, exp(r - r' - c)) and R what q (1 - a)
    sums to. Of two rejected tokens u, v, drawn from q (1 - a), u is kept with probability w_u / (w_u + w_v), w = e^r.
    """
    model, _, discriminator = few
    found = {}

    def extend(ids, abandoning, keeping):
        is_last = len(ids) == limit - 1
        q = (model(torch.tensor([[START, *ids]])).logits[0, -1] / temperature).double().softmax(-1)
        before = logit_of(discriminator.model, ids, is_whole=False)
        after = [logit_of(discriminator.model, [*ids, v], is_last or v == END) for v in range(7)]
        gains = slope * (torch.tensor(after, dtype=torch.float64) - before)
        a = (gains - threshold).exp().clamp(max=1)
        rejected = q * (1 - a)
        accepts = q * a * sum(rejected.sum() ** j for j in range(num_candidates))
        weights = gains.exp()
        shares = weights[:, None] / (weights[:, None] + weights)
        falls_back = {1: rejected, 2: 2 * rejected * (shares @ rejected)}[num_candidates]
        for v in range(7):
            both = abandoning * accepts[v].item(), keeping * (accepts + falls_back)[v].item()
            if is_last or v == END:
                found[(*ids, v)] = both
            else:
                extend([*ids, v], *both)

    extend([], 1.0, 1.0)
    return found


def check_counts(drawn, expected, freedom_at_least=30):
    """Compare counts with a distribution: the chi-square statistic, in standard deviations from its mean."""
    assert sum(expected.values()) == pytest.approx(1)
    counts, total = Counter(map(tuple, drawn.completion_ids)), len(drawn.completion_ids)
    common = {ids: share for ids, share in expected.items() if share * total > 5}
    rest = 1 - sum(common.values())
    pairs = [(counts[ids], share * total) for ids, share in common.items()]
    pairs.append((total - sum(counts[ids] for ids in common), max(rest * total, 1e-9)))
    statistic = sum((count - mean) ** 2 / mean for count, mean in pairs if mean > 1)
    freedom = len(pairs) - 1
    assert freedom >= freedom_at_least
    assert abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5


@pytest.mark.statistics
@pytest.mark.parametrize(
    ("threshold", "temperature", "slope"),
    [
        pytest.param(0.0, 1.0, None, marks=pytest.mark.slow),
        pytest.param(0.5, 1.0, SLOPE, marks=pytest.mark.slow),
        (-0.3, 1.4, SLOPE),
    ],
)
def test_texts_have_the_density_derived(few, threshold, temperature, slope):
    """With two tries, the first abandons and the second keeps: S + (1 - sum S) times the density of keeping."""
    settings = {"threshold": threshold, "temperature": temperature}
    if slope is not None:
        few[2].calibration = calibration(slope, temperature=temperature)
    config = DecodingConfig(
        "token_rejection", num_candidates=2, max_new_tokens=LIMIT, batch_size=5000, seed=1, **settings
    )
    drawn = guided_sample(*few, ["<s>"] * 8000, config)
    both = densities(few, 2, slope=slope or 1.0, **settings)
    success = sum(abandoning for abandoning, _ in both.values())
    assert 0.2 < success < 0.9
    expected = {ids: abandoning + (1 - success) * keeping for ids, (abandoning, keeping) in both.items()}
    check_counts(drawn, expected)
    with pytest.raises(AssertionError):  # so many texts tell it from plain sampling
        check_counts(drawn, {ids: keeping for ids, (_, keeping) in densities(few, 1, **settings).items()})
    assert drawn.draws == pytest.approx(2 - success, abs=0.03)
    assert sum(drawn.accepted) / 8000 == pytest.approx(success + (1 - success) * success, abs=0.03)


@pytest.mark.statistics
def test_rejected_tokens_are_kept_by_their_log_ratios():
    """Of two rejected tokens one is kept by its weight, and not by the random number that has rejected it too."""
    few = model, tokenizer, discriminator = models_of_few(4)  # rejects about half of the pairs, of unlike weights
    reader, config = (
        PrefixReader(discriminator, tokenizer),
        DecodingConfig(num_candidates=2, max_new_tokens=1, temperature=1.0),
    )
    drawn = TokenRejection(model, tokenizer, reader, config)([[START]] * 60_000, [""] * 60_000)
    assert 0.4 < sum(drawn.accepted) / 60_000 < 0.5
    expected = {ids: keeping for ids, (_, keeping) in densities(few, 2, limit=1).items()}
    check_counts(drawn, expected, freedom_at_least=6)


@pytest.mark.statistics
def test_one_candidate_is_plain_sampling(few):
    config = DecodingConfig("token_rejection", num_candidates=1, max_new_tokens=LIMIT, batch_size=5000)
    drawn = guided_sample(*few, ["<s>"] * 8000, config)
    check_counts(drawn, {ids: keeping for ids, (_, keeping) in densities(few, 1).items()})
    assert drawn.tokens == list(map(len, drawn.completion_ids))
    assert set(drawn.tries) == {1}


@pytest.mark.statistics
@pytest.mark.parametrize("num_candidates", [1, 16])
def test_accepting_all_draws_each_token_once(few, num_candidates):
    config = DecodingConfig("token_rejection", -1e3, num_candidates, max_new_tokens=LIMIT, batch_size=5000)
    drawn = guided_sample(*few, ["<s>"] * 5000, config)
    assert drawn.tokens == list(map(len, drawn.completion_ids))
    assert drawn.draws == 1
    assert all(drawn.accepted)


def test_rejecting_all_exhausts_every_draw(few):
    """The first token is rejected four times in each of the first three tries; the last keeps one of four of each."""
    config = DecodingConfig("token_rejection", 1e3, 4, max_new_tokens=LIMIT)
    with pytest.warns(UserWarning, match="50 of 50 prompts have no accepted text after 4 tries: 0 of them"):
        drawn = guided_sample(*few, ["<s>"] * 50, config)
    assert drawn.tries == [4] * 50
    assert drawn.tokens == [12 + 4 * len(ids) for ids in drawn.completion_ids]
    assert drawn.num_exhausted == 50


def letters_tokenizer(single="$A"):
    """A letter is a token, so that a text has one encoding, whatever its prompt."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *"abcdefghijklmnopqrst"])}
    tokenizer = word_tokenizer(vocabulary)
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(token, VOCABULARY[token]) for token in ("<s>", "</s>")]
    )
    names = ("pad_token", "bos_token", "eos_token", "unk_token", "cls_token", "sep_token")
    special = dict(zip(names, SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=48, **special)


def llama(config_class=LlamaConfig, model_class=LlamaForSequenceClassification, **changes):
    torch.manual_seed(3)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = config_class(
        vocab_size=len(VOCABULARY), num_hidden_layers=2, initializer_range=0.3, pad_token_id=0, num_labels=1, **sizes
    )
    for name, value in changes.items():
        setattr(config, name, value)
    return model_class(config)


CLASSIFIERS = {
    "gpt2": causal_classifier,
    "llama": llama,
    "sliding window": lambda: llama(MistralConfig, MistralForSequenceClassification, sliding_window=4),
}
TEMPLATES = {"nothing": "$A", "start": "<s> $A", "start and end": "<s> $A </s>"}


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("adds", TEMPLATES)
def test_reader_agrees_with_the_prefix_scorer(letters, name, adds):
    """Texts of one length with prompts of several, read token by token, and at once as in training."""
    discriminator = Discriminator(CLASSIFIERS[name](), letters_tokenizer(TEMPLATES[adds]), prefixes=True)
    prompts, completions = ["fghi", "", "a"], ["abcdef", "tsrqpo", "aaabba"]
    batch = discriminator.encode(prompts, completions)
    expected = discriminator.logits(batch)
    reader = PrefixReader(discriminator, letters)
    read = reader.read(prompts)
    assert_close(read.logits, torch.zeros(3))
    every, ids = torch.arange(3), letters(completions)["input_ids"]
    for at in range(6):
        new = [reader.tokens(row[at], is_last=False) for row in ids]
        values = read.logits_with(every, new)
        assert_close(values, expected[:, at], atol=1e-4, rtol=1e-4)
        read.logits_with(torch.tensor([2, 0]), [[7], [8]])  # leaves no trace
        read.go_on(every, new, values)
    ended = read.logits_with(every, [reader.tokens(2, is_last=True)] * 3)
    assert_close(ended, discriminator.score(prompts, completions), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("adds", TEMPLATES)
@pytest.mark.parametrize("calibrated", [None, "with prompt", "without prompt"])
def test_log_ratios_are_those_of_whole_texts(generator, letters, name, adds, calibrated):
    """Prompts of several lengths, ends at the limit and before, and special tokens in the midst of a text."""
    discriminator = Discriminator(CLASSIFIERS[name](), letters_tokenizer(TEMPLATES[adds]), prefixes=True)
    if calibrated:
        discriminator.calibration = calibration(limit=12, temperature=4.0, with_prompt=calibrated == "with prompt")
    config = DecodingConfig("token_rejection", num_candidates=4, temperature=4.0, max_new_tokens=12, batch_size=16)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The discriminator read")
        drawn = guided_sample(generator, letters, discriminator, PROMPTS * 8, config)
    assert {len(ids) == 12 for ids in drawn.completion_ids} == {True, False}
    assert any(set(ids[:-1]) & {0, 1, 3} for ids in drawn.completion_ids)
    assert all(ids.index(END) == len(ids) - 1 for ids in drawn.completion_ids if END in ids)
    shown = [prompt.removeprefix("<s>") if calibrated != "without prompt" else "" for prompt in PROMPTS * 8]
    expected = discriminator.log_ratio(shown, drawn.texts)
    assert_close(torch.tensor(drawn.log_ratios), expected, atol=1e-4, rtol=1e-4)


def test_generator_is_read_as_by_sample(generator, letters, critic):
    """Where the likeliest token is drawn and all are accepted, both write the same, whatever the prompts' lengths."""
    plain = sample(generator, letters, PROMPTS, 12, temperature=1e-4)
    config = DecodingConfig("token_rejection", -1e3, 2, temperature=1e-4, max_new_tokens=12)
    for size in (1, 3, 64):
        config.batch_size = size
        drawn = guided_sample(generator, letters, critic, PROMPTS, config)
        assert drawn.completion_ids == plain.completion_ids
        assert drawn.texts == plain.texts


def test_every_end_token_ends_a_text(generator, letters, critic):
    """An end token that is a letter is no part of the text, for the generator as for the discriminator."""
    generator.generation_config.eos_token_id = [7, 9]
    config = DecodingConfig("token_rejection", num_candidates=3, temperature=8.0, max_new_tokens=10)
    drawn = guided_sample(generator, letters, critic, ["<s>"] * 60, config)
    assert {ids[-1] for ids in drawn.completion_ids if len(ids) < 10} == {7, 9, END}
    expected = critic.log_ratio([""] * 60, drawn.texts)
    assert_close(torch.tensor(drawn.log_ratios), expected, atol=1e-4, rtol=1e-4)


def test_texts_depend_on_the_seed_alone(generator, letters, critic):
    def draw(seed):
        config = DecodingConfig("token_rejection", num_candidates=4, max_new_tokens=8, batch_size=3, seed=seed)
        return guided_sample(generator, letters, critic, PROMPTS, config)

    torch.manual_seed(5)
    state, first = torch.random.get_rng_state(), draw(1)
    assert torch.random.get_rng_state().equal(state)
    torch.rand(7)
    assert draw(1) == first
    assert draw(2) != first


@pytest.mark.parametrize("training", [True, False])
def test_mode_of_the_generator_is_restored(generator, letters, critic, training):
    config = DecodingConfig("token_rejection", -1e3, 1, temperature=1e-4, max_new_tokens=8)
    expected = guided_sample(generator.eval(), letters, critic, PROMPTS, config)
    generator.train(training)
    assert guided_sample(generator, letters, critic, PROMPTS, config) == expected
    assert generator.training is training


def test_mode_of_the_generator_is_restored_after_an_error(generator, letters, critic):
    def fail(prompts, completions):
        raise KeyboardInterrupt

    generator.train()
    config = DecodingConfig("token_rejection", max_new_tokens=8)
    with pytest.raises(KeyboardInterrupt):
        guided_sample(generator, letters, critic, PROMPTS, config, keep=fail)
    assert generator.training


def test_what_the_filter_refuses_is_drawn_anew(few):
    """A third of plain texts or so hold a c; four tries of accepted texts find one without it nearly always."""
    seen = []

    def no_c(prompts, completions):
        seen.extend(completions)
        return ["c" not in text for text in completions]

    found = []
    config = DecodingConfig("token_rejection", -1e3, 4, max_new_tokens=LIMIT, batch_size=64)
    drawn = guided_sample(*few, ["<s>"] * 200, config, keep=no_c, on_text=found.append)
    assert sum(found) == 200
    assert len(seen) == sum(drawn.tries) > 220
    kept = [text for text in drawn.texts if text is not None]
    assert len(kept) > 180
    assert not any("c" in text for text in kept)
    assert all((text is not None) == accepted for text, accepted in zip(drawn.texts, drawn.accepted, strict=True))


def test_filter_that_refuses_all_leaves_none(few):
    config = DecodingConfig("token_rejection", -1e3, 3, max_new_tokens=LIMIT)
    with pytest.warns(UserWarning, match="5 of 5 prompts .* 3 tries: 5 of them none at all"):
        drawn = guided_sample(*few, ["<s>"] * 5, config, keep=lambda _, texts: [False] * len(texts))
    assert drawn.texts == [None] * 5
    assert drawn.completion_ids == [[]] * 5
    assert drawn.tries == [3] * 5
    assert all(ratio != ratio for ratio in drawn.log_ratios)


def test_tokens_unlike_those_of_training_are_told(generator, letters):
    """Two letters that stand together are one unknown word to the tokenizer, and the generator writes single ones."""
    letters.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(".."), "isolated")
    discriminator = Discriminator(causal_classifier(), letters, prefixes=True)
    config = DecodingConfig("token_rejection", num_candidates=2, max_new_tokens=4)
    with pytest.warns(UserWarning, match="of 8 texts in other tokens"):
        guided_sample(generator, letters, discriminator, ["<s>a"] * 8, config)


def with_previous(discriminator):
    discriminator.previous = discriminator
    return discriminator


@pytest.mark.parametrize(
    ("discriminator", "message"),
    [
        (lambda _: None, "prefixes, and there is none. Give the generator's own id as discriminator"),
        (
            lambda tokenizer: Discriminator(causal_classifier(), tokenizer),
            "prefixes, and this one scores whole texts alone. Give the generator's own id as discriminator",
        ),
        (
            lambda _: Discriminator(causal_classifier(), tokenizer_of_few(), prefixes=True),
            r"another vocabulary \(7 tokens, the generator's has 26\). Give the generator's own id as discriminator",
        ),
        (
            lambda tokenizer: Discriminator(
                with_adapters(causal_classifier(), PromptTuningConfig(num_virtual_tokens=2)), tokenizer, prefixes=True
            ),
            "keys and values, which PeftModelForSequenceClassification does not hand out",
        ),
        (
            lambda tokenizer: with_previous(Discriminator(causal_classifier(), tokenizer, prefixes=True)),
            "corrects what a previous one keeps, .* or use rejection",
        ),
    ],
)
def test_other_discriminators_are_refused(generator, tokenizer, discriminator, message):
    with pytest.raises(ValueError, match=message):
        guided_sample(
            generator,
            tokenizer,
            discriminator(tokenizer),
            ["<s>"],
            DecodingConfig("token_rejection", max_new_tokens=4),
        )


def test_texts_that_do_not_fit_are_refused(generator, letters, critic):
    """48 tokens: a prompt of three, an end, and 44 between."""
    prompts = ["<s>", "<s>abc"]
    config = DecodingConfig("token_rejection", num_candidates=1, max_new_tokens=45)
    with pytest.raises(ValueError, match=r"max_new_tokens is 45, .* room for 44 tokens"):
        guided_sample(generator, letters, critic, prompts, config)
    config.max_new_tokens = 44
    assert guided_sample(generator, letters, critic, prompts, config).num_kept == 2


def test_generators_without_keys_and_values_are_refused(generator, letters, critic, monkeypatch):
    monkeypatch.setattr(type(generator), "_is_stateful", True)
    with pytest.raises(ValueError, match="keys and values, which GPT2LMHeadModel does not hand"):
        guided_sample(generator, letters, critic, ["<s>"], DecodingConfig("token_rejection", max_new_tokens=4))


def test_settings_refuse_generation_kwargs():
    with pytest.raises(ValueError, match=r"generation_kwargs=.*token_rejection"):
        DecodingConfig("token_rejection", generation_kwargs={"top_k": 5}).check()
    DecodingConfig("token_rejection", threshold=0.5, generation_kwargs={}).check()
