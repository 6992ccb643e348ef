"""Two tiny generators with random weights beside sentences of random words."""

import gc
import json
import math
import random
import shutil
import sys
import weakref
from importlib import metadata
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import GPT2LMHeadModel

from hf_mgan import SafetyGate
from hf_mgan.decoding.sampling import sample
from hf_mgan.evaluation import EvaluationConfig, evaluate_generator, run
from hf_mgan.evaluation import evaluated_model as model_module
from hf_mgan.evaluation.models import load_generator
from hf_mgan.evaluation.text_metrics import METRICS, OF_GENERATOR, text_metrics
from hf_mgan.metrics import bleu, bootstrap_interval, fine_tuned_c2st, fine_tuning, share_interval

from ..conftest import VOCABULARY, bert_classifier, texts
from .conftest import new_generator, new_tokenizer


COUNT, LENGTH = 20, 8
TEMPERATURES = [0.9, 1.3]
HELD_OUT = Dataset.from_dict({"text": texts(2 * COUNT, seed=1)})
TRAINING = Dataset.from_dict({"text": texts(30, seed=2)})
END = 2


def has_a_king(completions):
    return ["king" in text for text in completions]


def settings(folder, **changes):
    values = {
        "num_samples": COUNT,
        "temperatures": TEMPERATURES,
        "max_completion_length": LENGTH,
        "batch_size": 16,
        "reverse_perplexity": False,
        "fine_tuned_test": False,  # a second per set
    }
    return EvaluationConfig(str(folder), **{**values, **changes})


def few(folder, **changes):
    """Return settings of what is too few for a two-sample test: six texts at one temperature."""
    return settings(folder, **{"num_samples": 6, "temperatures": [0.9], **changes})


@pytest.fixture(autouse=True)
def nothing_is_drawn(monkeypatch):
    """Plots take half of the time of an evaluation; that of the fixture has them."""
    monkeypatch.setattr(run, "draw", lambda *_: None)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    bert_classifier().bert.save_pretrained(folder)
    new_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def evaluated(folders, encoder, tmp_path_factory):
    """Return an evaluation of both models and its folder."""
    folder = tmp_path_factory.mktemp("evaluated")
    report = evaluate_generator(
        folders, HELD_OUT, settings(folder, encoder=encoder), training=TRAINING, safety=SafetyGate(has_a_king)
    )
    return report, folder


@pytest.fixture
def again(evaluated, folders, encoder, tmp_path):
    """Return the function that evaluates in a copy of that folder, with other arguments if there are any."""
    shutil.copytree(evaluated[1], tmp_path / "copy")

    def evaluate(models=folders, held_out=HELD_OUT, changes=None, **arguments):
        arguments = {"training": TRAINING, "safety": SafetyGate(has_a_king), **arguments}
        config = settings(tmp_path / "copy", **{"encoder": encoder, **(changes or {})})
        return evaluate_generator(models, held_out, config, **arguments)

    return evaluate, tmp_path / "copy"


def made(folder):
    """Return when each sample and part was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.glob("*/*.json")}


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    def loaded(*_, **__):
        raise AssertionError("something was loaded")

    for module, name in (
        (model_module, "load_generator"),
        (model_module, "load_tokenizer"),
        (run, "encoder_features"),
    ):
        monkeypatch.setattr(module, name, loaded)


def halves(rows, size=COUNT, seed=0):
    """Return the rows to compare with and those of the row of real texts."""
    order = random.Random(seed).sample(range(len(rows)), 2 * size)
    return [rows[place] for place in order[:size]], [rows[place] for place in order[size:]]


def nats_per_token(model, prompts, rows, temperature):
    """Compute -log q per token, text by text without padding."""
    total = 0.0
    for prompt, row in zip(prompts, rows, strict=True):
        with torch.no_grad():
            logits = model.eval()(torch.tensor([[*prompt, *row]])).logits[0, len(prompt) - 1 : -1]
        total -= (logits / temperature).log_softmax(-1).gather(1, torch.tensor(row)[:, None]).sum().item()
    return total / sum(map(len, rows))


def test_evaluate_writes_the_files_of_every_part(evaluated):
    report, folder = evaluated
    cells = {f"{name}_T{temperature:g}.json" for name in ("start", "tuned") for temperature in TEMPERATURES}
    assert {path.name for path in (folder / "samples").iterdir()} == cells
    assert {path.name for path in (folder / "parts").iterdir()} == cells | {"real.json"}
    assert {path.name for path in folder.iterdir()} == {
        "settings.json", "samples", "parts", "report.json", "report.md", "frontier.png", "calibration.png",
        "lengths.png",
    }  # fmt: skip
    assert (report.models, report.baseline, report.temperatures) == (["start", "tuned"], "start", TEMPERATURES)
    assert report.settings["samples_each"] == COUNT
    for part in report.parts.values():
        assert part["seconds"] >= 0
        assert 0.05 < part["peak_memory_gib"] < 50


def test_evaluate_draws_at_the_temperature(evaluated, folders):
    for name in ("start", "tuned"):
        model, tokenizer = load_generator(folders[name])
        for temperature in TEMPERATURES:
            expected = sample(model, tokenizer, ["<s>"] * COUNT, LENGTH, temperature, batch_size=16)
            part = evaluated[0].parts[f"{name}_T{temperature:g}"]
            assert part["texts"] == expected.texts
            assert part["tokens"] == sum(map(len, expected.completion_ids))


def rounded(metrics):
    return {name: [round(value, 6) for value in interval] for name, interval in metrics.items()}


def test_evaluate_metrics_are_those_of_the_texts(evaluated, encoder):
    report, _ = evaluated
    real, further = halves(HELD_OUT["text"])
    features = run._encoder_features(encoder)
    for name in ("tuned_T0.9", "real"):
        part = report.parts[name]
        expected = text_metrics(
            part["texts"], real, training=TRAINING["text"], features=features, is_unsafe=has_a_king, reverse=False
        )
        own = {name: value for name, value in part["metrics"].items() if name not in OF_GENERATOR}
        assert own == rounded(expected.metrics)
        assert part["calibration"] == [list(one) for one in expected.c2st.calibration]
        assert part["lengths"] == expected.lengths
        assert list(part["metrics"]) == [name for name in METRICS if name in part["metrics"]]
    assert report.parts["real"]["texts"] == further
    assert "bleu" not in report.parts["tuned_T0.9"]["metrics"]  # there are no prompts


def test_evaluate_likelihoods_at_a_temperature_by_hand(evaluated, folders):
    real, _ = halves(HELD_OUT["text"])
    for name in ("start", "tuned"):
        model, tokenizer = load_generator(folders[name])
        real_ids = [[*tokenizer(text)["input_ids"], END] for text in real]
        for temperature in TEMPERATURES:
            drawn = sample(model, tokenizer, ["<s>"] * COUNT, LENGTH, temperature, batch_size=16)
            metrics = evaluated[0].parts[f"{name}_T{temperature:g}"]["metrics"]
            for metric, rows in (("real_nll", real_ids), ("entropy", drawn.completion_ids)):
                value, low, high = metrics[metric]
                assert value == pytest.approx(nats_per_token(model, [[1]] * COUNT, rows, temperature), abs=1e-5)
                assert low < value < high


def test_evaluate_reads_real_texts_once_for_all_temperatures(folders, tmp_path, monkeypatch):
    asked = []
    compute = model_module.tempered_logps

    def watched(model, prompt_ids, completion_ids, temperatures, batch_size):
        asked.append(list(temperatures))
        return compute(model, prompt_ids, completion_ids, temperatures, batch_size)

    monkeypatch.setattr(model_module, "tempered_logps", watched)
    evaluate_generator(folders, HELD_OUT, few(tmp_path, temperatures=[0.8, 1.0]))
    of_a_model = [[0.8], [0.8, 1.0], [1.0]]  # samples, the real texts at both, samples
    assert asked == 2 * of_a_model


def test_evaluate_unsafe_rate_is_the_gates(evaluated):
    for part in evaluated[0].parts.values():
        interval = share_interval(has_a_king(part["texts"]))
        assert part["metrics"]["unsafe_rate"] == [round(value, 6) for value in interval]


def test_evaluate_cuts_real_texts_like_completions(folders, tmp_path):
    """Five of six words: the end is not among the tokens whose likelihood counts. Seed and level are others too."""
    config = settings(tmp_path, temperatures=[1.0], max_completion_length=5, seed=4, level=0.5)
    report = evaluate_generator(folders["start"], HELD_OUT, config)
    real, further = halves(HELD_OUT["text"], seed=4)
    assert report.parts["real"]["texts"] == [" ".join(text.split()[:5]) for text in further]
    model, tokenizer = load_generator(folders["start"])
    drawn = sample(model, tokenizer, ["<s>"] * COUNT, 5, seed=4, batch_size=16)
    assert report.parts["start_T1"]["texts"] == drawn.texts
    cut = [" ".join(text.split()[:5]) for text in real]
    expected = text_metrics(drawn.texts, cut, reverse=False, seed=4, level=0.5).metrics
    assert report.metric("start_T1", "c2st_auc") == pytest.approx(expected["c2st_auc"], abs=1e-6)
    rows = [tokenizer(text)["input_ids"][:5] for text in real]
    narrow = bootstrap_interval([nats_per_token(model, [[1]], [row], 1.0) for row in rows], seed=4, level=0.5)
    assert report.metric("start_T1", "real_nll") == pytest.approx(narrow, abs=1e-5)  # all texts have five tokens


def test_evaluate_a_loaded_model_as_its_folder(evaluated, folders, encoder, tmp_path):
    model = GPT2LMHeadModel.from_pretrained(folders["start"]).train()
    assert model.config.resid_pdrop > 0
    report = evaluate_generator(model, HELD_OUT, settings(tmp_path, encoder=encoder), training=TRAINING)
    assert model.training
    for temperature in TEMPERATURES:
        metrics = evaluated[0].parts[f"start_T{temperature:g}"]["metrics"]
        own = report.parts[f"model_T{temperature:g}"]["metrics"]
        assert set(metrics) - set(own) == {"unsafe_rate"}
        for name, value in own.items():
            assert value == pytest.approx(metrics[name], abs=1e-5), name


def test_evaluate_a_model_and_tokenizer_from_nowhere(tmp_path):
    report = evaluate_generator(
        {"new": new_generator(seed=3)},
        HELD_OUT,
        few(tmp_path, reverse_perplexity=True, num_samples=10),
        processing_classes={"new": new_tokenizer()},
    )
    perplexity = report.metric("new_T0.9", "reverse_perplexity")
    assert perplexity.value > 1
    assert math.isnan(perplexity.low)
    assert "NaN" not in (tmp_path / "parts" / "new_T0.9.json").read_text()  # which is no JSON
    assert len(report.parts["new_T0.9"]["texts"]) == len(report.parts["real"]["texts"]) == 10


@pytest.mark.usefixtures("nothing_is_loaded")
def test_evaluate_again_loads_nothing(again, evaluated):
    evaluate, folder = again
    before = made(folder)
    report = evaluate()
    assert made(folder) == before
    assert report.parts == evaluated[0].parts
    assert report.verdicts() == evaluated[0].verdicts()


def test_evaluate_from_a_source_tree_not_installed(again, evaluated, monkeypatch):
    def version(name):
        if name == "hf-mgan":
            raise metadata.PackageNotFoundError(name)
        return metadata.version(name)

    monkeypatch.setattr(run, "version", version)
    report = again[0]()
    assert report.versions == evaluated[0].versions | {"hf-mgan": "not installed"}


@pytest.mark.parametrize("lost", ["parts/tuned_T0.9.json", "samples/start_T1.3.json", "parts/real.json"])
def test_evaluate_makes_again_what_is_lost_alone(again, evaluated, lost):
    evaluate, folder = again
    before = made(folder)
    (folder / lost).unlink()
    report = evaluate()
    after = made(folder)
    assert {name for name in after if after[name] != before[name]} == {lost}
    for name, part in evaluated[0].parts.items():
        for key in ("metrics", "texts", "lengths", "calibration"):
            assert report.parts[name][key] == part[key]


def test_evaluate_goes_on_after_it_was_stopped(folders, tmp_path, monkeypatch):
    """It stops at the metrics of the second of two temperatures: both are drawn, one has its metrics."""
    compute = run._compute

    def stopped(one, samples, *rest):
        if samples["texts"] == json.loads((tmp_path / "samples" / "start_T1.3.json").read_text())["texts"]:
            raise KeyboardInterrupt
        return compute(one, samples, *rest)

    monkeypatch.setattr(run, "_compute", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate_generator(folders["start"], HELD_OUT, settings(tmp_path))
    before = made(tmp_path)
    assert set(before) == {
        "samples/start_T0.9.json", "samples/start_T1.3.json", "parts/real.json", "parts/start_T0.9.json"
    }  # fmt: skip
    monkeypatch.undo()
    evaluate_generator(folders["start"], HELD_OUT, settings(tmp_path))
    after = made(tmp_path)
    assert {name for name in after if after[name] != before.get(name)} == {"parts/start_T1.3.json"}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"changes": {"num_samples": 10}}, "num_samples"),
        ({"changes": {"max_completion_length": 7, "seed": 1}}, "max_completion_length, seed"),
        ({"changes": {"encoder": None}}, "encoder"),
        ({"changes": {"fine_tuned_test": True}}, "fine_tuned_test"),
        ({"changes": {"unit": "character"}}, "unit"),
        ({"changes": {"level": 0.9}}, "level"),
        ({"held_out": HELD_OUT.select(range(1, 2 * COUNT))}, "held_out"),
        ({"held_out": HELD_OUT.select(range(2 * COUNT)[::-1])}, "held_out"),
        ({"training": None}, "training"),
        ({"training": TRAINING.select(range(29))}, "training"),
        ({"safety": None}, "safety"),
        ({"safety": SafetyGate(has_a_king, threshold=0.4)}, "safety"),
        ({"safety": SafetyGate(bert_classifier(), processing_class=new_tokenizer())}, "safety"),
        ({"prepare": {"prompt_tokens": (1, 2)}}, "prepare"),
    ],
)
@pytest.mark.usefixtures("nothing_is_loaded")
def test_evaluate_refuses_other_settings_in_the_folder(again, changes, names):
    evaluate, folder = again
    before = made(folder)
    with pytest.raises(ValueError, match=rf"parts of an evaluation with other settings \({names}\)"):
        evaluate(**changes)
    assert made(folder) == before


def test_evaluate_another_safety_classifier_is_another_setting(folders, tmp_path):
    """One of the same form and threshold, in which other weights or another label say what is unsafe."""

    def evaluate(seed, label):
        gate = SafetyGate(bert_classifier(num_labels=2, seed=seed), label, processing_class=new_tokenizer())
        return evaluate_generator(folders["start"], HELD_OUT, few(tmp_path), safety=gate)

    evaluate(1, 0)
    evaluate(1, 0)
    for seed, label in ((2, 0), (1, 1)):
        with pytest.raises(ValueError, match=r"other settings \(safety\)"):
            evaluate(seed, label)


def test_evaluate_refuses_a_model_that_has_changed(again, folders, tmp_path):
    shutil.copytree(folders["start"], tmp_path / "start")
    new_generator(seed=1).save_pretrained(tmp_path / "start")
    evaluate, _ = again
    with pytest.raises(ValueError, match=r"other settings \(model start\)"):
        evaluate({"start": str(tmp_path / "start"), "tuned": folders["tuned"]})


def test_evaluate_more_models_and_temperatures_join(again, evaluated, folders):
    evaluate, folder = again
    before = made(folder)
    report = evaluate(
        {"third": new_generator(seed=2), **folders},
        changes={"temperatures": [1.0, *TEMPERATURES], "baseline": "start"},
        processing_classes={"third": new_tokenizer()},
    )
    after = made(folder)
    assert {name: after[name] for name in before} == before
    cells = {*(f"third_T{one:g}" for one in (1.0, *TEMPERATURES)), "start_T1", "tuned_T1"}
    assert set(after) - set(before) == {f"{kind}/{cell}.json" for kind in ("samples", "parts") for cell in cells}
    assert list(report.verdicts()) == ["third", "tuned"]
    kept = json.loads((folder / "settings.json").read_text())["models"]
    assert set(kept) == {"start", "tuned", "third"}


def test_evaluate_one_of_the_models_alone(again, folders):
    evaluate, folder = again
    report = evaluate({"tuned": folders["tuned"]}, changes={"temperatures": [1.3]})
    assert list(report.parts) == ["real", "tuned_T1.3"]
    assert set(json.loads((folder / "settings.json").read_text())["models"]) == {"start", "tuned"}


def test_evaluate_holds_one_model_in_memory(folders, tmp_path, monkeypatch):
    loaded, others = [], []

    def count_others():
        gc.collect()
        others.append(sum(one() is not None for one in loaded))

    def load(*args, **kwargs):
        count_others()
        model, tokenizer = load_generator(*args, **kwargs)
        loaded.append(weakref.ref(model))
        return model, tokenizer

    def watched(*args):
        count_others()
        return compute_of_real(*args)

    compute_of_real = run._compute_of_real
    monkeypatch.setattr(model_module, "load_generator", load)
    monkeypatch.setattr(run, "_compute_of_real", watched)
    evaluate_generator({**folders, "again": folders["start"]}, HELD_OUT, few(tmp_path))
    assert others == [0, 0, 0, 0]


PAIRS = Dataset.from_dict(
    {
        "prompt": [f"<s> {text}" for text in texts(2 * COUNT, seed=3, length=2)],
        "completion": texts(2 * COUNT, seed=4, length=5),
    }
)


def test_evaluate_data_with_prompts_brings_bleu(folders, tmp_path):
    report = evaluate_generator(folders["start"], PAIRS, settings(tmp_path, temperatures=[0.9]))
    model, tokenizer = load_generator(folders["start"])
    rows, further = halves(list(PAIRS))
    prompts = [row["prompt"] for row in rows]
    expected = sample(model, tokenizer, prompts, LENGTH, 0.9, batch_size=16)
    part = report.parts["start_T0.9"]
    assert part["texts"] == [text.lstrip() for text in expected.texts]  # as the references begin
    assert part["metrics"]["bleu"][0] == pytest.approx(
        bleu(expected.texts, [row["completion"] for row in rows]).score, abs=1e-5
    )
    ids = [[*tokenizer(row["completion"])["input_ids"], END] for row in rows]
    prompt_ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    assert part["metrics"]["real_nll"][0] == pytest.approx(nats_per_token(model, prompt_ids, ids, 0.9), abs=1e-5)
    assert report.parts["real"]["texts"] == [row["completion"] for row in further]
    assert "bleu" not in report.parts["real"]["metrics"]  # those texts have other prompts
    assert part["prompts"] == [prompt.removeprefix("<s> ") for prompt in prompts[:5]]
    assert report.parts["real"]["prompts"] == [row["prompt"].removeprefix("<s> ") for row in further[:5]]


def test_evaluate_names_a_missing_package_first(folders, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ImportError, match=r"hf-mgan\[evaluation\]"):
        evaluate_generator(folders["start"], PAIRS, few(tmp_path))
    assert not list(tmp_path.rglob("start_*"))


def test_evaluate_gives_the_safety_classifier_prompts(folders, tmp_path):
    """As in training: without the generator's special tokens. The row of real texts has prompts of its own."""
    seen = []

    def classify(prompts, completions):
        seen.append(list(zip(prompts, completions, strict=True)))
        return [False] * len(prompts)

    gate = SafetyGate(classify, with_prompt=True)
    report = evaluate_generator(folders["start"], PAIRS, settings(tmp_path, temperatures=[0.9]), safety=gate)
    rows, further = halves(list(PAIRS))
    assert seen[0] == [(row["prompt"].removeprefix("<s> "), row["completion"]) for row in further]
    assert [prompt for prompt, _ in seen[1]] == [row["prompt"].removeprefix("<s> ") for row in rows]
    assert [text for _, text in seen[1]] == report.parts["start_T0.9"]["texts"]


def test_evaluate_splits_prompts_as_in_training(folders, tmp_path):
    report = evaluate_generator(
        folders["start"],
        HELD_OUT,
        settings(tmp_path, temperatures=[0.9]),
        training=TRAINING,
        prepare={"prompt_tokens": (2, 2)},
    )
    rows, further = halves(HELD_OUT["text"])
    assert report.parts["real"]["texts"] == [" " + " ".join(text.split()[2:]) for text in further]
    model, tokenizer = load_generator(folders["start"])
    prompts = [f"<s>{' '.join(text.split()[:2])}" for text in rows]
    assert report.parts["start_T0.9"]["texts"] == sample(model, tokenizer, prompts, LENGTH, 0.9, batch_size=16).texts
    assert {"bleu", "copied_share"} <= set(report.parts["start_T0.9"]["metrics"])


def test_evaluate_answers_conversations(folders, tmp_path):
    talks = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        for question, answer in zip(texts(2 * COUNT, seed=5, length=3), texts(2 * COUNT, seed=6), strict=True)
    ]
    tokenizer = new_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}."
    report = evaluate_generator(
        folders["start"],
        Dataset.from_dict({"messages": talks}),
        few(tmp_path, num_samples=COUNT // 2),
        processing_classes={"start": tokenizer},
    )
    assert "bleu" in report.parts["start_T0.9"]["metrics"]
    first, further = halves(talks, size=COUNT // 2)
    assert report.parts["start_T0.9"]["prompts"] == [talk[0]["content"] for talk in first[:5]]
    assert report.parts["real"]["texts"] == [talk[1]["content"] for talk in further]


def test_evaluate_counts_texts_without_spaces_in_characters(folders, tmp_path):
    """Lengths are those of the words without the spaces between them."""
    report = evaluate_generator(folders["start"], HELD_OUT, settings(tmp_path, temperatures=[0.9], unit="character"))
    _, further = halves(HELD_OUT["text"])
    assert report.parts["real"]["lengths"] == [len(text.replace(" ", "")) for text in further]
    assert report.parts["start_T0.9"]["lengths"] == [
        len(text.replace(" ", "")) for text in report.parts["start_T0.9"]["texts"]
    ]


def test_evaluate_encodes_each_set_of_texts_once(folders, tmp_path, monkeypatch):
    """Those to compare with, the further real ones, and the completions at two temperatures."""
    read = []

    def encoder(*_, **__):
        read.append("loaded")

        def features(texts):
            read.append(len(texts))
            return torch.tensor([[float(len(text)), float(text.count("e"))] for text in texts])

        return features

    monkeypatch.setattr(run, "encoder_features", encoder)
    report = evaluate_generator(folders["start"], HELD_OUT, few(tmp_path, temperatures=TEMPERATURES, encoder="one"))
    assert read == ["loaded", 6, 6, 6, 6]
    assert report.metric("start_T1.3", "frechet").value > 0


@pytest.mark.slow
def test_evaluate_fine_tunes_the_encoder_for_the_verdict(folders, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(fine_tuning, "MIN_STEPS", 4)
    assert EvaluationConfig().fine_tuned_test
    report = evaluate_generator(folders, HELD_OUT, settings(tmp_path, encoder=encoder, fine_tuned_test=True))
    real, further = halves(HELD_OUT["text"])
    for name in ("real", "tuned_T1.3"):
        expected = fine_tuned_c2st(real, report.parts[name]["texts"], encoder).auc
        assert report.metric(name, "fine_tuned_c2st_auc") == pytest.approx(expected, abs=1e-6)
        assert next(iter(report.parts[name]["metrics"])) == "fine_tuned_c2st_auc"
    assert report.parts["real"]["texts"] == further
    assert next(iter(report.verdicts()["tuned"])) == "fine_tuned_c2st_auc"


@pytest.mark.parametrize("place", ["discriminator", "discriminator/model"])
@pytest.mark.usefixtures("nothing_is_loaded")
def test_evaluate_refuses_the_discriminator_as_encoder(folders, encoder, tmp_path, place):
    """The one that lies beside a model under evaluation, whatever its name, by its weights; another one may."""
    generator = shutil.copytree(folders["start"], tmp_path / "generator")
    shutil.copytree(encoder, generator / place)
    config = settings(tmp_path / "out", encoder=encoder)
    with pytest.raises(ValueError, match="has the weights of the discriminator"):
        evaluate_generator([folders["start"], f"trained={generator}"], HELD_OUT, config)
    assert not (tmp_path / "out").exists()
    bert_classifier(seed=2).save_pretrained(generator / place)
    with pytest.raises(AssertionError, match="something was loaded"):
        evaluate_generator(str(generator), HELD_OUT, config)


def test_evaluate_real_texts_pass_through_each_tokenizer(folders, tmp_path):
    """The second model's lacks a word, and so neither its completions nor the real texts beside them have it."""
    real, _ = halves(HELD_OUT["text"], size=6)
    lost = real[0].split()[0]
    other = new_tokenizer({word: id for word, id in VOCABULARY.items() if word != lost})
    report = evaluate_generator(folders, HELD_OUT, few(tmp_path), processing_classes={"tuned": other})
    without = [" ".join(word for word in text.split() if word != lost) for text in real]
    for name, own in (("start_T0.9", real), ("tuned_T0.9", without)):
        expected = text_metrics(report.parts[name]["texts"], own, reverse=False).metrics["length_ratio"]
        assert report.metric(name, "length_ratio") == pytest.approx(expected, abs=1e-6)


def test_evaluate_num_training_texts(folders, tmp_path):
    """All real texts are training texts too: found among all of them, and mostly not among three."""
    shares = []
    for number in (1000, 3):
        evaluation = few(tmp_path / str(number), num_training_texts=number)
        report = evaluate_generator(folders["start"], HELD_OUT, evaluation, training=HELD_OUT)
        shares.append(report.metric("real", "copied_share").value)
    assert "near_duplicates" in report.parts["start_T0.9"]["metrics"]
    assert shares[0] == 1
    assert shares[1] < 0.6


@pytest.mark.usefixtures("nothing_is_loaded")
def test_evaluate_names_a_missing_matplotlib_first(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'hf-mgan\[evaluation\]'"):
        evaluate_generator("start", HELD_OUT, settings(tmp_path / "out"))


@pytest.mark.usefixtures("nothing_is_loaded")
def test_evaluate_refuses_before_anything_is_loaded(tmp_path):
    config = settings(tmp_path / "out")
    with pytest.raises(ValueError, match=r"got 5\. Give at least 6"):
        evaluate_generator("start", HELD_OUT.select(range(5)), config)
    with pytest.raises(ValueError, match="baseline names other, and the models are start"):
        evaluate_generator("start", HELD_OUT, settings(tmp_path / "out", baseline="other"))
    with pytest.raises(ValueError, match="processing_classes names other, and the models are start"):
        evaluate_generator("start", HELD_OUT, config, processing_classes={"other": None})
    with pytest.raises(ValueError, match="Several models"):
        evaluate_generator(["a=start", "a=tuned"], HELD_OUT, config)
    assert not (tmp_path / "out").exists()


def test_evaluate_refuses_prompts_without_references(folders, tmp_path):
    prompts = PAIRS.select_columns(["prompt"])
    with pytest.raises(ValueError, match="no real texts to compare with"):
        evaluate_generator(folders["start"], prompts, few(tmp_path / "held_out"))
    with pytest.raises(ValueError, match="no real texts to compare with"):
        evaluate_generator(folders["start"], PAIRS, few(tmp_path / "training"), training=prompts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_samples": 2}, "num_samples must be at least 3, got 2"),
        ({"max_completion_length": 0}, "max_completion_length must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_training_texts": 0}, "num_training_texts must be at least 1, got 0"),
        ({"temperatures": []}, r"temperatures must be a list of numbers greater than 0, at least 1 of them, got \[\]"),
        ({"temperatures": [1.0, 0.0]}, r"temperatures\[1\] must be greater than 0"),
        ({"temperatures": [1.0, 1.0]}, "temperatures must differ from one another"),
        ({"unit": "syllable"}, "unit must be one of .* got 'syllable'"),
        ({"level": 95}, "level must be greater than 0 and less than 1, got 95"),
    ],
)
def test_evaluation_config_refuses_values_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        EvaluationConfig(**changes).check()


def test_evaluate_of_three_samples(folders, tmp_path):
    report = evaluate_generator(folders, HELD_OUT.select(range(6)), settings(tmp_path))
    assert report.settings["samples_each"] == 3
    assert report.verdicts() == {"tuned": {}}  # too few for a two-sample test
    assert Path(tmp_path / "report.md").exists()
