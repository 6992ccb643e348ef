"""A tiny BERT with random weights, fine-tuned on sentences of a few words."""

import hashlib
import math
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

from hf_mgan.metrics import c2st, fine_tuned_c2st, fine_tuning, two_sample_test
from hf_mgan.metrics.fine_tuning import fine_tune, load_with_new_head, refuse_discriminator
from hf_mgan.metrics.text_regression import LabelledTexts
from hf_mgan.metrics.two_sample_test import _parts, _scores

from ..conftest import WORDS, bert_classifier, causal_classifier, generators_tokenizer, texts, tokenizer_of_pairs


SMALL = {"batch_size": 8}
FEW = {"batch_size": 4, "epochs": 1}  # with fewer steps, by `few_steps`


def save(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save(bert_classifier().bert, tokenizer_of_pairs(), tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(fine_tuning, "MIN_STEPS", 8)


def with_a(word, count, seed):
    return [f"{text} {word}" for text in texts(count, seed)]


def with_words_far_apart(first, second, count, seed):
    """Three words before, between and after: no n-gram has both, and each has the same words on either side of it."""
    draw = random.Random(seed)

    def three():
        return draw.choices(WORDS[4:12], k=3)

    return [" ".join([*three(), first, *three(), second, *three()]) for _ in range(count)]


def halved(real, generated):
    """Return three quarters of the texts to train on, and a quarter that chooses the weights."""
    cut = len(real) // 4
    return LabelledTexts(real[cut:], generated[cut:]), LabelledTexts(real[:cut], generated[:cut])


def test_fine_tuned_c2st_sees_what_ngrams_miss(encoder):
    real = with_words_far_apart("cat", "dog", 64, seed=0)
    generated = with_words_far_apart("dog", "cat", 64, seed=1)
    assert c2st(real, generated).auc.low < 0.5
    result = fine_tuned_c2st(real, generated, encoder, **SMALL)
    assert result.auc.value > 0.95
    assert result.real_scores.mean() > 0 > result.generated_scores.mean()
    assert result.calibration[0].real_share < 0.1 < 0.9 < result.calibration[-1].real_share


@pytest.mark.usefixtures("few_steps")
def test_fine_tuned_c2st_sees_its_steps_under_autocast(encoder):
    """Autocast keeps weights as it has cast them until its outermost block ends, unless told not to."""
    scores = []
    for kept in (True, False):
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=kept):
            scores.append(fine_tuned_c2st(texts(32, 0), texts(32, 1), encoder, **FEW).real_scores)
    assert scores[0].equal(scores[1])


@pytest.mark.statistics
def test_fine_tuned_c2st_of_real_against_real_holds_half(encoder):
    """Of six intervals that hold 0.5 with a probability of 95 %, three or more would miss it in 0.2 % of cases."""
    areas = [fine_tuned_c2st(texts(32, seed), texts(32, 100 + seed), encoder, **SMALL).auc for seed in range(6)]
    assert sum(area.low <= 0.5 <= area.high for area in areas) >= 4
    assert sum(area.value for area in areas) / 6 == pytest.approx(0.5, abs=0.1)


def test_fine_tuned_c2st_keeps_copies_on_one_side_of_the_split(encoder):
    """Words are drawn at random, so a text that is not known by heart cannot be told."""
    real, generated = texts(24, 0) * 4, texts(24, 1) * 4
    result = fine_tuned_c2st(real, generated, encoder, **SMALL)
    assert result.auc.low < 0.5 < result.auc.high
    assert len(set(zip(real, result.real_folds.tolist(), strict=True))) == 24


@pytest.mark.usefixtures("few_steps")
def test_fine_tuned_c2st_gives_a_text_on_both_sides_one_score(encoder):
    real = texts(32, 0)
    result = fine_tuned_c2st(real, [f"{text}  " for text in real[:16]] + texts(16, 1), encoder, **FEW)
    assert result.real_scores[:16].equal(result.generated_scores[:16])
    assert result.generated_texts[:16] == real[:16]


@pytest.mark.usefixtures("few_steps")
def test_fine_tuned_c2st_never_trains_on_the_tested_fold(encoder, monkeypatch):
    trained = []

    def watched(pretrained, outer, inner, **settings):
        trained.append({text for texts_ in (outer, inner) for side in texts_ for text in side})
        return fine_tune(pretrained, outer, inner, **settings)

    monkeypatch.setattr(two_sample_test, "fine_tune", watched)
    real, generated = texts(32, 0), texts(32, 1)
    result = fine_tuned_c2st(real, generated, encoder, **FEW)
    for fold in (0, 1):
        for side, folds in ((real, result.real_folds), (generated, result.generated_folds)):
            tested = {text for text, own in zip(side, folds.tolist(), strict=True) if own == fold}
            assert not tested & trained[fold]
            assert set(side) - tested <= trained[fold]


@pytest.mark.usefixtures("few_steps")
def test_scores_of_a_fold_do_not_depend_on_its_labels(encoder):
    """All labels of the first fold are flipped: its scores stay, and those of the other fold do not."""
    real, generated = with_a("dog", 32, 0), with_a("cat", 32, 1)
    parts, pretrained = _parts(real, generated, 0), load_with_new_head(encoder, 0)

    def scores(flipped):
        sides = ([], [])
        for number, side in enumerate((real, generated)):
            for text in side:
                sides[number ^ (flipped and parts[text] % 2 == 0)].append(text)
        fits = [lambda outer, inner: fine_tune(pretrained, outer, inner, batch_size=4, epochs=1)]
        return _scores(*sides, parts, fits)

    straight, flipped = scores(False), scores(True)
    assert all((straight[text] == flipped[text]) == (part % 2 == 0) for text, part in parts.items())


@pytest.mark.usefixtures("few_steps")
def test_fine_tuned_c2st_depends_on_the_seed_alone(encoder):
    real, generated = texts(32, 0), texts(32, 1)

    def scores(sides, seed):
        torch.manual_seed(len(states))
        states.append(torch.get_rng_state())
        result = fine_tuned_c2st(*sides, encoder, seed=seed, **FEW)
        assert torch.get_rng_state().equal(states[-1])
        return result.real_scores

    states = []
    first, again, other = (scores((real, generated), seed) for seed in (0, 0, 1))
    backwards = scores((real[::-1], generated[::-1]), 0)
    assert first.equal(again)
    assert first.equal(backwards.flip(0))
    assert not first.equal(other)


@pytest.mark.usefixtures("few_steps")
def test_fine_tuned_c2st_leaves_the_encoder_as_it_is(encoder):
    def digests():
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(encoder).iterdir()}

    before = digests()
    fine_tuned_c2st(texts(32, 0), texts(32, 1), encoder, **FEW)
    assert digests() == before


@pytest.mark.usefixtures("few_steps")
def test_fine_tune_moves_all_weights_of_a_copy(encoder, monkeypatch):
    pretrained = load_with_new_head(encoder, 0)
    before = {name: value.clone() for name, value in pretrained.model.state_dict().items()}
    used = []
    score = fine_tuning._score
    monkeypatch.setattr(
        fine_tuning, "_score", lambda pretrained, texts: (used.append(pretrained.model), score(pretrained, texts))[1]
    )
    fine_tune(pretrained, *halved(texts(16, 0), texts(16, 1)), batch_size=4)(["a dog"])
    assert all(value.equal(before[name]) for name, value in pretrained.model.state_dict().items())
    unread = {"bert.embeddings.position_embeddings.weight", "bert.embeddings.token_type_embeddings.weight"}
    assert {name for name, value in used[-1].named_parameters() if value.equal(before[name])} <= unread


def test_fine_tune_keeps_the_weights_of_the_lowest_loss(encoder, monkeypatch):
    """Texts without a difference, at a learning rate that learns them by heart: the inner loss rises, and it stops."""
    outer, inner = halved(texts(64, 0), texts(64, 1))
    losses, steps = [], []
    loss = fine_tuning._loss

    def watched(*logits):
        value = loss(*logits)
        (steps if value.requires_grad else losses).append(value.item())
        return value

    monkeypatch.setattr(fine_tuning, "_loss", watched)
    score = fine_tune(load_with_new_head(encoder, 0), outer, inner, learning_rate=1e-2, batch_size=8)
    assert losses.index(min(losses)) == len(losses) - 1 - fine_tuning.PATIENCE
    assert len(steps) < fine_tuning.MIN_STEPS
    assert loss(*(score(side) for side in inner)).item() == min(losses)
    assert min(losses) < losses[-1]


def test_load_with_new_head_keeps_the_encoder_alone(tmp_path, encoder):
    """Of a classifier with a head of its own, trained for something else, and in half precision."""
    classifier = bert_classifier(num_labels=3, seed=2).to(torch.bfloat16)
    folder = save(classifier, tokenizer_of_pairs(), tmp_path)
    loaded = load_with_new_head(folder, 0).model
    assert loaded.classifier.out_features == 1
    assert {value.dtype for value in loaded.state_dict().values() if value.is_floating_point()} == {torch.float32}
    for name, value in loaded.bert.state_dict().items():
        assert value.equal(classifier.bert.state_dict()[name].float()), name
    heads = [load_with_new_head(encoder, seed).model.classifier.weight for seed in (0, 0, 1)]
    assert heads[0].equal(heads[1])
    assert not heads[0].equal(heads[2])
    one_label = save(bert_classifier(seed=2), tokenizer_of_pairs(), tmp_path / "one_label")
    assert load_with_new_head(one_label, 0).model.classifier.weight.equal(heads[0])


@pytest.mark.usefixtures("few_steps")
def test_fine_tuned_c2st_takes_a_causal_encoder(tmp_path):
    """Without a padding token, and with an empty text among the texts; each text is scored as it is by itself."""
    tokenizer = generators_tokenizer()
    tokenizer.pad_token, tokenizer.padding_side = None, "left"
    folder = save(causal_classifier().transformer, tokenizer, tmp_path)
    result = fine_tuned_c2st([*texts(31, 0), ""], texts(32, 1), folder, **FEW)
    assert result.real_scores.isfinite().all()
    pretrained = load_with_new_head(folder, 0)
    score = fine_tune(pretrained, *halved(texts(16, 0), texts(16, 1)), batch_size=4)
    assert score([""]).isfinite().all()
    rows = ["a dog", "the cat sees a bird near this king", "two"]
    torch.testing.assert_close(score(rows), torch.cat([score([row]) for row in rows]), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("few_steps")
def test_fine_tuned_c2st_cuts_texts_that_are_too_long(encoder):
    """48 places, two of them for special tokens: what follows the 46th word makes no difference."""
    start = " ".join(["dog"] * 46)
    pretrained = load_with_new_head(encoder, 0)
    assert pretrained.max_length == 48
    score = fine_tune(pretrained, *halved(texts(16, 0), texts(16, 1)), batch_size=4)
    longer, other, shorter = score(
        [f"{start} cat", f"{start} bird bird", start.removesuffix(" dog") + " cat"]
    ).tolist()
    assert longer == pytest.approx(other, abs=1e-6)
    assert longer != pytest.approx(shorter, abs=1e-6)


def test_batches_have_both_sides_and_similar_lengths():
    """Of five and two texts in twos: each of the five once per pass, and each of the two as often as the other can."""
    real, generated = ["a" * length for length in (5, 1, 4, 2, 3)], ["bb", "b"]
    batches = fine_tuning._batches(LabelledTexts(real, generated), 2)
    for _ in range(3):
        taken = [next(batches) for _ in range(3)]
        assert sorted(len(batch.real) for batch in taken) == [1, 2, 2]
        assert all(len(batch.real) == len(batch.generated) for batch in taken)
        assert sorted(tuple(batch.real) for batch in taken) == [("a", "aa"), ("aaa", "aaaa"), ("aaaaa",)]
        assert sorted(Counter(text for batch in taken for text in batch.generated).values()) == [2, 3]
    orders = [[len(next(batches).real[0]) for _ in range(3)] for _ in range(10)]
    assert len({tuple(order) for order in orders}) > 1


def test_loss_is_the_mean_of_both_sides_means():
    """-log sigmoid(0) = log 2 for each; three generated texts weigh as much as one real one with log-odds log 3."""
    loss = fine_tuning._loss(torch.tensor([math.log(3)]), torch.zeros(3))
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be greater than 0 and finite, or None, got 0.0"),
        ({"level": 1.0}, "level must be greater than 0"),
        ({"generated": texts(7, 1) * 5}, "of the 35 generated texts 7 differ"),
    ],
)
def test_fine_tuned_c2st_refuses_before_anything_is_loaded(arguments, match):
    given = {"real": texts(32, 0), "generated": texts(32, 1), "encoder": "nowhere", **arguments}
    with pytest.raises(ValueError, match=match):
        fine_tuned_c2st(**given)


def test_load_with_new_head_refuses_adapters_and_no_padding(tmp_path, encoder):
    adapted = get_peft_model(bert_classifier(), LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS"))
    adapted.base_model.model.bert.save_pretrained(tmp_path / "base")
    for name in ("base", "bare"):
        tokenizer_of_pairs().save_pretrained(tmp_path / name)
    adapted.save_pretrained(tmp_path / "adapters")
    tokenizer_of_pairs().save_pretrained(tmp_path / "adapters")
    with pytest.raises(ValueError, match="adapters"):
        load_with_new_head(str(tmp_path / "adapters"), 0)
    tokenizer = tokenizer_of_pairs()
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="no padding token and no EOS token"):
        load_with_new_head(save(bert_classifier().bert, tokenizer, tmp_path / "bare"), 0)


def test_refuse_discriminator_knows_the_weights(tmp_path, encoder):
    """By id, folder, other head, pooler of its own, or a model that is loaded."""
    same = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=1)
    saved = save(same, tokenizer_of_pairs(), tmp_path / "same")
    for discriminator in (encoder, f"{encoder}/", saved, same):
        with pytest.raises(ValueError, match="has the weights of the discriminator"):
            refuse_discriminator(encoder, discriminator)
    with pytest.raises(ValueError, match="has the weights of the discriminator"):
        fine_tuned_c2st(texts(32, 0), texts(32, 1), encoder, discriminator=same)
    with pytest.raises(ValueError, match="has the weights of the discriminator"):
        refuse_discriminator("some/id", "some/id")


def test_refuse_discriminator_lets_others_pass(tmp_path, encoder):
    """What has been trained from the same weights, with adapters or without, and what is of another shape."""
    trained = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=1)
    with torch.no_grad():
        trained.bert.encoder.layer[0].output.dense.weight[0, 0] += 1e-3
    base = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=1)
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS"))
    adapted.save_pretrained(tmp_path / "adapted")
    other = causal_classifier()
    state = torch.get_rng_state()
    for discriminator in (
        trained,
        save(trained, tokenizer_of_pairs(), tmp_path / "trained"),
        adapted,
        str(tmp_path / "adapted"),
        other,
    ):
        refuse_discriminator(encoder, discriminator)
    assert torch.get_rng_state().equal(state)
