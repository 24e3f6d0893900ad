"""Finished studies, as `compare` and `export` read them: the settings that their results have, and their tables.

The settings come from the report, which is written last: a study file may have been edited since.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML, YAMLError

from batchscape.config.loading import printable
from batchscape.errors import UserError
from batchscape.io.frames import read_frame
from batchscape.io.run_directory import RunDirectory
from batchscape.report.comparison.studies import flatten
from batchscape.report.page import read_config
from batchscape.study.specs import dump_with_defaults
from batchscape.study.study import Study

FINISH = "finish it with `batchscape run FILE`, where FILE is its study file"


@dataclass(frozen=True)
class FinishedStudy:
    """A study with a report, in a folder that need not be where its study file is."""

    folder: Path
    study: Study
    settings: Mapping[str, Any]
    """Its settings, with all defaults."""

    def has_table(self, name: str) -> bool:
        """Return whether a table is part of the study, which may disable it."""
        return name in {Path(file).stem for file in self.study.paths.reported_tables}

    def table(self, name: str, columns: Sequence[str]) -> pd.DataFrame:
        """Return a table.

        Args:
            name: Its name, such as `scaling`.
            columns: Columns that it must have.

        Raises:
            UserError: It is missing or corrupt, or lacks a column.
        """
        path = self.folder / "tables" / f"{name}.csv"
        frame = read_frame(path, f"delete it and {FINISH}")
        if absent := [column for column in columns if column not in frame]:
            raise UserError(
                f"{printable(path)}: has no column {absent[0]}, as other versions write it; delete it and {FINISH}"
            )
        return frame

    def run(self, setting: str | None = None) -> dict[str, Any]:
        """Return the content of `run.json` of a run, by default of the first one.

        Raises UserError if it is missing or corrupt.
        """
        name = next(name for name, run in self.study.runs.items() if setting in (None, run.setting))
        return RunDirectory(self.folder / "runs" / name).summary()


def find_folder(path: Path) -> tuple[Path, list[str]]:
    """Return the folder with the results of a study, and lines on what the study file says that they do not have.

    Args:
        path: The study file, or the folder itself.

    Raises:
        UserError: The path is neither.
    """
    if path.is_dir():
        if not any((path / name).exists() for name in ("report.html", "runs", "tables")):
            raise UserError(
                f"{printable(path)}: is not the folder of a study; give a study file, or a folder such as "
                "results/my-study"
            )
        return path, []
    study = Study.from_file(path)
    folder = Path(study.paths.folder)
    if not folder.exists():
        raise UserError(f"{printable(path)}: has no results yet ({folder} does not exist); {FINISH}")
    try:
        settings = read_finished(folder).settings
    except UserError:  # whoever reads the folder reports it
        return folder, []
    before, after = flatten(settings), flatten(dump_with_defaults(study))
    edited = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    if not edited:
        return folder, []
    return folder, [
        f"{printable(path)}: was edited after {folder} was computed ({', '.join(edited)}); what follows is about the "
        f"results, not about the edited file, until you {FINISH}"
    ]


def read_finished(folder: Path) -> FinishedStudy:
    """Read the settings of a finished study.

    Args:
        folder: The folder with its results.

    Raises:
        UserError: The study is not finished, or another version has written it.
    """
    report = folder / "report.html"
    name = printable(folder)
    if not report.exists():
        raise UserError(f"{name}: is not finished, since it has no report.html; {FINISH}")
    try:
        text = read_config(report.read_text(encoding="utf-8"))
        written = report.stat().st_mtime
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{printable(report)}: cannot be read ({error}); delete it and {FINISH}")
    try:
        settings = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError):
        settings = None
    if not isinstance(settings, dict):
        raise UserError(f"{printable(report)}: shows no config; delete it and {FINISH}")
    try:
        study = Study.from_mapping(settings, printable(report))
    except UserError as error:
        raise UserError(f"{str(error).splitlines()[0]} (its config is that of another version)")
    # Runs that were trained again since may have other settings.
    files = [*folder.glob("tables/*.csv"), *folder.glob("runs/*/run.json")]
    newer = sorted(str(file.relative_to(folder)) for file in files if file.stat().st_mtime > written)
    if newer:
        raise UserError(
            f"{name}: is not finished, since {newer[0]} is newer than report.html; {FINISH}, or if the folder "
            "is a copy, copy it with its times (`cp -a`, `rsync -a`)"
        )
    return FinishedStudy(folder, study, dump_with_defaults(study))
