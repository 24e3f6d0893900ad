"""`python -m batchscape`: look at study files without running anything, and tidy up after a Snakemake that is gone."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from batchscape.cancel import cancel
from batchscape.config.base import shortest_decimal
from batchscape.config.loading import printable
from batchscape.errors import UserError
from batchscape.reference import reference, schema
from batchscape.study import Study


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m batchscape", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="check a study file and say what it would train")
    check.add_argument("file", type=Path, help="a study file, such as config/config.yaml")
    status = commands.add_parser("status", help="say how far the runs of a study are, while it runs or after")
    status.add_argument("file", type=Path, help="its study file")
    report = commands.add_parser(
        "report", help="write a report of the runs and analyses that exist, while a study runs or after a job failed"
    )
    report.add_argument("file", type=Path, help="its study file")
    commands.add_parser(
        "cancel", help="end the Slurm jobs that a Snakemake which is gone left in this folder; not while one works here"
    )
    commands.add_parser("schema", help="print the JSON schema of study files")
    commands.add_parser("reference", help="print the config reference, Markdown")
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
    return 0


def _check(file: Path) -> str:
    study = Study.from_file(file)
    study.require_files(printable(file))
    grid = study.grid
    in_grid = len(grid.batch_sizes) * len(grid.learning_rates) * len(grid.seeds)
    lines = [
        f"{printable(file)}: is a valid study",
        f"{len(study.runs)} runs: {in_grid} of the grid, batch sizes ({_list(grid.batch_sizes)}) × "
        f"learning rates ({_list(grid.learning_rates)}) × seeds ({_list(grid.seeds)}), "
        f"and {len(study.runs) - in_grid} that arms add",
    ]
    for arm, settings in study.settings_by_arm:
        lines.append(f"arm {arm}: {', '.join(settings) or 'has no batch size of the grid'}")
    lines.append("images and network are looked at when the study runs, before anything trains")
    lines.append(
        f"results go to {study.folder}/, which exists: what this file changes is made anew there"
        if Path(study.folder).exists()
        else f"results go to {study.folder}/"
    )
    return "\n".join(lines) + "\n"


def _status(file: Path) -> str:
    # A second of numeric libraries, which nothing else needs.
    from batchscape.status import described, read_rest, read_status

    study = Study.from_file(file)
    return "\n".join([*described(study.name, read_status(study)), *read_rest(study)]) + "\n"


def _report(file: Path) -> str:
    # Seconds of numeric and plotting libraries, which nothing else needs.
    from batchscape.partial_report import write_partial_report

    return "\n".join(write_partial_report(Study.from_file(file), file)) + "\n"


def _cancel(folder: Path) -> str:
    cancelled = cancel(folder)
    end = "all have ended" if cancelled else f"no Slurm job was submitted from {folder} and is still there"
    return "\n".join([*cancelled, end]) + "\n"


def _list(values: Iterable[float]) -> str:
    return ", ".join(map(shortest_decimal, values))


if __name__ == "__main__":
    sys.exit(main())
