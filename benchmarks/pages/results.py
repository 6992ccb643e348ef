"""The page docs/results.md: the index of numbers, with the tables that no page of their own has."""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from hf_mgan.evaluation.report import REAL

from ..mixture.tables import modes_table
from ..sweep import rounded
from ..sweep.tables import table, with_error


TEMPLATE = Path(__file__).with_name("results.md.in")
DEMO_COLUMNS = {
    "JS in bits": ("divergence", 3),
    "grammatical": ("grammatical", 3),
    "distinct-4": ("distinct_4", 3),
    "entropy": ("entropy", 2),
    "NLL of real": ("real_nll", 2),
    "words": ("mean_length", 2),
}
EVALUATION_COLUMNS = {
    "C2ST AUC": ("c2st_auc", 3),
    "MAUVE": ("mauve", 3),
    "Frechet": ("frechet", 2),
    "reverse perplexity": ("reverse_perplexity", 0),
    "NLL of real": ("real_nll", 2),
    "self-BLEU": ("self_bleu", 3),
    "entropy": ("entropy", 2),
    "length": ("length_ratio", 2),
}
PAIRS = {"real": "SmolLM2-135M + MiniLM", "tiny": "tiny (2 layers each)"}
TRAINERS = {"grpo": "GRPO, frozen classifier", "adversarial": "adversarial"}
PARTS = ("step", "generation", "discriminator", "policy", "processor")

Result = dict[str, Any]


def demo_lines(report: Result) -> list[Result]:
    """Return the lines of `demo.jsonl`, one per seed, from the `demo.json` of `hf-mgan demo`."""
    kept = ("seed", "likelihood", "likelihood_again", "adversarial", "guided")
    settings = {name: value for name, value in report["arguments"].items() if name not in ("output_dir", "seeds")}
    about = {"language": report["language"], "settings": settings, "versions": report["versions"]}
    return [rounded({**{name: run[name] for name in kept}, **about}) for run in report["runs"]]


def evaluation_lines(report: Result) -> list[Result]:
    """Return the lines of `evaluation.jsonl`, one per model and temperature, from the report of `hf-mgan evaluate`."""
    lines = []
    for name, part in report["parts"].items():
        model, _, temperature = name.rpartition("_T")
        if name == REAL:
            model, temperature = "real text", None
        about = {"seconds": part["seconds"], "device": report["device"], "versions": report["versions"]}
        named = {"model": model, "temperature": None if temperature is None else float(temperature)}
        lines.append(rounded({**named, "metrics": part["metrics"], **about}))
    return lines


def demo_table(seeds: list[Result]) -> str:
    """Return maximum likelihood and adversarial training on the demo's language, means over the seeds."""

    def row(text: str, qualities: list[Result]) -> list[str]:
        temperatures = sorted({one["temperature"] for one in qualities})
        shown = f"{temperatures[0]:g}" + (f"-{temperatures[-1]:g}" if len(temperatures) > 1 else "")
        cells = [
            f"{fmean(one[key] for one in qualities):.{digits}f}" if key in qualities[0] else ""
            for key, digits in DEMO_COLUMNS.values()
        ]
        cells[0] += f" ± {stdev(one['divergence'] for one in qualities):.3f}"
        return [text, shown, *cells]

    def at_1(seed: Result) -> Result:
        return next(one for one in seed["likelihood"] if one["temperature"] == 1)

    language = seeds[0]["language"]
    of_language = {"divergence": 0, "real_nll": language["entropy"], **language}
    guided = []
    for name, points in seeds[0].get("guided", {}).items():
        for place, point in enumerate(points):
            same = [seed["guided"][name][place] for seed in seeds]
            draws = fmean(one["draws"] for one in same)
            guided.append(row(f"{name}, c = {point['threshold']:g}, {draws:.1f} draws", same))
    return table(
        ["", "T", *DEMO_COLUMNS],
        [
            ["the language", "", "0", *(f"{of_language[key]:.{n}f}" for key, n in list(DEMO_COLUMNS.values())[1:])],
            row("maximum likelihood", [at_1(seed) for seed in seeds]),
            row("… at its best temperature", [seed["likelihood"][0] for seed in seeds]),
            row("… after twice the steps, at its best", [seed["likelihood_again"][0] for seed in seeds]),
            row("**adversarial**", [seed["adversarial"] for seed in seeds]),
            *guided,
        ],
    )


def evaluation_table(parts: list[Result]) -> str:
    """Return one line per model and temperature, with half the width of an interval where there is one."""
    rows = []
    for part in parts:
        cells = []
        for key, digits in EVALUATION_COLUMNS.values():
            values = part["metrics"].get(key)
            shown = [values[0], None, None] if values and key in ("entropy", "length_ratio") else values
            cells.append(with_error(shown, digits))
        temperature = part["temperature"]
        rows.append([part["model"], "" if temperature is None else f"{temperature:g}", *cells])
    return table(["", "T", *EVALUATION_COLUMNS], rows)


def step_time_table(pairs: list[Result]) -> str:
    """Return the medians of a step's parts in seconds, and the ratio of both trainers."""
    by_name = {one["pair"]: one for one in pairs}
    rows = []
    for name, text in PAIRS.items():
        if name not in by_name:
            continue
        one = by_name[name]
        for trainer, trainer_text in TRAINERS.items():
            ratio = ""
            if trainer == "adversarial":
                ratio = f"{one['ratio']:.2f} ({one['ratio_lowest_round']:.2f} to {one['ratio_highest_round']:.2f})"
            rows.append([text, trainer_text, *(f"{one['seconds'][trainer][part]:.3f}" for part in PARTS), ratio])
    head = ["pair", "trainer", "step", "generation", "discriminator", "policy", "processor time", "ratio (rounds)"]
    return table(head, rows)


def quantised_table(results: list[Result]) -> str:
    """Return what became of the pair in 4-bit."""
    (one,) = results
    moved = one["parameters"]
    rows = [
        ["steps", f"{one['settings']['steps']} of {one['settings']['batch_size']} completions"],
        ["time on one CPU core", f"{one['seconds']:.0f} s"],
        ["peak of memory", f"{one['peak_memory_gib']} GiB"],
        ["parameters that moved: generator, discriminator", ", ".join(str(side["moved"]) for side in moved.values())],
        ["largest difference of a score after reload", f"{max(one['largest_difference_after_reload'].values()):g}"],
        ["D(x), first and last step", f"{one['real_prob'][0]:.2f}, {one['real_prob'][-1]:.2f}"],
    ]
    return table(["", ""], rows)


def page(results: Callable[[str], list[Result]]) -> str:
    """Return the page.

    Args:
        results (`Callable`): From the name of a file of results to its lines.
    """
    mixture = results("mixture")
    return TEMPLATE.read_text().format(
        demo=demo_table(results("demo")),
        evaluation=evaluation_table(results("evaluation")),
        from_one=modes_table(mixture, "one"),
        from_all=modes_table(mixture, "all"),
        step_time=step_time_table(results("step_time")),
        quantised=quantised_table(results("quantised_pair")),
    )
