"""Results of a sweep: a file per job in the output folder, and one JSON object per line where they are committed."""

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..testbed import ROOT


RESULTS = ROOT / "benchmarks" / "results"
PAGES = ROOT / "docs"

Result = dict[str, Any]


class Job(NamedTuple):
    """A condition with a seed."""

    name: str
    seed: int

    def path(self, folder: Path) -> Path:
        """Return the file that it leaves in the folder."""
        return folder / f"{self.name}.{self.seed}.json"


def rounded(value: Any) -> Any:
    """Return the value with every number rounded to six digits; None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def write_file(path: Path, value: Any, indent: int | None = None) -> None:
    """Write JSON so that the file is there whole or not at all."""
    _write_whole(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def write_lines(path: Path, results: Iterable[Result]) -> None:
    """Write one JSON object per line so that the file is there whole or not at all."""
    _write_whole(path, "".join(json.dumps(result, ensure_ascii=False) + "\n" for result in results))


def _write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text)
    os.replace(unfinished, path)


def read_lines(path: Path) -> list[Result]:
    """Return the objects of a file with one JSON object per line; a text in them may hold other ends of lines."""
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def read_source(source: Path) -> Iterator[Result]:
    """Yield all results in a folder with a file per job, or in a file with one result per line."""
    if not source.is_dir():
        yield from read_lines(source)
        return
    for path in sorted(source.glob("*.json")):
        if re.fullmatch(r"\w[\w.-]*\.\d+\.json", path.name):
            yield json.loads(path.read_text())


def read_folder(folder: Path) -> dict[Job, Result]:
    """Return the results in a folder by job."""
    if not folder.is_dir():
        return {}
    return {Job(one["condition"], one["seed"]): one for one in read_source(folder)}


def merge(sources: list[Path], folder: Path) -> None:
    """Unpack results into the folder. A result takes the place of an error, and of nothing else.

    Raises:
        ValueError: If results were made with other sizes than those in the folder.
    """
    there = read_folder(folder)
    for source in sources:
        counts = {"new": 0, "there already": 0, "different from the one there, which is kept": 0}
        for result in read_source(source):
            job = Job(result["condition"], result["seed"])
            check_settings([*there.values(), result])
            if job not in there or ("error" in there[job] and "error" not in result):
                write_file(job.path(folder), result)
                there[job] = result
                counts["new"] += 1
            else:
                counts[list(counts)[1 if there[job] == result or "error" in result else 2]] += 1
        print(f"{source}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))


def check_settings(results: list[Result]) -> None:
    """Check that results go together.

    Raises:
        ValueError: If they were made with different sizes.
    """
    different = {json.dumps(one["settings"], sort_keys=True) for one in results}
    if len(different) > 1:
        raise ValueError(
            "Results of different sizes do not go together: " + " and ".join(sorted(different)) + ". "
            "Give another --output."
        )


def publish(
    folder: Path | None,
    committed: Path,
    page: Path,
    ordered: Callable[[dict[Job, Result]], list[Result]],
    written: Callable[[list[Result]], str],
) -> None:
    """Put the results of a folder in the place of the committed ones of the same jobs, and write the page from all.

    Args:
        folder (`Path`, *optional*): Folder of new results; without one the page alone is written.
        committed (`Path`): The file of committed results.
        page (`Path`): The page of the documentation.
        ordered (`Callable`): Puts results in the order of the file.
        written (`Callable`): Makes the text of the page from the results in the file.

    Raises:
        ValueError: If the new results were made with other sizes than the committed ones.
    """
    if folder is not None:
        there = (
            {Job(one["condition"], one["seed"]): one for one in read_lines(committed)} if committed.exists() else {}
        )
        results = ordered(there | read_folder(folder))
        check_settings(results)
        write_lines(committed, results)
    page.write_text(written(read_lines(committed)))


def publish_runs(
    output: Path | None,
    committed: Path,
    page: Path,
    gather: Callable[[Path], list[Result]],
    written: Callable[[list[Result]], str],
) -> list[Result]:
    """Put the runs of a folder in the place of the committed ones, and write the page from all.

    Runs are the same of one corpus, generator and seed, and of one way, word and learning rate where they say these.

    Args:
        output (`Path`, *optional*): Folder of the runs; without one the page alone is written.
        committed (`Path`): The file of committed runs.
        page (`Path`): The page of the documentation.
        gather (`Callable`): Returns the finished runs of a folder.
        written (`Callable`): Makes the text of the page from all runs.

    Returns:
        `list[Result]`: All runs.

    Raises:
        ValueError: If the folder holds no finished run.
    """
    runs = read_lines(committed) if committed.exists() else []
    if output is not None:
        new = gather(output)
        if not new:
            raise ValueError(f"There is no finished run in {output}: run without --publish first.")
        names = ("corpus", "generator", "learning_rate", "trained", "word", "way", "seed")
        known = {tuple(run.get(name, "") for name in names): run for run in (*runs, *new)}
        runs = [known[key] for key in sorted(known)]
        write_lines(committed, runs)
    page.write_text(written(runs))
    return runs
