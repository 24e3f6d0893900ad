"""What batch size to train with, and how the learning rate should follow it."""

import argparse
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from batchscape.errors import UserError
from batchscape.runtime.environment_variables import sanitize_environment

# Each command imports its own modules, because some of their libraries take seconds.

SOURCES = (
    *("digits", "image_folder", "arrays", "synthetic", "cats_vs_dogs", "table", "diamonds"),
    *("text", "python_docs", "idx", "cifar"),
)
TASKS = ("classification", "regression", "language_model")
SHELLS = ("bash", "zsh", "tcsh")


def main() -> int:
    sanitize_environment()
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)  # with modules of the user; `python -m` does this by itself
    arguments = _parser().parse_args()
    try:
        sys.stdout.write(arguments.function(arguments))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130  # the exit status that a shell reports after Ctrl-C
    return 0


class _Formatter(argparse.HelpFormatter):
    """Leaves room for the names of commands, whose indentation argparse does not count."""

    def add_argument(self, action: argparse.Action) -> None:
        self._indent()
        super().add_argument(action)
        self._dedent()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="batchscape", description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--version", action="version", version=f"batchscape {_version()}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")

    def add(
        name: str, function: Callable[[argparse.Namespace], str], description: str, needs_file: bool = False
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=description, description=description[0].upper() + description[1:])
        command.set_defaults(function=function)
        if needs_file:
            command.add_argument("file", type=Path, metavar="FILE", help="study file, such as study.yaml")
        return command

    init = add("init", _init, "write a study file, and what runs it, into a new folder")
    init.add_argument("folder", type=Path, nargs="?", default=Path(), metavar="FOLDER", help="default: this folder")
    init.add_argument(
        "--data", choices=SOURCES, default="digits", metavar="SOURCE", help=f"one of {', '.join(SOURCES)}"
    )
    init.add_argument("--task", choices=TASKS, metavar="TASK", help=f"one of {', '.join(TASKS)}")
    run = add("run", _run, "check a study file, and run it with Snakemake", needs_file=True)
    run.usage = "batchscape run [-h] FILE [OPTION ...]"
    run.epilog = "For example: batchscape run study.yaml --cores 8 --dry-run"
    run.add_argument(
        "options",
        nargs=argparse.REMAINDER,
        metavar="OPTION",
        help="options and targets of Snakemake, such as --cores 8",
    )
    add("check", _check, "check a study file; estimate the time of its trainings", needs_file=True)
    add("verify", _verify, "probe network, loss, optimizer and data by training", needs_file=True)
    status = add("status", _status, "show the state of each run, also while they train", needs_file=True)
    form = status.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object per line for each job and each run")
    form.add_argument("--watch", action="store_true", help="show bars with the time to go, until the study is complete")
    add("report", _report, "write a report of the results so far", needs_file=True)
    compare = add("compare", _compare, "compare finished studies side by side, on one page")
    compare.add_argument(
        "studies", type=Path, nargs="+", metavar="STUDY", help="study file, or folder such as results/digits"
    )
    compare.add_argument(
        "--output", type=Path, metavar="DIR", help="folder of the page and its tables (default: results/comparison)"
    )
    export = add("export", _export, "print the recommended setting as Python for other programs")
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
    add("cancel", _cancel, "cancel Slurm jobs that a killed Snakemake left here")
    add("schema", _schema, "print the JSON schema of study files")
    add("reference", _reference, "print all keys of study files as Markdown")
    completion = add("completion", _completion, "print a script that completes commands in a shell")
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"one of {', '.join(SHELLS)}")
    return parser


def _version() -> str:
    try:
        return version("batchscape")
    except PackageNotFoundError:
        return "(not installed)"


def _init(arguments: argparse.Namespace) -> str:
    from batchscape.cli.init import init

    return _join(init(arguments.folder, arguments.data, arguments.task))


def _run(arguments: argparse.Namespace) -> str:
    from batchscape.cli.run import run

    run(arguments.file, arguments.options)


def _check(arguments: argparse.Namespace) -> str:
    from batchscape.cli.check import check

    return _join(check(arguments.file))


def _verify(arguments: argparse.Namespace) -> str:
    from batchscape.cli.verify import verify_study

    for line in verify_study(arguments.file):
        print(line, flush=True)  # noqa: T201 - each takes seconds
    return ""


def _status(arguments: argparse.Namespace) -> str:
    from batchscape.cli.status import describe_study, status_as_json
    from batchscape.cli.watch import watch
    from batchscape.study.study import Study

    study = Study.from_file(arguments.file)
    if arguments.watch:
        watch(study)
        return ""
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


def _completion(arguments: argparse.Namespace) -> str:
    from batchscape.cli.completion import completion

    return completion(_parser(), arguments.shell)


def _join(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
