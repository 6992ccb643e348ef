"""A sweep: conditions times seeds, each run in a process of its own, and the results as lines of JSON and tables."""

from .jobs import add_arguments, do_in_process, do_job, parse_arguments, run_jobs, silence
from .results import (
    PAGES,
    RESULTS,
    Job,
    check_settings,
    merge,
    publish,
    publish_runs,
    read_folder,
    read_lines,
    rounded,
    write_file,
    write_lines,
)
from .stages import do_stage, parsed, without_bars


__all__ = [
    "PAGES",
    "RESULTS",
    "Job",
    "add_arguments",
    "check_settings",
    "do_in_process",
    "do_job",
    "do_stage",
    "merge",
    "parse_arguments",
    "parsed",
    "publish",
    "publish_runs",
    "read_folder",
    "read_lines",
    "rounded",
    "run_jobs",
    "silence",
    "without_bars",
    "write_file",
    "write_lines",
]
