"""The benchmark on real text with tiny players and corpora: every stage, resuming, and the arithmetic of the page."""

import json
from statistics import NormalDist

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from hf_mgan.metrics import Interval

from ..conftest import VOCABULARY, texts


pytest.importorskip("matplotlib", reason="the extra `evaluation` is not installed")

from benchmarks import real_text, real_text_tables
from hf_mgan.evaluation.comparison import Comparison, Verdict


@pytest.fixture
def play(tmp_path, tokenizer, pair_tokenizer, classifier):
    """Run the benchmark on tiny stand-ins for the models and the corpora, where it looks for the real ones."""
    models, data = tmp_path / "models", tmp_path / "data"
    for name, model, own in (
        ("all-MiniLM-L6-v2", classifier, pair_tokenizer),
        ("SmolLM2-135M-Instruct", LlamaForCausalLM(tiny_llama()), tokenizer),
    ):
        model.save_pretrained(models / name)
        own.save_pretrained(models / name)
    data.mkdir()
    for split, count, seed in (("train", 96, 0), ("validation", 40, 1)):
        rows = [json.dumps({"text": text}) for text in texts(count, seed)]
        (data / f"wordnet_examples.{split}.jsonl").write_text("\n".join(rows) + "\n")

    def run(*more):
        real_text.main(
            [
                *f"--models {models} --data {data} --output {tmp_path / 'out'} --corpora wordnet_examples --seeds 0 "
                "--steps 2 --batch_size 8 --warmup_steps 1 --supervised_steps 2 --epochs 1 --width 16 --layers 1 "
                "--vocabulary 300 --max_completion_length 8 --temperatures 0.8 1.0 --num_samples 24 "
                "--further_held_out 16 --no-encoder --no-reverse_perplexity --evaluation_batch_size 8".split(),
                *more,
            ]
        )
        return tmp_path / "out" / "wordnet_examples"

    return run


def tiny_llama():
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return LlamaConfig(
        vocab_size=len(VOCABULARY), num_key_value_heads=1, max_position_embeddings=64, **sizes, **tokens
    )


def test_the_small_generator_goes_through_all_stages_and_a_second_call_does_none_again(play, capsys, monkeypatch):
    folder = play("--generator", "small") / "small" / "seed_0"
    stages = ["adversarial", "evaluation", "frozen", "supervised"]  # more supervision has nothing to add
    assert sorted(path.stem for path in folder.glob("*.json")) == stages
    report = json.loads((folder / "evaluation" / "report.json").read_text())
    assert report["models"] == ["supervised", "frozen", "adversarial"]
    assert len(report["parts"]) == 1 + 3 * 2
    frozen, adversarial = (json.loads((folder / f"{name}.json").read_text()) for name in ("frozen", "adversarial"))
    assert frozen["steps"] == adversarial["steps"] == adversarial["steps_asked"] == 2
    assert adversarial["batch_size"] == 8
    assert {name: len(curve) for name, curve in adversarial["curves"].items()} == dict.fromkeys(real_text.CURVES, 2)

    capsys.readouterr()
    monkeypatch.setattr(real_text.Run, "_game", None)
    play("--generator", "small")
    assert capsys.readouterr().out.count("is there already") == 4


def test_the_discriminator_of_the_frozen_game_stays_as_its_warm_up_left_it(play, monkeypatch):
    left = {}
    original = real_text.Frozen._warm_up

    def warm_up(self, *args, **kwargs):
        original(self, *args, **kwargs)
        left["trainer"] = self
        left["weights"] = {name: value.clone() for name, value in self.discriminator.model.state_dict().items()}

    monkeypatch.setattr(real_text.Frozen, "_warm_up", warm_up)
    play("--generator", "small", "--stages", "supervised", "frozen")
    after = left["trainer"].discriminator.model.state_dict()
    assert left["trainer"].discriminator.num_updates == 3  # one of the warm-up, and two that change nothing
    assert all(value.equal(after[name]) for name, value in left["weights"].items())


def test_the_second_generator_keeps_its_adapters_and_its_runs_are_published(play, tmp_path, monkeypatch):
    folder = play("--generator", "SmolLM2")
    assert (folder / "SmolLM2" / "seed_0" / "longer" / "adapter_config.json").exists()
    monkeypatch.setattr(real_text_tables, "RESULTS", tmp_path / "real_text.json")
    monkeypatch.setattr(real_text_tables, "PAGE", tmp_path / "real_text.md")
    real_text.main(["--output", str(tmp_path / "out"), "--publish"])
    (run,) = json.loads((tmp_path / "real_text.json").read_text())["runs"]
    assert run["models"] == ["supervised", "longer", "frozen", "adversarial"]
    assert len(run["samples"]["adversarial"]) == 10
    page = (tmp_path / "real_text.md").read_text()
    assert "## wordnet_examples, generator SmolLM2, games at learning rate 5e-05 and anchor 0.1, seeds 0" in page
    assert "| adversarial | longer | judge AUC |" in page


def test_games_with_another_learning_rate_and_anchor_have_a_folder_of_their_own(play):
    words = "--generator small --learning_rate 2e-4 --real_text_coef 0 --stages supervised adversarial"
    folder = play(*words.split())
    result = json.loads((folder / "small_rate_0.0002_anchor_0" / "seed_0" / "adversarial.json").read_text())
    assert result["settings"]["learning_rate"] == 2e-4
    assert result["settings"]["real_text_coef"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--learning_rate 0", "--learning_rate must be greater than 0, got 0.0"),
        ("--real_text_coef -0.1", "--real_text_coef must be at least 0, got -0.1"),
    ],
)
def test_settings_of_the_games_that_are_none_are_refused(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        real_text.parsed_arguments([*f"--models m --data d --output {tmp_path}".split(), *words.split()])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("--generator small --learning_rate 1e-3 --real_text_coef 0.01", "small"),
        ("--generator small --real_text_coef 0.1", "small_anchor_0.1"),
        ("--generator SmolLM2 --real_text_coef 0.1", "SmolLM2"),
        ("--generator SmolLM2 --learning_rate 2e-4", "SmolLM2_rate_0.0002"),
    ],
)
def test_only_settings_that_are_not_the_generators_own_are_in_the_folders_name(words, name, tmp_path):
    arguments = real_text.parsed_arguments([*f"--models m --data d --output {tmp_path}".split(), *words.split()])
    assert real_text.folder_name(arguments) == name


def test_figures_are_seen_through_a_model_that_is_not_the_discriminators(play, monkeypatch):
    seen = []

    def evaluate(models, held_out, evaluation, training):
        seen.append(evaluation.encoder)
        raise InterruptedError

    monkeypatch.setattr(real_text, "evaluate_generator", evaluate)
    for generator in ("small", "SmolLM2"):
        with pytest.raises(InterruptedError):
            play("--generator", generator, "--stages", "evaluation", "--encoder")
    assert [name.rsplit("/", 1)[1] for name in seen] == ["SmolLM2-135M-Instruct"] * 2


def test_a_run_without_a_game_has_its_section():
    run = run_of(0, 0.6)
    del run["stages"]["adversarial"]
    assert "## c, generator g, seeds 0" in real_text_tables.page([{**run, "models": ["supervised"]}])


def run_of(seed, adversarial):
    """Return a run whose baseline has the judge's areas 0.8 and 0.6 at the self-BLEU 0.3 and 0.1."""

    def part(auc, self_bleu):
        return {"c2st_auc": [auc, auc - 0.01, auc + 0.01], "self_bleu": [self_bleu, self_bleu, self_bleu]}

    figures = {"supervised_T0.8": part(0.8, 0.3), "supervised_T1": part(0.6, 0.1), "real": part(0.5, 0.1)}
    figures |= {"adversarial_T0.8": part(adversarial + 0.05, 0.25), "adversarial_T1": part(adversarial, 0.2)}
    stages = {
        "supervised": {"device": "CPU"},
        "adversarial": {"steps": 7, "alarms": [], "settings": {"learning_rate": 2e-4, "real_text_coef": 0.3}},
    }
    return {
        "corpus": "c",
        "generator": "g",
        "seed": seed,
        "models": ["supervised", "adversarial"],
        "temperatures": [0.8, 1.0],
        "level": 0.95,
        "settings": {"samples_each": 9},
        "figures": figures,
        "stages": stages,
    }


def test_the_page_holds_each_seeds_verdict_and_the_mean_gain_at_temperature_1():
    runs = [run_of(0, 0.6), run_of(1, 0.64)]  # the baseline has 0.7 at the self-BLEU 0.2: gains of 0.1 and 0.06
    table = real_text_tables.verdict_table(runs)
    assert "| adversarial | supervised | judge AUC | better, better | better at T = 0.8, 1 | +0.080 ± 0.028 |" in table
    best = real_text_tables.best_table(runs)
    assert "| supervised | 1, 1 | 0.600 ± 0.000 |" in best
    assert "| adversarial | 1, 1 | 0.620 ± 0.028 |" in best
    assert "| adversarial | 1 | 0.620 ± 0.028 | 0.200 ± 0.000 |" in real_text_tables.table(runs)
    page = real_text_tables.page(runs)
    assert "## c, generator g, games at learning rate 0.0002 and anchor 0.3, seeds 0, 1" in page
    assert "steps played: adversarial 7, 7" in page


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
def test_the_verdict_of_all_seeds_is_on_their_mean_gain(gains, error, number, word):
    assert real_text_tables.together(gains_of(*gains, error=error, number=number), 0.95) == word


def test_all_seeds_together_say_nothing_of_a_temperature_that_one_lacks_nor_of_gains_and_losses():
    compared = gains_of(9.0, 9.0, error=1.0)
    assert real_text_tables.together([compared[0], compared[1]._replace(comparisons=[])], 0.95) == "undecided"
    (one,) = gains_of(9.0, error=1.0)
    loss = one.comparisons[0]._replace(temperature=0.9, gain=Interval(-9.0, -11.0, -7.0))
    assert real_text_tables.together([one._replace(comparisons=[*one.comparisons, loss])], 0.95) == "undecided"


def test_temperatures_are_chosen_by_the_encoders_judge_where_all_runs_have_it():
    run = run_of(0, 0.6)
    areas = {
        "supervised_T0.8": 0.7,
        "supervised_T1": 0.9,
        "adversarial_T0.8": 0.95,
        "adversarial_T1": 0.75,
        "real": 0.5,
    }
    for part, area in areas.items():
        run["figures"][part]["encoder_c2st_auc"] = [area, area - 0.01, area + 0.01]
        run["figures"][part]["reverse_perplexity"] = [80.0, None, None]
    run["settings"]["encoder"] = "another"
    best = real_text_tables.best_table([run])
    assert "| supervised | 0.8 | 0.800 | 0.700 | 80.0 | 0.300 |" in best
    assert "| adversarial | 1 | 0.600 | 0.750 | 80.0 | 0.200 |" in best
    page = real_text_tables.page([run])
    assert "By encoder's judge AUC, chosen on the same texts" in page
    assert "Encoder: another." in page
    assert "| supervised | 1 | 0.600 | 0.100 |" in real_text_tables.best_table([run_of(0, 0.6)])


def test_the_page_says_of_how_many_steps_a_game_was_stopped():
    run = run_of(0, 0.6)
    run["stages"]["adversarial"]["steps_asked"] = 9
    assert "steps played: adversarial 7 of 9." in real_text_tables.page([run])
    run["stages"]["adversarial"]["steps_asked"] = 7
    assert "steps played: adversarial 7." in real_text_tables.page([run])


def test_nothing_is_published_of_nothing(tmp_path):
    with pytest.raises(ValueError, match="There is no finished run"):
        real_text_tables.publish(tmp_path)
