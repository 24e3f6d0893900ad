"""A complete study that is computed in the process of a test."""

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import pandas as pd
import plotnine as p9

from batchscape.analysis.collect import collect, collect_pair
from batchscape.analysis.confirmation import collect_confirmation
from batchscape.config.run import Tuned, with_hyperparameters
from batchscape.config.tuning import SearchSpec
from batchscape.data.prepare import prepare
from batchscape.io.frames import read_frame, write_frame
from batchscape.io.run_directory import RunDirectory
from batchscape.report.finalists import choose_finalists
from batchscape.report.measures import Measures
from batchscape.report.page import render
from batchscape.report.provenance import collect_provenance
from batchscape.study.registry import ANALYSES, FIGURES, TABLES, JobSplit
from batchscape.study.study import Study
from batchscape.training.execution import Execution
from batchscape.training.train import train
from batchscape.tuning.search import search


class InProcessStudy:
    """A study computed in this process with the functions of the jobs, because starting jobs takes much longer."""

    def __init__(self, folder: Path, config: str):
        (folder / "study.yaml").write_text(config)
        self.study = Study.from_file(folder / "study.yaml")
        self.folder = folder
        file = folder / "data.safetensors"
        self.data, self.manifest, _ = prepare(self.study.data, task=self.study.task.name, path=file)
        self.words = Measures.from_settings(self.study.specs.measures)
        found = {size: self._tune(size) for size in self.study.grid.batch_sizes if self.study.tuning.enabled}
        for name, run in self.study.runs.items():
            values = json.loads(self.study.specs.run(name))
            rate = {"learning_rate": run.learning_rate}
            train(
                with_hyperparameters(values, found[run.batch_size] if run.learning_rate is None else rate),
                file,
                self.run(name),
            )
        for name in self.study.plan.analyses:
            if ANALYSES[name].is_split:
                self.write(ANALYSES[name].rows, pd.concat(self._parts(name), ignore_index=True))
            elif ANALYSES[name].split is JobSplit.ALL_RUNS:
                analysis = import_module(f"batchscape.analysis.{name}")
                rows = collect([self.run(run) for run in self.study.runs], analysis.analyze)
                self.write(ANALYSES[name].rows, rows)
        if self.study.confirmation_runs:
            self.write(ANALYSES["confirmation"].rows, self._confirm(file, found))
        for name in self.study.plan.tables:
            self.write(f"tables/{name}", self._product("tables", "tabulate", name, TABLES[name]))

    def run(self, name: str) -> Path:
        return self.folder / "runs" / name

    def write(self, name: str, frame: pd.DataFrame) -> None:
        (self.folder / name).parent.mkdir(exist_ok=True)
        write_frame(self.folder / f"{name}.csv", frame)

    def read(self, name: str) -> pd.DataFrame:
        return read_frame(self.folder / f"{name}.csv")

    def plot(self, name: str) -> p9.ggplot:
        return self._product("figures", "draw", name, FIGURES[name])

    def page(self, figures: Mapping[str, bytes] | None = None) -> str:
        """Return the report; without `figures` it has empty ones."""
        spec = json.loads(self.study.specs.report)
        tables = {path.stem: read_frame(path) for path in (self.folder / "tables").iterdir()}
        summaries = [RunDirectory(self.run(run)).summary() for run in self.study.runs]
        figures = figures or dict.fromkeys(self.study.plan.figures, b"")
        origin = collect_provenance(summaries, tables["runs"], self.manifest, self.words)
        return render(spec, figures, tables, origin)

    def _tune(self, size: int) -> dict[str, float]:
        spec = SearchSpec.model_validate_json(self.study.specs.search(size))
        trials = search(
            spec, self.folder / "data.safetensors", self.folder / f"bs{size}.journal", Execution(code="code")
        )
        self.write(f"bs{size}", trials)
        best = trials[trials["is_best"] == 1].iloc[0]
        return {name: float(best[name]) for name in Tuned.model_fields if name in best}

    def _confirm(self, file: Path, tuned: Mapping[int, Mapping[str, float]]) -> pd.DataFrame:
        finalists = choose_finalists(self.read("tables/runs"), json.loads(self.study.specs.finalists), tuned, {})
        folder = self.folder / "confirmation"
        for name, (rank, seed) in self.study.confirmation_runs.items():
            train(finalists.finalists[rank - 1].run_spec(seed), file, folder / name)
        return collect_confirmation([folder / name for name in self.study.confirmation_runs], finalists)

    def _parts(self, name: str) -> list[pd.DataFrame]:
        if name == "tuning":
            return [self.read(f"bs{size}") for size in sorted(self.study.grid.batch_sizes)]
        analysis, config = import_module(f"batchscape.analysis.{name}"), getattr(self.study, name)
        plan = self.study.plan
        if name == "interpolation":
            return [
                collect_pair(self.run(a), self.run(b), lambda *runs: analysis.analyze(*runs, self.data, config))
                for one, other in plan.interpolated_pairs
                for a, b in zip(*(plan.analyzed_runs(name, setting) for setting in (one, other)), strict=True)
            ]
        if name == "landscape":
            runs, place = [Path(part).parent.name for part in plan.runs_by_part(name)], (0, 1, 1)
        else:
            runs = [run for runs in plan.runs_by_part(name).values() for run in runs]
            place = ()
        return [collect([self.run(run)], lambda run: analysis.analyze(run, self.data, config, *place)) for run in runs]

    def _product(self, kind: str, function: str, name: str, product):
        module = import_module(f"batchscape.report.{kind}.{name}")
        sources = [self.read(source) for source in product.sources]
        optional = {Path(name).name: self.read(name) for name in self.study.plan.optional_sources(product)}
        return getattr(module, function)(*sources, **optional, **json.loads(self.study.specs.artifact(product)))
