"""`batchscape report`: the report of an incomplete study, from the runs and analyses that exist.

Tables and figures are computed in memory instead of read from `tables/` and `figures/`, where files can be older than
the runs after an edit. Only the page is written. It is no output of a rule, so Snakemake never treats it as complete.
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
from batchscape.analysis.confirmation import collect_confirmation
from batchscape.cli.status import (
    NOT_CREATED,
    REPEAT_MEASUREMENT,
    REPEAT_SEARCH,
    find_specs,
    why_missing,
    why_stale,
)
from batchscape.config.loading import printable
from batchscape.config.run import RunSpec, Tuned
from batchscape.config.stages import MeasuredStages
from batchscape.data.prepared import prepared_digest
from batchscape.errors import UserError
from batchscape.io.files import read_json, write_text
from batchscape.io.frames import read_frame
from batchscape.io.run_directory import RunDirectory
from batchscape.report.figures.files import render_png
from batchscape.report.finalists import choose_finalists
from batchscape.report.measures import Measures
from batchscape.report.numbers import join_truncated
from batchscape.report.page import PartialReport, render
from batchscape.report.provenance import collect_provenance
from batchscape.study.registry import ANALYSES, FIGURES, TABLES, Artifact, JobSplit
from batchscape.study.study import Study


def write_partial_report(study: Study, file: Path) -> list[str]:
    """Write the page of what exists of a study, and return lines for the terminal.

    `file` is the study file. Raises UserError if no run is complete, or if the page cannot be written.
    """
    collector = Collector(study)
    runs = collector.runs()
    if not runs:
        failed = [gap for gap in collector.gaps if gap.reason != NOT_CREATED]
        cause = f" ({failed[0].kind} {failed[0].name}: {failed[0].reason})" if failed else ""
        raise UserError(f"{study.paths.folder}: no run is complete, so there is nothing to report yet{cause}")
    frames = collector.frames(runs)
    figures = collector.figures(frames)
    progress = f"{len(runs)} of {len(study.runs)} runs complete"
    reported_sizes = {study.runs[name].batch_size for name in runs}
    missing_sizes = sorted({run.batch_size for run in study.runs.values()} - reported_sizes)
    partial = PartialReport([progress, *collector.edited_since(file)], collector.missing(), missing_sizes)
    if not partial.missing and Path(study.paths.report).exists():
        return [*partial.notes, f"the report: {study.paths.report}"]
    spec = json.loads(study.specs.report)
    measures = Measures.from_settings(spec["measures"])
    tables = {Path(source).name: frame for source, frame in frames.items() if source.startswith("tables/")}
    analyses = {Path(source).name: frame for source, frame in frames.items() if source.startswith("analysis/")}
    summaries = [run.summary() for run in runs.values()]
    origin = collect_provenance(summaries, tables["runs"], collector.manifest(), measures)
    page = render(spec, figures, tables, origin, partial, analyses)
    try:
        write_text(Path(study.paths.partial_report), page)
    except OSError as error:
        raise UserError(f"{study.paths.partial_report}: cannot be written ({error.strerror}); make its folder writable")
    missing = [f"missing {part}: {reason}" for part, reason in partial.missing] or [
        f"no run or analysis is missing; `snakemake all` writes {study.paths.report}"
    ]
    return [*partial.notes, *missing, f"the {partial.kind} report: {study.paths.partial_report}"]


@dataclass(frozen=True)
class Gap:
    """A part of the study that is missing on the page."""

    kind: str
    name: str
    reason: str


@dataclass
class Collector:
    """Collects what exists of a study, and what is missing and why."""

    study: Study
    gaps: list[Gap] = field(default_factory=list)
    analysis_files: list[Path] = field(default_factory=list)
    """The files of analyses that were read."""

    def runs(self) -> dict[str, RunDirectory]:
        """Return the complete runs with the current settings and data of the study."""
        for job, output in (("prepare", self.study.paths.prepared_data), ("network", self.study.paths.network)):
            if not Path(output).exists():
                self._miss("job", job, why_missing(Path(self.study.paths.log(job))))
        runs, specs = {}, find_specs(self.study)
        for name in self.study.runs:
            run = RunDirectory(Path(self.study.paths.run_file(name, "run.json")).parent)
            reason = self._why_excluded(run, specs[name], Path(self.study.paths.log(f"train/{name}")))
            if reason:
                self._miss("run", name, reason)
            else:
                runs[name] = run
        return runs

    def frames(self, runs: dict[str, RunDirectory]) -> dict[str, pd.DataFrame]:
        """Return the rows of the analyses and the tables computed from them, by path below the folder of the study."""
        frames: dict[str, pd.DataFrame] = {}
        for name in self.study.plan.analyses:
            match ANALYSES[name].split:
                case JobSplit.ALL_RUNS:
                    parts = list(self._analyze(name, runs))
                case JobSplit.CONFIRMATION_RUNS:
                    parts = list(self._confirmation(frames["tables/runs"]))
                case _:
                    parts = list(self._read(name, runs))
            if parts:
                frames[ANALYSES[name].rows] = pd.concat(parts, ignore_index=True)
        remaining = dict.fromkeys(self.study.plan.tables)
        while remaining:  # some tables are computed from others
            paths = {f"tables/{name}" for name in remaining}
            name = next(name for name in remaining if paths.isdisjoint(self.study.plan.sources(TABLES[name])))
            del remaining[name]
            table = self._create("table", name, TABLES[name], frames)
            if table is not None:
                frames[f"tables/{name}"] = table
        return frames

    def figures(self, frames: dict[str, pd.DataFrame]) -> dict[str, bytes]:
        """Return the figures that can be drawn, as PNG."""
        figures = {name: self._create("figure", name, FIGURES[name], frames) for name in self.study.plan.figures}
        return {name: figure for name, figure in figures.items() if figure is not None}

    def manifest(self) -> pd.DataFrame:
        """Return the manifest of the data; empty if it is missing."""
        path = Path(self.study.paths.manifest)
        return read_frame(path, text=True) if path.exists() else pd.DataFrame(columns=["reason", "split", "class"])

    def edited_since(self, file: Path) -> list[str]:
        """Return a line if the study file is newer than analyses that were read; the edit may not affect them."""
        older = [path for path in self.analysis_files if path.stat().st_mtime < file.stat().st_mtime]
        if not older:
            return []
        return [
            f"{printable(file)} was edited after {len(older)} of the {len(self.analysis_files)} files of analyses were "
            "written; `batchscape run FILE -n` lists those that the edit makes stale"
        ]

    def missing(self) -> list[tuple[str, str]]:
        """Return the missing parts, grouped by kind and reason, each with the reason."""
        groups: dict[tuple[str, str], list[str]] = {}
        for gap in self.gaps:
            groups.setdefault((gap.kind, gap.reason), []).append(gap.name)
        return [(f"{kind} {join_truncated(names, 12)}", reason) for (kind, reason), names in groups.items()]

    def _miss(self, kind: str, name: str, reason: str) -> None:
        self.gaps.append(Gap(kind, name, reason))

    def _why_excluded(self, run: RunDirectory, spec: RunSpec | str, log: Path) -> str:
        """Return why a run is not reported; empty if it is."""
        if not run.is_complete:
            return why_missing(log)
        data = Path(self.study.paths.prepared_data)
        try:
            summary = run.summary()
            if isinstance(spec, str):
                return spec
            if data.exists() and summary["provenance"]["data_sha256"] != prepared_digest(data):
                return "was trained on other data than the study has now"
        except UserError as error:
            return str(error)
        return why_stale(summary, spec)

    def _analyze(self, name: str, runs: dict[str, RunDirectory]) -> Iterator[pd.DataFrame]:
        """Yield the rows of an analysis of the files of all runs, without runs whose file cannot be read."""
        analyze = import_module(f"batchscape.analysis.{name}").analyze
        results = {}
        for run in runs.values():
            try:
                results[run.path] = analyze(run)
            except UserError as error:
                self._miss("analysis", f"{name} of {run.path.name}", str(error))
        if results:
            yield collect(results, lambda run: results[run.path])

    def _confirmation(self, runs: pd.DataFrame) -> Iterator[pd.DataFrame]:
        """Yield the rows of the complete runs of the confirmation, if `runs` gives the finalists that they train."""
        # A run at a tuned setting is complete only if its file is.
        found = {size: Path(file) for size, file in self.study.paths.tuned_files.items() if Path(file).exists()}
        tuned = {size: read_json(file, Tuned, REPEAT_SEARCH) for size, file in found.items()}
        files = {name: Path(file) for name, file in self.study.paths.batch_stages_files.items() if Path(file).exists()}
        measured = {name: read_json(file, MeasuredStages, REPEAT_MEASUREMENT) for name, file in files.items()}
        finalists = choose_finalists(runs, json.loads(self.study.specs.finalists), tuned, measured)
        complete = []
        for name, (rank, seed) in self.study.confirmation_runs.items():
            run = RunDirectory(Path(self.study.paths.confirmation_file(name, "run.json")).parent)
            reason = f"rank {rank} has no setting"
            if rank <= len(finalists.finalists):
                spec = finalists.finalists[rank - 1].run_spec(seed)
                reason = self._why_excluded(run, spec, Path(self.study.paths.log(f"confirm/{name}")))
            if reason:
                self._miss("run", f"confirmation/{name}", reason)
            else:
                complete.append(run.path)
        if complete:
            yield collect_confirmation(complete, finalists)

    def _read(self, name: str, runs: dict[str, RunDirectory]) -> Iterator[pd.DataFrame]:
        """Yield the rows that the jobs of an analysis wrote."""
        for part, inputs in (self.study.plan.runs_by_part(name) or {ANALYSES[name].rows: []}).items():
            path = Path(self.study.paths.csv(part))
            try:
                reason = self._why_stale(path, inputs, runs)
                if path.exists() and not reason:
                    frame = read_frame(path)
                    self.analysis_files.append(path)
                    yield frame
                    continue
                reason = reason or why_missing(Path(self.study.paths.analysis_log(name, part)))
            except (UserError, OSError) as error:
                reason = str(error)
            self._miss("analysis", part.removeprefix("analysis/"), reason)

    @staticmethod
    def _why_stale(part: Path, inputs: Sequence[str], runs: dict[str, RunDirectory]) -> str:
        """Return why rows do not describe the runs that they are computed from; empty if they do or do not exist."""
        missing = [run for run in inputs if run not in runs]
        if missing:
            return f"needs the missing run {join_truncated(missing, 4)}"
        if not part.exists():
            return ""
        if any(runs[run].readable(runs[run].run_file).stat().st_mtime > part.stat().st_mtime for run in inputs):
            return "was computed from an earlier training of its runs"
        return ""

    def _create(self, kind: str, name: str, artifact: Artifact, frames: dict[str, pd.DataFrame]) -> Any:
        """Return a table, or a figure as PNG; None if it cannot be created from what exists."""
        missing = [source for source in (*artifact.sources, *artifact.requires) if source not in frames]
        if missing:
            self._miss(kind, name, f"needs {join_truncated(missing, 4)}")
            return None
        settings = json.loads(self.study.specs.artifact(artifact))
        sources = [frames[source] for source in artifact.sources]
        settings |= {Path(source).name: frames[source] for source in artifact.optional_sources if source in frames}
        module = import_module(f"batchscape.report.{kind}s.{name}")
        try:
            if kind == "table":
                return module.tabulate(*sources, **settings)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return render_png(module.draw(*sources, **settings), self.study.figures)
        except Exception as error:
            # Not every table can be computed from a part of its rows; then the page is written without it.
            text = " ".join(f"{type(error).__name__}: {error}".split())
            self._miss(kind, name, f"cannot be created from what exists ({text})")
            return None
