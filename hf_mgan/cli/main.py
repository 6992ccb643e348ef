"""The command `hf-mgan`: each subcommand has its module; this one takes the first word and parses the rest.

All subcommands take flags or a YAML file (`--config file.yaml`), as TRL's own scripts do. `accelerate launch -m
hf_mgan.cli train ...` runs training on several devices.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import Any, cast

from trl import DatasetMixtureConfig, ModelConfig, TrlParser

from ..config import AdversarialConfig
from ..demo.run import DemoArguments, run_demo
from ..evaluation.report import table, verdict_lines
from .evaluate import EvaluateArguments, evaluate
from .generate import GenerateArguments, generate
from .train import TrainArguments, train


def _parser(command: str, *arguments: type) -> TrlParser:
    types = cast("tuple[Any, ...]", arguments)  # transformers declares a type of dataclasses that none of them is of
    return TrlParser(types, prog=f"hf-mgan {command}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with these arguments, those of the shell by default."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="hf-mgan", description="Adversarial fine-tuning of language models.")
    commands = ["train", "generate", "evaluate", "demo"]
    parser.add_argument("command", choices=commands, help="what to run; `hf-mgan train --help` lists its flags")
    command = parser.parse_args(argv[:1]).command
    if command == "demo":
        (demo,) = _parser(command, DemoArguments).parse_args_and_config(argv[1:])
        run_demo(demo)
        return
    if command == "evaluate":
        (chosen,) = _parser(command, EvaluateArguments).parse_args_and_config(argv[1:], fail_with_unknown_args=True)
        report = evaluate(chosen, f"hf-mgan {shlex.join(argv)}")
        lines = [table(report), *verdict_lines(report), f"The report is in {chosen.output_dir}/report.md."]
        sys.stdout.write("\n".join(lines) + "\n")
        return
    if command == "generate":
        (script,) = _parser(command, GenerateArguments).parse_args_and_config(argv[1:], fail_with_unknown_args=True)
        generate(script)
        return
    arguments = _parser(command, TrainArguments, AdversarialConfig, ModelConfig, DatasetMixtureConfig)
    train(*arguments.parse_args_and_config(argv[1:], fail_with_unknown_args=True))
