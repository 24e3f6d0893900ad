"""Check and extend study files, show the status of a study, and cancel the Slurm jobs of a killed Snakemake."""

import argparse
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from batchscape.errors import UserError
from batchscape.runtime.environment_variables import sanitize_environment

# Each command imports its own modules, because some of their libraries take seconds.


def main() -> int:
    sanitize_environment()
    arguments = _parser().parse_args()
    try:
        sys.stdout.write(arguments.function(arguments))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130  # the exit status that a shell reports after Ctrl-C
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m batchscape", description=__doc__)
    parser.add_argument("--version", action="version", version=f"batchscape {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        name: str, function: Callable[[argparse.Namespace], str], description: str, needs_file: bool = False
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=description, description=description)
        command.set_defaults(function=function)
        if needs_file:
            command.add_argument("file", type=Path, metavar="FILE", help="study file, such as config/config.yaml")
        return command

    add("check", _check, "check a study file; list its trainings and estimate their time here", needs_file=True)
    status = add("status", _status, "show the status of each run, during or after execution", needs_file=True)
    status.add_argument("--json", action="store_true", help="print one JSON object per line for each job and each run")
    add("report", _report, "write a report of what exists, while a study runs or after a job failed", needs_file=True)
    compare = add("compare", _compare, "compare finished studies on one page: what differs, and results side by side")
    compare.add_argument(
        "studies", type=Path, nargs="+", metavar="STUDY", help="study file, or folder such as results/digits"
    )
    compare.add_argument(
        "--output", type=Path, metavar="DIR", help="folder of the page and its tables (default: results/comparison)"
    )
    export = add("export", _export, "print the recommended setting of a finished study as Python for other programs")
    export.add_argument("file", type=Path, metavar="STUDY", help="study file, or folder such as results/digits")
    export.add_argument(
        "--format",
        choices=("lightning", "huggingface", "torchrun"),
        default="lightning",
        help="what for (default: lightning)",
    )
    export.add_argument("--devices", type=int, default=1, metavar="N", help="devices that share a batch (default: 1)")
    export.add_argument(
        "--max-per-device", type=int, metavar="B", help="examples that fit on a device; larger shares are accumulated"
    )
    extend = add("extend", _extend, "add seeds to a study file; the next run trains only these", needs_file=True)
    extend.add_argument("--seeds", type=int, required=True, metavar="N", help="number of seeds to add to grid.seeds")
    add("cancel", _cancel, "cancel Slurm jobs that a killed Snakemake left in this folder; not while it runs here")
    add("schema", _schema, "print the JSON schema of study files")
    add("reference", _reference, "print the config reference as Markdown")
    return parser


def _version() -> str:
    try:
        return version("batchscape")
    except PackageNotFoundError:
        return "(not installed)"


def _check(arguments: argparse.Namespace) -> str:
    from batchscape.cli.check import check

    return _join(check(arguments.file))


def _status(arguments: argparse.Namespace) -> str:
    from batchscape.cli.status import describe_study, status_as_json
    from batchscape.study.study import Study

    study = Study.from_file(arguments.file)
    return _join(status_as_json(study) if arguments.json else describe_study(study))


def _report(arguments: argparse.Namespace) -> str:
    from batchscape.cli.report import write_partial_report
    from batchscape.study.study import Study

    return _join(write_partial_report(Study.from_file(arguments.file), arguments.file))


def _compare(arguments: argparse.Namespace) -> str:
    from batchscape.cli.compare import DEFAULT_OUTPUT, compare

    return _join(compare(arguments.studies, arguments.output or DEFAULT_OUTPUT))


def _export(arguments: argparse.Namespace) -> str:
    from batchscape.cli.export import export

    return export(arguments.file, arguments.format, arguments.devices, arguments.max_per_device)


def _extend(arguments: argparse.Namespace) -> str:
    from batchscape.cli.extend import extend

    return _join(extend(arguments.file, arguments.seeds))


def _cancel(_: argparse.Namespace) -> str:
    from batchscape.cli.cancel import cancel

    folder = Path.cwd()
    cancelled = cancel(folder)
    end = "all have ended" if cancelled else f"no Slurm job submitted from {folder} is left"
    return _join([*cancelled, end])


def _schema(_: argparse.Namespace) -> str:
    from batchscape.cli.reference import schema

    return schema()


def _reference(_: argparse.Namespace) -> str:
    from batchscape.cli.reference import reference

    return reference()


def _join(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
