"""The parser of every subcommand: TRL's, from flags or a YAML file to dataclasses, with a short help in sections.

In: the words of the shell. Out: dataclasses, and by name what was given, in the file or as a flag. A word that is no
flag, and a value that is none, end the program in one line.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, cast

import yaml
from transformers import TrainingArguments
from trl import DatasetMixtureConfig, GRPOConfig, ModelConfig, ScriptArguments, TrlParser
from trl.scripts._hf_argparser import string_to_bool

from ..config import AdversarialConfig
from .train_arguments import DiscriminatorArguments


CONFIG = "--config"
HELP, HELP_ALL = ("-h", "--help"), ("--help_all", "--help-all")
NOT_GIVEN = object()
SENTENCE_END = re.compile(r"(?<=[.])\s+(?=[A-Z`\[])")
VALUES = {"str": "TEXT", "int": "N", "float": "X"}
JSON = {*AdversarialConfig._VALID_DICT_FIELDS, "generation_kwargs", "watchdog_thresholds"}  # flags that take a dict
# Where flags stand that are in no section, by the class that has them.
UPSTREAM: dict[str, Any] = {
    "Adapters and quantisation of the discriminator": DiscriminatorArguments,
    "Adapters and quantisation of the generator (trl.ModelConfig)": ModelConfig,
    "Trainer (transformers.TrainingArguments)": TrainingArguments,
    "GRPO (trl.GRPOConfig)": GRPOConfig,
    "Data (trl.ScriptArguments)": ScriptArguments,
    "Mixtures of datasets, in a YAML file (trl.DatasetMixtureConfig)": DatasetMixtureConfig,
}

Sections = Mapping[str, Sequence[str]]


class Formatter(argparse.HelpFormatter):
    """Shows each flag once, by its first name, and its default where that says something.

    Args:
        prog (`str`): Name of the command.
        in_short (`bool`): Whether a flag has one sentence.
    """

    def __init__(self, prog: str, in_short: bool) -> None:
        super().__init__(prog, max_help_position=36)
        self._in_short = in_short

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return " ".join(filter(None, (action.option_strings[0], self._value(action))))

    def _value(self, action: argparse.Action) -> str:
        if action.type is string_to_bool:
            return ""
        if action.choices is not None and len(list(action.choices)) <= 4:
            return "{" + ",".join(str(one) for one in action.choices) + "}"
        if action.dest in JSON:
            return "JSON"
        value = VALUES.get(getattr(action.type, "__name__", ""), "NAME" if action.choices is not None else "VALUE")
        return f"{value} ..." if action.nargs == "+" else value

    def _get_help_string(self, action: argparse.Action) -> str:
        text = " ".join((action.help or "").split())
        if self._in_short:
            text = SENTENCE_END.split(text, maxsplit=1)[0]
        if action.choices is not None and len(list(action.choices)) > 4 and not self._in_short:
            text += f" One of {', '.join(str(one) for one in action.choices)}."
        default = action.default
        if default is None or default is False or default in ("", []):
            return text
        shown = " ".join(map(str, default)) if isinstance(default, list) else str(default)
        return f"{text} [{shown.replace('%', '%%')}]"


class Parser(TrlParser):
    """Parses the flags of a subcommand.

    Args:
        command (`str`): Its name.
        *types (`type`): The dataclasses of its arguments.
        sections (`Mapping[str, Sequence[str]]`, *optional*): Title -> names of the flags that `--help` shows below it.
            All flags of their own by default.
    """

    def __init__(self, command: str, *types: type, sections: Sections | None = None) -> None:
        self._sections = sections
        super().__init__(
            cast("tuple[Any, ...]", types),  # transformers declares a type of dataclasses that none of them is of
            prog=f"hf-mgan {command}",
            usage=f"hf-mgan {command} [--config FILE.yaml] [flags]",
            allow_abbrev=False,
            add_help=False,
        )
        for action in self._actions:
            if action.type is string_to_bool:  # alone it means true, as upstream has it for most of them
                action.nargs, action.const = "?", True
            elif action.dest == "resume_from_checkpoint":  # a folder, or true for the newest one
                action.type, action.nargs, action.const = _text_or_truth, "?", True

    def parse(self, words: Sequence[str], defaults: Mapping[str, Any] | None = None) -> tuple[Any, ...]:
        """Return the dataclasses.

        Args:
            words (`Sequence[str]`): What follows the subcommand in the shell.
            defaults (`Mapping`, *optional*): Values by name that the file and the flags win over.

        Raises:
            ValueError: If the file is none, or has a name that is no flag.
        """
        words = self._split(words)
        self._help(words)
        if defaults:
            self.set_defaults_with_config(**defaults)
        file = self._file(words)
        self._check_names(words, file)
        return self.parse_args_and_config(words)

    def given(self, words: Sequence[str]) -> dict[str, Any]:
        """Return what the file and the flags give, by name."""
        words = self._split(words)
        file = self._file(words)
        if CONFIG in words:
            place = words.index(CONFIG)
            del words[place : place + 2]
        untouched = argparse.Namespace(**{action.dest: NOT_GIVEN for action in self._actions})
        flags, _ = self.parse_known_args(words, untouched)
        given = {name: value for name, value in vars(flags).items() if value is not NOT_GIVEN}
        return {**{name: value for name, value in file.items() if name != "env"}, **given}

    def set_defaults_with_config(self, **kwargs: Any) -> list[str]:
        """Take values of a file: a single one where a list is expected, and `no`, which YAML reads as false."""
        for action in self._actions:
            value = kwargs.get(action.dest)
            if value is not None and action.nargs == "+" and not isinstance(value, (list, tuple)):
                kwargs[action.dest] = [value]
            elif value is False and action.choices is not None and "no" in action.choices:
                kwargs[action.dest] = "no"
        return super().set_defaults_with_config(**kwargs)

    def error(self, message: str) -> NoReturn:
        """End in one line; argparse would list all flags first."""
        self.exit(2, f"{self.prog}: error: {message}. `{self.prog} --help` lists the flags.\n")

    def format_help(self) -> str:
        """Return the help in sections: those of the subcommand, and behind them the rest where it is asked for."""
        return self._help_text(shows_all=True)

    def _help_text(self, shows_all: bool) -> str:
        formatter, flags = Formatter(self.prog, in_short=not shows_all), self._listed()
        formatter.add_usage(self.usage, self._actions, [])
        sections = dict(self._sections or {"Flags": list(flags)})
        rest = [name for name in flags if not any(name in names for names in sections.values())]
        for title, names in {**sections, **(self._upstream(rest) if shows_all else {})}.items():
            formatter.start_section(title)
            formatter.add_arguments([flags[name] for name in names])
            formatter.end_section()
        formatter.add_text(
            "A YAML file takes the same names (--config FILE.yaml); flags win over it. A truth value may follow its "
            "flag: --bf16, --bf16 false."
        )
        if rest and not shows_all:
            formatter.add_text(f"{len(rest)} further flags, most of TRL and transformers: {self.prog} {HELP_ALL[0]}")
        return formatter.format_help()

    def _upstream(self, names: Iterable[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {title: [] for title in UPSTREAM}
        owned = {title: {field.name for field in fields(owner)} for title, owner in UPSTREAM.items()}
        for name in names:
            found[next(title for title, own in owned.items() if name in own)].append(name)
        return found

    def _listed(self) -> dict[str, argparse.Action]:
        """Return the flags by name, without the `--no_...` of upstream, which `false` says too."""
        return {action.dest: action for action in self._actions if action.nargs != 0}

    def _help(self, words: Sequence[str]) -> None:
        if any(word in words for word in (*HELP, *HELP_ALL)):
            sys.stdout.write(self._help_text(shows_all=any(word in words for word in HELP_ALL)))
            self.exit()

    def _split(self, words: Sequence[str]) -> list[str]:
        """Return the words, `--config=FILE` in two."""
        parted: list[str] = []
        for word in words:
            parted += word.split("=", 1) if word.startswith(f"{CONFIG}=") else [word]
        if parted and parted[-1] == CONFIG:
            self.error(f"{CONFIG} takes the name of a YAML file")
        return parted

    def _file(self, words: list[str]) -> dict[str, Any]:
        """Read the YAML file that the words name, if they do."""
        if CONFIG not in words:
            return {}
        path = Path(words[words.index(CONFIG) + 1])
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ValueError(f"{CONFIG} {path} cannot be read as YAML: {' '.join(str(error).split())}.") from error
        if not isinstance(content, dict):
            raise ValueError(f"{CONFIG} {path} holds {type(content).__name__}: it must be lines of NAME: VALUE.")
        return content

    def _check_names(self, words: Sequence[str], file: Mapping[str, Any]) -> None:
        """Refuse names that are no flags, with the one that is nearest."""
        names = {action.dest for action in self._actions}
        flags = {word.partition("=")[0] for word in words if word.startswith("--")} - {CONFIG}
        known = {string for action in self._actions for string in action.option_strings}
        for name in [*sorted(flags - known), *(name for name in file if name not in {*names, "env"})]:
            near = difflib.get_close_matches(name.lstrip("-"), names, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(f"There is no flag {name!r}.{hint} `{self.prog} {HELP_ALL[0]}` lists all of them.")


def _text_or_truth(text: str) -> str | bool:
    return {"true": True, "false": False}.get(text.lower(), text)
