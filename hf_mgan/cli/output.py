"""What `hf-mgan generate` writes: texts as JSON lines or as a table, and a line that says what they cost.

In: prompts and [`GuidedSamples`]. Out: a file, or the standard output; on a terminal a table, by rich where it is
installed. The cost stands behind the texts on a terminal, and on the standard error where the texts are JSON lines.
The lines are rows of prompt and completion as TRL's trainers take them.
"""

import json
import math
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..data import plain_text
from ..data.prompts import Text
from ..decoding import GuidedSamples


class Writer:
    """Writes texts to a file, or to the standard output.

    Args:
        path (`str`, *optional*): The file, which is begun at once, so that no hours are lost to one that cannot be
            written.

    Raises:
        ValueError: If it cannot be written.
    """

    def __init__(self, path: str | None) -> None:
        self._path = None if path is None else Path(path)
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._path.write_text("")
            except OSError as error:
                raise ValueError(f"output is {path!r}, which cannot be written: {error}.") from error

    def write(self, prompts: Sequence[Text], samples: GuidedSamples, seconds: float, has_ratios: bool) -> None:
        """Write the texts, and what they cost. A prompt without a text has a row in a table, and no line of JSON.

        Args:
            prompts (`Sequence[str or list[dict]]` of length N): The prompts.
            samples ([`GuidedSamples`]): Their texts.
            seconds (`float`): What they took.
            has_ratios (`bool`): Whether there was a discriminator, so that the log-ratios say something.
        """
        rows = output_rows(prompts, samples, has_ratios)
        given = [row for row in rows if row["completion"] is not None]  # no trainer takes a row without a completion
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in given)
        cost = cost_line(samples, seconds)
        if self._path is not None:
            self._path.write_text(lines, encoding="utf-8")
            sys.stdout.write(f"{cost}\nThe texts are in {self._path}.\n")
        elif sys.stdout.isatty():
            write_table(rows)
            sys.stdout.write(f"{cost}\n")
        else:
            sys.stdout.write(lines)
            sys.stderr.write(f"{cost}\n")


def output_rows(prompts: Sequence[Text], samples: GuidedSamples, has_ratios: bool) -> list[dict[str, Any]]:
    """Return a row for each text, in the form of [`prepare_dataset`]: the answer to messages is a message.

    Args:
        prompts (`Sequence[str or list[dict]]` of length N): As in [`Writer.write`], as all that follow.
        samples ([`GuidedSamples`]): See there.
        has_ratios (`bool`): See there; `log_ratio` is None otherwise.

    Returns:
        `list[dict]` of length N: With `prompt`, `completion` (None where a filter refused every candidate),
            `log_ratio` (nats), `tries`, `tokens` and `accepted`.
    """
    columns = (prompts, samples.texts, samples.log_ratios, samples.tries, samples.tokens, samples.accepted)
    return [
        {
            "prompt": prompt,
            "completion": text
            if text is None or isinstance(prompt, str)
            else [{"role": "assistant", "content": text}],
            "log_ratio": round(ratio, 4) if has_ratios and math.isfinite(ratio) else None,
            "tries": tries,
            "tokens": tokens,
            "accepted": accepted,
        }
        for prompt, text, ratio, tries, tokens, accepted in zip(*columns, strict=True)
    ]


def cost_line(samples: GuidedSamples, seconds: float) -> str:
    """Return what texts cost, in a line: tokens and draws count those of rejected candidates."""
    refused = len(samples.texts) - samples.num_kept
    parts = [
        f"{samples.num_kept} texts",
        f"{samples.draws:.2f} draws per text kept",
        f"{samples.tokens_per_text:.1f} tokens per text kept",
        f"{samples.num_exhausted} exhausted",
        *([f"{refused} refused by the filter"] if refused else []),
        f"{seconds:.1f} seconds",
        f"{sum(samples.tokens) / max(seconds, 1e-9):.0f} tokens per second",
    ]
    return ", ".join(parts) + "."


def write_table(rows: list[dict[str, Any]]) -> None:
    """Write rows to the standard output as a table."""
    cells = [_cells(row) for row in rows]
    header = ["log-ratio", "tries", "prompt", "completion"]
    if find_spec("rich") is None:
        widths = [max(len(line[place]) for line in [header, *cells]) for place in range(3)]
        for line in [header, *cells]:
            padded = [text.ljust(width) for text, width in zip(line, widths, strict=False)]
            sys.stdout.write("  ".join([*padded, line[3]]).rstrip() + "\n")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text as Cell

    table = Table(box=box.SIMPLE_HEAD)
    for name in header[:2]:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(header[2], ratio=1, overflow="fold")
    table.add_column(header[3], ratio=2, overflow="fold")
    for line in cells:
        table.add_row(*(Cell(text) for text in line))  # what looks like markup is text
    Console(file=sys.stdout).print(table)


def _cells(row: dict[str, Any]) -> list[str]:
    """Return a row as texts without line breaks; one that was not accepted has a star at its tries."""
    ratio = "" if row["log_ratio"] is None else f"{row['log_ratio']:+.2f}"
    completion = "(refused by the filter)" if row["completion"] is None else plain_text(row["completion"])
    tries = f"{row['tries']}{'' if row['accepted'] else '*'}"
    return [ratio, tries, " ".join(plain_text(row["prompt"]).split()), " ".join(completion.split())]
