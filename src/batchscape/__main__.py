"""Check study files, show the state of a study, and cancel the Slurm jobs of a killed Snakemake."""

import argparse
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from batchscape.cli.cancel import cancel
from batchscape.cli.reference import reference, schema
from batchscape.config.base import shortest_decimal
from batchscape.config.loading import printable
from batchscape.errors import UserError
from batchscape.runtime.environment_variables import sanitize_environment
from batchscape.study.study import Study

if TYPE_CHECKING:
    from batchscape.data.inspect import Inspection


def main() -> int:
    sanitize_environment()
    parser = argparse.ArgumentParser(prog="python -m batchscape", description=__doc__)
    parser.add_argument("--version", action="version", version=f"batchscape {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, description: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=description, description=description)

    check = add("check", "check a study file; list its trainings and estimate their time on this machine")
    check.add_argument("file", type=Path, metavar="FILE", help="study file, such as config/config.yaml")
    status = add("status", "show the state of each run of a study, during or after execution")
    status.add_argument("file", type=Path, metavar="FILE", help="study file, such as config/config.yaml")
    report = add("report", "write a report of the runs and analyses that exist, during execution or after a job failed")
    report.add_argument("file", type=Path, metavar="FILE", help="study file, such as config/config.yaml")
    add("cancel", "cancel Slurm jobs that a killed Snakemake left in this folder; not while Snakemake runs here")
    add("schema", "print the JSON schema of study files")
    add("reference", "print the config reference as Markdown")
    arguments = parser.parse_args()
    try:
        sys.stdout.write(
            {
                "check": lambda: _check(arguments.file),
                "status": lambda: _status(arguments.file),
                "report": lambda: _report(arguments.file),
                "cancel": lambda: _cancel(Path.cwd()),
                "schema": schema,
                "reference": reference,
            }[arguments.command]()
        )
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130  # as a shell says of what Ctrl-C ended
    return 0


def _version() -> str:
    try:
        return version("batchscape")
    except PackageNotFoundError:
        return "(not installed)"


def _check(file: Path) -> str:
    study = Study.from_file(file)
    study.require_files(printable(file))
    # NumPy and Pillow, which nothing else needs.
    from batchscape.data.inspect import inspect_source

    try:
        inspection = inspect_source(study.data)
        cost = _cost(study, inspection)
    except UserError as error:
        raise UserError(f"{printable(file)}: {error}") from None
    lines = [
        f"{printable(file)}: is a valid study",
        *_runs(study),
        *_arms(study),
        *inspection.lines,
        study.described_trainings,
        study.described_gpus(),
        *cost,
        *_results(study),
    ]
    return "\n".join(lines) + "\n"


def _runs(study: Study) -> list[str]:
    grid = study.grid
    in_grid = len(grid.batch_sizes) * len(grid.learning_rates) * len(grid.seeds)
    return [
        f"{len(study.runs)} runs: {in_grid} of the grid, batch sizes ({_list(grid.batch_sizes)}) × "
        f"learning rates ({_list(grid.learning_rates)}) × seeds ({_list(grid.seeds)}), "
        f"and {len(study.runs) - in_grid} that arms add"
    ]


def _arms(study: Study) -> list[str]:
    return [
        f"arm {arm}: {', '.join(settings) or 'has no batch size of the grid'}"
        for arm, settings in study.settings_by_arm
    ]


def _cost(study: Study, inspection: "Inspection") -> list[str]:
    if all(Path(file).exists() for file in study.run_files):
        return ["time: all runs are there"]
    # Seconds of libraries, which nothing else needs.
    from batchscape.cli.cost import describe_cost

    return describe_cost(study, inspection)


def _results(study: Study) -> list[str]:
    exists = Path(study.folder).exists()
    return [
        "images are decoded and the network is tried when the study runs, before anything trains",
        f"results go to {study.folder}/"
        + (", which exists: what this file changes is made anew there" if exists else ""),
    ]


def _status(file: Path) -> str:
    # A second of numeric libraries, which nothing else needs.
    from batchscape.cli.status import format_status, read_other_jobs, read_status

    study = Study.from_file(file)
    return "\n".join([*format_status(study.name, read_status(study)), *read_other_jobs(study)]) + "\n"


def _report(file: Path) -> str:
    # Seconds of numeric and plotting libraries, which nothing else needs.
    from batchscape.cli.report import write_partial_report

    return "\n".join(write_partial_report(Study.from_file(file), file)) + "\n"


def _cancel(folder: Path) -> str:
    cancelled = cancel(folder)
    end = "all have ended" if cancelled else f"no Slurm job was submitted from {folder} and is still there"
    return "\n".join([*cancelled, end]) + "\n"


def _list(values: Iterable[float]) -> str:
    return ", ".join(map(shortest_decimal, values))


if __name__ == "__main__":
    sys.exit(main())
