"""The tables of `benchmarks.oracle`, from the results of its jobs: plain values in, Markdown out."""

from pathlib import Path
from statistics import fmean
from typing import Any

from ..sweep.tables import (
    NOT_RUN,
    Difference,
    by_condition,
    difference_cells,
    failures,
    mean,
    processor_hours,
    spread,
    table,
    version_list,
)
from .language import CONDITIONS


TEMPLATE = Path(__file__).with_name("page.md.in")
LSTM = "lstm"
GENERATORS = {"likelihood": "maximum likelihood", "adversarial": "adversarial"}
RUNS = {"adversarial": "adversarial", "fast": "adversarial, the demo's rate"}  # of the LSTM oracle
REFERENCES = {"oracle": "the oracle itself", "unigram": "words as often as they occur", "uniform": "words at random"}
# Nie et al. 2019, "RelGAN", table 1, texts of 20 words; NLL_oracle in nats per word.
PUBLISHED = {
    "maximum likelihood": 9.038,
    "SeqGAN": 8.736,
    "RankGAN": 8.247,
    "LeakGAN": 7.038,
    "RelGAN": 6.680,
    "real text": 5.750,
}
COLUMNS = {
    "NLL_oracle": ("nll_oracle", 3),
    "NLL_gen": ("nll_gen", 3),
    "entropy": ("entropy", 3),
    "JS": ("divergence", 4),
    "V of the best D": ("best_value", 3),
    "JS of 1 word": ("divergence_of_1", 3),
    "of 5": ("divergence_of_5", 3),
    "KL(p, q)": ("forward_kl", 1),
    "KL(q, p)": ("reverse_kl", 1),
    "distinct-2": ("distinct_2", 3),
    "self-BLEU-2": ("self_bleu_2", 3),
    "duplicates": ("duplicates", 3),
}

Result = dict[str, Any]
Metrics = dict[str, float]


def at(metrics: list[Metrics], temperature: float) -> Metrics:
    """Return the metrics at a temperature."""
    return next(one for one in metrics if one["temperature"] == temperature)


def least(metrics: list[Metrics], name: str) -> Metrics:
    """Return the metrics at the temperature where one of them is least."""
    return min(metrics, key=lambda one: one[name])


def cells(ones: list[Metrics]) -> list[str]:
    """Return mean and deviation over seeds of every column; a dash where a metric was not measured."""
    return [spread((one.get(key) for one in ones), digits) for key, digits in COLUMNS.values()]


def lstm_table(results: list[Result]) -> str:
    """Return one line per generator at temperature 1, after those to read them by."""
    if not results:
        return NOT_RUN
    rows = [[text, *cells([one["references"][name] for one in results])] for name, text in REFERENCES.items()]
    for name, text in (GENERATORS | RUNS).items():
        rows.append([text, *cells([at(one[name], 1.0) for one in results])])
    return table(["texts of", *COLUMNS], rows)


def temperatures(results: list[Result], name: str) -> list[float]:
    return sorted({metrics["temperature"] for result in results for metrics in result[name]})


def published_table(results: list[Result]) -> str:
    """Return the published NLL_oracle, and ours beside those that mean the same."""
    ours = {
        "maximum likelihood": [at(one["likelihood"], 1.0)["nll_oracle"] for one in results],
        "real text": [one["references"]["oracle"]["nll_oracle"] for one in results],
        **{
            f"{text}, temperature 1": [at(one[name], 1.0)["nll_oracle"] for one in results]
            for name, text in RUNS.items()
        },
        "words at random": [one["references"]["uniform"]["nll_oracle"] for one in results],
    }
    rows = [
        [name, f"{PUBLISHED[name]:.3f}" if name in PUBLISHED else "", spread(ours.get(name, []))]
        for name in [*PUBLISHED, *(name for name in ours if name not in PUBLISHED)]
    ]
    return table(["texts of", "published", "ours"], rows)


def lowered_by_temperature(results: list[Result]) -> str:
    """Return what the temperature of maximum likelihood alone does to NLL_oracle, in one paragraph."""
    if not results:
        return ""
    tried = temperatures(results, "likelihood")
    nll = {one: fmean(at(result["likelihood"], one)["nll_oracle"] for result in results) for one in tried}
    best = min(tried, key=lambda one: nll[one])

    def of(key: str, temperature: float, digits: int) -> str:
        return f"{fmean(at(result['likelihood'], temperature)[key] for result in results):.{digits}f}"

    real = fmean(result["references"]["oracle"]["nll_oracle"] for result in results)
    metrics = {"NLL_gen": ("nll_gen", 3), "the entropy": ("entropy", 3), "distinct-2": ("distinct_2", 3)}
    changes = ", ".join(
        f"{name} from {of(key, 1.0, digits)} to {of(key, best, digits)}" for name, (key, digits) in metrics.items()
    )
    return (
        f"Here maximum likelihood alone, sampled at temperature {best} in place of 1, takes NLL_oracle from "
        f"{nll[1.0]:.3f} to {nll[best]:.3f} (the oracle's own texts: {real:.3f}), {changes}, and JS from "
        f"{of('divergence', 1.0, 4)} to {of('divergence', best, 4)} bits."
    )


def difference_of(results: list[Result], key: str, run: str = "adversarial") -> Difference | None:
    """Return an adversarial generator less maximum likelihood, each where the metric is least, over the seeds.

    Args:
        results (`list[dict]`): Of one condition, one per seed.
        key (`str`): The metric; less is better.
        run (`str`, *optional*, defaults to `"adversarial"`): Which generator.
    """
    if not results:
        return None
    return Difference.of([least(one[run], key)[key] - least(one["likelihood"], key)[key] for one in results])


def lstm_differences(results: list[Result]) -> str:
    """Return the difference of both runs to maximum likelihood at the best temperature of each, by every metric."""
    rows = []
    for text in ("JS", "JS of 1 word", "of 5", "KL(p, q)", "KL(q, p)", "NLL_gen", "NLL_oracle"):
        key, digits = COLUMNS[text]

        def best(name: str, key: str = key, digits: int = digits) -> str:
            return spread((least(one[name], key)[key] for one in results), digits)

        row = ["JS of 5 words" if text == "of 5" else text, best("likelihood")]
        for run in RUNS:
            row += [best(run), *difference_cells(difference_of(results, key, run))]
        rows.append(row)
    head = [cell for text in RUNS.values() for cell in (text, "difference", "")]
    return table(["least over temperatures", GENERATORS["likelihood"], *head], rows)


def language_table(results: dict[str, list[Result]]) -> str:
    """Return one line per condition and generator: temperature 1, and the best one for JS."""
    head = ["sentences", "width", "generator", "JS at 1", "V of the best D", "JS, best temperature", "difference", ""]
    head += ["grammatical", "entropy", "real NLL", "distinct-4"]
    rows = []
    for condition in CONDITIONS:
        ones = results.get(condition.name, [])
        for name, text in GENERATORS.items():
            if not ones:
                rows.append([f"{condition.sentences:,}", str(condition.width), text, NOT_RUN, *[""] * (len(head) - 4)])
                continue
            best = [least(one[name], "divergence") for one in ones]
            against = difference_of(ones, "divergence") if name == "adversarial" else None
            rows.append(
                [
                    f"{condition.sentences:,}",
                    str(condition.width),
                    text,
                    spread(at(one[name], 1.0)["divergence"] for one in ones),
                    mean((at(one[name], 1.0)["best_value"] for one in ones), 3),
                    f"{spread(one['divergence'] for one in best)} at {temperatures_of(best)}",
                    *difference_cells(against),
                    *(mean((one[key] for one in best), digits) for key, digits in LANGUAGE_COLUMNS),
                ]
            )
    return table(head, rows)


LANGUAGE_COLUMNS = (("grammatical", 3), ("entropy", 2), ("real_nll", 2), ("distinct_4", 3))


def temperatures_of(metrics: list[Metrics]) -> str:
    return ", ".join(f"{value}" for value in sorted({one["temperature"] for one in metrics}))


def training_table(results: dict[str, list[Result]]) -> str:
    """Return how maximum likelihood was stopped, and what the discriminator said at the end of each run."""
    rows = []
    for name, ones in results.items():
        fits = [min(one["fits"], key=lambda fit: fit["best"][0]) for one in ones]
        stopped = ", ".join(f"{fit['best'][1]} of {fit['steps']}" for fit in fits)
        for run, training in (("adversarial", "training"), ("fast", "fast_training")):
            if not all(training in one for one in ones):
                continue
            rows.append(
                [
                    name if run == "adversarial" else f"{name}, the demo's rate",
                    stopped,
                    mean((fit["best"][0] for fit in fits), 3),
                    *(mean((one[training][key] for one in ones), 3) for key in ("real_prob", "fake_prob", "value")),
                    mean((at(one[run], 1.0)["best_value"] for one in ones), 3),
                ]
            )
    return table(["", "steps", "held-out NLL", "D(x)", "D(G(s))", "V(D, G)", "V of the best D"], rows)


def aucs_table(results: list[Result]) -> str:
    """Return what the discriminator of the LSTM oracle had memorised, and what held for held-out texts."""
    if not results:
        return NOT_RUN
    rows = [
        [text, *(spread(one["discriminator_aucs"][name][key] for one in results) for key in AUCS)]
        for name, text in {
            "warmup": "after the warm-up",
            "adversarial": "after training",
            "fast": "after training at the demo's rate",
        }.items()
    ]
    return table(["AUC against unseen generated texts", "of real texts learnt from", "of held-out real texts"], rows)


AUCS = ("auc_learnt", "auc_held_out")


def fields_of(results: list[Result]) -> dict[str, str]:
    """Return what stands in the template's fields."""
    whole = {name: list(ones.values()) for name, ones in by_condition(results).items()}
    of_lstm = whole.get(LSTM, [])
    return {
        "published": published_table(of_lstm),
        "lstm": lstm_table(of_lstm),
        "lowered_by_temperature": lowered_by_temperature(of_lstm),
        "lstm_differences": lstm_differences(of_lstm),
        "language": language_table(whole),
        "training": training_table(whole),
        "aucs": aucs_table(of_lstm),
        "notes": "\n".join(failures(results)) or "Every job ended well.",
        "seeds": ", ".join(map(str, sorted({one["seed"] for one in results}))),
        "hours": processor_hours(results),
        "versions": version_list(results),
    }


def page(results: list[Result]) -> str:
    """Return the page of the documentation, or of the output folder."""
    return TEMPLATE.read_text().format(**fields_of(results))
