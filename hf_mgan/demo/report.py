"""What the demo shows: progress, tables, curves, samples, and the lines that load both models again."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .aside import Aside
from .rows import LANGUAGE, at_one, table_rows
from .run import SeedResult


LOAD = """from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "{folder}/adversarial"
generator = AutoPeftModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
folder += "/discriminator"
discriminator = AutoModelForSequenceClassification.from_pretrained(folder)
discriminator_tokenizer = AutoTokenizer.from_pretrained(folder)
"""
COMPACT: dict[str, Any] = {"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0), "show_edge": False}  # 80 characters
DISCRIMINATOR = ("D(x)", "D(G(s))", "V(D,G)")


class Bar(TrainerCallback):
    """One bar: the steps of a trainer, after those of a discriminator's warm-up if there is one."""

    def __init__(self, progress: Progress, task: TaskID, warmup_steps: int) -> None:
        self.progress = progress
        self.task = task
        self.warmup_steps = warmup_steps

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Follow the warm-up."""
        done = (kwargs["logs"] or {}).get("discriminator/warmup_step")
        if done is not None:
            self.progress.update(self.task, completed=done)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Follow the steps."""
        self.move(self.warmup_steps + state.global_step)

    def move(self, done: int) -> None:
        """Show that so many are done."""
        self.progress.update(self.task, completed=done)


class Bars(Progress):
    """The progress of all parts, each with its bar."""

    def __init__(self) -> None:
        self._beside: dict[TaskID, Aside] = {}
        columns = (TextColumn("{task.description:34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        super().__init__(*columns, console=Console(stderr=True))

    def add(self, part: str, steps: int, warmup_steps: int = 0) -> Bar:
        """Add a bar and return the callback that moves it."""
        for task in self.tasks:
            if task.id not in self._beside:
                self.stop_task(task.id)
        return Bar(self, self.add_task(part, total=steps + warmup_steps), warmup_steps)

    def follow(self, part: str, steps: int, beside: Aside) -> None:
        """Add a bar of what another process does."""
        self._beside[self.add_task(part, total=steps)] = beside

    def get_renderables(self) -> Iterable[RenderableType]:
        """Ask the other processes how far they are, each time that the bars are drawn."""
        for task, beside in self._beside.items():
            self.update(task, completed=beside.steps)
        return super().get_renderables()


def show(runs: Sequence[SeedResult], real: dict[str, float], folder: Path, console: Console | None = None) -> None:
    """Print samples, the lines that load both models, the tables and the verdict.

    Args:
        runs (`Sequence[SeedResult]`): One per seed.
        real (`dict[str, float]`): Metrics of the language itself.
        folder (`Path`): Where everything lies.
        console (`Console`, *optional*): Where to print; the terminal by default.
    """
    console = console or Console()
    first = runs[0]
    best = first.likelihood[0].temperature
    console.print(
        f"\n[bold]Maximum likelihood at its best temperature ({best})[/], the first ten of seed {first.seed}"
    )
    console.print("\n".join(f"  {text}" for text in first.samples_before), highlight=False, markup=False)
    console.print("\n[bold]After adversarial training[/], temperature 1")
    console.print("\n".join(f"  {text}" for text in first.samples_after), highlight=False, markup=False)
    console.print("\n[bold]Maximum likelihood with its discriminator at generation[/] (c = 1)")
    console.print("\n".join(f"  {text}" for text in first.samples_guided), highlight=False, markup=False)
    console.print("\n[bold]To load both models again[/]")
    load = LOAD.format(folder=json.dumps(str(first.folder))[1:-1])  # between quotation marks
    console.print(load, highlight=False, markup=False, soft_wrap=True)
    console.print(discriminator_table(runs))
    console.print(quality_table(runs, real))
    console.print(verdict(runs), soft_wrap=True)
    training = ("maximum likelihood", "discriminator's encoder", "adversarial training")
    seconds = statistics.fmean(sum(run.seconds[part] for part in training) for run in runs)
    console.print(f"Training took {seconds:.0f} s per seed.")
    console.print(f"Metrics: {folder}/demo.json, curves: {folder}/demo.png", soft_wrap=True, markup=False)


def quality_table(runs: Sequence[SeedResult], real: dict[str, float]) -> Table:
    """Make the table of all models; with several seeds each metric is the mean over them."""
    spread = "deviation over the seeds" if len(runs) > 1 else "standard error"
    result = Table(
        title=f"\nJS: exact Jensen-Shannon divergence to the language in bits ± {spread}; sentences drawn per "
        "sentence kept, where D rejects with threshold c; share of grammatical sentences; entropy of a sentence and "
        "negative log-likelihood of a real one in nats",
        title_justify="left",
        **COMPACT,
    )
    result.add_column("model", no_wrap=True)
    for name in ("T", "c", "JS", "draws", "gram.", "entropy", "NLL"):
        result.add_column(name, justify="right", no_wrap=True)
    for row in table_rows(runs, real):
        name = row.name.replace("maximum likelihood +", "  with").replace("adversarial +", "  with")
        result.add_row(
            f"[bold]{name}[/]" if row.threshold is not None and "perfect" not in name else name,
            "" if row.temperature is None else f"{row.temperature:.2g}",
            "" if row.threshold is None else f"{row.threshold:g}",
            "0" if row.name == LANGUAGE else f"{row.js:.3f} ± {row.js_error:.3f}",
            f"{row.draws:.1f}",
            f"{row.grammatical:.3f}",
            f"{row.entropy:.2f}",
            f"{row.real_nll:.2f}",
        )
    return result


def discriminator_table(runs: Sequence[SeedResult]) -> Table:
    """Make the table of D(x), D(G(s)) and V(D,G) at both ends of adversarial training, as means over the seeds."""
    result = Table(title="Adversarial training", title_justify="left", **COMPACT)
    result.add_column("")
    for name in DISCRIMINATOR:
        result.add_column(name, justify="right")
    for label, ends in (
        ("first steps", [run.before for run in runs]),
        ("last steps", [run.after for run in runs]),
    ):
        result.add_row(label, *(f"{statistics.fmean(end[key] for end in ends):.3f}" for key in DISCRIMINATOR))
    result.add_row("nothing to tell apart", "0.500", "0.500", f"{-math.log(4):.3f}")
    return result


def verdict(runs: Sequence[SeedResult]) -> str:
    """Say in a line how the adversarial model compares with the best that maximum likelihood reached.

    A difference of less than two standard errors decides nothing. The two are computed on the same real sentences but
    taken as independent, which overstates the error of the difference.
    """
    differences, decided = [], []
    for run in runs:
        rival = min((run.likelihood[0], run.likelihood_again[0]), key=lambda quality: quality.divergence)
        differences.append(run.adversarial.divergence - rival.divergence)
        error = math.hypot(run.adversarial.standard_error, rival.standard_error)
        decided.append(
            "undecided" if abs(differences[-1]) < 2 * error else "lower" if differences[-1] < 0 else "higher"
        )
    counts = ", ".join(f"{word} with {decided.count(word)} of {len(runs)} seeds" for word in sorted(set(decided)))
    return (
        f"Against maximum likelihood at its best, the adversarial model's divergence is {counts}; mean difference "
        f"{statistics.fmean(differences):+.4f} bits."
    )


def draw(runs: Sequence[SeedResult], path: Path) -> None:
    """Draw the curves of adversarial training, one line per seed, and what the discriminator does after it, as a PNG.

    Args:
        runs (`Sequence[SeedResult]`): One per seed.
        path (`Path`): The file.
    """
    figure = Figure(figsize=(17, 4), layout="constrained")
    divergence, probabilities, value, guided = figure.subplots(1, 4)
    colours = matplotlib.color_sequences["tab10"]
    for number, run in enumerate(runs):
        colour = colours[number % len(colours)]
        start = at_one(run.likelihood).divergence
        steps, values = zip((0, start), *run.divergences, strict=True)
        divergence.plot(steps, values, color=colour, label=f"seed {run.seed}")
        divergence.axhline(run.likelihood[0].divergence, color=colour, linestyle="--", linewidth=1)
        probabilities.plot(_smooth(run.curves["D(x)"]), color=colour, label=f"D(x), seed {run.seed}")
        probabilities.plot(
            _smooth(run.curves["D(G(s))"]), color=colour, linestyle=":", label=f"D(G(s)), seed {run.seed}"
        )
        value.plot(_smooth(run.curves["V(D,G)"]), color=colour)
        _draw_guided(guided, run, first=number == 0)
    divergence.set(title="JS divergence to the language", ylabel="bits", xlabel="step", ylim=(0, None))
    divergence.plot([], [], color="grey", linestyle="--", linewidth=1, label="maximum likelihood, best temperature")
    divergence.legend(fontsize="small")
    probabilities.axhline(0.5, color="grey", linewidth=1)
    probabilities.set(title="The discriminator", ylabel="mean probability of real", xlabel="step")
    probabilities.legend(fontsize="small")
    value.axhline(-math.log(4), color="grey", linewidth=1)
    value.annotate("-log 4: real and generated text cannot be told apart", (0, -math.log(4)), fontsize="small")
    value.set(title="V(D, G)", ylabel="nats", xlabel="step")
    guided.set(
        title="With the discriminator at generation",
        xlabel="draws per sentence kept",
        ylabel="JS divergence in bits",
        xscale="log",
        ylim=(0, None),
    )
    guided.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"], minor=False)
    guided.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def _draw_guided(axes: Any, run: SeedResult, first: bool) -> None:
    """Draw divergence against draws: both generators alone and with their discriminators, and the perfect one's."""
    starts = {"adversarial": run.adversarial, "maximum likelihood": at_one(run.likelihood)}
    styles = {"maximum likelihood + D": "o-", "maximum likelihood + perfect D": "k--", "adversarial + D": "s:"}
    for place, (name, points) in enumerate(run.guided.items()):
        alone = next(quality for start, quality in starts.items() if name.startswith(start))
        kept = [point for point in points if math.isfinite(point.draws)]
        draws, divergences = [1.0, *(point.draws for point in kept)], [alone.divergence, *(p.divergence for p in kept)]
        colour = {} if "perfect" in name else {"color": matplotlib.color_sequences["tab10"][place]}
        axes.plot(draws, divergences, styles.get(name, "o-"), label=name if first else None, **colour)


def _smooth(values: list[float], width: int = 10) -> list[float]:
    """Return the mean of each value and those up to `width` - 1 before it."""
    return [statistics.fmean(values[max(0, end - width) : end]) for end in range(1, len(values) + 1)]
