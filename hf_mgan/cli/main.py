"""The command `hf-mgan`: each subcommand has its module; this one takes the first word and parses the rest.

All subcommands take flags or a YAML file (`--config file.yaml`), as TRL's own scripts do. `accelerate launch -m
hf_mgan.cli train ...` runs training on several devices.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn

from trl import DatasetMixtureConfig, ModelConfig

from ..config import AdversarialConfig
from ..demo.run import DemoArguments, run_demo
from ..evaluation.report import table, verdict_lines
from .evaluate import EvaluateArguments, evaluate
from .generate import GenerateArguments, generate
from .parser import Parser
from .refusals import in_one_line, is_refusal
from .run_settings import taken_from_runs
from .sections import EVALUATE, GENERATE, TRAIN
from .train import TrainArguments, train


COMMANDS = {
    "train": "train a generator against a discriminator",
    "generate": "write texts with both models",
    "evaluate": "compare generators with held-out text, and write a report",
    "demo": "see a whole run on a small language, on a CPU",
}


class OneLine(argparse.ArgumentParser):
    """Says what is wrong with the subcommand in one line."""

    def error(self, message: str) -> NoReturn:
        """End in one line."""
        self.exit(2, f"{self.prog}: error: {message}. `{self.prog} --help` lists the commands.\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with these arguments, those of the shell by default.

    What is refused ends the program with one line and status 1; a bug keeps its traceback.
    """
    try:
        run(argv)
    except Exception as error:
        if not is_refusal(error):
            raise
        sys.exit(f"hf-mgan: error: {in_one_line(error)}")


def run(argv: Sequence[str] | None = None) -> None:
    """Run the command as `main` does, with errors as they are."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = OneLine(
        prog="hf-mgan",
        description="Adversarial fine-tuning of language models.",
        epilog="\n".join(f"  {name:10} {does}" for name, does in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hf-mgan {_version()}")
    parser.add_argument("command", choices=COMMANDS, help="what to run; `hf-mgan train --help` lists its flags")
    command, words = parser.parse_args(argv[:1]).command, argv[1:]
    if command == "demo":
        (demo,) = Parser(command, DemoArguments).parse(words)
        run_demo(demo)
    elif command == "evaluate":
        flags = Parser(command, EvaluateArguments, sections=EVALUATE)
        taken = taken_from_runs(flags.given(words))
        (chosen,) = flags.parse(words, taken.values)
        chosen.models = taken.models or chosen.models
        if taken.line is not None:
            sys.stderr.write(f"{taken.line}\n")
        report = evaluate(chosen, f"hf-mgan {shlex.join(argv)}")
        lines = [table(report), *verdict_lines(report), f"The report is in {chosen.output_dir}/report.md."]
        sys.stdout.write("\n".join(lines) + "\n")
    elif command == "generate":
        (script,) = Parser(command, GenerateArguments, sections=GENERATE).parse(words)
        generate(script)
    else:
        types = (TrainArguments, AdversarialConfig, ModelConfig, DatasetMixtureConfig)
        flags = Parser(command, *types, sections=TRAIN)
        script, args, model, mixture = flags.parse(words)
        train(script, args, model, mixture, flags.given(words))


def _version() -> str:
    """Return the version of this package; a source tree on the path has none."""
    try:
        return version("hf-mgan")
    except PackageNotFoundError:
        return "not installed"
