"""The benchmark on real text with tiny models and corpora: every stage, resuming, and the arithmetic of the page."""

import json
from statistics import NormalDist

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from hf_mgan.metrics import Interval

from ..conftest import VOCABULARY, texts


pytest.importorskip("matplotlib", reason="the extra `evaluation` is not installed")

from benchmarks.real_text import __main__ as real_text
from benchmarks.real_text import stages
from benchmarks.real_text import tables as real_text_tables
from benchmarks.sweep import read_lines
from hf_mgan.evaluation.comparison import Comparison, Verdict


@pytest.fixture
def run_tiny(tmp_path, tokenizer, pair_tokenizer, classifier):
    """Run the benchmark on tiny models and texts."""
    models, data = tmp_path / "models", tmp_path / "data"
    for name, model, own in (
        ("discriminator", classifier, pair_tokenizer),
        ("Llama", LlamaForCausalLM(tiny_llama()), tokenizer),
    ):
        model.save_pretrained(models / name)
        own.save_pretrained(models / name)
    data.mkdir()
    for split, count, seed in (("train", 96, 0), ("validation", 40, 1)):
        rows = [json.dumps({"text": text}) for text in texts(count, seed)]
        (data / f"sentences.{split}.jsonl").write_text("\n".join(rows) + "\n")

    def run(generator, *more):
        generator = str(models / generator) if generator == "Llama" else generator
        real_text.main(
            [
                *f"--generator {generator} --discriminator {models / 'discriminator'} --data {data / 'sentences'} "
                f"--output {tmp_path / 'out'} --seeds 0 --steps 2 --batch_size 8 --warmup_steps 1 "
                "--supervised_steps 2 --epochs 1 --width 16 --layers 1 --vocabulary 300 --max_completion_length 8 "
                "--temperatures 0.8 1.0 --num_samples 24 --further_held_out 16 --encoder none "
                "--no-reverse_perplexity --evaluation_batch_size 8".split(),
                *more,
            ]
        )
        return tmp_path / "out" / "sentences"

    return run


def tiny_llama():
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return LlamaConfig(
        vocab_size=len(VOCABULARY), num_key_value_heads=1, max_position_embeddings=64, **sizes, **tokens
    )


SMALL = "small_rate_0.001_anchor_0.01"


def test_small_generator_goes_through_all_stages_once(run_tiny, capsys, monkeypatch):
    folder = run_tiny("small") / SMALL / "seed_0"
    done = ["adversarial", "evaluation", "frozen", "supervised"]  # more supervised training has nothing to add
    assert sorted(path.stem for path in folder.glob("*.json")) == done
    report = json.loads((folder / "evaluation" / "report.json").read_text())
    assert report["models"] == ["supervised", "frozen", "adversarial"]
    assert len(report["parts"]) == 1 + 3 * 2
    frozen, adversarial = (json.loads((folder / f"{name}.json").read_text()) for name in ("frozen", "adversarial"))
    assert frozen["steps"] == adversarial["steps"] == adversarial["steps_asked"] == 2
    assert adversarial["batch_size"] == 8

    capsys.readouterr()
    monkeypatch.setattr(stages.Run, "_train", None)
    run_tiny("small")
    assert capsys.readouterr().out.count("is there already") == 4


def test_curve_measures_the_generator_on_the_way(run_tiny):
    folder = run_tiny("small", "--stages", "supervised", "curve", "--steps", "8") / SMALL / "seed_0"
    (run,) = real_text_tables.gather(folder.parents[2])
    assert (run["trained"], run["seed"], run["corpus"]) == ("curve", 0, "sentences")
    assert [(row["texts"], row["temperature"]) for row in run["rows"]] == [
        (texts, T) for texts in (0, 8, 16, 32, 64) for T in (0.8, 1.0)
    ]
    nlls = [row["metrics"]["real_nll"][0] for row in run["rows"] if row["temperature"] == 1]
    assert len(set(nlls)) == 5
    text = real_text_tables.page([run])
    assert "| 64 | " in text
    assert "{" not in text


def test_curve_goes_on_where_it_was_stopped(run_tiny, monkeypatch):
    save, asked = stages.Run._save, ("small", "--stages", "supervised", "curve", "--steps", "8")

    def stop(run, trainer, name):
        if name == "32_texts":
            raise KeyboardInterrupt
        save(run, trainer, name)

    monkeypatch.setattr(stages, "SAVE_STEPS", 1)
    monkeypatch.setattr(stages.Run, "_save", stop)
    with pytest.raises(KeyboardInterrupt):
        run_tiny(*asked)
    names = []
    monkeypatch.setattr(stages.Run, "_save", lambda run, trainer, name: [names.append(name), save(run, trainer, name)])
    folder = run_tiny(*asked) / SMALL / "seed_0"
    assert names == ["32_texts", "64_texts"]
    resumed = json.loads((folder / "curve.json").read_text())["rows"]
    for path in (folder / "curve.json", *folder.glob("*_texts/*")):
        path.unlink()
    for path in folder.glob("*_texts"):
        path.rmdir()
    run_tiny(*asked)
    assert json.loads((folder / "curve.json").read_text())["rows"] == resumed


def test_frozen_discriminator_stays_as_its_warmup_left_it(run_tiny, monkeypatch):
    left = {}
    original = stages.freeze

    def freeze(trainer):
        original(trainer)
        left["trainer"] = trainer
        left["weights"] = {name: value.clone() for name, value in trainer.discriminator.model.state_dict().items()}

    monkeypatch.setattr(stages, "freeze", freeze)
    run_tiny("small", "--stages", "supervised", "frozen")
    after = left["trainer"].discriminator.model.state_dict()
    assert left["trainer"].discriminator.num_updates == 3  # one of the warm-up, and two that change nothing
    assert all(value.equal(after[name]) for name, value in left["weights"].items())


def test_pretrained_generator_keeps_adapters_and_is_published(run_tiny, tmp_path, monkeypatch):
    folder = run_tiny("Llama")
    assert (folder / "Llama_rate_5e-05_anchor_0.1" / "seed_0" / "longer" / "adapter_config.json").exists()
    monkeypatch.setattr(real_text, "COMMITTED", tmp_path / "real_text.jsonl")
    monkeypatch.setattr(real_text, "PAGE", tmp_path / "real_text.md")
    real_text.main(["--output", str(tmp_path / "out"), "--publish"])
    (run,) = read_lines(tmp_path / "real_text.jsonl")
    assert run["models"] == ["supervised", "longer", "frozen", "adversarial"]
    assert str(tmp_path) not in (tmp_path / "real_text.jsonl").read_text()
    page = (tmp_path / "real_text.md").read_text()
    assert "## sentences, Llama, learning rate 5e-05, anchor 0.1" in page
    assert "| adversarial | longer | C2ST AUC |" in page


def test_other_settings_have_a_folder_of_their_own(run_tiny):
    words = "--learning_rate 2e-4 --real_text_coef 0 --stages supervised adversarial"
    folder = run_tiny("small", *words.split())
    result = json.loads((folder / "small_rate_0.0002_anchor_0" / "seed_0" / "adversarial.json").read_text())
    assert result["settings"]["learning_rate"] == 2e-4
    assert result["settings"]["real_text_coef"] == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--output o --learning_rate 0", "--learning_rate"),
        ("--output o --real_text_coef -0.1", "--real_text_coef"),
        ("--generator small", "--output"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(words, named, capsys):
    with pytest.raises(SystemExit):
        real_text.parsed_arguments(words.split())
    assert named in capsys.readouterr().err.splitlines()[-1]


def test_encoder_is_another_model_than_the_discriminator(tmp_path):
    arguments = real_text.parsed_arguments(["--output", str(tmp_path)])
    assert arguments.encoder != arguments.discriminator


def test_page_has_a_section_for_supervised_runs_alone():
    run = run_of(0, 0.6)
    del run["stages"]["adversarial"]
    assert "## c, g, learning rate 2e-4, anchor 0.3" in real_text_tables.page([{**run, "models": ["supervised"]}])


def run_of(seed, adversarial):
    """Return a run whose baseline has the AUC of C2ST 0.8 and 0.6 at the self-BLEU 0.3 and 0.1."""

    def part(auc, self_bleu):
        return {"c2st_auc": [auc, auc - 0.01, auc + 0.01], "self_bleu": [self_bleu, self_bleu, self_bleu]}

    metrics = {"supervised_T0.8": part(0.8, 0.3), "supervised_T1": part(0.6, 0.1), "real": part(0.5, 0.1)}
    metrics |= {"adversarial_T0.8": part(adversarial + 0.05, 0.25), "adversarial_T1": part(adversarial, 0.2)}
    own_stages = {
        "supervised": {"device": "CPU"},
        "adversarial": {"steps": 7, "alarms": [], "settings": {"learning_rate": 2e-4, "real_text_coef": 0.3}},
    }
    return {
        "corpus": "c",
        "generator": "g_rate_2e-4_anchor_0.3",
        "seed": seed,
        "models": ["supervised", "adversarial"],
        "temperatures": [0.8, 1.0],
        "level": 0.95,
        "texts": 9,
        "encoder": None,
        "metrics": metrics,
        "stages": own_stages,
    }


def test_page_holds_verdicts_and_the_mean_gain():
    runs = [run_of(0, 0.6), run_of(1, 0.64)]  # the baseline has 0.7 at the self-BLEU 0.2: gains of 0.1 and 0.06
    table = real_text_tables.verdict_table(runs)
    assert "| adversarial | supervised | C2ST AUC | better, better | better at T = 0.8, 1 | +0.080 ± 0.028 |" in table
    best = real_text_tables.best_table(runs)
    assert "| supervised | 1, 1 | 0.600 ± 0.000 |" in best
    assert "| adversarial | 1, 1 | 0.620 ± 0.028 |" in best
    page = real_text_tables.page(runs)
    assert "## c, g, learning rate 2e-4, anchor 0.3" in page
    assert "| seeds | 0, 1 |" in page
    assert "| steps of adversarial | 7, 7 |" in page


def gains_of(*gains, error, number=1):
    """Return a verdict of each gain at temperature 1, with that standard error, beside `number - 1` gains of 0."""
    reach = NormalDist().inv_cdf(1 - 0.05 / 2 / number) * error

    def verdict(gain):
        values = [gain, *[0.0] * (number - 1)]
        temperatures = [1.0, 0.9, 0.8][:number]
        compared = [
            Comparison(temperature, (0.8, 1.1), 0.5, 0.5, Interval(value, value - reach, value + reach))
            for temperature, value in zip(temperatures, values, strict=True)
        ]
        return Verdict("undecided", compared, [])

    return [verdict(gain) for gain in gains]


@pytest.mark.parametrize(
    ("gains", "error", "number", "word"),
    [
        # Four equal gains of 1.9 errors, none of which decides alone, have a mean of 3.8 errors of the mean.
        ((1.9, 1.9, 1.9, 1.9), 1.0, 1, "better at T = 1"),
        ((-1.9, -1.9, -1.9, -1.9), 1.0, 1, "worse at T = 1"),
        ((0.9, 0.9, 0.9, 0.9), 1.0, 1, "undecided"),  # 1.8 < 1.96
        ((1.1, 1.1, 1.1, 1.1), 1.0, 1, "better at T = 1"),  # 2.2 > 1.96
        ((1.1, 1.1, 1.1, 1.1), 1.0, 3, "undecided"),  # 2.2 < 2.39, the level of three temperatures
        ((1.25, 1.25, 1.25, 1.25), 1.0, 3, "better at T = 1"),  # 2.5 > 2.39
        ((3.0, 0.0, 3.0, 0.0), 0.1, 1, "undecided"),  # the seeds differ: mean 1.5, deviation 1.73, 1.73 errors
        ((1.9,), 1.0, 1, "undecided"),  # a single seed says what it said
        ((2.0,), 1.0, 1, "better at T = 1"),
    ],
)
def test_together_is_on_the_mean_gain_of_all_seeds(gains, error, number, word):
    assert real_text_tables.together(gains_of(*gains, error=error, number=number), 0.95) == word


def test_together_is_undecided_where_seeds_disagree():
    compared = gains_of(9.0, 9.0, error=1.0)
    assert real_text_tables.together([compared[0], compared[1]._replace(comparisons=[])], 0.95) == "undecided"
    (one,) = gains_of(9.0, error=1.0)
    loss = one.comparisons[0]._replace(temperature=0.9, gain=Interval(-9.0, -11.0, -7.0))
    assert real_text_tables.together([one._replace(comparisons=[*one.comparisons, loss])], 0.95) == "undecided"


def test_best_table_chooses_by_the_c2st_with_encoder():
    run = run_of(0, 0.6)
    aucs = {
        "supervised_T0.8": 0.7,
        "supervised_T1": 0.9,
        "adversarial_T0.8": 0.95,
        "adversarial_T1": 0.75,
        "real": 0.5,
    }
    for part, auc in aucs.items():
        run["metrics"][part]["encoder_c2st_auc"] = [auc, auc - 0.01, auc + 0.01]
        run["metrics"][part]["reverse_perplexity"] = [80.0, None, None]
    run["encoder"] = "another"
    best = real_text_tables.best_table([run])
    assert "| supervised | 0.8 | 0.800 | 0.700 | 80.0 | 0.300 |" in best
    assert "| adversarial | 1 | 0.600 | 0.750 | 80.0 | 0.200 |" in best
    page = real_text_tables.page([run])
    assert "by C2ST AUC, with encoder, chosen on the same texts" in page
    assert "| encoder | another |" in page
    assert "| supervised | 1 | 0.600 | 0.100 |" in real_text_tables.best_table([run_of(0, 0.6)])


def test_page_says_where_a_run_was_stopped():
    run = run_of(0, 0.6)
    run["stages"]["adversarial"]["steps_asked"] = 9
    assert "| steps of adversarial | 7 of 9 |" in real_text_tables.page([run])
    run["stages"]["adversarial"]["steps_asked"] = 7
    assert "| steps of adversarial | 7 |" in real_text_tables.page([run])


def test_publish_refuses_a_folder_without_runs(tmp_path):
    with pytest.raises(ValueError, match="--publish"):
        real_text.main(["--publish", "--output", str(tmp_path)])
