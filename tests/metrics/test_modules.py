"""The modules for Hugging Face's `evaluate`, loaded from their folders, without network, into a cache of their own."""

import json
import socket

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from hf_mgan import metrics
from hf_mgan.metrics import (
    c2st,
    distinct_n,
    duplicates,
    encoder_features,
    frechet_distance,
    length_ratio,
    mauve,
    memorisation,
    module_path,
    nll_per_token,
    perplexity,
    repetition,
    reverse_perplexity,
    self_bleu,
    small_language_model,
    token_nlls,
)
from hf_mgan.metrics.module_path import MODULES

from ..conftest import texts


evaluate = pytest.importorskip("evaluate")

NAMES = sorted(folder.name for folder in MODULES.iterdir() if folder.name != "__pycache__")
ALONE = {"distinct_n", "duplicates", "perplexity", "repetition", "self_bleu"}  # those that compare with nothing
PREDICTIONS, REFERENCES, CORPUS = [*texts(19), texts(1)[0]], texts(20, seed=1), texts(40, seed=2)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Nothing is written to the user's home, and a module that calls anyone fails."""
    folder = tmp_path_factory.mktemp("evaluate")

    def refuse(*_):
        raise AssertionError("a local module needs no network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", folder / "modules")
        patch.setattr(evaluate.config, "HF_METRICS_CACHE", folder / "metrics")
        patch.setattr(socket.socket, "connect", refuse)
        patch.syspath_prepend(folder)  # which restores the path that `evaluate` extends
        yield folder


def load(name):
    return evaluate.load(module_path(name))


def features(batch):
    """One axis a word, so that the features are known without an encoder."""
    return torch.tensor([[float(text.split().count(word)) for word in ("a", "the", "dog", "cat")] for text in batch])


def split(batch):
    return [text.split() for text in batch]


@pytest.mark.parametrize("name", NAMES)
def test_module_describes_itself(name):
    metric = load(name)
    assert metric.name == name
    assert metric.description == getattr(metrics, name).__doc__
    assert "`list[str]`" in metric.inputs_description
    assert metric.inputs_description in metric.compute.__doc__
    assert ("references" in metric.features) == (name not in ALONE)
    assert metric.citation or name == "duplicates"


def test_module_of_words_gives_what_its_function_gives():
    given = {"predictions": PREDICTIONS, "references": REFERENCES}
    assert load("self_bleu").compute(predictions=PREDICTIONS) == {"self_bleu": self_bleu(split(PREDICTIONS))}
    assert load("self_bleu").compute(predictions=PREDICTIONS, n=2)["self_bleu"] == self_bleu(split(PREDICTIONS), 2)
    assert load("distinct_n").compute(predictions=PREDICTIONS) == {"distinct_n": distinct_n(split(PREDICTIONS), 2)}
    assert load("distinct_n").compute(predictions=PREDICTIONS, n=1)["distinct_n"] == distinct_n(split(PREDICTIONS), 1)
    assert load("duplicates").compute(predictions=PREDICTIONS) == {"duplicates": duplicates(PREDICTIONS)}
    assert duplicates(PREDICTIONS) > 0
    own = ["a dog a dog", "a a a a a a"]
    assert load("repetition").compute(predictions=own) == {"repetition": repetition(split(own))}
    assert load("repetition").compute(predictions=own, n=1) == {"repetition": repetition(split(own), 1)}
    longer = [f"{text} a" for text in PREDICTIONS]
    assert load("length_ratio").compute(**{**given, "predictions": longer}) == {"length_ratio": 7 / 6}
    assert length_ratio(split(longer), split(REFERENCES)) == 7 / 6


@pytest.mark.parametrize("name", ["self_bleu", "distinct_n", "repetition", "length_ratio", "memorisation"])
def test_module_counts_in_units(name):
    """Two texts of Chinese, of 8 and 4 characters: one word each, which tells nothing."""
    texts, real = ["天地玄黄天地玄黄", "天地玄黄天地玄荒"], ["天地玄黄", "宇宙洪荒"]
    given = {"predictions": texts, **({} if name in ALONE else {"references": real})}
    given |= {"corpus": real} if name == "memorisation" else {}
    expected = {"self_bleu": self_bleu, "distinct_n": lambda rows: distinct_n(rows, 2), "repetition": repetition}
    values = load(name).compute(**given)
    words = load(name).compute(**given, unit="word")
    if name in expected:
        assert values == {name: expected[name](list(map(list, texts)))}
        assert words == {name: expected[name](split(texts))}
    elif name == "length_ratio":
        assert (values, words) == ({name: 2.0}, {name: 1.0})
    else:
        assert (values["longest_ngram"], words["longest_ngram"]) == (4.0, 0.0)


def test_module_names_a_text_that_is_none():
    with pytest.raises(TypeError, match="Text 1 is None"):
        load("self_bleu").compute(predictions=["a dog", None])


def test_memorisation_module_gives_both_sides():
    """Of the runs of three words two of six are common where the last two of six words differ."""
    copies = [f"{text.rsplit(' ', 2)[0]} says so" for text in CORPUS[:20]]
    expected = memorisation(split(copies), split(REFERENCES), split(CORPUS), 0.3)
    assert expected.generated.near_duplicate_share == 1.0
    assert memorisation(split(copies), split(REFERENCES), split(CORPUS)).generated.near_duplicate_share < 1
    assert expected.generated.longest_share > expected.held_out.longest_share
    values = load("memorisation").compute(predictions=copies, references=REFERENCES, corpus=CORPUS, threshold=0.3)
    for name, value in expected.generated._asdict().items():
        assert values.pop(name) == value
    for name, value in expected.held_out._asdict().items():
        assert values.pop(f"held_out_{name}") == value
    assert not values


def test_c2st_module_gives_what_its_function_gives():
    real, generated, null = REFERENCES, [text.replace("dog", "cat") for text in PREDICTIONS], CORPUS
    expected = c2st(real, generated, null, seed=1, level=0.9, encoder=features)
    values = load("c2st").compute(
        predictions=generated, references=real, null=null, seed=1, level=0.9, encoder=features
    )
    assert tuple(values[name] for name in ("auc", "auc_low", "auc_high")) == expected.auc
    assert tuple(values[name] for name in ("null_auc", "null_auc_low", "null_auc_high")) == expected.null_auc
    without = load("c2st").compute(predictions=generated, references=real)
    assert without == dict(zip(("auc", "auc_low", "auc_high"), c2st(real, generated).auc, strict=True))


def test_module_of_features_gives_what_its_function_gives():
    given = {"predictions": PREDICTIONS, "references": REFERENCES[:20], "encoder": features}
    real, generated = features(REFERENCES), features(PREDICTIONS)
    assert load("frechet_distance").compute(**given) == {"frechet_distance": frechet_distance(real, generated)}
    expected = mauve(real, generated, 5, scaling=2.0, pseudocount=0.5, seed=3)
    assert load("mauve").compute(**given, num_clusters=5, scaling=2.0, pseudocount=0.5, seed=3) == {
        "mauve": expected.score,
        "frontier_integral": expected.frontier_integral,
    }


def test_module_of_features_loads_an_encoder_from_a_folder(classifier, pair_tokenizer, tmp_path):
    classifier.bert.save_pretrained(tmp_path)
    pair_tokenizer.save_pretrained(tmp_path)
    of_folder = encoder_features(str(tmp_path))
    given = {"predictions": PREDICTIONS, "references": REFERENCES, "encoder": str(tmp_path)}
    expected = frechet_distance(of_folder(REFERENCES), of_folder(PREDICTIONS))
    assert load("frechet_distance").compute(**given) == {"frechet_distance": expected}
    assert load("mauve").compute(**given)["mauve"] == mauve(of_folder(REFERENCES), of_folder(PREDICTIONS)).score


def test_perplexity_module_counts_from_start_to_end(generator, tokenizer, tmp_path):
    generator.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    rows = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in PREDICTIONS]
    nlls = token_nlls(generator, [[tokenizer.bos_token_id]] * 20, rows)
    metric = load("perplexity")
    assert metric.compute(predictions=PREDICTIONS, model=str(tmp_path)) == {
        "perplexity": perplexity(nlls),
        "nll_per_token": nll_per_token(nlls),
    }
    cut = token_nlls(generator, [[tokenizer.bos_token_id]] * 20, [row[:3] for row in rows])
    assert metric.compute(predictions=PREDICTIONS, model=str(tmp_path), max_length=3)["perplexity"] == perplexity(cut)


def test_perplexity_module_without_a_start_token(generator, tokenizer, tmp_path):
    tokenizer.bos_token = None
    generator.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    rows = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in PREDICTIONS]
    expected = perplexity(token_nlls(generator, [[tokenizer.eos_token_id]] * 20, rows))
    assert load("perplexity").compute(predictions=PREDICTIONS, model=str(tmp_path))["perplexity"] == expected
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="BOS or EOS token"):
        load("perplexity").compute(predictions=PREDICTIONS, model=str(tmp_path))


def test_perplexity_module_loads_adapters(generator, tokenizer, tmp_path):
    generator.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    adapted = get_peft_model(base, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapters")
    tokenizer.save_pretrained(tmp_path / "adapters")
    rows = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in PREDICTIONS]
    expected = perplexity(token_nlls(adapted, [[tokenizer.bos_token_id]] * 20, rows))
    metric = load("perplexity")
    value = metric.compute(predictions=PREDICTIONS, model=str(tmp_path / "adapters"))["perplexity"]
    assert value == pytest.approx(expected)
    assert value != pytest.approx(metric.compute(predictions=PREDICTIONS, model=str(tmp_path / "base"))["perplexity"])


def test_reverse_perplexity_module_learns_from_both_sides(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    generated, real, test = (
        [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in batch]
        for batch in (PREDICTIONS, CORPUS, REFERENCES)
    )
    expected = reverse_perplexity(
        generated,
        real,
        test,
        model=small_language_model(len(tokenizer), 8, seed=1),
        start_token_id=tokenizer.bos_token_id,
        epochs=2,
        learning_rate=1e-2,
        batch_size=8,
        seed=1,
    )
    values = load("reverse_perplexity").compute(
        predictions=PREDICTIONS,
        references=REFERENCES,
        corpus=CORPUS,
        tokenizer=str(tmp_path),
        epochs=2,
        learning_rate=1e-2,
        batch_size=8,
        seed=1,
    )
    assert values == {"reverse_perplexity": expected.generated, "real_perplexity": expected.real}


def test_module_takes_batches_and_gives_json(cache):
    metric = load("c2st")
    metric.add_batch(predictions=PREDICTIONS[:12], references=REFERENCES[:12])
    metric.add_batch(predictions=PREDICTIONS[12:], references=REFERENCES[12:])
    values = metric.compute()
    assert values["auc"] == c2st(REFERENCES, PREDICTIONS).auc.value
    assert json.loads(json.dumps(values)) == values
    assert list((cache / "modules").rglob("c2st.py"))
    assert (cache / "metrics" / "c2st").is_dir()


def test_modules_combine():
    """Each takes of the texts what it needs; what is named besides goes to all of them."""
    combined = evaluate.combine([load("self_bleu"), load("distinct_n"), load("repetition")])
    assert combined.compute(predictions=PREDICTIONS, references=REFERENCES, n=3) == {
        "self_bleu": self_bleu(split(PREDICTIONS), 3),
        "distinct_n": distinct_n(split(PREDICTIONS), 3),
        "repetition": repetition(split(PREDICTIONS), 3),
    }
    assert evaluate.combine([load("duplicates"), load("length_ratio")]).compute(
        predictions=PREDICTIONS, references=REFERENCES
    ) == {"duplicates": duplicates(PREDICTIONS), "length_ratio": 1.0}


def test_module_works_after_a_refusal():
    metric = load("length_ratio")
    with pytest.raises(ValueError, match=r"number of predictions \(1\) and references \(2\)"):
        metric.compute(predictions=["a"], references=["a", "b"])
    assert metric.compute(predictions=["a b"], references=["a"]) == {"length_ratio": 2.0}
    with pytest.raises(ValueError, match="make sure that you call `add` or `add_batch`"):
        load("length_ratio").compute()


def test_module_passes_errors_of_its_function_through():
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        load("self_bleu").compute(predictions=PREDICTIONS, n=0)
    with pytest.raises(ValueError, match="at least 8 different texts per side"):
        load("c2st").compute(predictions=PREDICTIONS[:4], references=REFERENCES[:4])
    with pytest.raises(TypeError, match="encoder"):
        load("mauve").compute(predictions=PREDICTIONS, references=REFERENCES)


def test_module_path_refuses_an_unknown_name():
    with pytest.raises(ValueError, match=f"no module 'bleu' for `evaluate`. choose one of {', '.join(NAMES)}"):
        module_path("bleu")
