"""`batchscape compare`: several finished studies on one page, and as tables."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from batchscape.cli.finished import FinishedStudy, find_folder, read_finished
from batchscape.config.loading import printable
from batchscape.errors import UserError
from batchscape.io.files import write_text
from batchscape.io.frames import write_frame
from batchscape.report.comparison import claims, power_laws, results
from batchscape.report.comparison.page import render_comparison
from batchscape.report.comparison.studies import (
    TABLES,
    StudyTables,
    describe_comparability,
    find_differences,
    flatten,
)
from batchscape.report.figures.comparison import draw
from batchscape.report.figures.style import write_figure
from batchscape.report.measures import Measures

DEFAULT_OUTPUT = Path("results/comparison")


def compare(paths: Sequence[Path], output: Path = DEFAULT_OUTPUT) -> list[str]:
    """Write the page and the tables of a comparison, and return lines for the terminal.

    Args:
        paths: Study files, or folders of their results.
        output: The folder that is written.

    Raises:
        UserError: There are fewer than two studies, none is finished, one is given twice, or the folder is that of a
            study or cannot be written.
    """
    if len(paths) < 2:
        raise UserError(
            "compare: needs at least two studies; give their study files or folders, such as results/digits"
        )
    folders: list[Path] = []
    notes: list[str] = []
    for path in paths:
        folder, edited = find_folder(path)
        if folder.resolve() in [other.resolve() for other in folders]:
            raise UserError(f"{printable(path)}: is given twice; give each study once")
        folders.append(folder)
        notes += edited
    if any((output / name).exists() for name in ("runs", "tables")):
        raise UserError(f"--output: {printable(output)} is the folder of a study; choose another one")
    short = [folder.absolute().name for folder in folders]
    counts = Counter(short)
    names = [name if counts[name] == 1 else str(folder) for name, folder in zip(short, folders, strict=True)]
    studies, not_finished = [], []
    for name, folder in zip(names, folders, strict=True):
        try:
            study, missing = _read_tables(name, read_finished(folder))
        except UserError as error:
            not_finished.append(name)
            notes.append(str(error))
        else:
            studies.append(study)
            notes += missing
    if not studies:
        raise UserError("\n".join([*notes, "compare: none of the studies is finished, so there is nothing to compare"]))
    if len(studies) < 2:
        notes.append(f"compare: only {studies[0].name} is finished, so nothing is compared with it")
    notes += describe_comparability(studies)
    try:
        _write(output, names, notes, studies, not_finished)
    except OSError as error:
        raise UserError(f"--output: {printable(output)} cannot be written ({error.strerror}); make it writable")
    return [*notes, f"the comparison: {output / 'comparison.html'}"]


def _read_tables(name: str, finished: FinishedStudy) -> tuple[StudyTables, list[str]]:
    """Return what is compared of a study, and a line for each table that is missing."""
    tables, missing = {}, []
    disabled = [table for table in TABLES if not finished.has_table(table)]
    if disabled:
        missing.append(
            f"{printable(finished.folder)}: has no {' and no '.join(disabled)}, since its settings disable it"
        )
    for table, columns in TABLES.items():
        if table in disabled:
            continue
        try:
            tables[table] = finished.table(table, columns)
        except UserError as error:
            missing.append(str(error))
    run = finished.run()
    study = StudyTables(
        name,
        flatten(finished.settings),
        Measures.from_settings(finished.study.specs.measures),
        run["provenance"]["data_sha256"],
        run["training_examples"],
        run["parameters"],
        tables,
    )
    return study, missing


def _write(
    output: Path, names: Sequence[str], notes: list[str], studies: list[StudyTables], not_finished: list[str]
) -> None:
    differences = find_differences(studies)
    comparison = results.tabulate(studies, not_finished)
    laws = power_laws.tabulate(power_laws.find_ladders(studies), comparison)
    verdicts = claims.tabulate(studies)
    tables = {"differences": differences, "comparison": comparison, "power_laws": laws, "claims": verdicts}
    for name, table in tables.items():
        write_frame(output / f"{name}.csv", table)
    png = output / "comparison.png"
    write_figure(draw(comparison, names), png, png.with_suffix(".pdf"))
    page = render_comparison(names, notes, differences, comparison, laws, verdicts, png.read_bytes())
    write_text(output / "comparison.html", page)
