"""A report put together by hand: the numbers are not those of any text."""

import json
import sys

import pytest

from hf_mgan.evaluation import compare_at_matched_diversity
from hf_mgan.evaluation.plots import draw
from hf_mgan.evaluation.report import PLOTS, Report, markdown, part_name, table, verdict_lines, write_report
from hf_mgan.evaluation.text_metrics import METRICS
from hf_mgan.metrics import Interval, share_interval


def interval(value, reach=0.0):
    return [value, value - reach, value + reach]


def part(texts=("a dog sees", "the cat"), calibration=((0.2, 0.3, 10), (0.8, 0.7, 12)), **metrics):
    return {
        "metrics": metrics,
        "calibration": [list(one) for one in calibration],
        "lengths": [len(text.split()) for text in texts],
        "texts": list(texts),
        "seconds": 60.0,
        "peak_memory_gib": 1.5,
    }


def report(parts=None, **changes):
    """Colder is better and less diverse; `gan` is better than `start` by 0.1 at equal self-BLEU."""
    values = {
        "command": "hf-mgan evaluate --models start gan",
        "settings": {"num_samples": 2, "samples_each": 2, "held_out": {"rows": 4}},
        "baseline": "start",
        "models": ["start", "gan"],
        "temperatures": [0.8, 1.0],
        "level": 0.95,
        "parts": parts
        or {
            "real": part(c2st_auc=interval(0.51, 0.04), self_bleu=interval(0.05, 0.01), bleu=interval(31.4567, 2.0)),
            "start_T0.8": part(
                c2st_auc=interval(0.6, 0.01), self_bleu=interval(0.3, 0.01), reverse_perplexity=[9.0, None, None]
            ),
            "start_T1": part(c2st_auc=interval(0.8, 0.01), self_bleu=interval(0.1, 0.01)),
            "gan_T0.8": part(c2st_auc=interval(0.6, 0.01), self_bleu=interval(0.2, 0.01)),
            "gan_T1": part(c2st_auc=interval(0.9, 0.01), self_bleu=interval(0.05, 0.01)),
        },
        "seconds": 3.0,
        "device": "CPU, abc",
        "threads": 2,
        "versions": {"torch": "2.0"},
    }  # fmt: skip
    return Report(**{**values, **changes})


def lines(text):
    return [line for line in text.splitlines() if line]


def test_part_name_of_model_and_temperature():
    assert part_name("gan", 1.0) == "gan_T1"
    assert part_name("gan", 0.75) == "gan_T0.75"


def test_report_metric_is_an_interval_or_none():
    made = report()
    assert made.metric("real", "c2st_auc") == pytest.approx(Interval(0.51, 0.47, 0.55))
    assert made.metric("real", "mauve") is None
    reverse = made.metric("start_T0.8", "reverse_perplexity")
    assert reverse.value == 9.0
    assert reverse.low != reverse.low  # nan
    assert report(parts={"real": part(entropy=[None, None, None])}).metric("real", "entropy") is None


def test_report_points_leave_out_untested_temperatures():
    made = report()
    points = [(one.temperature, one.quality[0], one.diversity[0]) for one in made.points("start", "c2st_auc")]
    assert points == [(0.8, 0.6, 0.3), (1.0, 0.8, 0.1)]
    del made.parts["start_T1"]["metrics"]["c2st_auc"]
    assert [one.temperature for one in made.points("start", "c2st_auc")] == [0.8]
    assert made.points("start", "mauve") == []


def test_report_verdict_of_each_model_but_the_baseline():
    """At self-BLEU 0.2 the baseline has 0.7 and gan 0.6; its hotter point is more diverse than all of the baseline.

    The other way round, gan has 0.6 + 2/3 0.3 = 0.8 at 0.1, and so has start.
    """
    verdicts = report().verdicts()
    assert list(verdicts) == ["gan"]
    verdict = verdicts["gan"]["c2st_auc"]
    assert verdict.word == "better"
    assert verdict.unmatched == [1.0]
    assert verdict.comparisons[0].gain.value == pytest.approx(0.1)
    assert verdict_lines(report()) == [
        "By C2ST AUC: gan against start at matched diversity: better (better at T = 0.8; not comparable at T = 1)."
    ]
    back = report(baseline="gan").verdicts()["start"]["c2st_auc"]
    assert (back.word, back.unmatched) == ("undecided", [0.8])
    assert back.comparisons[0].gain.value == pytest.approx(0)


def test_report_decides_by_the_fine_tuned_test_if_there_is_one():
    """By it gan is worse, by the other one better; where the curve of the baseline lacks it, it has no verdict."""
    assert report().deciding_test == "c2st_auc"
    made = report()
    for name, one in made.parts.items():
        one["metrics"]["fine_tuned_c2st_auc"] = interval(0.95 if name.startswith("gan") else 0.9, 0.01)
    assert made.deciding_test == "fine_tuned_c2st_auc"
    assert [one.word for one in made.verdicts()["gan"].values()] == ["worse", "better"]
    assert [line.split(":")[0] for line in verdict_lines(made)] == ["By fine-tuned C2ST AUC", "By C2ST AUC"]
    del made.parts["start_T1"]["metrics"]["fine_tuned_c2st_auc"]
    assert verdict_lines(made)[0].startswith("gan against start: no verdict.")


def test_report_level_is_that_of_the_verdict():
    """Two comparisons, so that the level of each depends on that of both."""
    made = report(level=0.5)
    made.parts["gan_T1"]["metrics"]["self_bleu"] = interval(0.15, 0.01)
    curves = [made.points(model, "c2st_auc") for model in ("gan", "start")]
    assert made.verdicts()["gan"]["c2st_auc"] == compare_at_matched_diversity(*curves, "lower", level=0.5)
    assert made.verdicts()["gan"]["c2st_auc"] != compare_at_matched_diversity(*curves, "lower")


def test_report_verdict_where_higher_is_better():
    made = report()
    for one in made.parts.values():
        one["metrics"]["mauve"] = one["metrics"]["c2st_auc"]
    assert made.verdicts()["gan"]["mauve"].word == "worse"
    assert [line.split(":")[0] for line in verdict_lines(made)] == ["By C2ST AUC", "By MAUVE"]


@pytest.mark.parametrize("lost", [["start_T1"], ["start_T0.8", "start_T1"], ["gan_T0.8", "gan_T1"]])
def test_report_without_a_curve_says_why_no_verdict(lost):
    made = report()
    for name in lost:
        del made.parts[name]["metrics"]["c2st_auc"]
    assert made.verdicts() == {"gan": {}}
    (line,) = verdict_lines(made)
    assert line.startswith("gan against start: no verdict. It takes")
    assert f"- {line}" in lines(markdown(made))


def test_report_of_one_model_has_no_verdict():
    alone = report(models=["start"])
    assert alone.verdicts() == {}
    assert verdict_lines(alone) == []
    assert "At matched" not in markdown(alone)


def test_table_rows_and_columns():
    assert lines(table(report())) == [
        "| | T | C2ST AUC | reverse ppl | self-BLEU | BLEU |",
        "|---|---|---|---|---|---|",
        "| real text | | 0.510 ± 0.040 |  | 0.050 ± 0.010 | 31.5 ± 2.0 |",
        "| start | 0.8 | 0.600 ± 0.010 | 9.000 | 0.300 ± 0.010 |  |",
        "| start | 1 | 0.800 ± 0.010 |  | 0.100 ± 0.010 |  |",
        "| gan | 0.8 | 0.600 ± 0.010 |  | 0.200 ± 0.010 |  |",
        "| gan | 1 | 0.900 ± 0.010 |  | 0.050 ± 0.010 |  |",
    ]


def test_markdown_holds_all_sections():
    text = markdown(report(level=0.9))
    written = lines(text)
    assert written[0] == "# Evaluation"
    assert written[1].startswith("- By C2ST AUC: gan against start")
    assert "2 texts per row; values ± half of their 90% intervals." in text
    assert table(report()) in text
    assert "| gan | C2ST AUC | 0.8 | 1 to 0.8 | 0.600 | 0.700 | +0.100 (+0.08" in text
    for name in PLOTS:
        assert f"({name})" in text
    read = {"c2st_auc": "lower", "reverse_perplexity": "lower", "bleu": "higher"}
    for name, direction in read.items():
        assert f"- **{METRICS[name].title}** ({direction} is better): {METRICS[name].explanation}." in written
    assert f"- **self-BLEU** (best where that of real text is): {METRICS['self_bleu'].explanation}." in written
    assert "- **MAUVE**" not in text
    assert "`hf-mgan evaluate --models start gan`" in written
    assert (
        "5.0 minutes for all parts, the sampling among them, 1.50 GiB at most, on CPU, abc with 2 threads; torch 2.0."
        in written
    )
    settings = text.split("```json\n")[1].split("```")[0]
    assert json.loads(settings) == report().settings
    assert "None" not in markdown(report(command=None))


def test_markdown_samples_are_the_first_ones():
    made = report(temperatures=[0.8, 1.0])
    made.parts["gan_T1"]["texts"] = ["one\ntwo", *(f"text {place}" for place in range(9))]
    text = markdown(made)
    of_gan = text.split("**gan**\n\n")[1].split("\n\n")[0].splitlines()
    assert of_gan == ["- one&#10;two", "- text 0", "- text 1", "- text 2", "- text 3"]
    assert "**real text**\n\n- a dog sees\n- the cat\n" in text


def test_markdown_minutes_are_those_of_sampling_too():
    made = report()
    for part in list(made.parts)[1:]:
        made.parts[part]["sampling_seconds"] = 30.0
    assert "7.0 minutes for all parts, the sampling among them" in markdown(made)


def test_markdown_samples_stand_behind_their_prompts():
    made = report()
    made.parts["gan_T1"] |= {"texts": [" sees", "runs", "."], "prompts": ["a *dog*", "", "the cat"]}
    text = markdown(made)
    of_gan = text.split("**gan**\n\n")[1].split("\n\n")[0].splitlines()
    assert of_gan == ["- **a \\*dog\\*** &#32;sees", "- runs", "- **the cat** ."]


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def test_write_report_is_json_without_nan(tmp_path):
    made = report()
    write_report(made, tmp_path)
    values = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    assert set(values) == {*Report.__dataclass_fields__, "verdicts"}
    assert values["parts"]["start_T0.8"]["metrics"]["reverse_perplexity"] == [9.0, None, None]
    assert not any("texts" in one for one in values["parts"].values())
    assert made.parts["real"]["texts"]  # and the report keeps them
    verdict = values["verdicts"]["gan"]["c2st_auc"]
    assert verdict["word"] == "better"
    assert verdict["unmatched"] == [1.0]
    (comparison,) = verdict["comparisons"]
    assert (comparison["temperature"], comparison["between"]) == (0.8, [1.0, 0.8])
    assert comparison["gain"] == list(made.verdicts()["gan"]["c2st_auc"].comparisons[0].gain)
    assert verdict["sentence"].startswith("gan against start at matched diversity: better")
    assert (tmp_path / "report.md").read_text() == markdown(made) + "\n"


def is_png(path):
    content = path.read_bytes()
    return content.startswith(b"\x89PNG") and len(content) > 5000


@pytest.mark.filterwarnings("error")
def test_draw_makes_three_plots(tmp_path):
    draw(report(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(PLOTS)
    assert all(is_png(tmp_path / name) for name in PLOTS)


@pytest.mark.filterwarnings("error")
def test_draw_where_nothing_could_be_tested(tmp_path):
    made = report()
    for one in made.parts.values():
        one["metrics"].pop("c2st_auc")
        one["calibration"] = []
        one["lengths"] = [0, 0]
    draw(made, tmp_path)
    assert all(is_png(tmp_path / name) for name in PLOTS)


def test_draw_shows_every_model_and_real_texts(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = {}
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: drawn.update({path.name: self.axes[0]}))
    draw(report(), tmp_path)
    labels = {name: axes.get_legend_handles_labels()[1] for name, axes in drawn.items()}
    assert set(labels["frontier.png"]) == {"start", "gan", "real text"}
    assert labels["calibration.png"] == ["start", "gan"]
    assert labels["lengths.png"] == ["real text", "start", "gan"]
    notes = [(note.get_text(), note.xy) for note in drawn["frontier.png"].texts if note.get_text()]
    assert notes == [("T = 0.8", (0.3, 0.6)), ("T = 1", (0.1, 0.8)), ("T = 0.8", (0.2, 0.6)), ("T = 1", (0.05, 0.9))]
    assert drawn["frontier.png"].get_ylabel().startswith("C2ST AUC")
    calibration = drawn["calibration.png"].lines[1]
    assert [tuple(point) for point in calibration.get_xydata()] == [(0.2, 0.3), (0.8, 0.7)]
    bars = drawn["calibration.png"].collections[0].get_segments()
    expected = share_interval([True] * 3 + [False] * 7)  # of ten texts, three are real
    assert bars[0][:, 1].tolist() == pytest.approx([expected.low, expected.high])


@pytest.mark.parametrize("apart", [0.0, 1e-4, 4e-3, 0.05])
def test_labels_of_the_frontier_do_not_overlap(tmp_path, monkeypatch, apart):
    """Three curves of five temperatures, on one another or near it."""
    from matplotlib.figure import Figure

    temperatures, drawn = [0.7, 0.8, 0.9, 1.0, 1.1], {}
    parts = {"real": part(c2st_auc=interval(0.51, 0.04), self_bleu=interval(0.05, 0.01))}
    for shift, model in enumerate(("start", "gan", "third")):
        for step, temperature in enumerate(temperatures):
            at = {
                "c2st_auc": interval(0.6 + apart * (step + shift / 4), 0.01),
                "self_bleu": [0.3 - apart * step, None, None],
            }
            parts[part_name(model, temperature)] = part(**at)
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: drawn.update({path.name: self.axes[0]}))
    draw(report(parts=parts, models=["start", "gan", "third"], temperatures=temperatures), tmp_path)
    axes = drawn["frontier.png"]
    axes.figure.draw_without_rendering()
    boxes = [note.get_window_extent() for note in axes.texts if note.get_text()]
    assert len(boxes) == 15
    assert not [(i, j) for i, one in enumerate(boxes) for j, other in enumerate(boxes[:i]) if one.overlaps(other)]
    assert not any(box.overlaps(axes.get_legend().get_window_extent()) for box in boxes)


def test_draw_names_the_extra_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'hf-mgan\[evaluation\]'"):
        draw(report(), tmp_path)
