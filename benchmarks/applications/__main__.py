"""What the examples and a recipe find with real models and texts.

    python -m benchmarks.applications stories --output OUT --generator FOLDER --discriminator FOLDER --data DATA/novels
    python -m benchmarks.applications style_transfer --output OUT --data DATA/verses --styles archaic modern
    python -m benchmarks.applications stories --output OUT --publish   # committed results and the how-to
    python -m benchmarks.applications --publish                        # the how-tos alone

Runs an example as a user does, at the size of `APPLICATIONS`, on the training and the validation file of --data, which
are rows of `text` (stories, qlora, lora, lora_supervised), `messages` (chat) or `translation` (translation,
translation_es_en, style_transfer). translation_es_en is the example of translation from Spanish to English. qlora is
the recipe of that name and an evaluation, lora the same in 32 bits, and lora_supervised the same with three times the
warm start and no adversarial step. Options that are not known here go to the example, such as its keys of
`translation`. It writes its report to OUT/NAME/evaluation, and takes one to two hours of a CPU core with a generator
of 135 M parameters.
"""

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from ..sources import ENCODER, GENERATOR, SPLITS, short_name
from ..sweep import PAGES, RESULTS, read_lines, write_file, write_lines
from .tables import HOW_TOS, lines_of, page


MODULE = "benchmarks.applications"
COMMITTED = RESULTS / "applications.jsonl"
LONGEST_ANSWER = 200  # characters; one long answer pads a whole batch
IN_32_BITS = "--load_in_4bit false --discriminator_load_in_4bit false"


class Application(NamedTuple):
    """An example at the size of its measurement.

    Args:
        flags (`str`): What the example is called with, beside models, batch size and folders.
        one_split (`bool`): Whether it takes one split, and holds out a part of that by itself.
        held_out (`int`, *optional*): Rows of the validation file that it is given, the first ones.
        example (`str`, *optional*): The example, if it has another name.
    """

    flags: str
    one_split: bool = False
    held_out: int | None = None
    example: str | None = None


APPLICATIONS = {
    "stories": Application("--max_completion_length 48 --num_samples 250 --warm_start_steps 100 --final_steps 100"),
    "chat": Application("--subset default --warm_start_steps 60 --final_steps 100", one_split=True),
    "translation": Application("--subset default --num_held_out 200 --warm_start_steps 80", held_out=200),
    "translation_es_en": Application(
        "--subset default --num_held_out 300 --warm_start_steps 120 --source_lang es --target_lang en",
        held_out=300,
        example="translation",
    ),
    "style_transfer": Application("--warm_start_steps 80", held_out=200),
    "qlora": Application("--use_cpu --report_to none"),
    "lora": Application(f"--use_cpu --report_to none {IN_32_BITS}"),
    "lora_supervised": Application(
        f"--use_cpu --report_to none {IN_32_BITS} --warm_start_steps 300 --max_steps -1 --num_train_epochs 0"
    ),
}
RECIPE = ("qlora", "lora", "lora_supervised")  # these run examples/recipes/qlora.yaml
EVALUATION = "--num_samples 500 --temperatures 0.8 1.0 --reverse_perplexity false"


def write_data(source: str, folder: Path, one_split: bool, held_out: int | None) -> None:
    """Write a training and a validation file into a folder as `load_dataset` reads one.

    Args:
        source (`str`): What the names of both files begin with, such as `data/novels` for `data/novels.train.jsonl`.
        folder (`Path`): Where to.
        one_split (`bool`): Whether both become one file, in their order, without long answers.
        held_out (`int`, *optional*): Rows of the validation file, the first ones.

    Raises:
        FileNotFoundError: If one of them is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train, validation = (read_lines(Path(f"{source}.{split}.jsonl")) for split in SPLITS)
    rows = {"train": train, "validation": validation[:held_out]}
    if one_split:
        short = [row for row in train + validation if len(row["messages"][-1]["content"]) <= LONGEST_ANSWER]
        rows = {"train": short}
    for split, lines in rows.items():
        write_lines(folder / f"{split}.jsonl", lines)


def commands(name: str, arguments: argparse.Namespace, output: Path, more: list[str]) -> list[list[str]]:
    """Return the words of each command of a run, as it is written at the root of the repository."""
    application = APPLICATIONS[name]
    flags = [*shlex.split(application.flags), *more]
    generator, discriminator, size = arguments.generator, arguments.discriminator, str(arguments.batch_size)
    out, data = str(output), f"{output}/data"
    if name not in RECIPE:
        models = ["--generator", generator, "--discriminator", discriminator]
        folders = ["--dataset", data, "--output_dir", out]
        return [
            ["python", f"examples/{application.example or name}.py", *models, *folders, "--batch_size", size, *flags]
        ]
    models = ["--model_name_or_path", generator, "--discriminator_name_or_path", discriminator]
    files = ["--dataset_name", f"{data}/train.jsonl", "--eval_dataset_name", f"{data}/validation.jsonl"]
    train = ["hf-mgan", "train", "--config", "examples/recipes/qlora.yaml", *models, *files, "--output_dir", out]
    trained = [] if name == "lora_supervised" else [f"adversarial={out}"]
    compared = ["--models", f"supervised={out}/warm_start", *trained, f"guided={out}"]
    guides = ["--discriminators", f"guided={out}/discriminator"]
    evaluate = ["hf-mgan", "evaluate", *compared, *guides, "--output_dir", f"{out}/evaluation"]
    return [[*train, "--per_device_train_batch_size", size, *flags], [*evaluate, *shlex.split(EVALUATION)]]


def run(name: str, arguments: argparse.Namespace, more: list[str]) -> None:
    """Run an application, and leave beside its report what was called and what it took."""
    output = arguments.output / name
    application = APPLICATIONS[name]
    write_data(arguments.data, output / "data", application.one_split, application.held_out)
    began = time.perf_counter()
    lines = commands(name, arguments, output, more)
    for program, *words in lines:
        subprocess.run([Path(sys.executable).with_name(program), *words], check=True)
    models = {"generator": arguments.generator, "discriminator": arguments.discriminator}
    names = {model: short_name(model) for model in models.values()}
    about = {
        "commands": [
            shlex.join(names.get(word, word).replace(str(output), "OUT") for word in words) for words in lines
        ],
        "seconds": round(time.perf_counter() - began),
        **{key: short_name(model) for key, model in models.items()},
        "corpus": short_name(arguments.data),
    }
    write_file(output / "run.json", about)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # what is not known here goes to the example as it is
    )
    parser.add_argument("name", nargs="?", choices=list(APPLICATIONS), help="the example to run, or to publish")
    parser.add_argument("--output", type=Path, help="folder of the runs")
    parser.add_argument("--generator", default=GENERATOR, help="id on the Hub, or folder")
    parser.add_argument("--discriminator", default=ENCODER, help="id on the Hub, or folder")
    parser.add_argument("--data", help="what the names of the two files begin with")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--publish", action="store_true", help="write the committed results and the how-tos")
    arguments, more = parser.parse_known_args(words)
    name = arguments.name
    if name is not None and arguments.output is None:
        parser.error("give --output, the folder of the runs")
    if arguments.publish:
        lines = read_lines(COMMITTED) if COMMITTED.exists() else []
        if name is not None:
            lines = [one for one in lines if one["application"] != name] + lines_of(name, arguments.output / name)
            write_lines(COMMITTED, sorted(lines, key=lambda one: list(APPLICATIONS).index(one["application"])))
        for how_to in HOW_TOS:
            (PAGES / f"how_to/{how_to}.md").write_text(page(how_to, lines))
    elif name is None or arguments.data is None:
        parser.error("give the name of an example, and --data")
    else:
        run(name, arguments, more)


if __name__ == "__main__":
    main()
