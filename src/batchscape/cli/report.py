"""The report of a study that is not complete, from the runs and analyses that exist.

Tables and figures are computed in memory and not read from `tables/` and `figures/`: after an edit, files there can be
older than the runs. Only the page is written, and no rule makes that file, so Snakemake never takes it as complete.
"""

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from batchscape.analysis.collect import collect
from batchscape.cli.status import NOT_CREATED, why_missing
from batchscape.config.loading import printable
from batchscape.config.run import RunSpec, Tuned
from batchscape.data.prepared import prepared_digest
from batchscape.errors import UserError
from batchscape.io.files import read_json, write_text
from batchscape.io.frames import read_frame
from batchscape.io.run_directory import RunDirectory
from batchscape.report.figures.style import render_png
from batchscape.report.numbers import join_truncated
from batchscape.report.page import PartialReport, render
from batchscape.report.provenance import collect_provenance
from batchscape.study.registry import ANALYSES, FIGURES, TABLES, Product
from batchscape.study.study import Study


def write_partial_report(study: Study, file: Path) -> list[str]:
    """Write the page of what exists of a study, which the study file `file` describes; return lines for the terminal.

    Raises UserError if no run is complete, or if the page cannot be written.
    """
    found = Collector(study)
    runs = found.runs()
    if not runs:
        failed = [gap for gap in found.gaps if gap.reason != NOT_CREATED]
        why = f" ({failed[0].kind} {failed[0].name}: {failed[0].reason})" if failed else ""
        raise UserError(f"{study.folder}: no run is complete, so there is nothing to report yet{why}")
    frames = found.frames(runs)
    figures = found.figures(frames)
    complete = f"{len(runs)} of {len(study.runs)} runs are complete"
    done = {study.runs[name].batch_size for name in runs}
    lacking = sorted({run.batch_size for run in study.runs.values()} - done)
    partial = PartialReport([complete, *found.edited_since(file)], found.missing(), lacking)
    if not partial.missing and Path(study.report).exists():
        return [*partial.notes, f"the report: {study.report}"]
    spec = json.loads(study.report_slice)
    tables = {Path(source).name: frame for source, frame in frames.items() if source.startswith("tables/")}
    origin = collect_provenance([run.summary() for run in runs.values()], tables["runs"], found.manifest())
    page = render(
        spec["name"], spec["config"], figures, tables, spec["tables"], origin, spec["fixed_learning_rate"], partial
    )
    try:
        write_text(Path(study.partial_report), page)
    except OSError as error:
        raise UserError(f"{study.partial_report}: cannot be written ({error.strerror}); make its folder writable")
    missing = [f"missing {what}: {why}" for what, why in partial.missing] or ["nothing is missing"]
    return [*partial.notes, *missing, f"the partial report: {study.partial_report}"]


@dataclass(frozen=True)
class Gap:
    """A part of the study that the page lacks."""

    kind: str
    name: str
    reason: str


@dataclass
class Collector:
    """Collects what exists of a study, and notes what is missing and why."""

    study: Study
    gaps: list[Gap] = field(default_factory=list)
    used: list[Path] = field(default_factory=list)
    """The files of analyses that were read."""

    def runs(self) -> dict[str, RunDirectory]:
        """Return the runs that are complete and were trained as the study asks for."""
        for job, output in (("prepare", self.study.prepared_data), ("network", self.study.network_file)):
            if not Path(output).exists():
                self._miss("job", job, why_missing(Path(self.study.log(job))))
        found = {}
        for name in self.study.runs:
            run = RunDirectory(Path(self.study.run_file(name, "run.json")).parent)
            reason = self._why_not(name, run)
            if reason:
                self._miss("run", name, reason)
            else:
                found[name] = run
        return found

    def frames(self, runs: dict[str, RunDirectory]) -> dict[str, pd.DataFrame]:
        """Return the rows of the analyses and the tables made from them, by path below the study's folder."""
        frames = {}
        for name in self.study.analyses:
            of_runs = ANALYSES[name].jobs == "runs"
            parts = list(self._analysed(name, runs) if of_runs else self._read(name, runs))
            if parts:
                frames[ANALYSES[name].rows] = pd.concat(parts, ignore_index=True)
        waiting = dict.fromkeys(self.study.tables)
        while waiting:
            paths = {f"tables/{name}" for name in waiting}
            name = next(name for name in waiting if paths.isdisjoint(self.study.sources(TABLES[name])))
            del waiting[name]
            table = self._product("table", name, TABLES[name], frames)
            if table is not None:
                frames[f"tables/{name}"] = table
        return frames

    def figures(self, frames: dict[str, pd.DataFrame]) -> dict[str, bytes]:
        """Return the figures that can be drawn, as PNG."""
        drawn = {name: self._product("figure", name, FIGURES[name], frames) for name in self.study.figures}
        return {name: figure for name, figure in drawn.items() if figure is not None}

    def manifest(self) -> pd.DataFrame:
        """Return the manifest of the data; empty if it is missing."""
        path = Path(self.study.manifest)
        return read_frame(path, text=True) if path.exists() else pd.DataFrame(columns=["reason", "split", "class"])

    def edited_since(self, file: Path) -> list[str]:
        """Say if the study file is newer than analyses that were read: whether the edit concerns them is not known."""
        older = [path for path in self.used if path.stat().st_mtime < file.stat().st_mtime]
        if not older:
            return []
        return [
            f"{printable(file)} was edited after {len(older)} of the {len(self.used)} files of analyses were made; "
            "`snakemake -n all` lists the ones that the edit makes stale"
        ]

    def missing(self) -> list[tuple[str, str]]:
        """Return what is missing with the reason, gaps of one kind and reason together."""
        groups: dict[tuple[str, str], list[str]] = {}
        for gap in self.gaps:
            groups.setdefault((gap.kind, gap.reason), []).append(gap.name)
        return [(f"{kind} {join_truncated(names, 12)}", reason) for (kind, reason), names in groups.items()]

    def _miss(self, kind: str, name: str, reason: str) -> None:
        self.gaps.append(Gap(kind, name, reason))

    def _why_not(self, name: str, run: RunDirectory) -> str:
        """Return why a run cannot be reported; empty if it can."""
        if not run.run_file.exists():
            return why_missing(Path(self.study.log(f"train/{name}")))
        asked = json.loads(self.study.run_slice(name))
        data = Path(self.study.prepared_data)
        try:
            summary = run.summary()
            for tuned in map(Path, self.study.tuned_files(name)):
                if not tuned.exists():
                    return "the search for its learning rate is not complete"
                asked |= read_json(tuned, Tuned, "delete it so that the search makes it again")
            if data.exists() and summary["provenance"]["data_sha256"] != prepared_digest(data):
                return "was trained on other data than the study has now"
        except UserError as error:
            return str(error)
        if _spec(asked) != _spec(summary["spec"]):
            return "was trained with other settings than the study asks for now"
        return ""

    def _analysed(self, name: str, runs: dict[str, RunDirectory]) -> Iterator[pd.DataFrame]:
        """Yield the rows of an analysis that reads files of all runs, without the runs that lack a readable one."""
        analyze = import_module(f"batchscape.analysis.{name}").analyze
        answers = {}
        for run in runs.values():
            try:
                answers[run.path] = analyze(run)
            except UserError as error:
                self._miss("analysis", f"{name} of {run.path.name}", str(error))
        if answers:
            yield collect(answers, lambda run: answers[run.path])

    def _read(self, name: str, runs: dict[str, RunDirectory]) -> Iterator[pd.DataFrame]:
        """Yield the rows that the jobs of an analysis have written."""
        gathered = ANALYSES[name].is_gathered
        for part, looked_at in (self.study.runs_by_part(name) if gathered else {self.study.rows(name): []}).items():
            path = Path(part)
            try:
                reason = self._why_stale(path, looked_at, runs)
                if path.exists() and not reason:
                    frame = read_frame(path)
                    self.used.append(path)
                    yield frame
                    continue
                reason = reason or why_missing(Path(self.study.log_of_part(name, part)))
            except (UserError, OSError) as error:
                reason = str(error)
            self._miss("analysis", part.removeprefix(f"{self.study.folder}/analysis/").removesuffix(".csv"), reason)

    @staticmethod
    def _why_stale(part: Path, looked_at: Sequence[str], runs: dict[str, RunDirectory]) -> str:
        lacking = [run for run in looked_at if run not in runs]
        if lacking:
            return f"needs the missing run {join_truncated(lacking, 4)}"
        if not part.exists():
            return ""
        if any(runs[run].run_file.stat().st_mtime > part.stat().st_mtime for run in looked_at):
            return "was made from an earlier training of its runs"
        return ""

    def _product(self, kind: str, name: str, product: Product, frames: dict[str, pd.DataFrame]) -> Any:
        """Return a table, or a figure as PNG; None if it cannot be made from what exists."""
        lacking = [source for source in (*product.sources, *product.needs) if source not in frames]
        if lacking:
            return self._miss(kind, name, f"needs {join_truncated(lacking, 4)}")
        settings = json.loads(self.study.product_slice(product))
        sources = [frames.get(source) for source in (*product.sources, *product.optional)]
        module = import_module(f"batchscape.report.{kind}s.{name}")
        try:
            if kind == "table":
                return module.tabulate(*sources, **settings)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return render_png(module.draw(*sources, **settings))
        except Exception as error:
            # Not every table has an answer for half of its rows, and one that has none must not cost the page.
            text = " ".join(f"{type(error).__name__}: {error}".split())
            return self._miss(kind, name, f"cannot be made from what exists ({text})")


def _spec(mapping: dict[str, Any]) -> RunSpec:
    return RunSpec.model_validate_json(json.dumps(mapping))
